"""The figures of contrasts about learning as words: nats, shares of a loss, per cent of steps, seeds, and what more of them cost."""

from __future__ import annotations

from collections.abc import Sequence

from hvbench.analysis.contrasts.learning import Learned
from hvbench.analysis.contrasts.points import PointFamily
from hvbench.analysis.contrasts.price import Price, price_of
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL, format_percent
from hvbench.analysis.show.effects import say_price
from hvbench.analysis.show.panels import describe_value
from hvbench.analysis.show.sentences import NATS, Draft
from hvbench.analysis.stats.contrasts import EQUAL_WITHIN, Contrast, Family
from hvbench.analysis.stats.losses import WORTH_TELLING, LossContrast, LossFamily

NAME = "learning"
LOSS = "final_validation_loss"
STEPS = "steps_to_target"
ACCURACY = "final_validation_accuracy"
LEAST_SHARE = 1e-4  # of a loss, that is worth printing
MOST_ROUNDS = 50  # a price beyond this is none: a quieter machine is the better advice


def name_of(draft: Draft, one: Learned, *, settings: str = "") -> str:
    """A value in words, with the settings that it speaks by in brackets."""
    emulated = frozenset({one.value} if any(learner.is_emulated for learner in one.learners) else ())
    text = describe_value(one.axis, one.value, emulated=emulated)
    return draft.label(f"{text} ({settings})" if settings else text)


def show_nats(draft: Draft, value: float, *, decimals: int) -> str:
    """A difference of losses."""
    text = f"{value:.{decimals}f}"
    return draft.quote(text, value, "loss_difference", metric=LOSS)


def choose_decimals(difference: float) -> int:
    """Two for a difference from 0.1 nats on, or three, for it and the ends of its interval."""
    return 2 if abs(difference) >= 0.1 else 3


def show_span(draft: Draft, values: Sequence[float]) -> str:
    """The least and the largest in nats: `0.21 to 0.98`, or one number where both read the same."""
    decimals = choose_decimals(min(values))
    texts = [show_nats(draft, value, decimals=decimals) for value in (min(values), max(values))]
    if texts[0] == texts[1]:
        draft.numbers.pop()
        return texts[0]
    return " to ".join(texts)


def show_share(draft: Draft, contrasts: Sequence[LossContrast]) -> str:
    """`0.6 %`: the largest share of the loss that any interval allows, or 0.01 % where that is less."""
    share = max(LEAST_SHARE, *(contrast.largest_share for contrast in contrasts))
    return f"{draft.quote(format_percent(share), 100 * share, 'loss_share', metric=LOSS)} %"


def show_percent(draft: Draft, share: float, metric: str) -> str:
    """A share in per cent, with one decimal below 10."""
    text = f"{100 * share:.0f}" if abs(share) >= 0.0995 else f"{100 * share:.1f}"
    return draft.quote(text, 100 * share, "change", metric=metric)


def show_seeds(draft: Draft, contrasts: Sequence[LossContrast]) -> str:
    """`3 seeds`: the fewest that any of them rests on."""
    seeds = min(contrast.seeds for contrast in contrasts)
    return f"{draft.count(seeds)} seed{'' if seeds == 1 else 's'}"


def describe_difference(draft: Draft, contrast: LossContrast) -> str:
    """`0.081 nats lower (95 % interval 0.052 to 0.110, 5 seeds)`."""
    word, sign = ("lower", -1) if contrast.difference < 0 else ("higher", 1)
    seeds = show_seeds(draft, [contrast])
    decimals = choose_decimals(contrast.difference)
    text = f"{show_nats(draft, abs(contrast.difference), decimals=decimals)}{draft.loss_unit} {word}"
    if contrast.low is None or contrast.high is None:
        return f"{text} ({seeds}, no interval)"
    low, high = sorted(sign * end for end in (contrast.low, contrast.high))
    ends = " to ".join(show_nats(draft, end, decimals=decimals) for end in (low, high))
    return f"{text} ({INTERVAL} {ends}, {seeds})"


def describe_steps(draft: Draft, contrast: Contrast) -> str:
    """`takes 4.1 % more steps (95 % interval 1.0 to 7.2 %)`, of steps that are called more or fewer."""
    assert contrast.low is not None and contrast.high is not None
    is_fewer = contrast.ratio < 1
    ends = (1 - contrast.high, 1 - contrast.low) if is_fewer else (contrast.low - 1, contrast.high - 1)
    interval = " to ".join(show_percent(draft, end, STEPS) for end in ends)
    change = f"{show_percent(draft, abs(contrast.ratio - 1), STEPS)} % {'fewer' if is_fewer else 'more'} steps"
    return f"takes {change} ({INTERVAL} {interval} %)"


def describe_price(draft: Draft, run: Run, family: LossFamily | None) -> str:
    """`; a difference of 2 % of the loss takes about 4 more seeds, 6 minutes: ...`; nothing where it has no price."""
    if family is None:
        return ""
    if not all(record.measure.seed_per_repeat for record in run.records):
        return "; launches of one seed say nothing of another, five seeds are trained by: `-s repeats=5 -s seed_per_repeat=true`"
    asked = PointFamily(metric=LOSS, contrasts=(), mean=None, family=family.shares)
    return describe_rounds(draft, price_of(run, asked, difference=WORTH_TELLING), "seeds", of=" of the loss")


def describe_price_of_steps(draft: Draft, run: Run, family: Family | None) -> str:
    """The same of a difference of as many steps as are still equal; nothing where launches share a seed, as `describe_price` says."""
    if family is None or not all(record.measure.seed_per_repeat for record in run.records):
        return ""
    asked = PointFamily(metric=STEPS, contrasts=(), mean=None, family=family)
    return describe_rounds(draft, price_of(run, asked, difference=EQUAL_WITHIN), "seeds", of=" of the steps")


def describe_rounds(draft: Draft, price: Price, things: str, *, of: str = "") -> str:
    """`; a difference of 5 % takes about 4 more rounds, 6 minutes: ...`; nothing where it has no price."""
    if not price:
        return ""
    if price.rounds > MOST_ROUNDS:
        return (
            f"; they scatter too much here for that, more than {draft.count(MOST_ROUNDS)} more {things} would be needed"
        )
    return f"; {say_price(draft, price, things=things, of=of)}"


def unit_of(run: Run) -> str:
    """The unit of a loss, to stand behind a number, where it is known."""
    return NATS if run.has_losses_in_nats else ""


def name_budget(run: Run) -> str:
    """What losses are compared after as much of: `tokens`, or `steps` where a script does not say its tokens."""
    return "tokens" if run.evaluations["tokens"].notna().all() else "steps"

"""Whether the frameworks learn the same from the same seeds, and which gets to the target first, in words."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from hvbench.analysis.contrasts.learning import compared_axes
from hvbench.analysis.contrasts.points import contrast_points
from hvbench.analysis.contrasts.price import price_of
from hvbench.analysis.contrasts.twins import TwinGap, contrast_frameworks, contrast_over_all, spread_of_seeds
from hvbench.analysis.frame.axes import AXES, order_values
from hvbench.analysis.frame.learning import Learner, are_losses_comparable, list_learners, shared_tokens
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL, Row, format_number, format_percent
from hvbench.analysis.show.panels import STYLES, describe_value
from hvbench.analysis.show.sentences import Draft, Sentence
from hvbench.analysis.show.text import join_names
from hvbench.analysis.stats.contrasts import Call, Contrast
from hvbench.analysis.stats.estimates import estimate_mean, summary_rows
from hvbench.analysis.stats.losses import LossCall
from hvbench.analysis.topics.convergence.words import (
    ACCURACY,
    LOSS,
    NAME,
    describe_difference,
    describe_rounds,
    show_percent,
    show_seeds,
    show_share,
)
from hvbench.analysis.topics.parity.stamps import are_comparable

TO_TARGET = "seconds_after_first_step_to_target"  # the first step, which traces or compiles, is no matter of learning


def describe_twins(run: Run) -> list[Sentence]:
    """`PyTorch and TensorFlow learn the same: ...`, over all configurations that both trained; who is first, if that is asked."""
    gaps = contrast_frameworks(run)
    if not gaps or not are_comparable(run):
        return []
    draft = Draft()
    names = " and ".join(STYLES[name].label for name in order_values("framework", run.points["framework"])[:2])
    if any(gap.loss.call in (LossCall.LOWER, LossCall.HIGHER) for gap in gaps):
        text = _describe_apart(draft, names, gaps)
    elif max(gap.loss.seeds for gap in gaps) == 1:
        text = _describe_one_seed(draft, names, gaps)
    else:
        text = _describe_same(draft, run, names, gaps)
    first = describe_first(draft, run) if is_about_frameworks(run) else ""
    return [draft.finish(NAME, f"{text}{first}.")]


def is_about_frameworks(run: Run) -> bool:
    """Whether the question compares the frameworks: it names them, or nothing else varies."""
    named = run.request.get("compares")
    return not compared_axes(run) or (isinstance(named, list) and "framework" in named)


def _describe_same(draft: Draft, run: Run, names: str, gaps: Sequence[TwinGap]) -> str:
    """That they learn the same, and where it cannot be said."""
    same = [gap for gap in gaps if gap.loss.call == LossCall.SAME]
    unsure = [gap for gap in gaps if gap not in same]
    whole = contrast_over_all(gaps) if unsure and len(gaps) > 1 else None
    if whole and whole.call == LossCall.SAME:
        over = f"over the {draft.count(len(gaps))} configurations together"
        evidence = f"({INTERVAL}, {show_seeds(draft, [whole])})"
        text = f"{names} learn the same {over}: validation losses of one seed are on average within {show_share(draft, [whole])} of each other {evidence}"
        text += _describe_spread(draft, run)
        named = join_names([_name(draft, gap) for gap in unsure])
        return (
            f"{text}; of {named} alone the seeds cannot say (within {show_share(draft, [gap.loss for gap in unsure])})"
        )
    if not same:
        within = f"their validation losses are within {show_share(draft, [gap.loss for gap in gaps])} of each other ({INTERVAL})"
        return f"{show_seeds(draft, [gap.loss for gap in gaps])} cannot say whether {names} learn the same: {within}"
    where = f" in {draft.part_of(len(same), len(gaps), 'configurations')}" if len(gaps) > 1 else ""
    losses = [gap.loss for gap in same]
    evidence = f"({INTERVAL}, {show_seeds(draft, losses)})"
    text = f"{names} learn the same{where}: validation losses of one seed are within {show_share(draft, losses)} of each other {evidence}"
    text += _describe_spread(draft, run)
    if not unsure:
        return text
    named = join_names([_name(draft, gap) for gap in unsure])
    return f"{text}; with {named} the seeds cannot say (within {show_share(draft, [gap.loss for gap in unsure])})"


def _describe_spread(draft: Draft, run: Run) -> str:
    """`, while another seed changes them by 1.7 %`; nothing with one seed."""
    spread = spread_of_seeds(run)
    if not spread:
        return ""
    return f", while another seed changes them by {draft.quote(format_percent(spread), 100 * spread, 'loss_share', metric=LOSS)} %"


def _describe_one_seed(draft: Draft, names: str, gaps: Sequence[TwinGap]) -> str:
    """What one seed shows, which is no evidence of another."""
    where = f" in {draft.all_of(len(gaps), 'configurations')}" if len(gaps) > 1 else ""
    share = show_share(draft, [gap.loss for gap in gaps])
    return f"{names} learned the same from one seed{where}: their validation losses are within {share} of each other"


def _describe_apart(draft: Draft, names: str, gaps: Sequence[TwinGap]) -> str:
    """That they do not, in how many configurations, and the largest difference."""
    apart = [gap for gap in gaps if gap.loss.call in (LossCall.LOWER, LossCall.HIGHER)]
    worst = max(apart, key=lambda gap: abs(gap.loss.share))
    name = _name(draft, worst)
    label = STYLES[worst.framework].label
    whole = draft.part_of(len(apart), len(gaps), "configurations")
    where = f" with {name}" if name else ""
    return f"{names} do not learn the same in {whole}: the validation loss of {label}{where} is {describe_difference(draft, worst.loss)}"


def _name(draft: Draft, gap: TwinGap) -> str:
    emulated = frozenset({gap.chosen.get("precision")} if gap.one.is_emulated else ())
    return draft.label(", ".join(describe_value(axis, value, emulated=emulated) for axis, value in gap.chosen.items()))


def describe_levels(run: Run) -> list[Sentence]:
    """`Validation losses at the end: causal_lm 2.610 (...), masked_lm 3.197 (...)`, of choices whose losses mean different things."""
    learners = [learner for learner in list_learners(run) if learner.is_whole]
    if len(learners) < 2 or are_losses_comparable(learners):
        return []
    draft = Draft()
    parts = [_describe_level(draft, learner) for learner in learners]
    return [
        draft.finish(
            NAME, f"Validation losses at the end{', in nats' if run.has_losses_in_nats else ''}: {join_names(parts)}."
        )
    ]


def _describe_level(draft: Draft, learner: Learner) -> str:
    """`objective causal_lm 2.610 (95 % interval 2.49 to 2.73, 3 seeds)`, of a classifier also what it names right."""
    tokens = shared_tokens([learner])
    name = draft.label(
        ", ".join(describe_value(axis, value, emulated=frozenset()) for axis, value in learner.chosen.items())
    )
    losses = estimate_mean(list(learner.losses_at(tokens).values()))
    texts = [draft.quote(format_number(losses.centre), losses.centre, "loss", metric=LOSS)]
    ends = [draft.quote(f"{end:.2f}", end, "loss", metric=LOSS) for end in (losses.low, losses.high) if end is not None]
    count = f"{draft.count(losses.n)} seed{'' if losses.n == 1 else 's'}"
    text = f"{name} {texts[0]} ({f'{INTERVAL} {ends[0]} to {ends[1]}, ' if ends else ''}{count})"
    if right := list(learner.accuracies_at(tokens).values()):
        share = sum(right) / len(right)
        text += f", naming {show_percent(draft, share, ACCURACY)} % right"
    return text


def describe_first(draft: Draft, run: Run) -> str:
    """`; TensorFlow gets to the target loss first: 18 % sooner ...`, over the configurations in which every launch reached it."""
    asked = [row for row in summary_rows(run) if row["target"] == "reached" and not pd.isna(row[TO_TARGET])]
    names = order_values("framework", [row["framework"] for row in asked])[:2]
    if len(names) < 2:
        return ""
    pairs = list_pairs(asked, names[1], names[0])
    if not pairs:
        return ""
    family = contrast_points(run, pairs, metric=TO_TARGET)
    whole = family.mean or family.contrasts[0].contrast
    first, other = (STYLES[name].label for name in (names[1], names[0]))
    if whole.call == Call.FASTER:  # of seconds the longer one
        whole, first, other = whole.turned(), other, first
    if whole.call == Call.EQUAL:
        return f"; both get to the target loss within {describe_within(draft, whole)} of the same time ({INTERVAL}, {_rounds(draft, run, whole)})"
    over = f"over {draft.all_of(len(pairs), 'configurations')}, " if family.mean else ""
    if whole.call == Call.SLOWER:
        sooner, low, high = (show_percent(draft, 1 - end, TO_TARGET) for end in (whole.ratio, whole.high, whole.low))
        return (
            f"; {first} gets to the target loss first: {over}it takes {sooner} % less time after the first step than {other} "
            f"({INTERVAL} {low} to {high} %, {_rounds(draft, run, whole)})"
        )
    price = describe_rounds(draft, price_of(run, family), _things(run))
    return f"; which gets to the target loss first, {_rounds(draft, run, whole)} cannot say{price}"


def list_pairs(rows: Sequence[Row], one: str, other: str) -> list[tuple[Row, Row]]:
    """Rows that differ in nothing but the framework: (`one`, `other`)."""
    names = [name for name in AXES if name != "framework"]
    found: dict[tuple[object, ...], dict[str, Row]] = {}
    for row in rows:
        key = tuple(None if pd.isna(row[name]) else row[name] for name in names)
        found.setdefault(key, {})[row["framework"]] = row
    return [(both[one], both[other]) for both in found.values() if one in both and other in both]


def describe_within(draft: Draft, contrast: Contrast) -> str:
    """`2.1 %`: the most by which the two differ, by the interval."""
    assert contrast.low is not None and contrast.high is not None
    return f"{show_percent(draft, max(contrast.high, 1 / contrast.low) - 1, TO_TARGET)} %"


def _rounds(draft: Draft, run: Run, contrast: Contrast) -> str:
    things = _things(run)
    return f"{draft.count(contrast.rounds)} {things.removesuffix('s') if contrast.rounds == 1 else things}"


def _things(run: Run) -> str:
    """What the launches of a point are called: they are compared seed by seed where they have several."""
    return "seeds" if run.points["trained_seed"].nunique() > 1 else "rounds"

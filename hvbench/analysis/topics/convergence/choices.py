"""What each choice does to what is learned, in words: which value gets furthest, and whether what can be switched on helps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hvbench.analysis.contrasts.learning import (
    AxisGaps,
    Gap,
    Learned,
    compared_axes,
    contrast_axis,
    mean,
    stops_at_target,
)
from hvbench.analysis.contrasts.twins import frameworks_apart
from hvbench.analysis.frame.axes import GLOBAL_BATCH, plain_name
from hvbench.analysis.frame.learning import choice_axes
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL, format_number
from hvbench.analysis.show.panels import STYLES, describe_value
from hvbench.analysis.show.sentences import Draft, Sentence
from hvbench.analysis.show.text import join_names
from hvbench.analysis.stats.contrasts import Call
from hvbench.analysis.stats.losses import LossCall
from hvbench.analysis.topics.convergence.words import (
    ACCURACY,
    LOSS,
    NAME,
    STEPS,
    describe_difference,
    describe_price,
    describe_price_of_steps,
    describe_steps,
    name_of,
    show_percent,
    show_seeds,
    show_share,
    show_span,
    unit_of,
)

NUMERICS = (
    "precision",
    "compression",
)  # of these the question is whether nothing is lost, of other axes whether they help


def describe_choices(run: Run) -> list[Sentence]:
    """One sentence an axis that the question compares; those that can be switched off share one.

    Both frameworks speak together, since launches of one seed learn the same in either; where they did not, each for itself.
    """
    frameworks = list(dict.fromkeys(run.points["framework"])) if frameworks_apart(run) else [None]
    return [sentence for framework in frameworks for sentence in _describe_choices(run, framework)]


def _describe_choices(run: Run, framework: str | None) -> list[Sentence]:
    axes = [axis for axis in compared_axes(run) if axis not in GLOBAL_BATCH]
    found = [gaps for axis in axes if (gaps := contrast_axis(run, axis, framework=framework))]
    where = f"In {STYLES[framework].label}: " if framework else ""
    best = [describe_best(run, gaps, where=where) for gaps in found if not gaps.is_off]
    switched = [gaps for gaps in found if gaps.is_off]
    helped = [describe_switched(run, [gaps], where=where) for gaps in switched if gaps.axis not in NUMERICS]
    kept = describe_switched(run, [gaps for gaps in switched if gaps.axis in NUMERICS], where=where)
    said = [sentence for sentence in (*best, *helped, kept) if sentence]
    return [join_sentences(said[:2]), *said[2:]] if len(axes) == 2 and len(said) > 1 else said


def join_sentences(sentences: Sequence[Sentence]) -> Sentence:
    """Of a question with two halves one sentence: `A; b.`"""
    first, *rest = sentences
    texts = [first.text.removesuffix("."), *map(_go_on, rest)]
    return replace(
        first,
        text=f"{'; '.join(texts)}.",
        numbers=tuple(number for each in sentences for number in each.numbers),
        labels=tuple(label for each in sentences for label in each.labels),
    )


def _go_on(sentence: Sentence) -> str:
    """The text as it goes on after a semicolon: its first word without its capital, unless it is a name."""
    text = sentence.text.removesuffix(".")
    first = text.split(" ")[0]
    is_name = not first[1:].islower() and len(first) > 1 or any(label.startswith(first) for label in sentence.labels)
    return text if is_name else text[0].lower() + text[1:]


def describe_best(run: Run, gaps: AxisGaps, *, where: str = "") -> Sentence | None:
    """`AdamW gets furthest: validation loss 3.21 after 100 steps, 0.08 nats lower than with LAMB ...`, or that it cannot be said."""
    if any(gap.loss is None for gap in gaps.gaps):
        return describe_fewest(run, gaps, where=where) if stops_at_target(run) else None
    draft = Draft(loss_unit=unit_of(run))
    worse = sorted((gap for gap in gaps.gaps if gap.loss.call == LossCall.HIGHER), key=lambda gap: gap.loss.difference)
    same = [gap for gap in gaps.gaps if gap.loss.call == LossCall.SAME]
    unsure = [gap for gap in gaps.gaps if gap not in worse and gap not in same]
    leaders = [gaps.base, *(gap.one for gap in (*same, *unsure))]
    names = [name_of(draft, one, settings=_settings(run, one)) for one in leaders]
    losses = describe_losses(draft, leaders, when=describe_when(draft, gaps))
    if not worse and not unsure:
        within = f"within {show_share(draft, [gap.loss for gap in same])} of the lowest"
        seeds = show_seeds(draft, [gap.loss for gap in same])
        return draft.finish(
            NAME, f"{where}{join_names(names)} get equally far: {losses}, {within} ({INTERVAL}, {seeds})."
        )
    price = describe_price(draft, run, gaps.family)
    if not worse:
        cannot = (
            f"{show_seeds(draft, [gap.loss for gap in unsure])} cannot say which of {join_names(names)} gets furthest"
        )
        return draft.finish(NAME, f"{where}{cannot}: {losses}{price}.")
    verb = "get furthest" if same and not unsure else "gets furthest"
    text = f"{where}{join_names(names, word='or' if unsure else 'and')} {verb}: {losses}"
    text += f", {_of_base(draft, worse[0])} than with {name_of(draft, worse[0].one)}"
    if rest := worse[1:]:
        span = show_span(draft, [gap.loss.difference for gap in rest])
        text += f", and {span}{draft.loss_unit} lower than with {join_names([name_of(draft, gap.one) for gap in rest])}"
    if unsure:
        text += f"; between those, {show_seeds(draft, [gap.loss for gap in unsure])} cannot say{price}"
    return draft.finish(NAME, f"{text}.")


def describe_fewest(run: Run, gaps: AxisGaps, *, where: str = "") -> Sentence | None:
    """`AdamW takes the fewest steps to the target loss: 98, 20 % fewer than LAMB ...`, of launches that end there."""
    known = [gap for gap in gaps.gaps if gap.steps]
    if not known:
        return None
    draft = Draft(loss_unit=unit_of(run))
    more = sorted((gap for gap in known if gap.steps.call == Call.FASTER), key=lambda gap: gap.steps.ratio)
    best = name_of(draft, gaps.base, settings=_settings(run, gaps.base))
    steps = draft.number(gaps.base.steps, "steps", metric=STEPS)
    if not more:
        return None
    parts = [f"{name_of(draft, gap.one)} {describe_steps(draft, gap.steps)}" for gap in more]
    seeds = draft.count(min(gap.steps.rounds for gap in known))
    return draft.finish(
        NAME, f"{where}{best} takes the fewest steps to the target loss, {steps}: {join_names(parts)} ({seeds} seeds)."
    )


def describe_switched(run: Run, found: Sequence[AxisGaps], *, where: str = "") -> Sentence | None:
    """`Pretraining helps: with causal_lm the validation loss after 150 steps is 1.2 nats lower than without ...`."""
    draft = Draft(loss_unit=unit_of(run))
    parts: list[str] = []
    for gaps in found:
        parts += _describe_axis(draft, run, gaps, when="" if parts else f" {describe_when(draft, gaps)}")
    return draft.finish(NAME, f"{where}{_lead(found)}{'; '.join(parts)}.") if parts else None


def _describe_axis(draft: Draft, run: Run, gaps: AxisGaps, *, when: str) -> list[str]:
    """The clauses of one axis: what differs, the largest first, what is the same, and what cannot be told."""
    by_loss = [gap for gap in gaps.gaps if gap.loss]
    apart = [gap for gap in by_loss if gap.loss.call in (LossCall.LOWER, LossCall.HIGHER)]
    same = [gap for gap in by_loss if gap.loss.call == LossCall.SAME]
    count_steps = _describe_steps if shared_steps(gaps) else _say_nothing
    parts = []
    for gap in sorted(apart, key=lambda gap: -abs(gap.loss.difference)):
        subject = (
            f"with {name_of(draft, gap.one)} the validation loss{when} is"
            if not parts
            else f"with {name_of(draft, gap.one)}"
        )
        than = f" than with {name_of(draft, gap.other)}" if not parts else ""
        parts.append(
            f"{subject} {describe_difference(draft, gap.loss)}{than}{describe_accuracy(draft, gap)}{count_steps(draft, [gap])}"
        )
    if same:
        names = join_names([name_of(draft, gap.one) for gap in same])
        verb = "learns" if len(same) == 1 else "learn"
        losses = [gap.loss for gap in same]
        within = f"within {show_share(draft, losses)} ({INTERVAL}, {show_seeds(draft, losses)})"
        base = name_of(draft, same[0].other)
        parts.append(f"{names} {verb} what {base} learns, validation losses{when} {within}{count_steps(draft, same)}")
        if shared_steps(gaps) and any(gap.steps and gap.steps.call == Call.OPEN for gap in same):
            parts[-1] += describe_price_of_steps(draft, run, gaps.family_of_steps)
    for gap in (gap for gap in by_loss if gap.loss.call == LossCall.OPEN):
        names = (name_of(draft, gap.one), name_of(draft, gap.other))
        cannot = f"{show_seeds(draft, [gap.loss])} cannot say whether {names[0]} learns what {names[1]} does"
        seen = f": its validation loss{when} was {describe_difference(draft, gap.loss)}"
        parts.append(f"{cannot}{seen}{describe_price(draft, run, gaps.family)}")
    return parts


def describe_accuracy(draft: Draft, gap: Gap) -> str:
    """`, and it names 63 % instead of 41 % of the samples (95 % interval 15 to 29 points more, 3 seeds)`; nothing but of classifiers."""
    if gap.accuracy is None:
        return ""
    shares = (mean(gap.one.accuracies.values()), mean(gap.other.accuracies.values()))
    right, base = (show_percent(draft, share, ACCURACY) for share in shares)
    text = f", and it names {right} instead of {base} % of the samples right"
    if gap.accuracy.low is None or gap.accuracy.high is None:
        return text
    is_less = gap.accuracy.mean < 0
    ends = (-gap.accuracy.high, -gap.accuracy.low) if is_less else (gap.accuracy.low, gap.accuracy.high)
    points = " to ".join(show_percent(draft, end, ACCURACY) for end in ends)
    seeds = f"{draft.count(gap.accuracy.rounds)} seeds"
    return f"{text} ({INTERVAL} {points} points {'fewer' if is_less else 'more'}, {seeds})"


def _lead(found: Sequence[AxisGaps]) -> str:
    """`Pretraining helps: `, where every value of one axis does the same; of number formats the clauses say it themselves."""
    calls = {gap.loss.call for gaps in found for gap in gaps.gaps if gap.loss}
    verbs = {LossCall.LOWER: "helps", LossCall.HIGHER: "does harm"}
    if len(found) != 1 or found[0].axis in NUMERICS or len(calls) != 1 or not calls <= verbs.keys():
        return ""
    return f"{plain_name(found[0].axis).replace('_steps', '').replace('_', ' ')} {verbs[calls.pop()]}: "


def _describe_steps(draft: Draft, gaps: Sequence[Gap]) -> str:
    """`, in as many steps to the target loss (within 2.1 %)`, or how many more or fewer; nothing where some launch never got there."""
    known = [gap for gap in gaps if gap.steps]
    if not known or len(known) < len(gaps):
        return ""
    equal = [gap for gap in known if gap.steps.call == Call.EQUAL]
    unsure = [gap for gap in known if gap.steps.call == Call.OPEN]
    called = [gap for gap in known if gap not in equal and gap not in unsure]
    text = ""
    if equal:
        names = f" with {join_names([name_of(draft, gap.one) for gap in equal])}" if len(equal) < len(known) else ""
        text += f", in as many steps to the target loss{names} (within {_widest(draft, equal)} %)"
    if called and len(known) == 1:
        text += f", and {describe_steps(draft, called[0].steps)} to the target loss"
    elif called:
        text += f"; to the target loss {join_names([f'{name_of(draft, gap.one)} {describe_steps(draft, gap.steps)}' for gap in called])}"
    if unsure:
        seeds = min(gap.steps.rounds for gap in unsure)
        names = f" with {join_names([name_of(draft, gap.one) for gap in unsure])}" if len(unsure) < len(known) else ""
        within = f" (within {_widest(draft, unsure)} %)" if all(gap.steps.low for gap in unsure) else ""
        count = f"{draft.count(seeds)} seed{'' if seeds == 1 else 's'}"
        text += f"; whether in as many steps to the target loss{names}, {count} cannot say{within}"
    return text


def _widest(draft: Draft, gaps: Sequence[Gap]) -> str:
    """The most by which the steps of any differ, as far as the intervals go, in per cent."""
    ends = [end for gap in gaps for end in (gap.steps.low, gap.steps.high) if end]
    return show_percent(draft, max(max(end, 1 / end) for end in ends) - 1, STEPS)


def _say_nothing(draft: Draft, gaps: Sequence[Gap]) -> str:
    """Of steps that are of other sizes."""
    del draft, gaps
    return ""


def describe_when(draft: Draft, gaps: AxisGaps) -> str:
    """`after 100 steps`, or after as many tokens where those are other steps."""
    steps = shared_steps(gaps)
    return f"after {draft.count(steps)} steps" if steps else f"after the same {draft.count(int(gaps.tokens))} tokens"


def shared_steps(gaps: AxisGaps) -> int | None:
    """After how many steps the losses are compared; None where a step has more tokens in some launches than in others."""
    curves = [
        curve
        for gap in gaps.gaps
        for one in (gap.one, gap.other)
        for learner in one.learners
        for curve in learner.curves
    ]
    found = [curve.steps[curve.tokens == gaps.tokens] for curve in curves]
    is_shared = all(steps.size for steps in found) and len({float(steps[0]) for steps in found}) == 1
    return int(found[0][0]) if is_shared else None


def describe_losses(draft: Draft, leaders: Sequence[Learned], *, when: str) -> str:
    """`validation losses 3.21 and 3.22 after 100 steps`."""
    texts = [draft.quote(format_number(one.loss), one.loss, "loss", metric=LOSS) for one in leaders]
    return f"validation loss{'es' if len(texts) > 1 else ''} {join_names(texts)} {when}"


def _settings(run: Run, one: Learned) -> str:
    """The settings of what the question does not compare, by which it gets furthest."""
    others = [axis for axis in choice_axes(run) if axis != one.axis and axis not in compared_axes(run)]
    chosen = one.learners[0].chosen
    return ", ".join(describe_value(axis, chosen[axis], emulated=frozenset()) for axis in others)


def _of_base(draft: Draft, gap: Gap) -> str:
    """The base against a value whose loss is higher: `0.081 nats lower (...)`."""
    return describe_difference(draft, gap.loss.turned())

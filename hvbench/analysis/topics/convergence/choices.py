"""What each choice does to what is learned, in words: which value gets furthest, and whether what can be switched on helps."""

from __future__ import annotations

from collections.abc import Sequence

from hvbench.analysis.contrasts.learning import (
    AxisGaps,
    Gap,
    Learned,
    compared_axes,
    contrast_axis,
    frameworks_apart,
    stops_at_target,
)
from hvbench.analysis.frame.axes import GLOBAL_BATCH
from hvbench.analysis.frame.learning import choice_axes
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL, format_number
from hvbench.analysis.show.panels import STYLES, describe_value
from hvbench.analysis.show.sentences import Draft, Sentence
from hvbench.analysis.stats.contrasts import Call
from hvbench.analysis.stats.losses import LossCall
from hvbench.analysis.topics.convergence.words import (
    LOSS,
    NAME,
    STEPS,
    describe_difference,
    describe_price,
    describe_steps,
    join_names,
    name_of,
    show_percent,
    show_seeds,
    show_share,
    show_span,
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
    return [sentence for sentence in (*best, *helped, kept) if sentence]


def describe_best(run: Run, gaps: AxisGaps, *, where: str = "") -> Sentence | None:
    """`AdamW gets furthest: validation loss 3.21 after 100 steps, 0.08 nats lower than with LAMB ...`, or that it cannot be said."""
    if any(gap.loss is None for gap in gaps.gaps):
        return describe_fewest(run, gaps, where=where) if stops_at_target(run) else None
    draft = Draft()
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
        text += f", and {span} nats lower than with {join_names([name_of(draft, gap.one) for gap in rest])}"
    if unsure:
        text += f"; between those, {show_seeds(draft, [gap.loss for gap in unsure])} cannot say{price}"
    return draft.finish(NAME, f"{text}.")


def describe_fewest(run: Run, gaps: AxisGaps, *, where: str = "") -> Sentence | None:
    """`AdamW takes the fewest steps to the target loss: 98, 20 % fewer than LAMB ...`, of launches that end there."""
    known = [gap for gap in gaps.gaps if gap.steps]
    if not known:
        return None
    draft = Draft()
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
    draft = Draft()
    parts: list[str] = []
    for gaps in found:
        parts += _describe_axis(draft, run, gaps, when="" if parts else f" {describe_when(draft, gaps)}")
    return draft.finish(NAME, f"{where}{_lead(found)}{'; '.join(parts)}.") if parts else None


def _describe_axis(draft: Draft, run: Run, gaps: AxisGaps, *, when: str) -> list[str]:
    """The clauses of one axis: what differs, the largest first, what is the same, and what cannot be told."""
    by_loss = [gap for gap in gaps.gaps if gap.loss]
    apart = [gap for gap in by_loss if gap.loss.call in (LossCall.LOWER, LossCall.HIGHER)]
    same = [gap for gap in by_loss if gap.loss.call == LossCall.SAME]
    parts = []
    for gap in sorted(apart, key=lambda gap: -abs(gap.loss.difference)):
        subject = (
            f"with {name_of(draft, gap.one)} the validation loss{when} is"
            if not parts
            else f"with {name_of(draft, gap.one)}"
        )
        than = f" than with {name_of(draft, gap.other)}" if not parts else ""
        parts.append(f"{subject} {describe_difference(draft, gap.loss)}{than}{_describe_steps(draft, [gap])}")
    if same:
        names = join_names([name_of(draft, gap.one) for gap in same])
        verb = "learns" if len(same) == 1 else "learn"
        losses = [gap.loss for gap in same]
        within = f"within {show_share(draft, losses)} ({INTERVAL}, {show_seeds(draft, losses)})"
        base = name_of(draft, same[0].other)
        parts.append(
            f"{names} {verb} what {base} learns, validation losses{when} {within}{_describe_steps(draft, same)}"
        )
    for gap in (gap for gap in by_loss if gap.loss.call == LossCall.OPEN):
        names = (name_of(draft, gap.one), name_of(draft, gap.other))
        cannot = f"{show_seeds(draft, [gap.loss])} cannot say whether {names[0]} learns what {names[1]} does"
        seen = f": its validation loss{when} was {describe_difference(draft, gap.loss)}"
        parts.append(f"{cannot}{seen}{describe_price(draft, run, gaps.family)}")
    return parts


def _lead(found: Sequence[AxisGaps]) -> str:
    """`Pretraining helps: `, where every value of one axis does the same; of number formats the clauses say it themselves."""
    calls = {gap.loss.call for gaps in found for gap in gaps.gaps if gap.loss}
    verbs = {LossCall.LOWER: "helps", LossCall.HIGHER: "does harm"}
    if len(found) != 1 or found[0].axis in NUMERICS or len(calls) != 1 or not calls <= verbs.keys():
        return ""
    return f"{found[0].axis.replace('_steps', '').replace('_', ' ')} {verbs[calls.pop()]}: "


def _describe_steps(draft: Draft, gaps: Sequence[Gap]) -> str:
    """`, in as many steps to the target (within 2.1 %)`, or how many more or fewer; nothing where some launch never got there."""
    known = [gap for gap in gaps if gap.steps]
    if not known or len(known) < len(gaps):
        return ""
    ends = [end for gap in known for end in (gap.steps.low, gap.steps.high) if end]
    if all(gap.steps.call == Call.EQUAL for gap in known):
        widest = max(max(end, 1 / end) for end in ends) - 1
        return f", in as many steps to the target loss (within {show_percent(draft, widest, STEPS)} %)"
    if len(known) == 1:
        return f", and {describe_steps(draft, known[0].steps)} to the target loss"
    parts = [f"{name_of(draft, gap.one)} {describe_steps(draft, gap.steps)}" for gap in known]
    return f"; to the target loss {join_names(parts)}"


def describe_when(draft: Draft, gaps: AxisGaps) -> str:
    """`after 100 steps`, or after as many tokens where those are other steps."""
    curves = [
        curve
        for gap in gaps.gaps
        for one in (gap.one, gap.other)
        for learner in one.learners
        for curve in learner.curves
    ]
    found = [curve.steps[curve.tokens == gaps.tokens] for curve in curves]
    if all(steps.size for steps in found) and len({float(steps[0]) for steps in found}) == 1:
        return f"after {draft.count(int(found[0][0]))} steps"
    return f"after the same {draft.count(int(gaps.tokens))} tokens"


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

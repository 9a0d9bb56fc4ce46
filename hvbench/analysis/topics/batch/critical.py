"""From which global batch on a larger one saves few steps, and which choices hold out longest, in one sentence."""

from __future__ import annotations

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL
from hvbench.analysis.show.sentences import Draft, Sentence
from hvbench.analysis.topics.batch.sentences import NAME, last_batch, list_choices, name_choice
from hvbench.analysis.topics.batch.tradeoff import Curve, find_common_curves


def has_critical_batch(run: Run) -> bool:
    """Whether a target was set at so many batches that the critical one can be fitted: the run's question is about batches."""
    return any(curve.fit for curve in find_common_curves(run))


def describe_critical(run: Run) -> list[Sentence]:
    """`The critical batch ... is 58 samples (...) with AdamW, 40 (...) with SGD; AdamW holds out longest ...`."""
    known = [curve for curve in find_common_curves(run) if curve.fit and curve.fit.critical_batch.low is not None]
    if not known:
        return []
    known.sort(key=lambda curve: -curve.fit.critical_batch.centre)
    draft = Draft()
    parts = [", ".join(_describe(draft, curve, is_first=not index) for index, curve in enumerate(known))]
    if longest := describe_longest(draft, run):
        parts.append(longest)
    return [draft.finish(NAME, f"{'; '.join(parts)}.")]


def describe_longest(draft: Draft, run: Run) -> str:
    """`longest of all hold out AdamW and LAMB, which reach the target with every batch up to 1,024 samples`; nothing without a choice."""
    reach = {name: last for name, launches in list_choices(run) if (last := last_batch(launches)[1])}
    if len(reach) < 2:
        return ""
    most = max(reach.values())
    names = [draft.label(name) for name, last in reach.items() if last == most]
    if len(names) == len(reach):
        return f"with every choice all batches up to {draft.label(f'{most:,}')} samples reach the target"
    less = [draft.label(f"{last:,}") for last in sorted({last for last in reach.values() if last < most}, reverse=True)]
    others = f", others up to {' or '.join(less)}"
    verb = "holds" if len(names) == 1 else "hold"
    return f"{' and '.join(names)} {verb} out longest: every batch up to {draft.label(f'{most:,}')} samples reaches the target{others}"


def _describe(draft: Draft, curve: Curve, *, is_first: bool) -> str:
    critical = curve.fit.critical_batch
    where = name_choice({axis: value for axis, value in curve.chosen.items() if axis != "framework"})
    choice = f" with {draft.label(where)}" if where else ""
    at, low, high = (
        draft.quote(f"{value:,.0f}", value, "critical_batch", metric="critical_batch")
        for value in (critical.centre, critical.low, critical.high)
    )
    batches = f"{draft.count(critical.n)} batches"
    if not is_first:
        return f"{at} ({low} to {high}, {batches}){choice}"
    seeds = len({one.seed for each in curve.complete.values() for one in each})
    evidence = f"{batches}, {draft.count(seeds)} seed{'' if seeds == 1 else 's'}"
    return (
        f"the critical batch, from which on a larger one can at most halve the steps, is {at} samples "
        f"({INTERVAL} {low} to {high}, {evidence}){choice}"
    )

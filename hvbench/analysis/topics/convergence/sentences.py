"""Who reached the target loss, and who did so soonest, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from hvbench.analysis.frame.run import Run
from hvbench.analysis.frame.targets import NOT_REACHED
from hvbench.analysis.show.cells import Row, show_value
from hvbench.analysis.show.sentences import Draft, Sentence
from hvbench.analysis.stats.estimates import Estimate, read_estimate, summary_rows
from hvbench.analysis.topics.parity.stamps import are_comparable
from hvbench.analysis.topics.throughput.pairs import by_framework, describe_point, label_of

NAME = "convergence"
TO_TARGET = "seconds_after_first_step_to_target"  # the first step, which traces or compiles, is no matter of learning


def describe_convergence(run: Run) -> list[Sentence]:
    """Who reached the target loss and how the others ended, and the soonest where the intervals say so."""
    asked = [row for row in summary_rows(run) if not pd.isna(row["target"])]
    if not asked:
        return []
    reached = [row for row in asked if row["target"] == "reached"]
    draft = Draft()
    targets = {row["target_loss"] for row in asked if not pd.isna(row["target_loss"])}
    name = f"the target loss {draft.label(show_value(float(*targets)))}" if len(targets) == 1 else "their target loss"
    if not reached:
        rest = describe_missed(draft, run.points)
        return [draft.finish(NAME, f"No point reached {name} in all of its launches{rest}.")]
    whole = draft.part_of(len(reached), len(asked), "points")
    steps = [(float(row["steps_to_target"]), (row,)) for row in reached]
    parts = [f"{whole} reached {name}, after {draft.span(steps, 'centre', metric='steps_to_target')} steps"]
    parts[0] += describe_missed(draft, run.points) if len(reached) < len(asked) else ""
    groups = {"": reached} if are_comparable(run) else by_framework(reached)
    parts += [describe_soonest(draft, rows, axes=run.other_axes, is_one_of=bool(key)) for key, rows in groups.items()]
    return [draft.finish(NAME, f"{'; '.join(part for part in parts if part)}.")]


def describe_missed(draft: Draft, points: pd.DataFrame) -> str:
    """`; 4 of 48 launches did not reach it: 2 diverged, 2 gave up`, of all launches that were to reach a target."""
    asked = points[points["target"].notna()]
    missed = asked[asked["target"] == NOT_REACHED]
    if len(missed) == len(asked) and (missed["status"] == "ok").all() and missed["stopped_by"].isna().all():
        return ""  # that no point reached it says all
    ends = missed["status"].mask(missed["status"] == "ok", "ended above it")
    counts = ends.mask(missed["stopped_by"] == "patience", "gave up").value_counts()
    kinds = ", ".join(f"{draft.count(int(count))} {end}" for end, count in counts.items())
    return f"; {draft.count(len(missed))} of {draft.count(len(asked))} launches did not: {kinds}"


def describe_soonest(draft: Draft, rows: Sequence[Row], *, axes: Sequence[str], is_one_of: bool) -> str:
    """`PyTorch with bf16 was the soonest in PyTorch, ...`, or nothing where no row is sooner than all others.

    `is_one_of`: the rows are those of one framework, which is then named.
    """
    best = min(rows, key=lambda row: row[TO_TARGET])
    estimate = read_estimate(best, TO_TARGET)
    beaten = [row for row in rows if row is not best and is_sooner(estimate, read_estimate(row, TO_TARGET))]
    if len(rows) < 2 or len(beaten) < len(rows) - 1:
        return ""
    where = draft.label(describe_point(best, axes))
    for row in beaten:
        draft.claim(row, best, metric=TO_TARGET)
    label = label_of(best)
    subject = f"{label} with {where}" if where else label
    among = f" in {label}" if is_one_of else ""
    seconds = draft.estimate(best, metric=TO_TARGET, unit="s of training after the first step")
    seed = ", all of one seed" if best["seeds_ok"] == 1 else ""
    return f"{subject} was the soonest{among}, {seconds}{seed}"


def is_sooner(one: Estimate | None, other: Estimate | None) -> bool:
    """Whether `one` ends below `other` beyond both intervals."""
    return bool(one and other and one.high is not None and other.low is not None and one.high < other.low)

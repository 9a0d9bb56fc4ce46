"""What a run asks about speed, by what its suite compares: every topic decides with these whether it is the answer."""

from __future__ import annotations

from hvbench.analysis.frame.run import Run


def asks_about(run: Run, axis: str) -> bool:
    """Whether the question is what `axis` does to the speed."""
    return not run.was_evaluated and axis in run.compared_axes


def asks_for_the_fastest(run: Run) -> bool:
    """Whether the question is which of all configurations is the fastest: several axes vary, and the suite names none of them."""
    return not run.was_evaluated and len(run.other_axes) > 1 and not run.names_axes


def asks_about_choices(run: Run) -> bool:
    """Whether the question is what the choices do one by one: the suite names its axes, or only one varies."""
    return not run.was_evaluated and bool(run.other_axes) and (run.names_axes or len(run.other_axes) == 1)


def was_launched_once(run: Run) -> bool:
    """Whether no point has two launches that were measured: nothing can be compared then."""
    measured = run.points[run.points["tokens_per_second"].notna()]
    return len(measured) > 0 and int(measured["point_id"].value_counts().max()) == 1

"""What a run asks about speed, by what its suite compares: every topic decides with these whether it is the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from hvbench.analysis.frame.metrics import STEP
from hvbench.analysis.frame.run import Run
from hvbench.spec.search import Search


def asks_about(run: Run, axis: str) -> bool:
    """Whether the question is what `axis` does to the speed."""
    return not run.was_evaluated and axis in run.compared_axes


def asks_for_the_fastest(run: Run) -> bool:
    """Whether the question is which of all configurations is the fastest: several axes vary, and the suite names none of them.

    Of a script one axis is enough: what it means is not known, and so not what else could be asked of it.
    """
    several = len(run.other_axes) > (0 if run.is_of_scripts else 1)
    return not run.was_evaluated and several and not run.names_axes


def asks_about_choices(run: Run) -> bool:
    """Whether the question is what the choices do one by one: the suite names its axes, or only one varies."""
    if asks_for_the_fastest(run):
        return False
    return not run.was_evaluated and bool(run.other_axes) and (run.names_axes or len(run.other_axes) == 1)


def searched_field(run: Run) -> str | None:
    """The field whose largest value was searched; None in a run that searched nothing."""
    search = run.request.get("search")
    name = search.get("largest") if isinstance(search, Mapping) else None
    return name if name in get_args(Search.model_fields["largest"].annotation) else None


def was_launched_once(run: Run) -> bool:
    """Whether no point has two launches that were measured: nothing can be compared then."""
    measured = run.points[run.points[STEP].notna()]
    return len(measured) > 0 and int(measured["point_id"].value_counts().max()) == 1

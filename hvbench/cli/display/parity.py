"""What the parity check showed: a table of configurations for a person, and every figure for a program."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from hvbench.analysis.show.text import join_names
from hvbench.parity.compare import Deviation, worst, worst_by_kind
from hvbench.parity.pairs import Parity
from hvbench.spec.labels import configuration_name
from hvbench.spec.point import Point

COLUMNS = {"logits": "logits", "loss": "loss", "gradient": "gradients", "update": "updates"}
GREEN, RED, GREY = "same work", "NOT the same", "not compared"


def render_table(parities: Sequence[Parity], *, steps: int, is_full: bool) -> str:
    """The table of all configurations; before it, if asked for, every quantity of each."""
    points = [parity.points[0] for parity in parities]
    varying = [name for name in Point.model_fields if len({getattr(point, name) for point in points}) > 1]
    frameworks = list(dict.fromkeys(point.framework for parity in parities for point in parity.points))
    names_pairs = len(frameworks) > 2
    header = [*varying, *(["frameworks"] if names_pairs else []), *COLUMNS.values(), "overflows", "verdict"]
    rows = [describe_row(parity, varying, names_pair=names_pairs) for parity in parities]
    note = (
        f"{join_names(frameworks)} over {steps} updates: largest relative error of any tensor, update and rank, and what is "
        "allowed; gradients after the all-reduce, compressed where the configuration compresses."
    )
    every_quantity = [render_quantities(parity) for parity in parities] if is_full else []
    return "\n\n".join([*every_quantity, tabulate(rows, headers=header, disable_numparse=True), note])


def render_quantities(parity: Parity) -> str:
    """Every quantity of one configuration: its relative error and its tolerance."""
    rows = [
        [each.name, f"{each.relative_error:.2e}", f"{each.tolerance:.0e}", "" if each.is_within else "OUTSIDE"]
        for each in parity.deviations
    ]
    body = tabulate(rows, headers=["quantity", "relative error", "allowed", ""], disable_numparse=True)
    return f"{configuration_name(parity.points[0])}: {parity.problem or ''}\n\n{body}"


def describe_row(parity: Parity, varying: Sequence[str], *, names_pair: bool) -> list[str]:
    """One configuration's row of the table."""
    largest = worst_by_kind(parity.deviations)
    verdict = GREEN if parity.is_proven else f"{RED if parity.is_compared else GREY}: {why(parity)}"
    return [
        *(str(getattr(parity.points[0], name)) for name in varying),
        *([join_names([point.framework for point in parity.points])] if names_pair else []),
        *(show(largest.get(kind)) for kind in COLUMNS),
        "–" if parity.problem else " / ".join(map(str, dict.fromkeys(parity.overflows))),
        verdict + (f", over {parity.horizon} updates" if parity.horizon else ""),
    ]


def show(deviation: Deviation | None) -> str:
    """`1.2e-07 ≤ 5e-07`."""
    if deviation is None:
        return "–"
    return f"{deviation.relative_error:.1e} {'≤' if deviation.is_within else '>'} {deviation.tolerance:.0e}"


def why(parity: Parity) -> str:
    """What is outside its tolerance by most, or why nothing was compared."""
    if parity.problem or not parity.deviations:
        return parity.problem or "nothing was compared"
    deviation = worst(parity.deviations)
    return f"{deviation.name} {show(deviation)}"


def describe_parity(parity: Parity, *, steps: int) -> dict[str, Any]:
    """One configuration for the JSON file: every quantity; an error that is not finite is null."""
    return {
        "configuration": parity.points[0].model_dump(exclude={"framework"}),
        "frameworks": [point.framework for point in parity.points],
        "updates": parity.updates or steps,
        "horizon": parity.horizon,
        "is_proven": parity.is_proven,
        "problem": parity.problem,
        "overflows": list(parity.overflows),
        "deviations": [
            {
                "name": each.name,
                "relative_error": each.relative_error if math.isfinite(each.relative_error) else None,
                "tolerance": each.tolerance,
                "is_within": each.is_within,
            }
            for each in parity.deviations
        ],
    }

"""What two frameworks' traces may differ by and still count as the same work: `tolerances.toml`, looked up by point.

The file holds, beside each tolerance, what was measured, and says how the two follow from the formats' roundoff.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from hvbench.parity import CHECKED_UPDATES
from hvbench.spec.point import Point
from hvbench.training.flops import model_facts

SOURCE = Path(__file__).with_name("tolerances.toml")


@dataclass(frozen=True, kw_only=True)
class Tolerances:
    """Largest relative errors that count as the same work; see `hvbench.parity.compare` for what each applies to."""

    logits: float
    loss: float  # of every step
    gradients: float  # each tensor of the first step, and the global norm of every step
    updates: float  # each tensor's change over all steps, in `norms.l2_norm_of_row_l1_norms`
    update_length: float  # L2 norm of all updates together, in which rounding errors of single elements average out
    key_bias_updates: float  # see `compare.split_update`
    measured_updates: int = CHECKED_UPDATES  # after fewer, elements with hardly a gradient have averaged out less


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One row of the table: what applies to it, what was measured, what is allowed."""

    model: str  # "small" or "large"
    precision: str
    arithmetic: str  # "native" or "emulated"; "any" in fp32
    compression: str
    measured: dict[str, float]
    allowed: Tolerances


@dataclass(frozen=True, kw_only=True)
class Table:
    """The whole file."""

    large_parameters: int  # a model with more is large
    updates: dict[str, int]  # by size of model: over how many updates its tolerances were measured
    costly_flops: float  # a point whose updates have more on a rank is checked over as few as a large model
    entries: tuple[Entry, ...]
    vector_optimizers: tuple[str, ...]
    vector_update_length: dict[str, float]  # by compression: times the update_length of the others
    vectors_measured: tuple[
        dict[str, Any], ...
    ]  # what those optimizers' update_length was, and in which model and formats
    same_significand: dict[str, str]  # precision without rows of its own -> the one whose products keep as many bits


@cache
def read_table() -> Table:
    """`tolerances.toml`; a mistake in it is a KeyError or TypeError, for the file is a part of the program."""
    source = tomllib.loads(SOURCE.read_text(encoding="utf-8"))
    updates = {"small": CHECKED_UPDATES, "large": source["large"]["updates"]}
    entries = []
    for row in source["tolerances"]:
        allowed = Tolerances(**row["allowed"], measured_updates=updates[row["model"]])
        entries.append(Entry(**row | {"measured": row.get("measured", {}), "allowed": allowed}))
    return Table(
        large_parameters=source["large"]["parameters"],
        updates=updates,
        costly_flops=source["large"]["update_flops"],
        entries=tuple(entries),
        vector_optimizers=tuple(source["vectors"]["optimizers"]),
        vector_update_length=source["vectors"]["update_length"],
        vectors_measured=tuple(source["vectors"]["measured"]),
        same_significand=source["same_significand"],
    )


def is_large_model(point: Point) -> bool:
    """Whether `point` has so many parameters that rounding errors add up to more than in a small model."""
    return model_facts(point).parameters > read_table().large_parameters


def check_updates(point: Point) -> int:
    """How many updates a parity check of `point`, whose `world_size` is known, trains: those that its tolerances
    were measured over, or fewer.

    Starting workers costs seconds; beside that, 20 updates of a small model on few tokens are free. Of a larger one, or of
    long sequences, few are enough.
    """
    table, facts = read_table(), model_facts(point)
    update_flops = facts.model_flops_per_token * facts.tokens_per_step / (point.world_size or 1)
    return table.updates["large" if is_large_model(point) or update_flops > table.costly_flops else "small"]


def find_tolerances(*, model: str, precision: str, compression: str, is_native: bool) -> Tolerances:
    """What is allowed before a point's optimizer is known: of each quantity the largest that a row allows which applies."""
    rows = [vars(row.allowed) for row in rows_for(model, precision, compression, is_native=is_native)]
    return Tolerances(**{name: max(row[name] for row in rows) for name in rows[0]})


def rows_for(model: str, precision: str, compression: str, *, is_native: bool) -> list[Entry]:
    """The rows of all roundings that happen to a combination: its own, and those of which it does more.

    A training with 16 bits on the wire makes the errors of one without; native products round where emulated ones do, and
    between. So a combination that no machine at hand could measure takes the larger of those that it is made of, and none
    allows less than what was measured of a part of it. Raises ValueError where there is none.
    """
    table = read_table()
    precision = table.same_significand.get(precision, precision)
    arithmetic = ("any", "emulated", "native") if is_native else ("any", "emulated")
    rows = [row for row in table.entries if row.precision == precision and row.compression in ("none", compression)]
    own = [row for row in rows if row.model == model and row.arithmetic in arithmetic]
    uncompressed = [row.arithmetic for row in own if row.compression == "none"]
    if is_native and not {"any", "native"} & set(uncompressed):  # measured in a smaller model only
        own += [row for row in rows if row.arithmetic == "native"]
    if not own:
        raise ValueError(f"no tolerance is known of {precision} with {compression} on the wire")
    # Less than the gradients is sent: what that makes of errors was measured in fp32, too.
    return own + [
        row
        for row in table.entries
        if (row.model, row.precision, row.compression) == (model, "fp32", compression) and row not in own
    ]


def tolerances_for(point: Point, *, is_native: bool) -> Tolerances:
    """What the traces of `point` are held to; `is_native`: a rank's device multiplies in the compute dtype itself."""
    table = read_table()
    tolerances = find_tolerances(
        model="large" if is_large_model(point) else "small",
        precision=point.precision,
        compression=point.compression,
        is_native=is_native,
    )
    is_rounded = (point.precision, point.compression) != ("fp32", "none")
    if is_rounded and point.optimizer in table.vector_optimizers:
        factor = table.vector_update_length[point.compression]
        tolerances = replace(tolerances, update_length=factor * tolerances.update_length)
    return tolerances

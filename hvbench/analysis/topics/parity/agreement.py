"""The recorded losses of a run's launches -> whether the frameworks did the same work in it, at no extra cost.

Both frameworks start from the same weights and read the same batches, so the loss of every rank at every step must be
the same up to rounding; from the second step on it depends on all that a step does: gradients, accumulation,
all-reduce, clipping, update. Rounding errors grow as training goes on, hence only the first steps are compared, and none from
the first on at which the gradient explodes in both frameworks.
The tests compare every tensor; this check covers the configurations that were measured. With dropout the frameworks draw
different masks and agree in distribution only, so such launches are not compared.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hvbench.records.record import Record

COMPARED_STEPS = 10
# A step at which the gradient is suddenly so many times as long as before it: there the loss is so steep that the roundings of
# the updates before move it further than its own (docs/measurements.md: bf16, up to a hundred times).
UNSTABLE_RATIO = 5.0
STEPS_BEFORE = 3  # whose median is the usual length

# Largest relative difference of a loss that rounding explains; docs/measurements.md has what was measured.
LOSS_TOLERANCES = {"fp32": 2e-5, "tf32": 1e-4, "bf16": 3e-4, "fp16": 1e-4}  # tf32 keeps as many bits as fp16


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What comparing the launches of the same configuration in different frameworks showed."""

    pairs: int
    unpaired: int  # launches that ended in ok without a counterpart
    largest: dict[str, float]  # precision -> largest relative difference of a loss

    @property
    def is_proven(self) -> bool:
        """Whether something was compared, and all of it agreed."""
        return bool(self.largest) and all(value <= LOSS_TOLERANCES[name] for name, value in self.largest.items())

    def describe(self) -> str:
        """One sentence with the figures."""
        figures = ", ".join(
            f"{name} {value:.1e} (allowed {LOSS_TOLERANCES[name]:.0e})" for name, value in sorted(self.largest.items())
        )
        rest = f"; {self.unpaired} launches have no counterpart to be compared with" if self.unpaired else ""
        return (
            f"Largest relative difference of any rank's loss in the first {COMPARED_STEPS} steps, over {self.pairs} pairs of "
            f"launches: {figures}{rest}."
        )


def check_agreement(records: Iterable[Record]) -> Agreement | None:
    """Compare the frameworks' launches of each configuration and repeat; None when no two can be compared."""
    launches: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        if record.outcome.status == "ok" and record.ranks and not record.point.dropout:
            launches.setdefault((describe_configuration(record), record.repeat), []).append(record)
    pairs, unpaired = 0, 0
    largest: dict[str, float] = {}
    for same in launches.values():
        unpaired += len({record.point.framework for record in same}) == 1
        for a, b in itertools.combinations(same, 2):
            if a.point.framework != b.point.framework:
                pairs += 1
                precision = b.point.precision
                largest[precision] = max(largest.get(precision, 0.0), compare_losses(a, b))
    return Agreement(pairs=pairs, unpaired=unpaired, largest=largest) if pairs else None


def describe_configuration(record: Record, *, without: str | None = None) -> str:
    """Everything of a point but its framework, the choices that only one framework has, and the field `without`."""
    return json.dumps(record.point.model_dump(exclude={"framework", "gemm", without or "framework"}), sort_keys=True)


def find_explosion(a: Sequence[float | None], b: Sequence[float | None]) -> float:
    """The first step, from 0, at which the gradient norms of both launches are far above those before; infinite: none that is compared."""
    for step, norms in enumerate(zip(a[:COMPARED_STEPS], b[:COMPARED_STEPS], strict=False)):
        before = [[norm for norm in each[:step] if norm is not None] for each in (a, b)]
        if (
            step >= STEPS_BEFORE
            and all(before)
            and all(
                norm is not None and norm > UNSTABLE_RATIO * statistics.median(earlier)
                for norm, earlier in zip(norms, before, strict=True)
            )
        ):
            return step
    return math.inf


def compare_losses(a: Record, b: Record) -> float:
    """Largest relative difference of a loss over all ranks and the first steps; infinite when one is missing.

    0 where dropout makes two frameworks' losses differ by nature.
    """
    largest = 0.0
    if a.point.dropout and a.point.framework != b.point.framework:
        return largest
    for left, right in zip(a.ranks, b.ranks, strict=False):
        steps = min(COMPARED_STEPS, find_explosion(left.gradient_norm, right.gradient_norm))
        for x, y in zip(left.loss[:steps], right.loss[:steps], strict=False):
            if x is None or y is None:
                return 0.0 if x is y else float("inf")
            largest = max(largest, abs(x - y) / max(abs(x), abs(y), 1e-30))
    return largest

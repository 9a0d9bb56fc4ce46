"""Point: one training run, made of parts; validated, hashable, with a stable id.

A suite expands to Points; a worker trains one; a record stores one. All values are explicit after validation: what
the model preset or a default supplied is written out, so a Point read back years later means the same training.
"""

from __future__ import annotations

import hashlib
import json

from hvbench.spec.adaptation import AdaptationPart
from hvbench.spec.batch import BatchPart
from hvbench.spec.compression import CompressionPart
from hvbench.spec.data import DataPart
from hvbench.spec.exchange import ExchangePart
from hvbench.spec.execution import ExecutionPart
from hvbench.spec.framework import FrameworkPart
from hvbench.spec.knob import knobs_of
from hvbench.spec.local_sgd import LocalSgdPart
from hvbench.spec.model import ModelPart
from hvbench.spec.numerics import DevicePart, NumericsPart
from hvbench.spec.objective import ObjectivePart
from hvbench.spec.optimizer import OptimizerPart
from hvbench.spec.schedule import SchedulePart
from hvbench.spec.script import ScriptPoint
from hvbench.spec.shard import ShardPart
from hvbench.spec.update import UpdatePart


class Point(
    # pydantic lists the fields of the last base first: read upwards, this is their order in records and tables.
    DataPart,
    UpdatePart,
    SchedulePart,
    OptimizerPart,
    ShardPart,
    LocalSgdPart,
    ExchangePart,
    ExecutionPart,
    DevicePart,
    CompressionPart,
    NumericsPart,
    BatchPart,
    AdaptationPart,
    ObjectivePart,
    ModelPart,
    FrameworkPart,
):
    """One training configuration of one framework. Its `point_id` identifies it across runs and machines."""

    @property
    def point_id(self) -> str:
        """A file-name-safe name that a person can read, ended by a digest of every field.

        Fields at their default are left out, so that a field that a later version adds renames no point; a field whose
        default has changed says itself where it is left out.
        """
        named = self.model_dump(exclude_defaults=True)
        for name, knob in knobs_of(Point).items():
            if knob.unnamed is not None:
                named.pop(name, None)
                named |= {} if knob.unnamed(self) else {name: getattr(self, name)}
        canonical = json.dumps(named, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(canonical.encode()).hexdigest()[:8]
        return (
            f"{self.framework}-{self.model}-b{self.micro_batch_size}x{self.gradient_accumulation_steps}"
            f"-{self.precision}-{self.compression}-{digest}"
        )

    @property
    def tokens_per_step(self) -> int:
        """Tokens per step over all ranks; needs a resolved `world_size`."""
        return self.global_batch_size * self.sequence_length


AnyPoint = Point | ScriptPoint


def in_framework(point: AnyPoint, framework: str) -> AnyPoint:
    """The same training in another framework; a choice that only its own framework has becomes what the others have.

    A script is written for one, and stays as it is.
    """
    if point.framework == framework or isinstance(point, ScriptPoint):
        return point
    return without_own_choices(point).model_copy(update={"framework": framework})


def without_own_choices(point: Point) -> Point:
    """`point` with what the other frameworks have in place of values that its own has alone."""
    knobs = knobs_of(Point)
    values = {name: dict(knob.elsewhere).get(getattr(point, name)) for name, knob in knobs.items() if knob.elsewhere}
    return point.model_copy(update={name: value for name, value in values.items() if value is not None})

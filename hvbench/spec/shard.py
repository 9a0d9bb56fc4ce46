"""What the ranks share of the state of a training instead of each holding all of it: ZeRO (Rajbhandari et al., arXiv:1910.02054)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from hvbench.registry import describe_framework
from hvbench.spec.exchange import REDUCTIONS, STRATEGIES
from hvbench.spec.knob import AnyPoint, Knob, Part
from hvbench.spec.optimizer import OPTIMIZERS


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Of which arrays a rank keeps its part alone, between two steps and between two passes; each mode adds to the one before."""

    stage: int  # of the paper
    of_optimizer: bool = False  # moments and momenta; gradients are reduced once a step
    of_gradients: bool = False  # also the sums of gradients: each pass's are reduced at once
    of_parameters: bool = (
        False  # also parameters: a block's are gathered when it is computed, and when it is computed again
    )


SHARDS = {
    "none": Shard(stage=0),
    "optimizer": Shard(stage=1, of_optimizer=True),
    "gradients": Shard(stage=2, of_optimizer=True, of_gradients=True),
    "parameters": Shard(stage=3, of_optimizer=True, of_gradients=True, of_parameters=True),
}


SENT = ("none", "fp16", "bf16")  # compressions that send a value for each of a gradient's


def _cannot_be_shared(point: AnyPoint) -> str | None:
    shard = SHARDS[point.shard]
    if not shard.of_optimizer:
        return None
    what = f"shard {point.shard}"
    if STRATEGIES[point.strategy].is_native:
        return _has_no_own(point, what)
    if not REDUCTIONS[point.reduction].is_average:
        return f"{what} averages each rank's part: reduction {point.reduction} needs whole gradients"
    if point.gradient_predivide != 1.0:
        return f"{what} averages each rank's part: gradient_predivide does not apply"
    if point.compression not in SENT:
        return f"{what} sends values: compression {', '.join(SENT)}, not {point.compression}"
    if OPTIMIZERS[point.optimizer].is_factored:
        return f"{what}: {point.optimizer} keeps means of whole rows and columns, which no part has"
    if shard.of_parameters and point.recompute != "block":
        return f"{what} forgets a block's parameters when it has been computed: it needs recompute block, not {point.recompute}"
    if shard.of_parameters and point.compile != "none":
        return f"{what} gathers parameters within the passes, which no compiler takes: it needs compile none, not {point.compile}"
    return None


def _has_no_own(point: AnyPoint, what: str) -> str | None:
    framework = describe_framework(point.framework)
    if point.shard in framework.native_shards:
        return None
    offered = " and ".join(f"shard {shard} ({name})" for shard, name in framework.native_shards.items())
    return f"{what}, strategy {point.strategy}: {framework.title} offers {offered or 'no sharding of its own on processors'}"


class ShardPart(Part):
    """What the ranks share of the training's state."""

    title = "Sharding"

    shard: Annotated[Literal[*SHARDS], Knob(is_of_horovod=True, impossible=_cannot_be_shared)] = Field(
        "none",
        description="of what each rank keeps its part alone: ZeRO 1, 2, 3; each includes those before",
    )

    @property
    def is_sharded(self) -> bool:
        """Whether each rank has a part of the state that no other has: to write all of it down takes all ranks."""
        return SHARDS[self.shard].of_optimizer

    @property
    def shares_by_itself(self: AnyPoint) -> bool:
        """Whether it is the framework that shares what is shared, by whole tensors, and not hvbench over Horovod, by parts of each."""
        return self.is_sharded and STRATEGIES[self.strategy].is_native

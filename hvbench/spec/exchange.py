"""How the ranks exchange gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from hvbench.spec.compression import COMPRESSIONS
from hvbench.spec.knob import AnyPoint, Knob, Part, Site, changed_fields


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """Who brings the ranks together, and what becomes of their gradients."""

    is_horovod: bool = False  # Horovod averages, so its settings apply
    is_native: bool = False  # the framework's own data parallelism averages, and shares what `shard` says where it can
    is_served: bool = False  # a parameter server, a process of its own, updates the parameters
    is_repeatable: bool = True  # another run gives the same losses: no update depends on which rank comes first
    has_levels: bool = False  # the ranks of a host average among themselves first, then between the hosts
    exchanges: bool = True  # else each rank trains for itself, among ranks that Horovod has brought together

    @property
    def is_joined_by_horovod(self) -> bool:
        """Whether Horovod brings the ranks together."""
        return not (self.is_native or self.is_served)

    @property
    def has_common_updates(self) -> bool:
        """Whether all ranks make the same updates from the same gradients, so that all see a divergence in the same step."""
        return self.exchanges and self.is_repeatable


STRATEGIES = {
    "horovod": Strategy(is_horovod=True),
    "hierarchical": Strategy(is_horovod=True, has_levels=True),
    "native": Strategy(is_native=True),
    "parameter_server": Strategy(is_served=True),
    "parameter_server_async": Strategy(is_served=True, is_repeatable=False),
    "local": Strategy(exchanges=False),
}


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """What Horovod makes of the ranks' gradients."""

    is_average: bool  # else Adasum (Maleki et al., arXiv:2006.02924)


REDUCTIONS = {"average": Reduction(is_average=True), "adasum": Reduction(is_average=False)}


@dataclass(frozen=True, kw_only=True)
class Controller:
    """What Horovod's ranks talk over."""

    needs_mpirun: bool


CONTROLLERS = {"gloo": Controller(needs_mpirun=False), "mpi": Controller(needs_mpirun=True)}

# Of Horovod's choices those that the framework's own data parallelism may have, too.
GOES_WITH_NATIVE = ("shard",)
# Of Horovod's choices those that a two-level all-reduce has, too; of the compressions fp16 alone.
GOES_WITH_LEVELS = ("compression", "fusion_threshold_bytes", "cycle_time_seconds", "autotune")


def _strategy_does_not_fit(point: AnyPoint) -> str | None:
    strategy = STRATEGIES[point.strategy]
    changed = changed_fields(point, among=lambda knob: knob.is_of_horovod)
    if point.world_size == 1 and (changed or point.strategy != "horovod"):
        return f"one rank has nothing to all-reduce: {', '.join(changed) or 'strategy'} changes nothing"
    if strategy.has_levels:
        compression = COMPRESSIONS[point.compression]
        others = [name for name in changed if name not in GOES_WITH_LEVELS]
        if compression.feeds_back or not compression.wire.is_summed_by_horovod:
            others.append(f"compression {point.compression}")
        if others:
            return (
                f"{point.strategy} sums fp32 or fp16 over gloo, level by level: it does not go with {', '.join(others)}"
            )
    if strategy.is_native:
        changed = [name for name in changed if name not in GOES_WITH_NATIVE]
    if changed and not strategy.is_horovod:
        return f"{', '.join(changed)}: a choice of Horovod's, and the strategy is {point.strategy}"
    return None


def _nothing_is_served(point: AnyPoint) -> str | None:
    if point.servers != 1 and not point.is_served:
        return f"servers = {point.servers}: the strategy is {point.strategy}, which has none"
    return None


def _nothing_is_stale(point: AnyPoint) -> str | None:
    if point.staleness_bound is not None and (STRATEGIES[point.strategy].is_repeatable or not point.is_served):
        return f"staleness_bound: only of parameter_server_async, and the strategy is {point.strategy}"
    return None


def _sum_does_not_exist(point: AnyPoint) -> str | None:
    is_average, is_predivided = REDUCTIONS[point.reduction].is_average, point.gradient_predivide != 1.0
    is_power_of_two = not point.world_size & (point.world_size - 1)
    if not is_average and not (CONTROLLERS[point.controller].needs_mpirun and is_power_of_two):
        return "Horovod's adasum on processors needs controller mpi and 2, 4, 8, … ranks"
    if not COMPRESSIONS[point.compression].is_summed_by_horovod and (is_predivided or not is_average):
        return f"{point.compression} sums outside Horovod: it knows no adasum and needs no gradient_predivide"
    if not is_average and is_predivided:
        return "adasum is no sum: gradient_predivide does not apply"
    return None


def _no_straggler(point: AnyPoint) -> str | None:
    if point.world_size == 1 and point.straggler_seconds:
        return "one rank waits for nobody: straggler_seconds changes nothing"
    return None


def _straggler_in_words(text: str) -> str:
    """`straggler 50 ms`, of seconds as text; what is no number is left as it is."""
    try:
        return f"straggler {1e3 * float(text):g} ms" if float(text) else "no straggler"
    except ValueError:
        return f"straggler {text}"


def _no_mpi(point: AnyPoint, site: Site) -> str | None:
    return site.no_mpi if point.needs_mpirun else None


def describe_bandwidth(bits_per_second: float) -> str:
    """`200 Mbit/s`."""
    for scale, unit in ((1e9, "Gbit/s"), (1e6, "Mbit/s"), (1e3, "kbit/s")):
        if bits_per_second >= scale:
            return f"{bits_per_second / scale:.3g} {unit}"
    return f"{bits_per_second:.3g} bit/s"


def _name_link(text: str) -> str:
    try:
        return f"link {describe_bandwidth(float(text))}"
    except ValueError:
        return "link as it is"


def _no_link_to_shape(point: AnyPoint, site: Site) -> str | None:
    return None if point.link_bits_per_second is None else site.no_shaped_links


def _fusion_in_words(text: str) -> str:
    """`fusion 128 MiB`, of bytes as text; what is no number is left as it is."""
    if not text.isdecimal():
        return f"fusion {text}"
    for unit, size in (("MiB", 2**20), ("KiB", 2**10)):
        if int(text) and int(text) % size == 0:
            return f"fusion {int(text) // size} {unit}"
    return f"fusion {text} B" if int(text) else "no fusion"


def _cycle_in_words(text: str) -> str:
    """`cycle 1 ms`, of seconds as text; what is no number is left as it is."""
    try:
        return f"cycle {1e3 * float(text):g} ms"
    except ValueError:
        return f"cycle {text}"


def _servers_in_words(text: str) -> str:
    return f"{text} server{'' if text == '1' else 's'}"


def _bound_in_words(text: str) -> str:
    return f"at most {text} updates ahead" if text.isdecimal() else "any number of updates ahead"


class ExchangePart(Part):
    """How the ranks exchange gradients, and Horovod's settings for it."""

    title = "Exchange"

    strategy: Annotated[Literal[*STRATEGIES], Knob(is_of_launch=True, impossible=_strategy_does_not_fit)] = Field(
        "horovod",
        description="hierarchical: within each host, then between; native: DistributedDataParallel or MultiWorkerMirroredStrategy; local: no exchange",
    )
    reduction: Annotated[Literal[*REDUCTIONS], Knob(is_of_horovod=True, impossible=_sum_does_not_exist)] = Field(
        "average", description="what Horovod makes of the ranks' gradients"
    )
    controller: Annotated[
        Literal[*CONTROLLERS],
        Knob(is_of_launch=True, is_of_horovod=True, unavailable=_no_mpi, searched=tuple(CONTROLLERS)),
    ] = Field("gloo", description="what Horovod's ranks talk over")
    fusion_threshold_bytes: Annotated[
        Annotated[int, Field(ge=0, lt=2**40)] | None,
        Knob(
            label="fusion (B)",
            in_words=_fusion_in_words,
            unit="B",
            is_of_launch=True,
            is_of_horovod=True,
            variable="HOROVOD_FUSION_THRESHOLD",
            searched=(None, 0, 2**20, 2**22, 2**24, 2**26, 2**28),
        ),
    ] = Field(None, description="HOROVOD_FUSION_THRESHOLD; left out: Horovod's own")
    cycle_time_seconds: Annotated[
        Annotated[float, Field(gt=0.0, le=10.0)] | None,
        Knob(
            label="cycle (s)",
            in_words=_cycle_in_words,
            unit="s",
            is_of_launch=True,
            is_of_horovod=True,
            variable="HOROVOD_CYCLE_TIME",
            variable_scale=1e3,  # Horovod counts milliseconds
            searched=(None, 2e-4, 5e-4, 2e-3, 5e-3, 1e-2),
        ),
    ] = Field(None, description="HOROVOD_CYCLE_TIME; left out: Horovod's own")
    autotune: Annotated[bool, Knob(is_of_launch=True, is_of_horovod=True, variable="HOROVOD_AUTOTUNE")] = Field(
        False, description="HOROVOD_AUTOTUNE: Horovod tries its own knobs while it trains"
    )
    gradient_predivide: Annotated[float, Field(gt=0.0, le=1e6), Knob(label="predivide", is_of_horovod=True)] = Field(
        1.0, description="divides gradients before the sum, and the sum by world_size / this"
    )
    link_bits_per_second: Annotated[
        Annotated[int, Field(ge=10_000, lt=2**40)] | None,
        Knob(
            label="link (bit/s)",
            unit="bit/s",
            in_words=_name_link,
            is_of_launch=True,
            unavailable=_no_link_to_shape,
        ),
    ] = Field(None, description="what the hosts' links are shaped to (see hvbench lab); left out: as they are")

    straggler_seconds: Annotated[
        Annotated[float, Field(ge=0.0, le=60.0)],
        Knob(label="straggler (s)", unit="s", in_words=_straggler_in_words, impossible=_no_straggler),
    ] = Field(
        0.0,
        description="the last rank begins every step so much later, as a slower host would: what it costs the others",
    )
    servers: Annotated[
        Annotated[int, Field(ge=1, le=1024)],
        Knob(in_words=_servers_in_words, is_of_launch=True, impossible=_nothing_is_served),
    ] = Field(1, description="processes of a parameter server, among which tensors are placed")
    staleness_bound: Annotated[
        Annotated[int, Field(ge=0, le=1_000_000)] | None,
        Knob(label="staleness bound", unit="updates", in_words=_bound_in_words, impossible=_nothing_is_stale),
    ] = Field(
        None, description="updates that a rank may be ahead of the slowest (SSP, Ho et al. 2013); left out: any number"
    )

    @property
    def is_served(self) -> bool:
        """Whether a parameter server, a process of its own, updates the parameters."""
        return STRATEGIES[self.strategy].is_served

    @property
    def is_repeatable(self) -> bool:
        """Whether another run gives the same losses: not where updates depend on which rank comes first."""
        return STRATEGIES[self.strategy].is_repeatable

    @property
    def has_common_updates(self: AnyPoint) -> bool:
        """Whether a training that diverges does so on all ranks in the same step."""
        return STRATEGIES[self.strategy].has_common_updates and not self.has_local_updates

    @property
    def has_common_state(self: AnyPoint) -> bool:
        """Whether all ranks have the same optimizer's state wherever they have the same parameters."""
        return STRATEGIES[self.strategy].has_common_updates and not self.keeps_moments

    @property
    def needs_mpirun(self: AnyPoint) -> bool:
        """Whether its workers have to be ranks of MPI."""
        return CONTROLLERS[self.controller].needs_mpirun and (self.world_size or 1) > 1

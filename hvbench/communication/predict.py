"""Prediction of a step's time on more ranks and other links. Pure.

`hvbench.analysis.topics.links.model` gives the time on the wire and how much of it overlaps other work. What more ranks cost
besides (hops, and sums of more parts) comes from the cost model of an `hvbench allreduce` of the same framework, where
there is one: without it that cost counts as 0, and the prediction is a lower bound. It is added in full, as if none of it
overlapped other work, which predicts too long a step rather than too short a one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hvbench.analysis.topics.links.model import LinkModel, Span
from hvbench.communication.cost import Cost
from hvbench.spec.numerics import WIRE_FORMATS


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The predicted step of one configuration and compression at one number of ranks and one link."""

    framework: str
    compression: str
    world_size: int
    bits_per_second: float
    step_seconds: Span
    efficiency: Span  # time of a step without an all-reduce / predicted time
    break_even_bits_per_second: Span | None  # link at which the compression gains nothing; None without compression
    reach: str  # how far it extrapolates beyond the measured range, in words; empty within


def predict_step(
    model: LinkModel,
    *,
    compression: str,
    world_size: int,
    bits_per_second: float,
    cost: Cost | None = None,
    error_factor: float = 1.0,
    latency_seconds: float = 0.0,
) -> Prediction:
    """Predict one step's seconds and efficiency, with intervals.

    Args:
        model: Of the measured steps of one configuration.
        compression: Wire format.
        world_size: Ranks.
        bits_per_second: Bandwidth of each rank's link.
        cost: Cost model of all-reduces of the same framework and controller; None: hops and sums cost nothing.
        error_factor: Of `cost` on its held-out cases.
        latency_seconds: Additional time per hop, compared with the measured steps.
    """
    span = model.step_span(compression, bits_per_second=bits_per_second, world_size=world_size)
    added = software_seconds(model, cost, compression=compression, world_size=world_size) if cost else 0.0
    waiting = 2 * (world_size - model.world_size) * latency_seconds  # of one fused message
    step = Span(
        centre=span.centre + added + waiting,
        low=span.low + added / error_factor + waiting,
        high=span.high + added * error_factor + waiting,
    )
    local = model.local_seconds["none"]
    return Prediction(
        framework=str(model.point["framework"]),
        compression=compression,
        world_size=world_size,
        bits_per_second=bits_per_second,
        step_seconds=step,
        efficiency=Span(centre=local / step.centre, low=local / step.high, high=local / step.low),
        break_even_bits_per_second=model.break_even_span(compression, world_size=world_size)
        if WIRE_FORMATS[compression].is_compressed
        else None,
        reach=model.describe_reach(bits_per_second=bits_per_second, world_size=world_size),
    )


def software_seconds(model: LinkModel, cost: Cost, *, compression: str, world_size: int) -> float:
    """Seconds that an all-reduce among `world_size` ranks takes longer than among the measured ones, without the wire's time."""
    payload = model.payload_bytes[compression] / WIRE_FORMATS[compression].value_bytes * 4
    many, few = (
        cost.predict(payload_bytes=payload, world_size=n, compression=compression)
        for n in (world_size, model.world_size)
    )
    return max(0.0, many - few)


def predict_all(
    models: Sequence[LinkModel],
    *,
    world_sizes: Sequence[int],
    links: Sequence[float],
    costs: Mapping[str, tuple[Cost, float]],
    latency_seconds: float = 0.0,
) -> list[Prediction]:
    """Predictions of every model and compression at every number of ranks and link.

    Args:
        models: Of the measured steps.
        world_sizes: Ranks; empty: those measured.
        links: Bits per second; empty: those measured.
        costs: `FRAMEWORK CONTROLLER` -> (cost model, its error factor).
        latency_seconds: Additional time per hop, compared with the measured steps.
    """
    predictions = []
    for model in models:
        cost, factor = costs.get(f"{model.point['framework']} {model.point['controller']}", (None, 1.0))
        for world_size in world_sizes or (model.world_size,):
            for link in links or model.links:
                for compression in sorted(model.local_seconds, key=list(WIRE_FORMATS).index):
                    predictions.append(
                        predict_step(
                            model,
                            compression=compression,
                            world_size=world_size,
                            bits_per_second=link,
                            cost=cost,
                            error_factor=factor,
                            latency_seconds=latency_seconds,
                        )
                    )
    return predictions

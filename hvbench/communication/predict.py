"""What a step will take on more ranks and another link: the model of steps, with that of all-reduces where one is given. Pure.

Of `hvbench.analysis.topics.links` comes the wire's time and what of it hides behind other work. What more ranks cost beside the
wire (hops, and sums of more parts) comes from an `hvbench allreduce` of the same framework, if there is one: without, it
counts as nothing, and the prediction is a lower bound. Nothing of that hides, which errs on the careful side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hvbench.analysis.topics.links import LinkModel, Span
from hvbench.communication.cost import WIRE_BYTES, Cost


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A step of one configuration and compression on so many ranks and such a link."""

    framework: str
    compression: str
    world_size: int
    bits_per_second: float
    step_seconds: Span
    efficiency: Span  # against a step that never waits for the wire
    break_even_bits_per_second: Span | None  # of this compression at that many ranks; None for none
    reach: str  # how far beyond what was measured; empty inside


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
    """A step's seconds and efficiency with their intervals; `error_factor` is how far off `cost` was on held-out cases."""
    span = model.step_span(compression, bits_per_second=bits_per_second, world_size=world_size)
    added = software_seconds(model, cost, compression=compression, world_size=world_size) if cost else 0.0
    waiting = 2 * (world_size - model.world_size) * latency_seconds  # one fused message; more would wait as often
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
        if compression != "none"
        else None,
        reach=model.describe_reach(bits_per_second=bits_per_second, world_size=world_size),
    )


def software_seconds(model: LinkModel, cost: Cost, *, compression: str, world_size: int) -> float:
    """What an all-reduce among `world_size` ranks takes longer than among the measured ones, the wire's time apart."""
    payload = model.payload_bytes[compression] / WIRE_BYTES[compression] * 4
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
    """Every model at every number of ranks and link; `costs`: `FRAMEWORK CONTROLLER` -> (model, its error factor)."""
    predictions = []
    for model in models:
        cost, factor = costs.get(f"{model.point['framework']} {model.point['controller']}", (None, 1.0))
        for world_size in world_sizes or (model.world_size,):
            for link in links or model.links:
                for compression in sorted(model.local_seconds, key=list(WIRE_BYTES).index):
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

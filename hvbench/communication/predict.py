"""Prediction of a step's time on more ranks and other links. Pure.

`hvbench.analysis.topics.links.model` gives the time on the wire and how much of it overlaps other work. What more ranks cost
besides (hops, and sums of more parts) comes from the cost model of an `hvbench allreduce` of the same framework, where
there is one: without it that cost counts as 0, and the prediction is a lower bound. It is added in full, as if none of it
overlapped other work, which predicts too long a step rather than too short a one.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hvbench.analysis.topics.links.model import LinkModel, Span
from hvbench.communication.cost import Cost
from hvbench.spec.compression import COMPRESSIONS, WIRE_FORMATS
from hvbench.training.products import busbw_factor


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What to predict for; what is None or empty is as it was measured."""

    world_sizes: Sequence[int] | None = None  # ranks
    links: Sequence[float] | None = None  # bits per second of every host's link
    payloads: Sequence[int] = ()  # bytes of float32 values, of all-reduces
    latency_seconds: float = 0.0  # additional time per hop, compared with the measured links


@dataclass(frozen=True, kw_only=True)
class StepSetting:
    """What one step is predicted for."""

    compression: str
    world_size: int
    bits_per_second: float  # of each rank's link
    latency_seconds: float = 0.0  # additional time per hop, compared with the measured links


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
    model: LinkModel, setting: StepSetting, *, cost: Cost | None = None, error_factor: float = 1.0
) -> Prediction:
    """Predict one step's seconds and efficiency, with intervals.

    Args:
        model: Of the measured steps of one configuration.
        setting: What to predict for.
        cost: Cost model of all-reduces of the same framework and controller; None: hops and sums cost nothing.
        error_factor: Of `cost` on its held-out cases.
    """
    compression, world_size, link = setting.compression, setting.world_size, setting.bits_per_second
    span = model.step_span(compression, bits_per_second=link, world_size=world_size)
    added = software_seconds(model, cost, compression=compression, world_size=world_size) if cost else 0.0
    waiting = 2 * (world_size - model.world_size) * setting.latency_seconds  # of one fused message
    least, likely, most = (waiting + each for each in (added / error_factor, added, added * error_factor))
    step = Span(centre=span.centre + likely, low=span.low + least, high=span.high + most)
    slow, centre, fast = (
        model.efficiency_span(compression, bits_per_second=link, world_size=world_size, added_seconds=each)
        for each in (most, likely, least)
    )
    is_compressed = compression != "none"
    return Prediction(
        framework=str(model.point["framework"]),
        compression=compression,
        world_size=world_size,
        bits_per_second=link,
        step_seconds=step,
        efficiency=Span(centre=centre.centre, low=slow.low, high=fast.high),
        break_even_bits_per_second=model.break_even_span(compression, world_size=world_size) if is_compressed else None,
        reach=model.describe_reach(bits_per_second=link, world_size=world_size),
    )


def software_seconds(model: LinkModel, cost: Cost, *, compression: str, world_size: int) -> float:
    """Seconds that an all-reduce among `world_size` ranks takes longer than among the measured ones, without the wire's time."""
    handed, known = model.payload_bytes[compression], compression in WIRE_FORMATS

    def predict(n: int) -> float:
        if known:
            payload = handed / WIRE_FORMATS[compression].value_bytes * 4
            return cost.predict(payload_bytes=payload, world_size=n, compression=compression)
        # Of an all-reduce that brings as many bytes across each link, and as often.
        payload = handed * COMPRESSIONS[compression].crossing_share(n) / busbw_factor(n)
        calls = COMPRESSIONS[compression].operations - WIRE_FORMATS["none"].operations
        return cost.predict(payload_bytes=payload, world_size=n) + calls * cost.call_seconds

    return max(0.0, predict(world_size) - predict(model.world_size))


def predict_all(
    models: Sequence[LinkModel], targets: Targets, *, costs: Mapping[str, Cost], factors: Mapping[str, float]
) -> list[Prediction]:
    """Predictions of every model and compression at every number of ranks and link.

    Args:
        models: Of the measured steps, one per configuration.
        targets: What to predict for.
        costs: `FRAMEWORK CONTROLLER` -> cost model of its all-reduces, where there is one.
        factors: `FRAMEWORK CONTROLLER` -> error factor of that model.
    """
    predictions = []
    for model in models:
        family = f"{model.point['framework']} {model.point['controller']}"
        settings = itertools.product(
            targets.world_sizes or (model.world_size,),
            targets.links or model.links,
            sorted(model.local_seconds, key=list(COMPRESSIONS).index),
        )
        for world_size, link, compression in settings:
            setting = StepSetting(
                compression=compression,
                world_size=world_size,
                bits_per_second=link,
                latency_seconds=targets.latency_seconds,
            )
            factor = factors.get(family, 1.0)
            predictions.append(predict_step(model, setting, cost=costs.get(family), error_factor=factor))
    return predictions

"""What the all-reduce's number format loses of gradients: values too small for it, and values too large. Pure.

fp16 reaches from 2^-24 to 65,504, and below 2^-14 every halving of a value costs a bit; bf16 has float32's range and hardly
loses any. `gradient_predivide` moves what is sent, so one choice can push gradients out at either end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hvbench.spec.compression import COMPRESSIONS, WIRE_FORMATS, WireFormat
from hvbench.spec.point import Point

CHUNK = 1 << 20  # values that are looked at together


@dataclass(frozen=True, kw_only=True)
class WireLosses:
    """One rank's gradients on the wire; norms are L2 norms, still times the loss scale."""

    values: int  # that are finite and not zero
    norm: float  # of these
    underflows: int  # of them: fewer than half of the format's bits are left, or none
    zeros: int  # of these: none
    underflow_norm: float  # of all that underflow
    overflows: int  # infinite on the wire, or after the sum over the ranks


def is_watched(point: Point) -> bool:
    """Whether a point's gradients are sent in another format than they have, at every step; what is fed back is not lost."""
    is_sent = (point.world_size or 1) > 1 and not point.has_local_updates
    return COMPRESSIONS[point.compression].wire.is_compressed and is_sent


def least_kept(wire: WireFormat) -> float:
    """The smallest value of which the format keeps half of the bits of its significand."""
    return math.ldexp(1.0, wire.least_exponent - wire.significand_bits // 2)


def least_sent(wire: WireFormat) -> float:
    """The value above which rounding to the format leaves more than zero: half of its smallest number, ties to even."""
    return math.ldexp(1.0, wire.least_exponent - wire.significand_bits - 1)


def least_infinite(wire: WireFormat) -> float:
    """The smallest value that is rounded to infinity: half a step above the largest number, whose exponent is the bias."""
    return math.ldexp(2.0 - math.ldexp(1.0, -wire.significand_bits - 1), 1 - wire.least_exponent)


def count_losses(
    gradients: Mapping[str, np.ndarray],
    averages: Mapping[str, np.ndarray],
    *,
    point: Point,
    all_finite: bool,
) -> WireLosses:
    """What the wire of `point` makes of a rank's own gradients.

    Args:
        gradients: canonical name -> this rank's own, as they are handed to the all-reduce.
        averages: canonical name -> what the all-reduce made of all ranks'.
        point: its compression and its gradient_predivide.
        all_finite: whether every rank's own are; else an average that is not finite says nothing of the wire.
    """
    wire = WIRE_FORMATS[point.compression]
    # A gradient is rounded to the format before it is divided, so the smaller and the larger of both sizes count.
    smaller, larger = min(1.0, 1 / point.gradient_predivide), max(1.0, 1 / point.gradient_predivide)
    values = underflows = zeros = overflows = 0
    squares = lost = 0.0
    for name, gradient in gradients.items():
        flat, average = np.ravel(gradient), np.ravel(averages[name])
        for start in range(0, flat.size, CHUNK):
            own = np.abs(flat[start : start + CHUNK].astype(np.float64))
            is_value = np.isfinite(own) & (own > 0)
            is_small = is_value & (own * smaller < least_kept(wire))
            is_large = is_value & (own * larger >= least_infinite(wire))
            if all_finite:
                is_large |= ~np.isfinite(average[start : start + CHUNK])
            values += int(is_value.sum())
            underflows += int(is_small.sum())
            zeros += int((is_small & (own * smaller <= least_sent(wire))).sum())
            overflows += int(is_large.sum())
            squares += float(np.square(own[is_value]).sum())
            lost += float(np.square(own[is_small]).sum())
    return WireLosses(
        values=values,
        norm=math.sqrt(squares),
        underflows=underflows,
        zeros=zeros,
        underflow_norm=math.sqrt(lost),
        overflows=overflows,
    )


def describe_risk(point: Point, *, parameters: int, scale: float) -> str | None:
    """Why a point's wire may lose gradients, from its settings alone, as one sentence; None where it hardly can.

    A gradient of norm 1 over that many `parameters` has values of 1 / sqrt(parameters) in the mean, and none above 1.
    `scale` is the loss scale that training begins with.
    """
    if not is_watched(point):
        return None
    wire, predivide = WIRE_FORMATS[point.compression], point.gradient_predivide
    what = f"{point.compression} on the wire with gradient_predivide {predivide:g}"
    smallest = least_sent(wire) * max(1.0, predivide) / scale
    usual = 1 / math.sqrt(parameters)
    if smallest > usual / 10:
        return f"{what}: gradients up to {smallest:.0e} become zero, where a gradient of norm 1 has {usual:.0e} in the mean"
    ranks = point.world_size or 1
    largest = least_infinite(wire) * min(1.0, predivide / (ranks if wire.is_summed_by_horovod else 1)) / scale
    if scale == 1.0 and largest < 1.0:
        return f"{what}: sums of gradients from {largest:.0e} on become infinite, where a gradient of norm 1 may have 1"
    return None

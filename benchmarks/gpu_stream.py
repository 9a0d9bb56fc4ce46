"""What a GPU does in one training step: how long it computes, in how many kernels, and before which of them it waits."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

PROFILED_STEPS = 3
LONGEST_GAPS = 5
LONGEST_KERNELS = 20
NAME_LENGTH = 40

Span = tuple[float, float, str]  # begin and end in microseconds, and a name


@dataclass(frozen=True, kw_only=True)
class Stream:
    """The work of the device, means of a few steps."""

    busy_seconds: float  # a step, at least one kernel or copy runs
    kernels: float  # a step, copies included
    kernel_seconds: dict[str, float]  # a step: kernel -> how long, the longest only; kernels may overlap
    gap_seconds: dict[str, float]  # a step: what the device waited for -> how long, the longest only


def profile_stream(take_step: Callable[[], None]) -> dict[str, Any]:
    """Record the kernels of a few steps; the fields of a `Stream`. Launches are a little slower while recorded, kernels are not."""
    import torch
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    take_step()
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        for _ in range(PROFILED_STEPS):
            take_step()
        torch.cuda.synchronize()
    events = (each for each in recorded.events() if each.device_type == DeviceType.CUDA)
    spans = [(each.time_range.start, each.time_range.end, each.name) for each in events]
    return asdict(summarize_stream(spans, steps=PROFILED_STEPS))


def summarize_stream(spans: Iterable[Span], *, steps: int) -> Stream:
    """What the device did in `steps` steps, from all of its kernels, which may overlap."""
    ordered = sorted(spans)
    busy, gaps, times, end, last = 0.0, Counter(), Counter(), None, ""
    for begin, stop, name in ordered:
        if end is not None and begin > end:
            gaps[f"between {last} and {shorten(name)}"] += begin - end
        times[shorten(name)] += stop - begin
        busy += max(0.0, stop - (begin if end is None else max(begin, end)))
        if end is None or stop >= end:
            end, last = stop, shorten(name)
    scale = 1e-6 / steps
    return Stream(
        busy_seconds=busy * scale,
        kernels=len(ordered) / steps,
        kernel_seconds={name: value * scale for name, value in times.most_common(LONGEST_KERNELS)},
        gap_seconds={name: value * scale for name, value in gaps.most_common(LONGEST_GAPS)},
    )


def shorten(name: str) -> str:
    """A kernel's name without its namespaces and templates, which are longer than what tells kernels apart."""
    plain = re.sub(r"\(anonymous namespace\)::|[a-z_]+::|^void ", "", name)
    return (plain.partition("(")[0].strip() or name)[:NAME_LENGTH]

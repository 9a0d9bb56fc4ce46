"""What a record's peak memory consists of, beside the estimate from its point alone."""

from __future__ import annotations

from hvbench.records.environment import native_fact
from hvbench.records.record import Record
from hvbench.spec.numerics import PRECISIONS
from hvbench.training.memory import MemoryEstimate, estimate_memory


def estimate_of(record: Record) -> MemoryEstimate | None:
    """What the point alone says of a rank's memory; None of a script, and where a rank trained on another device than the CPU."""
    if record.is_script or any(rank.device != "cpu" for rank in record.ranks):
        return None
    fact = native_fact(PRECISIONS[record.point.precision].compute_dtype)
    is_native = record.environment.get(fact) is True
    return estimate_memory(record.point, is_native=is_native)


def estimated_bytes(estimate: MemoryEstimate | None, part: str) -> int | None:
    """One part of an estimate, a field of MemoryEstimate or its `peak_bytes`."""
    return None if estimate is None else getattr(estimate, part)


def remaining_bytes(record: Record, estimate: MemoryEstimate | None) -> int | None:
    """What the rank with the highest peak gained over the point, less parameters, gradients and optimizer state.

    Activations, logits, copies, and what the allocator keeps; less what it had kept from the point before.
    """
    if estimate is None:
        return None
    rank = max(record.ranks, key=lambda rank: rank.peak_rss_bytes)
    known = estimate.parameter_bytes + estimate.gradient_bytes + estimate.optimizer_state_bytes
    return rank.peak_rss_bytes - rank.start_rss_bytes - known

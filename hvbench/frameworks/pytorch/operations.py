"""Horovod's operations in PyTorch: begun under a name, which is the same on all ranks, and waited for."""

from __future__ import annotations

import time
from typing import Any

import horovod.torch as hvd
import torch

_POLL_SECONDS = 50e-6  # sleeping for less takes as long


def start_reduction(name: str, values: torch.Tensor, **choices: Any) -> int:
    """Begin to sum or average `values` over the ranks, in their place; `choices`: Horovod's, of which and how."""
    return hvd.allreduce_async_(values, name=name, **choices)


def start_gather(name: str, values: torch.Tensor, **choices: Any) -> int:
    """Begin to hand every rank's `values` to all, one behind the other in the first dimension, in the order of the ranks; `choices`: Horovod's, of whom."""
    return hvd.allgather_async(values, name=name, **choices)


def start_parts(name: str, values: torch.Tensor, **choices: Any) -> int:
    """Begin to hand every rank its part of all ranks' `values`; parts divide the first dimension evenly; `choices`: Horovod's, of whom."""
    return hvd.alltoall_async(values, name=name, **choices)


def wait(handle: int) -> torch.Tensor:
    """What a begun operation has brought.

    Without the busy waiting of `hvd.synchronize`: on a core that ranks share it takes the time of those that are waited for.
    """
    while not hvd.poll(handle):
        time.sleep(_POLL_SECONDS)
    values = hvd.synchronize(handle)
    return values[0] if isinstance(values, tuple) else values  # an all-to-all also says how long the parts are

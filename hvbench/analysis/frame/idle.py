"""Seconds that each rank waits for its gradients to be averaged -> what it works itself, and what it stands idle for slower ranks.

A rank's step ends when all ranks' gradients have been averaged, so step times say nothing of who was late. What says it is the wait from a
rank's own last gradient to the averages: the exchange itself, which all ranks wait for, and the ranks that come later. The rank that waits
the least in a step came last, and what another waits longer than that one it stood idle. Only clocks of one rank are subtracted
from each other, so the ranks may be on hosts whose clocks differ.
"""

from __future__ import annotations

import numpy as np

from hvbench.analysis.frame.samples import LaunchSamples
from hvbench.spec.point import Point


def waits_of(samples: LaunchSamples) -> np.ndarray | None:
    """(ranks, timed steps): seconds from a rank's own last gradient to the averages; None where a rank did not record them.

    None where ranks do not wait for each other, too: of an asynchronous server's updates none is everybody's.
    """
    point, ranks = samples.record.point, sorted(samples.record.ranks, key=lambda rank: rank.rank)
    steps = samples.step_seconds.shape[1]
    if not isinstance(point, Point) or not point.is_repeatable or len(ranks) < 2:
        return None
    if any(len(rank.exchange_wait_seconds) != steps for rank in ranks):
        return None
    return samples.timed(np.array([rank.exchange_wait_seconds for rank in ranks]))


def idle_seconds(waits: np.ndarray) -> np.ndarray:
    """(ranks, steps): what each rank waits longer than the one that came last; 0 of that one."""
    return waits - waits.min(axis=0)


def own_seconds(samples: LaunchSamples, waits: np.ndarray) -> np.ndarray:
    """(ranks, steps): what is left of each rank's steps and of its waits for batches without the wait for the averages."""
    return np.maximum(samples.timed(samples.step_seconds) + samples.timed(samples.data_seconds) - waits, 0.0)


def idle_share(samples: LaunchSamples) -> float | None:
    """Idle seconds, mean over the ranks / what the timed steps took; missing where waits were not recorded."""
    waits = waits_of(samples)
    if waits is None:
        return None
    return float(idle_seconds(waits).sum(axis=1).mean() / samples.slowest.sum())


def straggler_rank(samples: LaunchSamples) -> int | None:
    """The rank whose own work took longest over all timed steps; missing likewise. That it is no chance is not said."""
    waits = waits_of(samples)
    return None if waits is None else int(own_seconds(samples, waits).sum(axis=1).argmax())

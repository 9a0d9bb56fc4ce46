"""Where the time of a step goes: ablations -> parts of a step, of one launch.

Rounds are no chain of steps: each begins at a barrier, so the ranks' skew counts once, and the slowest rank of a round is the
right one. A part is what a step takes longer with it than without it, by the slowest rank: forward passes alone, then with backward
passes, then with the update, then with the all-reduce. What the all-reduce hides behind the backward pass is therefore
no part; what of it can be seen is *exposed*. A part within the noise of zero may come out negative, and stays so.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hvbench.records.record import Ablation, RankSamples

# Parts in the order in which they are stacked: column of `point_frame` -> the word for it.
PARTS = {
    "data_seconds_median": "data",
    "forward_seconds": "forward",
    "backward_seconds": "backward",
    "exposed_communication_seconds": "exposed communication",
    "optimizer_seconds": "optimizer",
}

# What `break_down` computes: name -> (unit, meaning).
BREAKDOWN = {
    "forward_seconds": ("s", "forward passes alone; all parts: slowest rank of each round, median over rounds"),
    "backward_seconds": ("s", "forward and backward passes - forward passes alone"),
    "optimizer_seconds": ("s", "step without all-reduce - forward and backward passes: norm, clipping, update"),
    "exposed_communication_seconds": (
        "s",
        "whole step - step without all-reduce; of a round of local updates the share of a step",
    ),
    "parts_seconds": ("s", "sum of these parts and of the wait for data"),
    "parts_to_step": ("1", "that sum / (wait for data + step) as the timed steps measured them: a check"),
    "allreduce_alone_seconds": ("s", "all-reduce of all gradients with nothing beside it; missing with one rank"),
    "overlap": ("1", "1 - exposed communication / all-reduce alone; missing with one rank"),
    "clock_seconds": ("s", "what the clock itself adds to a step, measured around nothing"),
    "barrier_seconds": ("s", "the barrier before each ablation, which no clock contains"),
}


def break_down(
    ranks: Sequence[RankSamples], *, data_seconds: float, step_seconds: float, steps_of_round: int = 1
) -> dict[str, float]:
    """Names of BREAKDOWN -> values; empty unless every rank holds the same rounds of ablations.

    `data_seconds` and `step_seconds` are the medians of the timed steps, by the slowest rank. Of `steps_of_round` steps one ends in an
    exchange, as ablated whole steps do: a step has its share of what that adds.
    """
    ablations = [rank.ablation for rank in ranks]
    if not ablations or any(ablation is None for ablation in ablations):
        return {}
    kinds = {name: [getattr(ablation, name) for ablation in ablations] for name in Ablation.model_fields}
    needed = ("forward_seconds", "backward_seconds", "local_step_seconds", "step_seconds")
    if 0 in map(len, kinds["step_seconds"]) or len({len(values) for name in needed for values in kinds[name]}) > 1:
        return {}
    exchanging, local, backward, forward = (slowest(kinds[name]) for name in reversed(needed))
    exposed = (exchanging - local) / steps_of_round
    whole = local + exposed if steps_of_round > 1 else exchanging
    values = {
        "forward_seconds": forward,
        "backward_seconds": backward - forward,
        "optimizer_seconds": local - backward,
        "exposed_communication_seconds": exposed,
        "parts_seconds": data_seconds + whole,
        "parts_to_step": (data_seconds + whole) / (data_seconds + step_seconds),
    }
    if is_complete(kinds["allreduce_seconds"]) and (alone := slowest(kinds["allreduce_seconds"])) > 0:
        values |= {"allreduce_alone_seconds": alone, "overlap": 1 - (exchanging - local) / alone}
    costs = ("clock_seconds", "barrier_seconds")
    return values | {name: slowest(kinds[name]) for name in costs if is_complete(kinds[name])}


def is_complete(samples: Sequence[Sequence[float]]) -> bool:
    """Whether every rank has samples, and all as many."""
    return len({len(values) for values in samples}) == 1 and len(samples[0]) > 0


def slowest(samples: Sequence[Sequence[float]]) -> float:
    """(ranks, rounds) -> median over the rounds of the slowest rank's seconds."""
    return float(np.median(np.max(np.asarray(samples, dtype=float), axis=0)))

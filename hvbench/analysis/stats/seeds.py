"""What a launch is evidence of: launches of one seed are one piece of evidence about losses, noise and the way to a target."""

from __future__ import annotations

import numpy as np

# What a seed decides, and the machine does not.
OF_SEEDS = frozenset(
    (
        "clipped_fraction",
        "final_loss",
        "final_validation_loss",
        "final_validation_accuracy",
        "steps_to_target",
        "tokens_to_target",
    )
)
# What both decide: launches of one seed say how it scatters in that seed's training, several seeds how it scatters over them.
OF_SEEDS_AND_MACHINE = frozenset(
    ("seconds_to_target", "seconds_after_first_step_to_target", "evaluation_seconds_to_target")
)
# A target is seen to be reached at an evaluation: the column that says when the evaluation before was, which missed it.
BEFORE_TARGET = {
    "steps_to_target": "steps_before_target",
    "tokens_to_target": "tokens_before_target",
    "seconds_to_target": "seconds_before_target",
    "seconds_after_first_step_to_target": "seconds_after_first_step_before_target",
}
TO_TARGET = frozenset((*BEFORE_TARGET, "evaluation_seconds_to_target"))


def is_by_seed(metric: str, *, seeds: int) -> bool:
    """Whether the launches of a seed count as one for this metric, where launches of `seeds` seeds were measured."""
    return metric in OF_SEEDS or (metric in OF_SEEDS_AND_MACHINE and seeds > 1)


def average_by(keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The mean of the values of each distinct key, in the order of the keys where there are several a key."""
    if len(keys) == len(distinct := np.unique(keys)):
        return values
    return np.array([values[keys == key].mean() for key in distinct])

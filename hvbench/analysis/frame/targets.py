"""When a launch reached its target loss: in steps, tokens and seconds, and what evaluating took.

Evaluations are some steps apart: where the loss got there lies between the first at or under the target and the one before it.
"""

from __future__ import annotations

import math

from hvbench.analysis.frame.crossing import meet
from hvbench.analysis.frame.samples import LaunchSamples

NOT_REACHED = "not reached"


def target(samples: LaunchSamples) -> str | None:
    """`reached`, `not reached`, or missing where no target was set or nothing was evaluated."""
    if samples.record.measure.target_loss is None or not samples.evaluations:
        return None
    return "reached" if samples.reached else NOT_REACHED


def steps_at_target(samples: LaunchSamples) -> float | None:
    """Steps at which the line between the two evaluations around the target meets it; missing where it was not reached."""
    if samples.reached is None:
        return None
    steps, losses = zip(*((one.step, one.validation_loss) for one in samples.evaluations), strict=True)
    return meet(steps, losses, samples.record.measure.target_loss)


def tokens_to_target(samples: LaunchSamples) -> int | None:
    """Tokens over all ranks, from the start to the first evaluation at or under the target."""
    return tokens_until(samples, samples.reached.step) if samples.reached else None


def seconds_after_first_step_to_target(samples: LaunchSamples) -> float | None:
    """Training seconds to the target without the first step, in which a framework traces or compiles."""
    return _after_first_step(samples, samples.reached.training_seconds) if samples.reached else None


def seconds_after_first_step_before_target(samples: LaunchSamples) -> float | None:
    """The same at the evaluation before that."""
    seconds = seconds_before_target(samples)
    return None if seconds is None else _after_first_step(samples, seconds)


def _after_first_step(samples: LaunchSamples, training_seconds: float) -> float:
    return max(0.0, training_seconds - float(samples.step_seconds[:, 0].max()))


def steps_before_target(samples: LaunchSamples) -> int | None:
    """Steps at the evaluation before the one that reached the target; 0 where there is none. In between the loss got there."""
    if samples.reached is None:
        return None
    return samples.before_reached.step if samples.before_reached else 0


def tokens_before_target(samples: LaunchSamples) -> int | None:
    """The same in tokens over all ranks."""
    steps = steps_before_target(samples)
    return None if steps is None else tokens_until(samples, steps)


def seconds_before_target(samples: LaunchSamples) -> float | None:
    """The same in seconds of training, slowest rank."""
    if samples.reached is None:
        return None
    return samples.before_reached.training_seconds if samples.before_reached else 0.0


def evaluation_seconds_to_target(samples: LaunchSamples) -> float | None:
    """What the evaluations up to the target cost; not part of `seconds_to_target`."""
    return evaluation_seconds(samples, until=samples.reached.step) if samples.reached else None


def evaluation_seconds(samples: LaunchSamples, *, until: float = math.inf) -> float:
    """What the evaluations after at most `until` steps took: the largest of the ranks' own sums, as of steps."""
    return max(sum(one.seconds for one in rank.evaluations if one.step <= until) for rank in samples.record.ranks)


def tokens_until(samples: LaunchSamples, step: int) -> int | None:
    """Tokens over all ranks of the first steps, up to `step` of them."""
    return None if samples.step_tokens is None else int(samples.step_tokens[:step].sum())

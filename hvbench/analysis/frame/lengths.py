"""How long the samples of a launch's timed steps were, and the model's FLOPs per token at that length."""

from __future__ import annotations

import numpy as np

from hvbench.analysis.frame.samples import LaunchSamples
from hvbench.training.flops import attention_flops_per_token
from hvbench.training.schedule import samples_before, sequence_length_at


def timed_length(samples: LaunchSamples) -> float:
    """Tokens of a sample, the mean over the tokens of the timed steps: sequence_length, unless samples still grew.

    Of labelled texts, which have their own lengths, the mean over samples: a record does not say each one's.
    """
    record, point = samples.record, samples.record.point
    if point.has_label_file:
        tokens, first = samples.step_tokens[record.warmup_steps :], record.ranks[0].first_step + record.warmup_steps
        count = samples_before(point, first + len(tokens)) - samples_before(point, first)
        return float(tokens.sum() / count)
    if not point.length_warmup_steps:
        return point.sequence_length
    tokens, first = samples.step_tokens[record.warmup_steps :], record.ranks[0].first_step + record.warmup_steps
    lengths = [sequence_length_at(point, first + step) for step in range(len(tokens))]
    return float(np.average(lengths, weights=tokens))


def timed_flops_per_token(samples: LaunchSamples) -> float | None:
    """6 N + 12 L H Q T (PaLM, arXiv:2204.02311, app. B) with the T of the timed steps; of a script nobody knows the model."""
    model, point = samples.record.model, samples.record.point
    if model is None:
        return None
    length = timed_length(samples)
    if length == point.sequence_length:
        return model.model_flops_per_token
    missing = attention_flops_per_token(point, point.sequence_length) - attention_flops_per_token(point, length)
    return model.model_flops_per_token - missing

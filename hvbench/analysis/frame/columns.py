"""The columns of `point_frame`, listed once in `POINT_COLUMNS` with unit, meaning and the function that computes them.

A new metric is one function of a launch's samples and one line there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from hvbench.analysis.frame import idle, memory, shape, targets
from hvbench.analysis.frame.axes import AXES
from hvbench.analysis.frame.breakdown import BREAKDOWN
from hvbench.analysis.frame.ceilings import gemm_flops_per_second, ranks_together_ratio, sum_ceilings, with_library
from hvbench.analysis.frame.lengths import timed_flops_per_token, timed_length
from hvbench.analysis.frame.quantiles import P95, samples_needed, tail_quantile
from hvbench.analysis.frame.samples import LaunchSamples
from hvbench.spec.knob import Kind, kind_of, knobs_of
from hvbench.spec.point import Point
from hvbench.training.flops import hidden_flops_per_token, recomputed_flops_per_token
from hvbench.training.metrics import perplexity

DTYPES = {"str": "str", "int": "Int64", "float": "float64", "bool": "boolean"}


def tokens_per_second(samples: LaunchSamples) -> float | None:
    """Tokens of the timed steps over all ranks / elapsed seconds, the largest of the ranks' own sums: never a mean of rates."""
    if samples.step_tokens is None:
        return None
    return int(samples.step_tokens[samples.record.warmup_steps :].sum()) / elapsed_seconds(samples)


def tokens_per_step(samples: LaunchSamples) -> int | None:
    """Tokens of a step over all ranks; of a script only where all timed steps have as many."""
    if samples.record.model:
        return samples.record.model.tokens_per_step
    timed = None if samples.step_tokens is None else samples.step_tokens[samples.record.warmup_steps :]
    return int(timed[0]) if timed is not None and (timed == timed[0]).all() else None


def padding_share(samples: LaunchSamples) -> float | None:
    """Padding of the timed steps over all ranks / positions, tokens and padding; missing where rows hold no padding."""
    if samples.record.is_script or not samples.record.ranks or not samples.record.ranks[0].step_padding_tokens:
        return None
    first = samples.record.warmup_steps
    padding = sum(samples.record.ranks[0].step_padding_tokens[first : first + samples.slowest.size])
    return padding / (padding + int(samples.step_tokens[first:].sum()))


def elapsed_seconds(samples: LaunchSamples) -> float:
    """What the timed steps took, by the rank by whose clock they took longest."""
    return float(samples.slowest.sum())


def tokens_per_second_per_rank(samples: LaunchSamples) -> float | None:
    """Tokens per second of all ranks / number of ranks."""
    rate = tokens_per_second(samples)
    return None if rate is None else rate / len(samples.record.ranks)


def model_flops_per_second(samples: LaunchSamples) -> float | None:
    """Tokens per second over all ranks x the model's FLOPs per token."""
    flops = timed_flops_per_token(samples)
    return tokens_per_second(samples) * flops if flops else None


def model_flops_utilization(samples: LaunchSamples) -> float | None:
    """MFU: achieved / what this framework's own matrix products reached in the same workers, all ranks together."""
    ceiling, rate = gemm_flops_per_second(samples), model_flops_per_second(samples)
    return rate / ceiling if ceiling and rate else None


def model_flops_utilization_discounted(samples: LaunchSamples) -> float | None:
    """MFU of the FLOPs that are left once attention skips what the causal mask hides; the same without such a mask."""
    utilization, flops = model_flops_utilization(samples), timed_flops_per_token(samples)
    if not utilization or not flops:
        return None
    left = flops - hidden_flops_per_token(samples.record.point, timed_length(samples))
    return utilization * left / flops if left > 0 else None


def hardware_flops_utilization(samples: LaunchSamples) -> float | None:
    """HFU: MFU with the FLOPs of what the backward pass computes a second time; missing where it computes nothing twice."""
    utilization, flops = model_flops_utilization(samples), timed_flops_per_token(samples)
    if not utilization or not flops:
        return None
    more = recomputed_flops_per_token(with_library(samples.record), timed_length(samples))
    return utilization * (1 + more / flops) if more else None


def allreduce_busbw_bytes_per_second(samples: LaunchSamples) -> float | None:
    """Bus bandwidth of the all-reduce, slowest rank; missing where one rank is alone."""
    found = [rank.ceiling and rank.ceiling.allreduce_busbw_bytes_per_second for rank in samples.record.ranks]
    return None if None in found else min(found)


def final_loss(samples: LaunchSamples) -> float | None:
    """Training loss, mean over ranks and over the last tenth of the timed steps (at least one step).

    Of a script of those of them that it logged, by the ranks that did.
    """
    timed = samples.timed(samples.loss)
    if samples.record.is_script:
        timed = timed[:, np.isfinite(timed).any(axis=0)]
        if not timed.size:
            return None
    last = timed[:, -max(1, timed.shape[1] // 10) :]
    return float(np.nanmean(last) if samples.record.is_script else last.mean())


def final_validation_loss(samples: LaunchSamples) -> float | None:
    """Loss of the evaluation after the last step, over all ranks' samples; missing where the last one came earlier."""
    return samples.at_end.validation_loss if samples.at_end else None


def validation_perplexity(samples: LaunchSamples) -> float | None:
    """exp of the loss of the evaluation after the last step; missing where labels are predicted, and of a script."""
    if samples.record.is_script or samples.record.point.predicts_labels or not samples.at_end:
        return None
    return perplexity(samples.at_end.validation_loss)


# Name -> what it is, of `hvbench.analysis.frame.samples.label_metrics`; formulas and sources: `hvbench.training.metrics`.
LABEL_METRICS = {
    "precision": "precision of labels, the mean over classes (macro)",
    "recall": "recall, likewise",
    "f1": "F1, likewise",
    "f1_micro": "F1 of all classes' counts together (micro), which is the accuracy",
    "matthews": "Matthews' correlation coefficient of any number of classes",
    "entity_precision": "precision of entities of all types together, where tags are BIO tags: as CoNLL counts them",
    "entity_recall": "recall of entities, likewise",
    "entity_f1": "F1 of entities, likewise",
    "pearson": "Pearson's correlation of numbers; missing where either side is constant",
}


def of_labels(name: str, samples: LaunchSamples) -> float | None:
    """One metric of labels, of the evaluation after the last step."""
    return samples.at_end.metrics.get(name) if samples.at_end else None


def of_test(name: str, samples: LaunchSamples) -> float | None:
    """One metric of labels, of the test split."""
    return samples.test.metrics.get(name) if samples.test else None


def evaluated_tokens(samples: LaunchSamples) -> int | None:
    """Tokens over all ranks, from the start to the last evaluation."""
    return targets.tokens_until(samples, samples.evaluations[-1].step) if samples.evaluations else None


def loss_digest(samples: LaunchSamples) -> str | None:
    """First 12 hex digits of the SHA-256 of every rank's loss at every step (float64, rank-major); of a script only if it logs any."""
    if samples.record.is_script and not np.isfinite(samples.loss).any():
        return None
    return hashlib.sha256(np.ascontiguousarray(samples.loss, dtype="<f8").tobytes()).hexdigest()[:12]


def clipped_fraction(samples: LaunchSamples) -> float | None:
    """Of all updates, warm-up included: those whose gradient norm was above `max_gradient_norm`; missing where it is 0."""
    if samples.record.is_script:
        return None
    rank, limit = samples.record.ranks[0], samples.record.point.max_gradient_norm
    skipped = set(rank.skipped_steps)
    norms = [norm for step, norm in enumerate(rank.gradient_norm) if norm is not None and step not in skipped]
    return sum(norm > limit for norm in norms) / len(norms) if limit and norms else None


def trained_parameters(samples: LaunchSamples) -> int | None:
    """Values that an update changes; missing of a script, whose model hvbench does not know."""
    model = samples.record.model
    return None if model is None else model.parameters if model.trained_parameters is None else model.trained_parameters


def trained_parameters_share(samples: LaunchSamples) -> float | None:
    """Of all parameters; missing likewise."""
    trained = trained_parameters(samples)
    return None if trained is None else trained / samples.record.model.parameters


def peak_device_memory_bytes(samples: LaunchSamples) -> int | None:
    """Largest device allocator peak over the ranks that report one."""
    return max(
        (r.peak_device_memory_bytes for r in samples.record.ranks if r.peak_device_memory_bytes is not None),
        default=None,
    )


def joules_per_token(kind: str, samples: LaunchSamples) -> float | None:
    """Energy of the timed steps over all ranks / their tokens; `kind`: `gpu` (one a rank) or `cpu` (local rank 0 of each host).

    Missing where one of these says none, or where nobody knows the tokens.
    """
    ranks = [rank for rank in samples.record.ranks if kind == "gpu" or rank.local_rank == 0]
    joules = [rank.energy and getattr(rank.energy, f"{kind}_joules") for rank in ranks]
    if samples.step_tokens is None or None in joules or not joules:
        return None
    return sum(joules) / int(samples.step_tokens[samples.record.warmup_steps :].sum())


def least_of_gpus(name: str, samples: LaunchSamples) -> float | None:
    """The least of the ranks' values of one field of their GPUs' states; missing where any does not say it."""
    values = [rank.gpu_state and getattr(rank.gpu_state, name) for rank in samples.record.ranks]
    return None if None in values else min(values)


def exchange_and_update_seconds_per_token(samples: LaunchSamples) -> float | None:
    """Exposed communication and update of a step / its tokens over all ranks; missing without ablations, or where noise leaves nothing."""
    if not samples.parts or samples.record.model is None:
        return None
    seconds = samples.parts["exposed_communication_seconds"] + samples.parts["optimizer_seconds"]
    return seconds / samples.record.model.tokens_per_step if seconds > 0 else None


def part_of_step(name: str, samples: LaunchSamples) -> float | None:
    """One value of `break_down`; missing without ablations."""
    return samples.parts.get(name)


def of_twin(metric: Callable[[LaunchSamples], Any], samples: LaunchSamples) -> Any:
    """`metric` of a launch that hvbench trained itself; missing of a script, which does not say it."""
    return None if samples.record.is_script else metric(samples)


@dataclass(frozen=True)
class Column:
    """One column of `point_frame`: what it is, and how it comes from a complete launch."""

    name: str
    kind: str  # a key of DTYPES
    unit: str
    meaning: str
    metric: Callable[[LaunchSamples], Any] | None = None


COLUMN_KINDS = {Kind.TEXT: "str", Kind.CHOICE: "str", Kind.INTEGER: "int", Kind.NUMBER: "float", Kind.SWITCH: "bool"}


def _axis_column(name: str) -> Column:
    """The column of one field of the point."""
    field = Point.model_fields[name]
    return Column(name, COLUMN_KINDS[kind_of(field)], knobs_of(Point)[name].unit, field.description or "")


# fmt: off
POINT_COLUMNS: tuple[Column, ...] = (
    Column("launch", "int", "", "number of the record, in order of point, repeat and start: the key of all frames"),
    Column("suite", "str", "", "suite that the launch belongs to"),
    Column("point_id", "str", "", "identity of the point"),
    Column("repeat", "int", "", "which launch of the point"),
    *map(_axis_column, AXES),
    Column("trained_seed", "int", "", "the launch's own: the point's, plus the repeat where seed_per_repeat asks for that"),
    Column("is_emulated", "bool", "", "its precision is rounded to, and multiplied in fp32"),
    Column("generation", "int", "", "which set of workers ran it; one set measures a ceiling once"),
    Column("status", "str", "", "how the launch ended; metrics, but `target`, are present only for `ok`"),
    Column("phase", "str", "", "where a launch that is not `ok` ended"),
    Column("message", "str", "", "why it ended there"),
    Column("parity", "str", "", "`proven`, `not proven` or `not compared` by the check before the sweep; missing without one"),
    Column("started_at", "str", "UTC", "start of the launch, ISO 8601"),
    Column("duration_seconds", "float", "s", "wall time of the launch, set-up included"),
    Column("target_loss", "float", "nats/token", "validation loss to reach"),
    Column("threads", "int", "threads", "of each rank; the fewest where they differ",
           lambda s: min(rank.threads for rank in s.record.ranks)),
    Column("timed_steps", "int", "steps", "steps after the warm-up",
           lambda s: s.slowest.size),
    Column("tokens_per_step", "int", "tokens", "over all ranks, once batch and length have warmed up",
           tokens_per_step),
    Column("tokens_per_second", "float", "tokens/s", "all ranks' tokens of the timed steps / elapsed_seconds",
           tokens_per_second),
    Column("tokens_per_second_per_rank", "float", "tokens/s", "the same / ranks",
           tokens_per_second_per_rank),
    Column("padding_share", "float", "1", "of the timed steps' positions; padding is no token. Missing where rows hold none",
           padding_share),
    Column("elapsed_seconds", "float", "s", "timed steps alone: the largest of the ranks' own sums",
           elapsed_seconds),
    Column("slowest_rank", "int", "", "the rank with that sum",
           lambda s: s.slowest_rank),
    Column("model_flops_per_second", "float", "FLOP/s", "all ranks, without recomputation",
           model_flops_per_second),
    Column("model_flops_utilization", "float", "1", "MFU: the same / gemm_flops_per_second",
           model_flops_utilization),
    Column("model_flops_utilization_discounted", "float", "1", "the same without what a causal mask hides from attention",
           model_flops_utilization_discounted),
    Column("hardware_flops_utilization", "float", "1", "HFU: MFU with the FLOPs of what is recomputed; missing where nothing is",
           hardware_flops_utilization),
    Column("model_flops_utilization_of_machine", "float", "1",
           "model_flops_per_second / the highest gemm_flops_per_second of any framework at this precision on as many "
           "such ranks: of this repeat, chosen by the others"),
    Column("gemm_flops_per_second", "float", "FLOP/s", "matrix products at their best shape, sum over ranks",
           gemm_flops_per_second),
    Column("ranks_together_ratio", "float", "1", "matrix products of all ranks at once / of rank 0 while the others rest",
           ranks_together_ratio),
    Column("model_gemm_flops_per_second", "float", "FLOP/s", "the model's own matrix products, sum over ranks",
           lambda s: sum_ceilings(s, "model_gemm_flops_per_second")),
    Column("memory_bandwidth_bytes_per_second", "float", "B/s", "scaling in place, read and written, sum over ranks",
           lambda s: sum_ceilings(s, "memory_bandwidth_bytes_per_second")),
    Column("allreduce_busbw_bytes_per_second", "float", "B/s", "slowest rank; missing where one is alone",
           allreduce_busbw_bytes_per_second),
    Column("allreduce_bytes", "int", "B", "what one rank put on the wire for it: its gradients, at most 64 MiB of them",
           lambda s: max((rank.ceiling.allreduce_bytes for rank in s.record.ranks if rank.ceiling), default=0) or None),
    Column("ceilings_read_at", "str", "UTC", "when an earlier launch read these but gemm_flops_per_second and ranks_together_ratio; missing where "
           "this one did", lambda s: next((rank.ceiling.read_at for rank in s.record.ranks if rank.ceiling), None)),
    Column("step_seconds_median", "float", "s", "of the timed steps of slowest_rank; with sync_every above 1 of the means of its rounds",
           lambda s: np.median(s.amortized)),
    Column("step_seconds_p95", "float", "s", f"95th percentile of the same; missing where they are fewer than {samples_needed(P95)}",
           lambda s: tail_quantile(s.slowest, P95)),
    Column("step_seconds_autocorrelation", "float", "1", "lag 1, of the timed steps of slowest_rank",
           lambda s: shape.autocorrelation(s.amortized)),
    Column("step_seconds_skewness", "float", "1", "of the same, corrected for bias",
           lambda s: shape.skewness(s.amortized)),
    Column("first_timed_step_ratio", "float", "1", "first timed step / median of the other timed steps",
           lambda s: shape.first_ratio(s.amortized)),
    Column("first_step_seconds", "float", "s", "slowest rank's first step: tracing, compiling",
           lambda s: s.step_seconds[:, 0].max()),
    Column("data_seconds_median", "float", "s", "wait for a batch of slowest_rank, timed steps",
           lambda s: s.data_seconds_median),
    Column("idle_share", "float", "1", "what ranks wait for slower ones, mean over them / what the timed steps took; missing where waits were not recorded",
           idle.idle_share),
    Column("straggler_rank", "int", "", "the rank whose own work, without the waits, took longest; missing likewise",
           idle.straggler_rank),
    *(Column(name, "float", unit, meaning, partial(part_of_step, name)) for name, (unit, meaning) in BREAKDOWN.items()),
    Column("exchange_and_update_seconds_per_token", "float", "s/token",
           "(exposed_communication_seconds + optimizer_seconds) / tokens_per_step: what accumulation saves",
           exchange_and_update_seconds_per_token),
    Column("data_prepare_seconds", "float", "s", "slowest rank's preparation of the data",
           partial(of_twin, lambda s: max(rank.data_prepare_seconds for rank in s.record.ranks))),
    Column("build_seconds", "float", "s", "slowest rank's building of the model",
           partial(of_twin, lambda s: max(rank.build_seconds for rank in s.record.ranks))),
    Column("peak_rss_bytes", "int", "B", "largest over ranks",
           lambda s: max(rank.peak_rss_bytes for rank in s.record.ranks)),
    Column("start_rss_bytes", "int", "B", "largest over ranks, before the point",
           lambda s: max(rank.start_rss_bytes for rank in s.record.ranks)),
    Column("parameters", "int", "", "of the model, with what an adaptation adds",
           lambda s: s.record.model.parameters if s.record.model else None),
    Column("trained_parameters", "int", "", "those that an update changes: the ones that have gradients, and a place on the wire",
           trained_parameters),
    Column("trained_parameters_share", "float", "1", "the same / parameters",
           trained_parameters_share),
    Column("allreduce_bytes_per_step", "int", "B", "what one rank hands to the all-reduce in a step, as it goes on the wire; 0 of one rank",
           lambda s: s.record.model.allreduce_bytes_per_step if s.record.model else None),
    Column("parameter_bytes", "int", "B", "one rank's, computed",
           lambda s: memory.estimated_bytes(s.memory_estimate, "parameter_bytes")),
    Column("gradient_bytes", "int", "B", "the same",
           lambda s: memory.estimated_bytes(s.memory_estimate, "gradient_bytes")),
    Column("optimizer_state_bytes", "int", "B", "the same",
           lambda s: memory.estimated_bytes(s.memory_estimate, "optimizer_state_bytes")),
    Column("activation_bytes", "int", "B", "the remainder: peak - start - those three, of the rank with the highest peak",
           lambda s: memory.remaining_bytes(s.record, s.memory_estimate)),
    Column("estimated_peak_bytes", "int", "B", "computed; see `hvbench.training.memory`",
           lambda s: memory.estimated_bytes(s.memory_estimate, "peak_bytes")),
    Column("peak_device_memory_bytes", "int", "B", "largest over ranks; missing without a device",
           peak_device_memory_bytes),
    Column("gpu_joules_per_token", "float", "J/token", "the timed steps' energy of all ranks' GPUs; missing where nothing measures it",
           partial(joules_per_token, "gpu")),
    Column("cpu_joules_per_token", "float", "J/token", "the same of all hosts' processor packages, whoever uses them",
           partial(joules_per_token, "cpu")),
    Column("gpu_sm_clock_mhz", "float", "MHz", "least of the ranks' GPUs, at the end of the training",
           partial(least_of_gpus, "sm_clock_mhz")),
    Column("gpu_power_limit_watts", "float", "W", "the same: what their drivers let them draw",
           partial(least_of_gpus, "power_limit_watts")),
    Column("skipped_steps", "int", "steps", "updates dropped by fp16 overflow, warm-up included",
           partial(of_twin, lambda s: max(len(rank.skipped_steps) for rank in s.record.ranks))),
    Column("clipped_fraction", "float", "1", "updates with a gradient norm above max_gradient_norm, warm-up included",
           clipped_fraction),
    Column("final_loss", "float", "nats/token", "mean over ranks and the last tenth of the timed steps",
           final_loss),
    Column("loss_digest", "str", "", "of every rank's loss at every step",
           loss_digest),
    Column("final_validation_loss", "float", "nats/token", "evaluation after the last step, all ranks' samples",
           final_validation_loss),
    Column("final_validation_accuracy", "float", "1", "the same, share of samples, or pairs of texts, whose class, or words whose tag, was named",
           lambda s: s.at_end.accuracy if s.at_end else None),
    Column("final_validation_perplexity", "float", "1", "exp of final_validation_loss, of a language model",
           validation_perplexity),
    *(Column(f"final_validation_{name}", "float", "1", f"the same evaluation: {meaning}", partial(of_labels, name))
      for name, meaning in LABEL_METRICS.items()),
    Column("test_loss", "float", "nats/token", "of the test split, read once after the last step",
           lambda s: s.test.validation_loss if s.test else None),
    Column("test_accuracy", "float", "1", "the same, share of samples whose class, or words whose tag, was named",
           lambda s: s.test.accuracy if s.test else None),
    *(Column(f"test_{name}", "float", "1", f"the same: {meaning}", partial(of_test, name)) for name, meaning in LABEL_METRICS.items()),
    Column("evaluation_seconds", "float", "s", "slowest rank, all evaluations; not part of any step",
           targets.evaluation_seconds),
    Column("target", "str", "", "`reached`, or `not reached` as by all that ended otherwise than in `ok`; missing where none was set",
           targets.target),
    Column("steps_to_target", "int", "steps", "missing when not reached",
           lambda s: s.reached.step if s.reached else None),
    Column("tokens_to_target", "int", "tokens", "all ranks; missing when not reached",
           targets.tokens_to_target),
    Column("seconds_to_target", "float", "s", "training alone, slowest rank; missing when not reached",
           lambda s: s.reached.training_seconds if s.reached else None),
    Column("steps_before_target", "int", "steps", "at the evaluation before that, which missed the target; 0: there is none",
           targets.steps_before_target),
    Column("steps_at_target", "float", "steps", "in between, where the line through both evaluations' losses meets the target",
           targets.steps_at_target),
    Column("tokens_before_target", "int", "tokens", "the same, all ranks",
           targets.tokens_before_target),
    Column("seconds_before_target", "float", "s", "the same, training alone, slowest rank",
           targets.seconds_before_target),
    Column("seconds_after_first_step_to_target", "float", "s", "seconds_to_target without the first step: tracing, compiling",
           targets.seconds_after_first_step_to_target),
    Column("seconds_after_first_step_before_target", "float", "s", "the same at the evaluation before",
           targets.seconds_after_first_step_before_target),
    Column("evaluated_steps", "int", "steps", "at the last evaluation",
           lambda s: s.evaluations[-1].step if s.evaluations else None),
    Column("evaluated_tokens", "int", "tokens", "the same, all ranks",
           evaluated_tokens),
    Column("evaluated_seconds", "float", "s", "the same, training alone, slowest rank",
           lambda s: s.evaluations[-1].training_seconds if s.evaluations else None),
    Column("stopped_by", "str", "", "`target`, `patience` or `search`; missing where all steps were trained",
           lambda s: next((rank.stopped_by for rank in s.record.ranks if rank.stopped_by), None)),
    Column("evaluation_seconds_to_target", "float", "s", "evaluations on the way there",
           targets.evaluation_seconds_to_target),
)
# fmt: on
MEASURED_COLUMNS = tuple(column.name for column in POINT_COLUMNS if column.metric)

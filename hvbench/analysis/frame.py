"""Records -> DataFrames: a row per launch (`point_frame`), per rank and step (`step_frame`), per evaluation.

The columns of `point_frame` are listed once, in `POINT_COLUMNS`, with unit, meaning and the function that computes
them; a new metric is one function and one line. A launch that did not end in `ok` keeps its row, its status and its
reason; its metrics are missing (NaN), never zero.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, get_args

import numpy as np
import pandas as pd

from hvbench.analysis import memory, shape
from hvbench.analysis.breakdown import BREAKDOWN, break_down
from hvbench.record import RankSamples, Record
from hvbench.spec import OPTIMIZER_PRESETS, Point

# Axes in the order in which tables show them and sort by them; the rest of the point's fields follow.
LEADING_AXES = (
    "framework", "model", "micro_batch_size", "gradient_accumulation_steps", "precision", "compression", "world_size",
)  # fmt: skip
AXES = LEADING_AXES + tuple(name for name in Point.model_fields if name not in LEADING_AXES)
PRESET_SIZES = ("num_layers", "num_heads", "hidden_size", "vocab_size", "sequence_length")
# Fields that a choice of another one sets, unless they were set by hand.
FOLLOWS = dict.fromkeys(PRESET_SIZES, "model") | {
    name: "optimizer" for preset in OPTIMIZER_PRESETS.values() for name in preset
}
STEP_SAMPLES = ("data_seconds", "loss", "gradient_norm", "learning_rate", "loss_scale")
DTYPES = {"str": "str", "int": "Int64", "float": "float64", "bool": "boolean"}
NATIVE_FACTS = {"bf16": "native_bfloat16", "fp16": "native_float16"}  # of a record's environment


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """One evaluation of one launch, over all ranks."""

    step: int
    validation_loss: float
    samples: int
    evaluation_seconds: float
    training_seconds: float
    accuracy: float | None = None


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The samples of a complete launch as arrays; `timed` drops the warm-up. Seconds are (ranks, steps)."""

    record: Record
    step_seconds: np.ndarray
    data_seconds: np.ndarray
    loss: np.ndarray
    step_tokens: np.ndarray  # (steps,): over all ranks
    evaluations: list[Evaluated]

    @property
    def slowest(self) -> np.ndarray:
        """(timed steps,): the slowest rank's seconds of each timed step."""
        return self.timed(self.step_seconds).max(axis=0)

    def timed(self, values: np.ndarray) -> np.ndarray:
        """`values` (ranks, steps) without the warm-up steps."""
        return values[:, self.record.warmup_steps :]

    @property
    def reached(self) -> Evaluated | None:
        """The first evaluation at or under the target loss."""
        target = self.record.measure.target_loss
        return next((one for one in self.evaluations if target is not None and one.validation_loss <= target), None)


# --- metrics: one function each, of the samples of a complete launch ---


def tokens_per_second(samples: Samples) -> float:
    """Tokens of the timed steps over all ranks / sum over them of the slowest rank's seconds: never a mean of rates."""
    return int(samples.step_tokens[samples.record.warmup_steps :].sum()) / float(samples.slowest.sum())


def tokens_per_second_per_rank(samples: Samples) -> float:
    """Tokens per second of all ranks / number of ranks."""
    return tokens_per_second(samples) / len(samples.record.ranks)


def model_flops_per_second(samples: Samples) -> float:
    """Tokens per second over all ranks x (6 N + 12 L H Q T) (PaLM, arXiv:2204.02311, app. B)."""
    return tokens_per_second(samples) * samples.record.model.model_flops_per_token


def gemm_flops_per_second(samples: Samples) -> float | None:
    """Rate of matrix products at their best shape, all ranks together; missing unless every rank measured it."""
    return sum_ceilings(samples, "gemm_flops_per_second")


def model_flops_utilization(samples: Samples) -> float | None:
    """MFU: achieved / what this framework's own matrix products reached in the same workers, all ranks together."""
    ceiling = gemm_flops_per_second(samples)
    return model_flops_per_second(samples) / ceiling if ceiling else None


def allreduce_busbw_bytes_per_second(samples: Samples) -> float | None:
    """Bus bandwidth of the all-reduce, slowest rank; missing where one rank is alone."""
    found = [rank.ceiling and rank.ceiling.allreduce_busbw_bytes_per_second for rank in samples.record.ranks]
    return None if None in found else min(found)


def sum_ceilings(samples: Samples, name: str) -> float | None:
    """One figure of all ranks' ceilings, added up; missing unless every rank measured it."""
    ceilings = [rank.ceiling for rank in samples.record.ranks]
    return None if None in ceilings else sum(getattr(ceiling, name) for ceiling in ceilings)


def final_loss(samples: Samples) -> float:
    """Training loss, mean over ranks and over the last tenth of the timed steps (at least one step)."""
    timed = samples.timed(samples.loss)
    return float(timed[:, -max(1, timed.shape[1] // 10) :].mean())


def final_validation_loss(samples: Samples) -> float | None:
    """Loss of the last evaluation, over all ranks' samples."""
    return samples.evaluations[-1].validation_loss if samples.evaluations else None


def loss_digest(samples: Samples) -> str:
    """First 12 hex digits of the SHA-256 of every rank's loss at every step (float64, rank-major)."""
    return hashlib.sha256(np.ascontiguousarray(samples.loss, dtype="<f8").tobytes()).hexdigest()[:12]


def target(samples: Samples) -> str | None:
    """`reached`, `not reached`, or missing where no target was set or nothing was evaluated."""
    if samples.record.measure.target_loss is None or not samples.evaluations:
        return None
    return "reached" if samples.reached else "not reached"


def tokens_to_target(samples: Samples) -> int | None:
    """Tokens over all ranks, from the start to the first evaluation at or under the target."""
    return int(samples.step_tokens[: samples.reached.step].sum()) if samples.reached else None


def evaluation_seconds_to_target(samples: Samples) -> float | None:
    """What the evaluations up to the target cost; not part of `seconds_to_target`."""
    if not samples.reached:
        return None
    return sum(one.evaluation_seconds for one in samples.evaluations if one.step <= samples.reached.step)


def clipped_fraction(samples: Samples) -> float | None:
    """Of all updates, warm-up included: those whose gradient norm was above `max_gradient_norm`; missing where it is 0."""
    rank, limit = samples.record.ranks[0], samples.record.point.max_gradient_norm
    skipped = set(rank.skipped_steps)
    norms = [norm for step, norm in enumerate(rank.gradient_norm) if norm is not None and step not in skipped]
    return sum(norm > limit for norm in norms) / len(norms) if limit and norms else None


def peak_device_memory_bytes(samples: Samples) -> int | None:
    """Largest device allocator peak over the ranks that report one."""
    return max(
        (r.peak_device_memory_bytes for r in samples.record.ranks if r.peak_device_memory_bytes is not None),
        default=None,
    )


def data_seconds_median(samples: Samples) -> float:
    """Of the slowest rank's wait for a batch, over the timed steps."""
    return float(np.median(samples.timed(samples.data_seconds).max(axis=0)))


def part_of_step(name: str, samples: Samples) -> float | None:
    """One value of `break_down`; missing without ablations."""
    step_seconds = float(np.median(samples.slowest))
    ranks = samples.record.ranks
    return break_down(ranks, data_seconds=data_seconds_median(samples), step_seconds=step_seconds).get(name)


@dataclass(frozen=True)
class Column:
    """One column of `point_frame`: what it is, and how it comes from a complete launch."""

    name: str
    kind: str  # a key of DTYPES
    unit: str
    meaning: str
    metric: Callable[[Samples], Any] | None = None


def _point_kind(name: str) -> str:
    annotation = str(Point.model_fields[name].annotation)
    return "float" if "float" in annotation else "int" if "int" in annotation else "str"


# fmt: off
POINT_COLUMNS: tuple[Column, ...] = (
    Column("launch", "int", "", "number of the record, in order of point, repeat and start: the key of all frames"),
    Column("suite", "str", "", "suite that the launch belongs to"),
    Column("point_id", "str", "", "identity of the point"),
    Column("repeat", "int", "", "which launch of the point"),
    *(Column(name, _point_kind(name), "", Point.model_fields[name].description or "") for name in AXES),
    Column("is_emulated", "bool", "", "its precision is rounded to, and multiplied in fp32"),
    Column("generation", "int", "", "which set of workers ran it; one set measures a ceiling once"),
    Column("status", "str", "", "how the launch ended; metrics are present only for `ok`"),
    Column("phase", "str", "", "where a launch that is not `ok` ended"),
    Column("message", "str", "", "why it ended there"),
    Column("parity", "str", "", "`proven` or `not proven` by the check before the sweep; missing without one"),
    Column("started_at", "str", "UTC", "start of the launch, ISO 8601"),
    Column("duration_seconds", "float", "s", "wall time of the launch, set-up included"),
    Column("target_loss", "float", "nats/token", "validation loss to reach"),
    Column("timed_steps", "int", "steps", "steps after the warm-up",
           lambda s: s.slowest.size),
    Column("tokens_per_step", "int", "tokens", "over all ranks, once a batch that warms up is all there",
           lambda s: s.record.model.tokens_per_step),
    Column("tokens_per_second", "float", "tokens/s", "all ranks: sum of tokens / sum of the slowest ranks' seconds",
           tokens_per_second),
    Column("tokens_per_second_per_rank", "float", "tokens/s", "the same / ranks",
           tokens_per_second_per_rank),
    Column("model_flops_per_second", "float", "FLOP/s", "all ranks, without recomputation",
           model_flops_per_second),
    Column("model_flops_utilization", "float", "1", "MFU: the same / gemm_flops_per_second",
           model_flops_utilization),
    Column("model_flops_utilization_of_machine", "float", "1",
           "the same / the highest gemm_flops_per_second of all frameworks at this precision on as many such ranks"),
    Column("gemm_flops_per_second", "float", "FLOP/s", "matrix products at their best shape, sum over ranks",
           gemm_flops_per_second),
    Column("model_gemm_flops_per_second", "float", "FLOP/s", "the model's own matrix products, sum over ranks",
           lambda s: sum_ceilings(s, "model_gemm_flops_per_second")),
    Column("memory_bandwidth_bytes_per_second", "float", "B/s", "scaling in place, read and written, sum over ranks",
           lambda s: sum_ceilings(s, "memory_bandwidth_bytes_per_second")),
    Column("allreduce_busbw_bytes_per_second", "float", "B/s", "slowest rank; missing where one is alone",
           allreduce_busbw_bytes_per_second),
    Column("step_seconds_median", "float", "s", "of the slowest rank's timed steps",
           lambda s: np.median(s.slowest)),
    Column("step_seconds_p95", "float", "s", "95th percentile of the same, linear between samples",
           lambda s: np.quantile(s.slowest, 0.95)),
    Column("step_seconds_autocorrelation", "float", "1", "lag 1, of the slowest rank's timed steps",
           lambda s: shape.autocorrelation(s.slowest)),
    Column("step_seconds_skewness", "float", "1", "of the same, corrected for bias",
           lambda s: shape.skewness(s.slowest)),
    Column("first_timed_step_ratio", "float", "1", "first timed step / median of the other timed steps",
           lambda s: shape.first_ratio(s.slowest)),
    Column("first_step_seconds", "float", "s", "slowest rank's first step: tracing, compiling",
           lambda s: s.step_seconds[:, 0].max()),
    Column("data_seconds_median", "float", "s", "slowest rank's wait for a batch, timed steps",
           data_seconds_median),
    *(Column(name, "float", unit, meaning, partial(part_of_step, name)) for name, (unit, meaning) in BREAKDOWN.items()),
    Column("data_prepare_seconds", "float", "s", "slowest rank's preparation of the data",
           lambda s: max(rank.data_prepare_seconds for rank in s.record.ranks)),
    Column("build_seconds", "float", "s", "slowest rank's building of the model",
           lambda s: max(rank.build_seconds for rank in s.record.ranks)),
    Column("peak_rss_bytes", "int", "B", "largest over ranks",
           lambda s: max(rank.peak_rss_bytes for rank in s.record.ranks)),
    Column("start_rss_bytes", "int", "B", "largest over ranks, before the point",
           lambda s: max(rank.start_rss_bytes for rank in s.record.ranks)),
    Column("parameter_bytes", "int", "B", "one rank's, computed",
           lambda s: memory.estimated_bytes(s.record, "parameter_bytes")),
    Column("gradient_bytes", "int", "B", "the same",
           lambda s: memory.estimated_bytes(s.record, "gradient_bytes")),
    Column("optimizer_state_bytes", "int", "B", "the same",
           lambda s: memory.estimated_bytes(s.record, "optimizer_state_bytes")),
    Column("activation_bytes", "int", "B", "the remainder: peak - start - those three, of the rank with the highest peak",
           lambda s: memory.remaining_bytes(s.record)),
    Column("estimated_peak_bytes", "int", "B", "computed; see `hvbench.training.memory`",
           lambda s: memory.estimated_bytes(s.record, "peak_bytes")),
    Column("peak_device_memory_bytes", "int", "B", "largest over ranks; missing without a device",
           peak_device_memory_bytes),
    Column("skipped_steps", "int", "steps", "updates dropped by fp16 overflow, warm-up included",
           lambda s: max(len(rank.skipped_steps) for rank in s.record.ranks)),
    Column("clipped_fraction", "float", "1", "updates with a gradient norm above max_gradient_norm, warm-up included",
           clipped_fraction),
    Column("final_loss", "float", "nats/token", "mean over ranks and the last tenth of the timed steps",
           final_loss),
    Column("loss_digest", "str", "", "of every rank's loss at every step",
           loss_digest),
    Column("final_validation_loss", "float", "nats/token", "last evaluation, all ranks' samples",
           final_validation_loss),
    Column("final_validation_accuracy", "float", "1", "last evaluation of a classification, all ranks' samples",
           lambda s: s.evaluations[-1].accuracy if s.evaluations else None),
    Column("evaluation_seconds", "float", "s", "slowest rank, all evaluations; not part of any step",
           lambda s: sum(one.evaluation_seconds for one in s.evaluations)),
    Column("target", "str", "", "`reached` or `not reached`; missing where none was set",
           target),
    Column("steps_to_target", "int", "steps", "missing when not reached",
           lambda s: s.reached.step if s.reached else None),
    Column("tokens_to_target", "int", "tokens", "all ranks; missing when not reached",
           tokens_to_target),
    Column("seconds_to_target", "float", "s", "training alone, slowest rank; missing when not reached",
           lambda s: s.reached.training_seconds if s.reached else None),
    Column("evaluated_steps", "int", "steps", "at the last evaluation",
           lambda s: s.evaluations[-1].step if s.evaluations else None),
    Column("evaluated_tokens", "int", "tokens", "the same, all ranks",
           lambda s: s.evaluations[-1].step * s.record.model.tokens_per_step if s.evaluations else None),
    Column("evaluated_seconds", "float", "s", "the same, training alone, slowest rank",
           lambda s: s.evaluations[-1].training_seconds if s.evaluations else None),
    Column("stopped_by", "str", "", "`target` or `patience`; missing where all steps were trained",
           lambda s: next((rank.stopped_by for rank in s.record.ranks if rank.stopped_by), None)),
    Column("evaluation_seconds_to_target", "float", "s", "evaluations on the way there",
           evaluation_seconds_to_target),
)
# fmt: on
METRICS = tuple(column.name for column in POINT_COLUMNS if column.metric)


def point_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per record, with the columns of `POINT_COLUMNS`, sorted by point, repeat and start."""
    records = sort_records(records)
    rows = [_point_row(launch, record) for launch, record in enumerate(records)]
    _compare_with_machine(rows, records)
    columns = {c.name: pd.Series([row.get(c.name) for row in rows], dtype=DTYPES[c.kind]) for c in POINT_COLUMNS}
    return pd.DataFrame(columns)


def step_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per record, rank and step (counted from 1), the steps of incomplete launches included.

    `tokens` are those of all ranks up to the end of the step; `training_seconds` is this rank's clock then: its steps
    and its waits for data.
    """
    rows = []
    for launch, record in enumerate(sort_records(records)):
        shared = {"launch": launch, "point_id": record.point_id, "framework": record.point.framework,
                  "repeat": record.repeat, "status": record.outcome.status}  # fmt: skip
        for rank in sorted(record.ranks, key=lambda one: one.rank):
            clock = 0.0
            tokens = np.cumsum(tokens_of_steps(record, steps=len(rank.step_seconds)))
            for index, seconds in enumerate(rank.step_seconds):
                # A launch that failed may have its last samples in some lists only.
                values = {name: _at(getattr(rank, name), index) for name in STEP_SAMPLES}
                clock += seconds + (values["data_seconds"] or 0.0)
                rows.append(
                    {
                        **shared,
                        "rank": rank.rank,
                        "step": index + 1,
                        "is_warmup": index < record.warmup_steps,
                        "tokens": int(tokens[index]),
                        "step_seconds": seconds,
                        "training_seconds": clock,
                        **values,
                    }
                )
    integers = dict.fromkeys(("launch", "repeat", "rank", "step", "tokens"), "int64")
    texts = dict.fromkeys(("point_id", "framework", "status"), "str")
    floats = dict.fromkeys(("step_seconds", "training_seconds", *STEP_SAMPLES), "float64")
    dtypes = {**integers, **texts, "is_warmup": "bool", **floats}
    return pd.DataFrame(rows, columns=list(dtypes)).astype(dtypes)


def evaluation_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per record and evaluation that every rank finished; losses are weighted by the ranks' samples."""
    rows = [
        {"launch": launch, "point_id": record.point_id, "framework": record.point.framework, "repeat": record.repeat,
         "status": record.outcome.status, "tokens": int(tokens_of_steps(record, steps=one.step).sum()), **vars(one)}
        for launch, record in enumerate(sort_records(records))
        for one in evaluations_of(record)
    ]  # fmt: skip
    floats = dict.fromkeys(("validation_loss", "evaluation_seconds", "training_seconds", "accuracy"), "float64")
    integers = dict.fromkeys(("launch", "repeat", "step", "tokens", "samples"), "int64")
    dtypes = {**integers, **dict.fromkeys(("point_id", "framework", "status"), "str"), **floats}
    return pd.DataFrame(rows, columns=list(dtypes)).astype(dtypes)


def evaluations_of(record: Record) -> list[Evaluated]:
    """The evaluations that every rank finished, by step: sample-weighted loss, slowest rank's seconds."""
    by_rank = [{one.step: one for one in rank.evaluations} for rank in record.ranks]
    merged = []
    for step in sorted(set.intersection(*map(set, by_rank))) if by_rank else []:
        parts = [evaluations[step] for evaluations in by_rank]
        samples = sum(part.samples for part in parts)
        total = sum(part.samples * (math.nan if part.loss is None else part.loss) for part in parts)
        merged.append(
            Evaluated(
                step=step,
                validation_loss=total / samples if samples > 0 else math.nan,
                samples=samples,
                evaluation_seconds=max(part.seconds for part in parts),
                training_seconds=max(part.training_seconds for part in parts),
                accuracy=_average([part.accuracy for part in parts], samples=[part.samples for part in parts]),
            )
        )
    return merged


def _average(values: list[float | None], *, samples: list[int]) -> float | None:
    if None in values or not sum(samples):
        return None
    return sum(value * count for value, count in zip(values, samples, strict=True)) / sum(samples)


def tokens_of_steps(record: Record, *, steps: int) -> np.ndarray:
    """(steps,): tokens over all ranks of each of the first `steps` steps; all alike where the record does not list them."""
    tokens = np.full(steps, record.model.tokens_per_step, dtype=np.int64)
    listed = record.ranks[0].step_tokens[:steps] if record.ranks else []
    tokens[: len(listed)] = listed
    return tokens


def sort_records(records: Iterable[Record]) -> list[Record]:
    """Records in the order that numbers their launches, whatever order the files were read in."""
    return sorted(records, key=lambda record: (record.point_id, record.repeat, record.started_at))


def find_defect(record: Record) -> str | None:
    """Why the samples of a record that says `ok` cannot be used, or None."""
    ended_early = any(rank.stopped_by for rank in record.ranks)
    expected = record.measure.warmup_steps + (1 if ended_early else record.measure.steps)
    world_size = record.point.world_size or len(record.ranks)
    if len(record.ranks) != world_size or world_size == 0:
        return f"record holds the samples of {len(record.ranks)} of {world_size} ranks"
    for rank in record.ranks:
        lengths = {len(rank.step_seconds), len(rank.data_seconds), len(rank.loss)}
        if lengths != {len(record.ranks[0].step_seconds)} or min(lengths) < expected:
            return f"record holds {min(lengths)} of at least {expected} steps of rank {rank.rank}"
        if rank.step_tokens and not (len(rank.step_tokens) in lengths and 0 < min(rank.step_tokens)):
            return f"record does not say how many tokens each step of rank {rank.rank} had"
        if min(rank.step_seconds) <= 0:
            return f"record holds a step of rank {rank.rank} that took no time"
    point = record.point
    tokens = point.micro_batch_size * point.gradient_accumulation_steps * world_size * point.sequence_length
    if any(max(rank.step_tokens, default=0) > tokens for rank in record.ranks):
        return f"record states steps of more tokens than the {tokens} that its point means"
    if record.model.tokens_per_step != tokens or record.model.model_flops_per_token <= 0:
        return f"record states {record.model.tokens_per_step} tokens per step, its point means {tokens}"
    return None


def varying_axes(points: pd.DataFrame) -> list[str]:
    """Fields of the point with more than one value, in table order, without those that only follow from `model` or `optimizer`."""

    def varies(name: str) -> bool:
        if name in FOLLOWS:
            return bool((points.groupby(FOLLOWS[name])[name].nunique(dropna=False) > 1).any())
        return points[name].nunique(dropna=False) > 1

    return [name for name in AXES if len(points) and varies(name)]


def order_values(name: str, values: Iterable[Any]) -> list[Any]:
    """Distinct values of a point's field: in the order that `Point` declares choices, else ascending."""
    declared = get_args(Point.model_fields[name].annotation)
    distinct = {None if pd.isna(value) else value for value in values}
    return sorted(
        distinct, key=lambda v: (v is None, declared.index(v) if v in declared else 0, v if v is not None else 0)
    )


def is_emulated(record: Record) -> bool:
    """Whether its precision was rounded to and multiplied in fp32: its ceilings say so, or else the environment."""
    ceilings = [rank.ceiling for rank in record.ranks if rank.ceiling]
    if ceilings:
        return any(ceiling.is_emulated for ceiling in ceilings)
    devices = {rank.device for rank in record.ranks} or {record.point.device}
    return "cuda" not in devices and record.environment.get(NATIVE_FACTS.get(record.point.precision, "")) is False


def _compare_with_machine(rows: list[dict[str, Any]], records: list[Record]) -> None:
    """Add MFU against the best products that any framework showed at the same precision on ranks of the same kind."""
    kinds = [
        (record.point.precision, tuple(sorted((rank.device, rank.threads) for rank in record.ranks)))
        for record in records
    ]
    best: dict[Any, float] = {}
    for row, kind in zip(rows, kinds, strict=True):
        best[kind] = max(best.get(kind, 0.0), row.get("gemm_flops_per_second") or 0.0)
    for row, kind in zip(rows, kinds, strict=True):
        if best[kind] and row.get("model_flops_per_second"):
            row["model_flops_utilization_of_machine"] = row["model_flops_per_second"] / best[kind]


def _at(values: list[Any], index: int) -> Any:
    return values[index] if index < len(values) else None


def _point_row(launch: int, record: Record) -> dict[str, Any]:
    row = {
        "launch": launch,
        "suite": record.suite,
        "point_id": record.point_id,
        "repeat": record.repeat,
        **record.point.model_dump(),
        "is_emulated": is_emulated(record),
        "generation": record.generation,
        "status": record.outcome.status,
        "phase": record.outcome.phase,
        "message": record.outcome.message,
        "parity": {True: "proven", False: "not proven"}[record.parity.is_proven] if record.parity else None,
        "started_at": record.started_at,
        "duration_seconds": record.duration_seconds,
        "target_loss": record.measure.target_loss,
    }
    if record.outcome.status != "ok":
        return row
    if defect := find_defect(record):
        return row | {"status": "failed", "phase": "record", "message": defect}
    ranks: list[RankSamples] = sorted(record.ranks, key=lambda rank: rank.rank)
    samples = Samples(
        record=record,
        step_seconds=np.array([rank.step_seconds for rank in ranks]),
        data_seconds=np.array([rank.data_seconds for rank in ranks]),
        loss=np.array([[math.nan if loss is None else loss for loss in rank.loss] for rank in ranks]),
        step_tokens=tokens_of_steps(record, steps=len(ranks[0].step_seconds)),
        evaluations=evaluations_of(record),
    )
    return row | {column.name: column.metric(samples) for column in POINT_COLUMNS if column.metric}

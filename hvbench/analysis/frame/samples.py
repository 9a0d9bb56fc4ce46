"""One record -> the samples of its launch as arrays: evaluations merged over the ranks, and what cannot be used."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from hvbench.analysis.frame import memory
from hvbench.analysis.frame.breakdown import break_down
from hvbench.analysis.frame.elapsed import mean_by_round, slowest_rank, steps_of_round
from hvbench.records.environment import native_fact
from hvbench.records.record import Evaluation, LabelCounts, RankSamples, Record
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.point import Point
from hvbench.spec.script import ScriptPoint
from hvbench.training.evaluation import mean_over_ranks
from hvbench.training.memory import MemoryEstimate
from hvbench.training.metrics import ClassCounts, Moments, add_counts, add_moments
from hvbench.training.schedule import tokens_of_step


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """One evaluation of one launch, over all ranks."""

    step: int
    validation_loss: float
    samples: int
    evaluation_seconds: float
    training_seconds: float
    accuracy: float | None = None
    counts: ClassCounts | None = None  # of classes and tags
    entities: ClassCounts | None = None  # of types of entities
    metrics: dict[str, float] = field(default_factory=dict)  # of labels, by name: `label_metrics`


@dataclass(frozen=True, kw_only=True)
class LaunchSamples:
    """The samples of a complete launch as arrays; `timed` drops the warm-up. Seconds are (ranks, steps).

    What several metrics need is computed once.
    """

    record: Record
    step_seconds: np.ndarray
    data_seconds: np.ndarray
    loss: np.ndarray
    step_tokens: np.ndarray | None  # (steps,): over all ranks; None: of a script that does not say how many
    evaluations: list[Evaluated]

    @cached_property
    def slowest_rank(self) -> int:
        """The rank whose timed steps add up to most: their sum is the time that elapsed."""
        return slowest_rank(self.timed(self.step_seconds))  # all ranks are there, in order

    @cached_property
    def slowest(self) -> np.ndarray:
        """(timed steps,): that rank's seconds of each timed step."""
        return self.timed(self.step_seconds)[self.slowest_rank]

    @cached_property
    def steps_of_round(self) -> int:
        """Steps of which one ends in an exchange: above 1 where ranks make local updates."""
        return steps_of_round(self.record.point)

    @cached_property
    def amortized(self) -> np.ndarray:
        """(rounds,): seconds a step of the slowest rank, mean over each round of local updates; else of each timed step."""
        return mean_by_round(self.slowest, steps=self.steps_of_round) if self.steps_of_round > 1 else self.slowest

    @cached_property
    def data_seconds_median(self) -> float:
        """Median over the timed steps of the same rank's wait for a batch: its step contains what it waits for others."""
        return float(np.median(self.timed(self.data_seconds)[self.slowest_rank]))

    @cached_property
    def parts(self) -> dict[str, float]:
        """Names of BREAKDOWN -> values; empty without ablations."""
        return break_down(
            self.record.ranks,
            data_seconds=self.data_seconds_median,
            step_seconds=float(np.median(self.amortized)),
            steps_of_round=self.steps_of_round,
        )

    @cached_property
    def memory_estimate(self) -> MemoryEstimate | None:
        """What the point alone says of a rank's memory; None where a rank trained on another device than the CPU."""
        return memory.estimate_of(self.record)

    def timed(self, values: np.ndarray) -> np.ndarray:
        """`values` (ranks, steps) without the warm-up steps."""
        return values[:, self.record.warmup_steps :]

    @cached_property
    def at_end(self) -> Evaluated | None:
        """The evaluation after the last step; None where there was none, as in records of versions that made none there."""
        last = self.evaluations[-1] if self.evaluations else None
        return last if last and last.step == self.step_seconds.shape[1] else None

    @cached_property
    def test(self) -> Evaluated | None:
        """The evaluation of the test split; None where there is none."""
        return evaluation_of_test(self.record)

    @cached_property
    def reached(self) -> Evaluated | None:
        """The first evaluation at or under the target loss."""
        target = self.record.measure.target_loss
        return next((one for one in self.evaluations if target is not None and one.validation_loss <= target), None)

    @cached_property
    def before_reached(self) -> Evaluated | None:
        """The evaluation before that one, which missed the target; None where the first one was under it already."""
        if self.reached is None:
            return None
        return max((one for one in self.evaluations if one.step < self.reached.step), key=_step_of, default=None)


def _step_of(evaluated: Evaluated) -> int:
    return evaluated.step


def make_samples(record: Record) -> LaunchSamples:
    """The samples of a launch that ended in `ok` and has no defect (`find_defect`)."""
    ranks: list[RankSamples] = sorted(record.ranks, key=lambda rank: rank.rank)
    return LaunchSamples(
        record=record,
        step_seconds=np.array([rank.step_seconds for rank in ranks]),
        data_seconds=np.array([rank.data_seconds for rank in ranks]),
        loss=np.array([[math.nan if loss is None else loss for loss in rank.loss] for rank in ranks]),
        step_tokens=tokens_of_steps(record, steps=len(ranks[0].step_seconds)),
        evaluations=evaluations_of(record),
    )


def evaluations_of(record: Record) -> list[Evaluated]:
    """The evaluations that every rank finished, by step: sample-weighted loss, slowest rank's seconds.

    Of a script those that every rank finished which evaluates at all: many leave it to rank 0.
    """
    ranks = [rank for rank in record.ranks if rank.evaluations or not record.is_script]
    by_rank = [{one.step: one for one in rank.evaluations} for rank in ranks]
    merged = []
    for step in sorted(set.intersection(*map(set, by_rank))) if by_rank else []:
        merged.append(merge_evaluations([evaluations[step] for evaluations in by_rank]))
    return merged


def evaluation_of_test(record: Record) -> Evaluated | None:
    """The evaluation of the test split over all ranks; None where there is none."""
    parts = [rank.test for rank in record.ranks]
    return None if not parts or None in parts else merge_evaluations(parts)


def merge_evaluations(parts: Sequence[Evaluation]) -> Evaluated:
    """One evaluation from those of all ranks: means weighted by their targets, the slowest rank's seconds."""
    counts = [part.samples if part.targets is None else part.targets for part in parts]
    accuracy = mean_over_ranks([part.accuracy for part in parts], samples=counts)
    return Evaluated(
        step=parts[0].step,
        validation_loss=mean_over_ranks([part.loss for part in parts], samples=counts),
        samples=sum(part.samples for part in parts),
        evaluation_seconds=max(part.seconds for part in parts),
        training_seconds=max(part.training_seconds for part in parts),
        accuracy=None if math.isnan(accuracy) else accuracy,
        counts=join_counts([part.label_counts for part in parts]),
        entities=join_counts([part.entity_counts for part in parts]),
        metrics=label_metrics(parts),
    )


def join_counts(parts: Sequence[LabelCounts | None]) -> ClassCounts | None:
    """The counts of all ranks; None where they have none, or of different classes."""
    if None in parts or len({len(part.hits) for part in parts}) > 1:
        return None
    return add_counts(ClassCounts(**{name: np.array(values) for name, values in part}) for part in parts)


def label_metrics(parts: Sequence[Evaluation]) -> dict[str, float]:
    """Metrics of labels over all ranks, by the names that columns end in; none of a language model."""
    found, entities = (
        join_counts([getattr(part, name) for part in parts]) for name in ("label_counts", "entity_counts")
    )
    if found is not None:
        return {
            "precision": found.macro(found.precisions),
            "recall": found.macro(found.recalls),
            "f1": found.macro(found.f1s),
            "f1_micro": found.micro_f1,
            "matthews": found.matthews,
        } | ({} if entities is None else entity_metrics(entities))
    if all(part.label_moments for part in parts):
        return {"pearson": add_moments([Moments(**dict(part.label_moments)) for part in parts]).pearson}
    return {}


def entity_metrics(entities: ClassCounts) -> dict[str, float]:
    """Precision, recall and F1 of the entities of all types together (micro), as CoNLL's tables have them."""
    return {
        "entity_precision": entities.micro_precision,
        "entity_recall": entities.micro_recall,
        "entity_f1": entities.micro_f1,
    }


def tokens_of_steps(record: Record, *, steps: int) -> np.ndarray | None:
    """(steps,): tokens over all ranks of each of the first `steps` steps; from the point where the record does not list them.

    None of a script that did not say how many.
    """
    if record.model is None or not isinstance(record.point, Point):
        stated = record.ranks[0].step_tokens if record.ranks else []
        return np.array(stated[:steps], dtype=np.int64) if stated and len(stated) >= steps else None
    tokens = np.full(steps, record.model.tokens_per_step, dtype=np.int64)
    if not record.ranks:
        return tokens
    listed, first = record.ranks[0].step_tokens[:steps], record.ranks[0].first_step
    tokens[: len(listed)] = listed
    warm_up = max(record.point.batch_warmup_steps, record.point.length_warmup_steps)
    for step in range(len(listed), min(steps, warm_up - first)):
        tokens[step] = tokens_of_step(record.point, first + step)
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
    if isinstance(point, ScriptPoint):
        return None
    tokens = point.micro_batch_size * point.gradient_accumulation_steps * world_size * point.sequence_length
    if any(max(rank.step_tokens, default=0) > tokens for rank in record.ranks):
        return f"record states steps of more tokens than the {tokens} that its point means"
    if record.model is None or record.model.tokens_per_step != tokens or record.model.model_flops_per_token <= 0:
        stated = record.model.tokens_per_step if record.model else "no"
        return f"record states {stated} tokens per step, its point means {tokens}"
    return None


def is_emulated(record: Record) -> bool:
    """Whether its precision was rounded to and multiplied in fp32: its ceilings say so, or else the environment.

    Of a script's precision nothing is known.
    """
    if isinstance(record.point, ScriptPoint):
        return False
    ceilings = [rank.ceiling for rank in record.ranks if rank.ceiling]
    if ceilings:
        return any(ceiling.is_emulated for ceiling in ceilings)
    devices = {rank.device for rank in record.ranks} or {record.point.device}
    fact = native_fact(PRECISIONS[record.point.precision].compute_dtype)
    return "cuda" not in devices and record.environment.get(fact) is False

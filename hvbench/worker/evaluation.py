"""One evaluation: the loss, and how good predictions of labels or of pairs of texts are, of one rank's share of held-out samples."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hvbench.frameworks.contract import Trainer
from hvbench.records.record import finite_or_none
from hvbench.spec.point import Point
from hvbench.training.entities import count_entities, read_tags
from hvbench.training.evaluation import ValidationBatch
from hvbench.training.masking import IGNORED
from hvbench.training.metrics import ClassCounts, Moments, add_counts, add_moments, count_classes, take_moments


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """Of one rank's targets; means are None where it has none, counts and moments also where labels have none."""

    loss: float | None
    samples: int
    targets: int | None  # None: as many in each sample
    counts: ClassCounts | None
    moments: Moments | None
    pairs: float | None = None  # share of pairs of texts that were judged right
    entities: ClassCounts | None = None  # of each type of entity, where tags are BIO tags

    @property
    def accuracy(self) -> float | None:
        """Share of the targets, or pairs, that were named; None of any other language model."""
        if self.pairs is not None:
            return self.pairs
        return self.counts.accuracy if self.counts and self.samples else None


def evaluate(
    trainer: Trainer, batches: Iterable[ValidationBatch], *, point: Point, names: Sequence[str] = ()
) -> Evaluated:
    """What a trainer makes of `batches`: every target counts once; sums are float64. `names`: of classes or tags, where they have any."""
    losses, targets = [np.zeros(0)], []
    sentences: list[tuple[np.ndarray, np.ndarray]] = []  # predicted and actual tags of the words of each
    has_entities = point.is_tagger and read_tags(names) is not None
    counts = [count_classes(np.zeros(0, int), np.zeros(0, int), classes=point.num_classes)]
    moments: list[Moments] = []
    pairs = [0, 0]  # that were judged right, and all
    for batch in batches:
        starts = [] if batch.starts is None else [batch.starts]
        losses.append(trainer.evaluate(batch.inputs, batch.targets, *starts)[: batch.samples].astype(np.float64))
        wanted = batch.targets[: batch.samples]
        if wanted.ndim > 1 and batch.starts is not None:
            targets.append((wanted != IGNORED).sum(axis=1))
        if point.judges_pairs:
            is_hit = trainer.next_sentence_logits(batch.inputs).argmax(axis=-1) == batch.targets[:, 0]
            pairs = [pairs[0] + int(is_hit[: batch.samples].sum()), pairs[1] + batch.samples]
        if point.predicts_labels:
            logits = trainer.logits(batch.inputs, *starts)[: batch.samples]
            if point.is_regression and batch.samples:
                moments.append(take_moments(logits[:, 0], wanted))
            elif not point.is_regression:
                is_asked, named = wanted != IGNORED, logits.argmax(axis=-1)
                counts.append(count_classes(named[is_asked], wanted[is_asked], classes=point.num_classes))
                if has_entities:
                    sentences += [(named[row][is_asked[row]], wanted[row][is_asked[row]]) for row in range(len(wanted))]
    of_samples = np.concatenate(losses)
    weights = np.concatenate(targets) if targets else None
    return Evaluated(
        loss=float(np.average(of_samples, weights=weights)) if of_samples.size else None,
        samples=int(of_samples.size),
        targets=None if weights is None else int(weights.sum()),
        counts=add_counts(counts) if point.is_classifier or point.is_tagger else None,
        moments=add_moments(moments) if point.is_regression else None,
        pairs=pairs[0] / pairs[1] if pairs[1] else None,
        entities=count_entities(sentences, names=names) if has_entities else None,
    )


def describe_evaluation(own: Evaluated, *, step: int) -> dict[str, Any]:
    """Fields of `hvbench.records.record.Evaluation`, but for its times, of this rank's share after `step` steps."""
    counts, entities = (
        part and {name: values.tolist() for name, values in vars(part).items()} for part in (own.counts, own.entities)
    )
    return {
        "step": step,
        "loss": None if own.loss is None else finite_or_none(own.loss),
        "samples": own.samples,
        "accuracy": own.accuracy,
        "targets": own.targets,
        "label_counts": counts,
        "entity_counts": entities,
        "label_moments": own.moments and describe_moments(own.moments),
    }


def describe_moments(moments: Moments) -> dict[str, float] | None:
    """Fields of `hvbench.records.record.LabelMoments`; None where a prediction is not finite."""
    values = vars(moments)
    return dict(values) if all(math.isfinite(value) for value in values.values()) else None

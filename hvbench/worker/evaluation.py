"""One evaluation: the loss, and the accuracy of classes of samples or of pairs of texts, of one rank's share of the validation samples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hvbench.frameworks.contract import Trainer
from hvbench.spec.point import Point
from hvbench.training.evaluation import ValidationBatch
from hvbench.training.masking import IGNORED


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """Means over one rank's targets; None where it has none, and for the accuracy where no classes are predicted."""

    loss: float | None
    accuracy: float | None
    samples: int
    targets: int | None  # None: as many in each sample


def evaluate(trainer: Trainer, batches: Iterable[ValidationBatch], *, point: Point) -> Evaluated:
    """Means over the targets of `batches`, each of which counts once; sums are float64."""
    losses, hits, targets = [np.zeros(0)], [np.zeros(0)], []
    for batch in batches:
        arrays = [batch.inputs, batch.targets, *([] if batch.starts is None else [batch.starts])]
        losses.append(trainer.evaluate(*arrays)[: batch.samples].astype(np.float64))
        if batch.starts is not None:
            targets.append((batch.targets[: batch.samples] != IGNORED).sum(axis=1))
        if point.is_classifier:
            is_hit = trainer.logits(batch.inputs).argmax(axis=-1) == batch.targets
        elif point.judges_pairs:
            is_hit = trainer.next_sentence_logits(batch.inputs).argmax(axis=-1) == batch.targets[:, 0]
        else:
            continue
        hits.append(is_hit[: batch.samples].astype(np.float64))
    of_samples = np.concatenate(losses)
    accuracy = float(np.concatenate(hits).mean()) if len(hits) > 1 else None
    counts = np.concatenate(targets) if targets else None
    loss = float(np.average(of_samples, weights=counts)) if of_samples.size else None
    return Evaluated(
        loss=loss,
        accuracy=accuracy,
        samples=int(of_samples.size),
        targets=None if counts is None else int(counts.sum()),
    )

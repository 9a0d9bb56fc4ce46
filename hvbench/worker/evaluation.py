"""One evaluation: the loss, and the accuracy of a classifier, of one rank's share of the validation samples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hvbench.frameworks.contract import Trainer
from hvbench.training.evaluation import ValidationBatch


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """Means over one rank's samples; None where it has none, and for the accuracy of a language model."""

    loss: float | None
    accuracy: float | None
    samples: int


def evaluate(trainer: Trainer, batches: Iterable[ValidationBatch], *, is_classifier: bool) -> Evaluated:
    """Means over the samples of `batches`, each of which counts once; sums are float64."""
    losses, hits = [np.zeros(0)], [np.zeros(0)]
    for batch in batches:
        losses.append(trainer.evaluate(batch.inputs, batch.targets)[: batch.samples].astype(np.float64))
        if is_classifier:
            is_hit = trainer.logits(batch.inputs).argmax(axis=-1) == batch.targets
            hits.append(is_hit[: batch.samples].astype(np.float64))
    of_samples = np.concatenate(losses)
    accuracy = float(np.concatenate(hits).mean()) if is_classifier and of_samples.size else None
    return Evaluated(
        loss=float(of_samples.mean()) if of_samples.size else None, accuracy=accuracy, samples=int(of_samples.size)
    )

"""The language model that a classifier starts from: trained once per run, then read from its checkpoint."""

from __future__ import annotations

from pathlib import Path

from hvbench.frameworks.contract import Arrays
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.training.checkpoints import PARAMETERS, load_checkpoint, name_checkpoint
from hvbench.training.corpus import Corpus
from hvbench.training.packages import make_batches, pretraining_point
from hvbench.worker.loop import Loop
from hvbench.worker.worker import Worker


def pretrain(worker: Worker, point: Point, text: Corpus, *, checkpoints: Path) -> Arrays:
    """Canonical name -> weight of the language model that `point` asks for.

    The first point that asks for it trains it, on all ranks, and leaves a checkpoint in the run's folder `checkpoints`.
    Raises UsageError on a host that does not see that folder.
    """
    source, steps = pretraining_point(point), point.pretraining_steps
    path = checkpoints / "pretraining" / source.point_id / name_checkpoint(steps)
    is_trained = worker.runtime.gather(float(path.exists()))[0]  # the first rank decides for all
    if not is_trained:
        train_language_model(worker, source, text, steps=steps, folder=path.parent)
        worker.progress.enter("build")
    arrays = load_checkpoint(str(path), source, tokens_digest=text.tokens_digest).arrays
    return {name.removeprefix(PARAMETERS): value for name, value in arrays.items() if name.startswith(PARAMETERS)}


def train_language_model(worker: Worker, source: Point, text: Corpus, *, steps: int, folder: Path) -> None:
    """Train `source` for `steps` on all ranks; the last one leaves a checkpoint in `folder`. Nothing of it is timed.

    Raises Diverged.
    """
    settings = MeasureSettings(warmup_steps=1, steps=steps - 1, checkpoint_every=steps)
    loop = Loop(
        source,
        settings,
        trainer=worker.build_trainer(source),
        batches=make_batches(source, text, rank=worker.runtime.rank),
        runtime=worker.runtime,
        folder=folder,
    )
    loop.start()
    while not loop.is_done:
        worker.progress.enter("pretraining", step=loop.step, steps=loop.total_steps)
        worker.turns.step()
        loop.advance()
    loop.finish()
    worker.runtime.barrier()  # the checkpoint is written before any rank reads it
    del loop
    worker.runtime.release()

"""The language model that a classifier starts from: trained by a job of its own, then read by all that start from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hvbench.errors import UsageError
from hvbench.frameworks.contract import Arrays
from hvbench.launch.requests import PretrainRequest
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.training.checkpoints import PARAMETERS, find_checkpoint, identify_checkpoint, load_checkpoint
from hvbench.training.corpus import Corpus
from hvbench.training.packages import make_batches
from hvbench.training.pretraining import pretrained_file, pretraining_point
from hvbench.training.weights import parameter_shapes
from hvbench.worker.loop import Diverged, Loop
from hvbench.worker.worker import Worker, find_text_change, load_text


def pretrain(worker: Worker, request: PretrainRequest) -> dict[str, Any]:
    """Train the language model on all ranks, the last step leaving its checkpoint; the outcome, `ok` or `diverged`."""
    point, path = request.point, Path(request.path)
    text = load_text(point)
    if change := find_text_change(worker, text, digest=request.data_digest):
        return {"outcome": change}
    worker.runtime.release()
    worker.progress.enter("build")
    loop = Loop(
        point,
        MeasureSettings(warmup_steps=1, steps=request.steps - 1, checkpoint_every=request.steps),
        trainer=worker.build_trainer(point),
        batches=make_batches(point, text, rank=worker.runtime.rank),
        runtime=worker.runtime,
        folder=path.parent,
    )
    try:
        loop.start()
        while not loop.is_done:
            worker.progress.enter("pretraining", step=loop.step, steps=loop.total_steps)
            loop.advance()
        loop.finish()
    except Diverged as reason:
        return {"outcome": {"status": "diverged", "rank": reason.rank, "message": str(reason)}}
    worker.runtime.barrier()  # the checkpoint is written before any rank says so
    return {"outcome": {"status": "ok"}}


def load_pretrained(point: Point, text: Corpus, *, checkpoints: Path, digest: str | None = None) -> Arrays:
    """Canonical name -> weight of the language model that `point` starts from, which read `text`, of all that a classifier has, too.

    Raises UsageError on a host that does not see the run's folder `checkpoints`, or where the file is not of that `digest`.
    """
    path = checkpoints / pretrained_file(point)
    if not find_checkpoint(path).exists():
        raise UsageError(f"{path}: no pretrained weights on this host; all hosts must see the run's folder")
    found = identify_checkpoint(str(path))["digest"]
    if digest not in (None, found):
        raise UsageError(f"{path}: digest {found}, run.json says {digest}: not what the other launches started from")
    arrays = load_checkpoint(str(path), pretraining_point(point), tokens_digest=text.tokens_digest).arrays
    kept = (name for name in parameter_shapes(point) if f"{PARAMETERS}{name}" in arrays)
    return {name: arrays[f"{PARAMETERS}{name}"] for name in kept}

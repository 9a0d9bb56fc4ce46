"""A few steps of one point with every tensor written down, for the parity check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hvbench.launch.requests import TraceRequest
from hvbench.parity import trace as parity
from hvbench.records.environment import multiplies_natively
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.point import Point
from hvbench.training.packages import make_batches
from hvbench.training.weights import initial_weights, move_last_bits
from hvbench.worker.worker import Worker, load_text


def trace(worker: Worker, request: TraceRequest) -> dict[str, Any]:
    """Train a few steps from the seed's weights and keep every tensor in the request's folder, where this host sees it.

    Returns the name of the tensors' file (None: no folder here), the digests of gradients and parameters, and whether
    the device multiplies in the point's compute dtype.
    """
    point, runtime = request.point, worker.runtime
    runtime.release()
    text = load_text(point)
    batches = make_batches(point, text, rank=runtime.rank)
    worker.progress.enter("build")
    weights = None
    if request.draw is not None:
        weights = move_last_bits(initial_weights(point), seed=(point.seed, request.draw))
    trainer = worker.build_trainer(trained_as(point, steps=request.measure.steps), weights)
    worker.progress.enter("measure")
    folder = Path(request.folder)
    path = None
    if folder.is_dir():
        path = folder / f"{parity.trace_name(point, request.draw)}-rank{runtime.rank}.npz"
    steps, is_first = request.measure.steps, runtime.rank == 0
    reader = worker.open_input(point, batches, steps=range(steps))
    try:
        digests = parity.write_trace(
            path, point, trainer=trainer, batches=batches, reader=reader, steps=steps, is_first=is_first
        )
    finally:
        if reader:
            reader.close()
    trainer.close()
    return {
        "outcome": {"status": "ok"},
        "file": path.name if path else None,
        "digests": digests,
        "is_native": multiplies_natively(PRECISIONS[point.precision].compute_dtype, device=runtime.device),
    }


def trained_as(point: Point, *, steps: int) -> Point:
    """`point` as the `steps` updates of a trace train it.

    Without dropout: the two frameworks draw different masks, and only equal work can be compared tensor by tensor. And with both
    phases of 1-bit Adam, the second of a third of the updates at least: behind fewer of the first its second moments say too little.
    """
    begin = min(point.onebit_warmup_steps, max(1, 2 * steps // 3))
    return point.model_copy(update={"dropout": 0.0, "onebit_warmup_steps": begin})

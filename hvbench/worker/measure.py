"""One measured point in a worker: prepare, train, and this rank's samples and environment as the result."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvbench.frameworks.contract import Arrays, Trainer
from hvbench.launch.messages import end_file
from hvbench.launch.requests import MeasureRequest
from hvbench.records.environment import describe_environment, describe_load
from hvbench.records.steps import COLUMNS, StepWriter
from hvbench.registry import describe_framework
from hvbench.spec.exchange import STRATEGIES
from hvbench.spec.numerics import has_gemm_choice
from hvbench.spec.point import Point
from hvbench.training.checkpoints import identify_checkpoint
from hvbench.training.corpus import Corpus
from hvbench.training.files import describe_left_out
from hvbench.training.huggingface.start import identify_weights, load_weights
from hvbench.training.packages import make_batches
from hvbench.training.pretraining import pretrained_file, pretraining_point
from hvbench.worker.ablation import Ablations
from hvbench.worker.ceiling import CeilingRequest
from hvbench.worker.checkpoints import resume_trainer
from hvbench.worker.energy import make_meter
from hvbench.worker.faults import disturb
from hvbench.worker.loop import BY_SEARCH, Diverged, Loop
from hvbench.worker.memory import read_peaks, require_within, reset_peak_rss, rss_bytes
from hvbench.worker.pretrain import load_pretrained
from hvbench.worker.progress import WAITING
from hvbench.worker.samples import SampleLists
from hvbench.worker.wire import describe_losses, look_at_wire
from hvbench.worker.worker import Worker, find_change, find_text_change, load_text

NAME_LENGTH = 200  # of a class, which may be any text, in a record
PEAK_STEPS = 2  # after which a training has had its peak of memory: it is looked at then, and at the end

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A point that is ready to train, and what preparing it took."""

    text: Corpus
    trainer: Trainer
    loop: Loop
    ablations: Ablations
    load_before: Json  # of the host
    steps: StepWriter | None  # of this rank, where who follows the sweep wants to see them while it trains
    lost_state: str | None  # why a rank's own state is not that of the checkpoint it starts from
    start_rss_bytes: int
    data_prepare_seconds: float
    build_seconds: float


class InputChangedError(Exception):
    """A rank reads another text, or other initial weights, than the run was begun with; all ranks raise it."""

    def __init__(self, outcome: Json) -> None:
        super().__init__(outcome["message"])
        self.outcome = outcome


def measure(worker: Worker, request: MeasureRequest) -> Json:
    """Train one point and return `outcome`, `environment` and `samples` of this rank, or of a point not worth training.

    Turns with another launch end with the training: what is looked at afterwards would be in the other's way.
    """
    clock = worker.progress.clock
    clock.enter(WAITING)
    with worker.turns.at(request.place, steps=request.measure.steps):
        clock.enter("ceiling")
        result, prepared = measure_in_turns(worker, request)
        clock.enter(WAITING)
    if prepared:
        is_diverged = result["outcome"]["status"] == "diverged"
        is_whole = result["outcome"]["status"] != "stopped"
        if is_diverged or (is_whole and is_first_of_seed(request)):
            result["samples"]["wire"] = look_at_wire(worker, prepared.loop)
        if is_diverged:
            result["outcome"]["message"] += describe_losses(result["samples"]["wire"], request.point)
        prepared.trainer.close()
    result["samples"]["phase_seconds"] = clock.take()
    return result


def is_first_of_seed(request: MeasureRequest) -> bool:
    """Whether no earlier launch of the point trained the same seed: what its gradients lose on the wire is looked at once, for it takes seconds."""
    return request.repeat == 0 or request.measure.seed_per_repeat


def measure_in_turns(worker: Worker, request: MeasureRequest) -> tuple[Json, Prepared | None]:
    """The result, and what was trained, if anything."""
    ceiling, slowness = None, None
    if request.measure.ceilings:
        asked = CeilingRequest(
            repeat=request.repeat,
            force_emulated=request.measure.force_emulated,
            fresh=request.measure.fresh_ceilings,
        )
        ceiling, slowness = worker.ceilings.measure(worker.with_library(request.point), asked)
    if slowness:
        outcome = {"status": "skipped", "rank": worker.runtime.rank, "phase": "ceiling", "message": slowness}
        return untrained(worker, ceiling, outcome=outcome), None
    try:
        prepared = prepare(worker, request)
    except InputChangedError as reason:
        return untrained(worker, ceiling, outcome=reason.outcome), None
    try:
        outcome = train(worker, prepared)
    finally:
        prepared.loop.close()
    result = {
        "outcome": outcome,
        "environment": describe_measurement(worker, request, prepared),
        "samples": collect_samples(worker, prepared) | {"ceiling": ceiling},
    }
    if request.measure.ablation_rounds:
        result["samples"]["ablation"] = prepared.ablations.samples
    return result, prepared


def prepare(worker: Worker, request: MeasureRequest) -> Prepared:
    """Read the text, build the trainer, load the weights or the checkpoint that the point starts from."""
    point, settings, runtime = request.point, request.measure, worker.runtime
    worker.progress.enter("data")
    runtime.release()  # what the ceilings needed is no part of the point's memory
    reset_peak_rss()
    start_rss_bytes, load_before = rss_bytes(), describe_load()

    begun = time.perf_counter()
    text = load_text(point)
    if change := find_text_change(worker, text, digest=request.data_digest):
        raise InputChangedError(change)
    if point.initial_weights:
        found = {"found": identify_weights(point)["digest"], "digest": request.weights_digest}
        if change := find_change(worker, f"the weights in {point.initial_weights}", **found):
            raise InputChangedError(change)
    batches = make_batches(point, text, rank=runtime.rank)
    read = time.perf_counter()

    worker.progress.enter("build")
    if point.compile != "none":
        compile_anew(point.framework, worker.directory / "compiled")
    checkpoints = Path(request.checkpoints)
    weights = load_start(request)
    trainer = worker.build_trainer(point, weights)
    trainer = disturb(trainer, worker.progress.faults, point=point.point_id)
    folder = checkpoints / request.key if settings.checkpoint_every or settings.keep_best else None
    meter = make_meter(device=runtime.device, local_rank=worker.description.local_rank)
    loop = Loop(point, settings, trainer=trainer, batches=batches, runtime=runtime, folder=folder, meter=meter)
    lost_state = None
    if point.initial_checkpoint:
        place = {"rank": runtime.rank, "tokens_digest": text.tokens_digest}
        header, lost_state = resume_trainer(trainer, point.initial_checkpoint, point, **place)
        loop.resume(header)
    if request.may_end_early:
        loop.is_ended_early = (worker.directory / end_file(worker.progress.state["index"])).exists
    loop.reader = worker.open_input(point, batches, steps=loop.steps)  # its workers begin at once
    ablations = Ablations(loop)
    built = time.perf_counter()

    return Prepared(
        text=text,
        trainer=trainer,
        loop=loop,
        ablations=ablations,
        load_before=load_before,
        steps=StepWriter(request.steps_file) if request.steps_file and runtime.rank == 0 else None,
        lost_state=lost_state,
        start_rss_bytes=start_rss_bytes,
        data_prepare_seconds=read - begun,
        build_seconds=built - read,
    )


def compile_anew(framework: str, folder: Path) -> None:
    """Let this process's compiler keep what it compiles in `folder`, and not where an earlier launch has left it, unless the user said where.

    Else the first launch of a point would take a minute for its first step and the next ones seconds: no two of them would be alike.
    """
    for name in describe_framework(framework).compiler_caches:
        os.environ.setdefault(name, str(folder))


def load_start(request: MeasureRequest) -> Arrays | None:
    """The weights that a point starts from, of a folder or of its pretraining; None where it starts from its seed."""
    if request.point.initial_weights:
        return load_weights(request.point)
    if not request.point.is_pretrained:
        return None
    where = {"checkpoints": Path(request.checkpoints), "digest": request.pretraining_digest}
    return load_pretrained(request.point, load_text(pretraining_point(request.point)), **where)


def train(worker: Worker, prepared: Prepared) -> Json:
    """Take every step of the loop, and the rounds of ablations between them; the outcome, `ok`, `diverged` or `stopped`.

    Raises MemoryError where the process has more resident memory than its limit.
    """
    loop, progress, limit_bytes = prepared.loop, worker.progress, worker.description.memory_limit_bytes
    steps = prepared.steps
    progress.enter("evaluate" if loop.settings.evaluate_every else "first_step", steps=loop.total_steps)
    try:
        loop.start()
        while not loop.is_done:
            progress.enter(loop.phase, step=loop.step)
            with loop.paused():
                if steps and steps.is_due:
                    show_steps(steps, loop.samples)
                progress.clock.enter(WAITING)
                worker.turns.step()
                progress.clock.enter(loop.phase)
            loop.advance()
            if loop.step <= PEAK_STEPS:
                require_within(limit_bytes)
            progress.note(loss=loop.samples.loss[-1], timed_tokens=loop.timed_tokens, timed_seconds=loop.timed_seconds)
            progress.note(**loop.validation)
            prepared.ablations.interrupt(enter=progress.enter)
        loop.finish()
        require_within(limit_bytes)
    except Diverged as reason:
        return describe_divergence(reason, phase=loop.phase)
    finally:
        if steps:
            show_steps(steps, loop.samples)
    return describe_early_end(loop) if loop.samples.stopped_by == BY_SEARCH else {"status": "ok"}


def describe_early_end(loop: Loop) -> Json:
    """The outcome of a training that a search has ended."""
    message = "a search has ended it early"
    return {
        "status": "stopped",
        "phase": loop.phase,
        "message": message,
        "step": loop.step,
        "last_loss": loop.samples.loss[-1],
    }


def show_steps(steps: StepWriter, samples: SampleLists) -> None:
    """Append the samples that whoever follows the sweep has not seen."""
    steps.write({name: getattr(samples, name)[steps.steps :] for name in COLUMNS})


def describe_divergence(reason: Diverged, *, phase: str) -> Json:
    """The outcome of a training that left the finite numbers."""
    return {"status": "diverged", "rank": reason.rank, "phase": phase, "message": str(reason)}


def collect_samples(worker: Worker, prepared: Prepared) -> Json:
    """Fields of `hvbench.records.record.RankSamples`, but for ceiling and ablation."""
    loop = prepared.loop
    return {
        **vars(loop.samples),
        **worker.describe_place(),
        **(prepared.ablations.peaks or read_peaks(worker.runtime)),
        **loop.meter.describe(),
        "step_padding_tokens": loop.count_padding(),
        "first_step": loop.first_step,
        "data_prepare_seconds": prepared.data_prepare_seconds,
        "build_seconds": prepared.build_seconds,
        "start_rss_bytes": prepared.start_rss_bytes,
    }


def describe_measurement(worker: Worker, request: MeasureRequest, prepared: Prepared) -> Json:
    """The environment of a trained point: machine, framework, load, text, and the weights that it started from."""
    text, point = prepared.text, request.point
    start = Path(request.checkpoints) / pretrained_file(point) if point.is_pretrained else None
    return {
        **describe_environment(),
        "framework_versions": worker.runtime.versions(),
        "load_before": prepared.load_before,
        "load_after": describe_load(),
        "data_source": text.source,
        "data_digest": text.digest,
        "tokens_digest": text.tokens_digest,
        "text_files": text.files,
        "text_bytes": text.text_bytes,
        "text_files_left_out": sum(each.count for each in text.left_out),
        "text_bytes_left_out": sum(each.size_bytes for each in text.left_out),
        "text_left_out": describe_left_out(text.left_out) or None,
        **(
            {"class_names": [name[:NAME_LENGTH] for name in names]}
            if (names := prepared.loop.batches.class_names)
            else {}
        ),
        **({"lost_state": prepared.lost_state} if prepared.lost_state else {}),
        **({"initial_weights": identify_weights(point)} if point.initial_weights else {}),
        **({"pretraining": identify_checkpoint(str(start))} if start else {}),
        **describe_gemm(worker, point),
        "controller": os.environ.get("HOROVOD_CONTROLLER") if uses_horovod(point) else None,
        "memory_limit_bytes": worker.description.memory_limit_bytes,
    }


def describe_gemm(worker: Worker, point: Point) -> Json:
    """Which library multiplied what `gemm` lets PyTorch choose, and what the libraries took where it was measured."""
    if not has_gemm_choice(point) or worker.runtime.device != "cpu":
        return {}
    choice = worker.choose_gemm(point)
    return {"gemm": choice.library, **({"gemm_seconds": choice.seconds} if choice.seconds else {})}


def untrained(worker: Worker, ceiling: Json | None, *, outcome: Json) -> Json:
    """The result of a point that ended before its own training: its ceilings, and why."""
    return {
        "outcome": outcome,
        "environment": {
            **describe_environment(),
            "framework_versions": worker.runtime.versions(),
            "tokens_digest": None,  # nothing was trained on it
        },
        "samples": {
            **vars(SampleLists()),
            **worker.describe_place(),
            **read_peaks(worker.runtime),
            "data_prepare_seconds": 0.0,
            "build_seconds": 0.0,
            "start_rss_bytes": rss_bytes(),
            "ceiling": ceiling,
        },
    }


def uses_horovod(point: Point) -> bool:
    """Whether the point's ranks are connected by Horovod."""
    return (point.world_size or 1) > 1 and STRATEGIES[point.strategy].is_joined_by_horovod

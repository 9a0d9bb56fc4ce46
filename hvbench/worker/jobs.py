"""One rank of one framework: runs points one after the other until its list is done.

An agent starts it as `python -m hvbench.worker DIRECTORY`, DIRECTORY holding `generation.json`. It leaves files there:
`progress.json` (where it is, replaced), `result-N.json` (one a job, written once), `failure.json` (why it ended
early) and, when its agent asks with SIGUSR1, `stack.txt` (which function every thread is in). Everything that the
framework prints goes to the log that the agent opened for it.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from hvbench.communication.calls import time_case
from hvbench.communication.record import CallSettings, Case
from hvbench.frameworks import load_framework, references
from hvbench.frameworks.contract import Arrays, Runtime, Trainer
from hvbench.frameworks.parameter_server import serve_points
from hvbench.io.atomic import write_json
from hvbench.launch.diagnosis import OUT_OF_MEMORY
from hvbench.parity import trace as parity
from hvbench.records.environment import describe_environment, describe_load, multiplies_natively
from hvbench.spec.exchange import STRATEGIES
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.training import corpus
from hvbench.training.batches import Batches
from hvbench.training.checkpoints import PARAMETERS, load_checkpoint, name_checkpoint
from hvbench.training.packages import make_batches, pretraining_point
from hvbench.training.weights import initial_weights, move_last_bits
from hvbench.worker.ablation import Ablations
from hvbench.worker.ceiling import Ceilings
from hvbench.worker.faults import load_faults, slow_down, strike
from hvbench.worker.loop import Diverged, Loop, read_peaks, reset_peak_rss, rss_bytes
from hvbench.worker.turns import Turns, join_turns, keep_to_own_cores

PROGRESS_INTERVAL_SECONDS = 0.25
PR_SET_PDEATHSIG = 1

# Substrings of messages by which Horovod says that another rank is gone.
DEATH_OF_A_PEER = ("HorovodAllreduce", "Horovod has been shut down", "Connection closed by peer")


class Progress:
    """The worker's one voice while it runs: a small file that its agent reads."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "progress.json"
        self.state: dict[str, Any] = {"index": -1, "phase": None, "step": 0}
        self.faults: list[Any] = []  # what a test has planned for this rank
        self._written = 0.0

    def enter(self, phase: str, **facts: Any) -> None:
        """Say where the worker is; a new phase is written at once, steps at a calm rate."""
        is_new = phase != self.state["phase"] or facts.get("index", self.state["index"]) != self.state["index"]
        self.state |= {"phase": phase, **facts}
        now = time.monotonic()
        if is_new or now - self._written >= PROGRESS_INTERVAL_SECONDS:
            write_json(self.path, self.state, durable=False)
            self._written = now
        if is_new and self.faults:
            strike(self.faults, self.state, directory=self.path.parent)


class Worker:
    """A framework loaded once, and the jobs run in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.generation = json.loads((directory / "generation.json").read_text())
        self.progress = Progress(directory)
        self.progress.faults = load_faults(self.generation["rank"])
        self.progress.state["job"] = next((job["kind"] for job in self.generation["jobs"]), None)
        self.runtime: Runtime | None = None
        self.step_module: ModuleType | None = None
        self.ceilings: Ceilings | None = None
        self.turns = Turns()

    def run(self) -> None:
        """Load the framework, join the ranks, do every job."""
        self.progress.enter("start")
        placement = {key: self.generation[key] for key in ("rank", "world_size", "local_rank", "threads", "device")}
        placement["strategy"] = self.generation.get("strategy", "horovod")
        framework = self.generation["framework"]
        keep_to_own_cores(local_rank=self.generation["local_rank"], local_size=self.generation["world_size"])
        is_reference = framework in references.COLLECTIVES
        self.runtime = (references if is_reference else load_framework(framework, "runtime")).Runtime(**placement)
        if not is_reference:
            self.step_module = load_framework(framework, "step")
            self.ceilings = Ceilings(framework, self.runtime)
            self.turns = join_turns(rank=self.runtime.rank, world_size=self.runtime.world_size)
        for index, job in enumerate(self.generation["jobs"]):
            if job["kind"] == "allreduce":
                result = self.time_allreduce(index, job)
                write_json(self.directory / f"result-{index}.json", result)
                continue
            point = Point.model_validate(job["point"])
            first = "ceiling" if job["kind"] == "measure" else "data"
            self.progress.enter(
                first, index=index, step=0, loss=None, timed_steps=0, point=point.point_id, job=job["kind"]
            )
            settings = MeasureSettings.model_validate(job["measure"])
            with self.turns.at(job.get("place"), steps=settings.steps):
                result = JOBS[job["kind"]](self, point, settings)
            write_json(self.directory / f"result-{index}.json", result)
        self.progress.enter("finished")
        self.runtime.shutdown()

    def measure(self, point: Point, settings: MeasureSettings) -> dict[str, Any]:
        """Train one point and return this rank's samples."""
        ceiling, slowness = None, None
        if settings.ceilings:
            ceiling, slowness = self.ceilings.measure(point, force_emulated=settings.force_emulated)
        if slowness:
            return self.skip(ceiling, reason=slowness)
        self.progress.enter("data")
        self.runtime.release()  # what the ceilings needed is no part of the point's memory
        reset_peak_rss()
        start_rss_bytes = rss_bytes()
        load_before = describe_load()
        begun = time.perf_counter()
        text = load_text(point.data, point.vocab_size)
        batches = make_batches(point, text, rank=self.runtime.rank)
        prepared = time.perf_counter()
        self.progress.enter("build")
        trained = self.pretrain(point, text) if point.is_pretrained else None
        trainer = slow_down(self.build_trainer(point, trained), self.progress.faults, point=point.point_id)
        folder = self.checkpoints / self.job["key"] if settings.checkpoint_every else None
        loop = self.make_loop(point, settings, trainer=trainer, batches=batches, folder=folder)
        if point.initial_checkpoint:
            checkpoint = load_checkpoint(point.initial_checkpoint, point, tokens_digest=text.tokens_digest)
            trainer.load_state(dict(checkpoint.arrays))
            loop.resume(checkpoint.header)
        ablations = Ablations(loop)
        built = time.perf_counter()
        self.progress.enter("evaluate" if settings.evaluate_every else "first_step", steps=loop.total_steps)
        outcome: dict[str, Any] = {"status": "ok"}
        try:
            loop.start()
            timed_seconds = 0.0
            while not loop.is_done:
                self.progress.enter(loop.phase, step=loop.step)
                with loop.paused():
                    self.turns.step()
                loop.advance()
                if loop.timed_steps:
                    timed_seconds += loop.samples.step_seconds[-1]
                state = {"loss": loop.samples.loss[-1], "timed_steps": loop.timed_steps, "timed_seconds": timed_seconds}
                self.progress.state |= state
                ablations.interrupt(enter=self.progress.enter)
        except Diverged as reason:
            outcome = {"status": "diverged", "rank": self.runtime.rank, "phase": loop.phase, "message": str(reason)}
        result = {
            "outcome": outcome,
            "environment": {
                **describe_environment(),
                "framework_versions": self.runtime.versions(),
                "load_before": load_before,
                "load_after": describe_load(),
                "data_source": text.source,
                "data_digest": text.digest,
                "tokens_digest": text.tokens_digest,
                "text_bytes": text.text_bytes,
                "controller": os.environ.get("HOROVOD_CONTROLLER") if uses_horovod(point) else None,
                "memory_limit_bytes": self.generation.get("memory_limit_bytes"),
            },
            "samples": {
                **vars(loop.samples),
                "first_step": loop.first_step,
                **self.describe_place(),
                "data_prepare_seconds": prepared - begun,
                "build_seconds": built - prepared,
                **(ablations.peaks or read_peaks(self.runtime)),
                "start_rss_bytes": start_rss_bytes,
                "ceiling": ceiling,
            },
        }
        if outcome["status"] == "ok" and settings.ablation_rounds:
            result["samples"]["ablation"] = ablations.samples
        trainer.close()
        return result

    @property
    def job(self) -> dict[str, Any]:
        """The job that is running, as the launcher wrote it."""
        return self.generation["jobs"][self.progress.state["index"]]

    @property
    def checkpoints(self) -> Path:
        """The run's folder of checkpoints."""
        return Path(self.job["checkpoints"])

    def make_loop(
        self, point: Point, settings: MeasureSettings, *, trainer: Trainer, batches: Batches, folder: Path | None
    ) -> Loop:
        """A loop that leaves checkpoints in `folder`, from the first rank alone: all ranks hold the same parameters."""
        kept = folder if self.runtime.rank == 0 else None
        return Loop(point, settings, trainer=trainer, batches=batches, runtime=self.runtime, folder=kept)

    def pretrain(self, point: Point, text: corpus.Corpus) -> Arrays:
        """Weights of the language model that a classifier starts from, by way of a checkpoint in the run's folder.

        The first point that asks for them trains them, on all ranks; raises UsageError on a host that does not see it.
        """
        source, steps = pretraining_point(point), point.pretraining_steps
        path = self.checkpoints / "pretraining" / source.point_id / name_checkpoint(steps)
        if not self.runtime.gather(float(path.exists()))[0]:  # the first rank decides for all
            settings = MeasureSettings(warmup_steps=1, steps=steps - 1, checkpoint_every=steps)
            batches = make_batches(source, text, rank=self.runtime.rank)
            trainer = self.build_trainer(source)
            loop = self.make_loop(source, settings, trainer=trainer, batches=batches, folder=path.parent)
            loop.start()
            while not loop.is_done:
                self.progress.enter("pretraining", step=loop.step, steps=loop.total_steps)
                self.turns.step()
                loop.advance()
            self.runtime.barrier()
            del loop, trainer
            self.runtime.release()
            self.progress.enter("build")
        arrays = load_checkpoint(str(path), source, tokens_digest=text.tokens_digest).arrays
        return {name.removeprefix(PARAMETERS): value for name, value in arrays.items() if name.startswith(PARAMETERS)}

    def skip(self, ceiling: dict[str, Any], *, reason: str) -> dict[str, Any]:
        """What a point leaves that is not trained: its ceilings and why."""
        per_step = ("step_seconds", "data_seconds", "loss", "gradient_norm", "learning_rate", "loss_scale")
        return {
            "outcome": {"status": "skipped", "rank": self.runtime.rank, "phase": "ceiling", "message": reason},
            "environment": {
                **describe_environment(),
                "framework_versions": self.runtime.versions(),
                "tokens_digest": None,  # no text was read
            },
            "samples": {
                **{
                    name: []
                    for name in (
                        *per_step,
                        "step_tokens",
                        "skipped_steps",
                        "evaluations",
                        "gradient_noise",
                        "overflows",
                    )
                },
                **self.describe_place(),
                "data_prepare_seconds": 0.0,
                "build_seconds": 0.0,
                **read_peaks(self.runtime),
                "start_rss_bytes": rss_bytes(),
                "ceiling": ceiling,
            },
        }

    def describe_place(self) -> dict[str, Any]:
        """Where this rank runs, as its samples say it."""
        return {
            **{key: self.generation[key] for key in ("host", "local_rank", "threads")},
            "rank": self.runtime.rank,
            "device": self.runtime.device,
        }

    def trace(self, point: Point, settings: MeasureSettings) -> dict[str, Any]:
        """Train one point a few steps; keep every tensor in the folder that `hvbench.parity.run` named, if seen here.

        Without dropout: the twins draw other masks, and only what is equal can be compared tensor by tensor.
        """
        self.runtime.release()
        text = load_text(point.data, point.vocab_size)
        batches = make_batches(point, text, rank=self.runtime.rank)
        self.progress.enter("build")
        job = self.generation["jobs"][self.progress.state["index"]]
        draw = job["draw"]
        weights = None if draw is None else move_last_bits(initial_weights(point), seed=(point.seed, draw))
        trainer = self.build_trainer(point.model_copy(update={"dropout": 0.0}), weights)
        self.progress.enter("measure")
        folder = Path(job["folder"])
        path = folder / f"{parity.trace_name(point, draw)}-rank{self.runtime.rank}.npz" if folder.is_dir() else None
        is_first = self.runtime.rank == 0
        digests = parity.write_trace(
            path, point, trainer=trainer, batches=batches, steps=settings.steps, is_first=is_first
        )
        trainer.close()
        return {
            "outcome": {"status": "ok"},
            "file": path.name if path else None,
            "digests": digests,
            "is_native": multiplies_natively(PRECISIONS[point.precision].compute_dtype, device=self.runtime.device),
        }

    def time_allreduce(self, index: int, job: dict[str, Any]) -> dict[str, Any]:
        """Time one case of `hvbench allreduce`: fields of `hvbench.communication.record.RankCalls`, and the environment."""
        case, settings = Case.model_validate(job["case"]), CallSettings.model_validate(job["settings"])
        self.progress.enter("build", index=index, step=0, point=case.case_id, job=job["kind"])
        self.runtime.release()
        kind = references.COLLECTIVES.get(case.implementation)
        kind = kind or load_framework(case.implementation, "collective").Collective
        collective = kind(case.payload_bytes // 4, compression=case.compression, runtime=self.runtime)
        load_before = describe_load()
        calls = time_case(case, settings, collective, runtime=self.runtime, enter=self.progress.enter)
        loads = {"load_before": load_before, "load_after": describe_load()}
        return {
            "calls": {**{key: self.generation[key] for key in ("host", "rank", "local_rank", "threads")}, **calls},
            "environment": {**describe_environment(), "framework_versions": self.runtime.versions(), **loads},
        }

    def build_trainer(self, point: Point, trained: Arrays | None = None) -> Trainer:
        """The twin's trainer with the common initial weights, but for those that are `trained` already."""
        precision = PRECISIONS[point.precision]
        weights = initial_weights(point, dtype=precision.parameter_dtype) | (trained or {})
        return self.step_module.Trainer(point, weights, precision=precision, runtime=self.runtime)


def uses_horovod(point: Point) -> bool:
    """Whether Horovod brings the point's ranks together."""
    return (point.world_size or 1) > 1 and STRATEGIES[point.strategy].is_joined_by_horovod


JOBS: dict[str, Callable[[Worker, Point, MeasureSettings], dict[str, Any]]] = {
    "measure": Worker.measure,
    "trace": Worker.trace,
}


@cache
def load_text(data: str, vocab_size: int) -> corpus.Corpus:
    """The tokens of `data`, read once a worker."""
    return corpus.prepare(data, vocab_size=vocab_size)


def describe_failure(error: BaseException) -> dict[str, Any]:
    """Status and one line for an exception that ended a worker; `is_echo` marks the death of a peer seen from here."""
    message = f"{type(error).__name__}: {error}".strip(": \n").splitlines()
    line = message[0] if len(message) == 1 else f"{message[0]} … {message[-1]}"
    is_oom = isinstance(error, MemoryError) or any(text in str(error) for text in OUT_OF_MEMORY)
    if is_oom:  # TensorFlow says it somewhere in the middle
        line = next((each for each in message if any(text in each for text in OUT_OF_MEMORY)), line)
    line = "".join(each if each.isprintable() else " " for each in line)
    is_echo = type(error).__name__ == "HorovodInternalError" or any(text in str(error) for text in DEATH_OF_A_PEER)
    return {"status": "oom" if is_oom else "failed", "message": line[:500], "is_echo": is_echo and not is_oom}


def die_with_parent(parent: int | None) -> None:
    """Ask the kernel to kill this process when its agent ends, however the agent ends (Linux)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent not in (None, os.getppid()):
        os._exit(1)  # it ended before we could ask


def limit_memory(limit_bytes: int | None) -> None:
    """Let allocations fail beyond `limit_bytes` of private writable memory (None: no limit).

    RLIMIT_DATA and not RLIMIT_AS: a framework maps far more addresses than it ever uses.
    """
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    soft = hard if limit_bytes is None else limit_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def report_failure(directory: Path, error: BaseException, *, progress: Progress | None) -> None:
    """Leave `failure.json`; the memory that a failed step holds is given up first, for this needs some too."""
    limit_memory(None)
    traceback.print_exc()
    traceback.clear_frames(error.__traceback__)
    state = progress.state if progress else {}
    place = {"phase": state.get("phase") or "start", "index": state.get("index", -1)}
    write_json(directory / "failure.json", {**describe_failure(error), **place})


def main(directory: Path) -> None:
    """Run the generation described in `directory`; never returns."""
    worker = None
    try:
        worker = Worker(directory)
        die_with_parent(worker.generation.get("agent_pid"))
        limit_memory(worker.generation.get("memory_limit_bytes"))
        (directory / "pid").write_text(str(os.getpid()))
        with (directory / "stack.txt").open("w") as stack:
            faulthandler.register(signal.SIGUSR1, file=stack)
            serve_points() if worker.generation.get("role") == "server" else worker.run()
    except BaseException as error:  # the last line of defence: whatever it was, the agent must learn of it
        try:
            report_failure(directory, error, progress=worker.progress if worker else None)
            sys.stderr.flush()
        finally:
            os._exit(1)  # Horovod's own exit would wait for peers that may be gone
    sys.stdout.flush()
    os._exit(0)


def find_directory(argument: str) -> Path:
    """The folder that an agent has made for this process; under mpirun, which starts all alike, its rank's below that."""
    rank = os.environ.get("OMPI_COMM_WORLD_RANK")
    return Path(argument) if rank is None else Path(argument) / f"rank{rank}"

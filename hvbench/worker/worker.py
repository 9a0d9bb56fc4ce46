"""What all jobs of one worker share: the framework, loaded once, this rank's place, and the texts that were read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from hvbench.frameworks import load_framework, references
from hvbench.frameworks.contract import Arrays, Input, Runtime, Trainer
from hvbench.launch.messages import WorkerDescription
from hvbench.launch.own_process import keep_to_own_cores
from hvbench.launch.requests import JobKind
from hvbench.plan.estimates import ceiling_question
from hvbench.records.float32 import require_ieee_float32
from hvbench.records.source import read_source
from hvbench.spec.numerics import PRECISIONS, has_gemm_choice
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.training.batches import Batches
from hvbench.training.corpus import Corpus
from hvbench.training.labelled.source import source_of
from hvbench.training.packages import prepare_text
from hvbench.training.weights import initial_weights
from hvbench.worker.ceiling import Ceilings
from hvbench.worker.ceiling_process import CeilingProcess
from hvbench.worker.faults import load_faults
from hvbench.worker.gemm import GemmChoice, choose_gemm, is_open
from hvbench.worker.local_ceiling import LocalCeilings
from hvbench.worker.progress import ProgressFile
from hvbench.worker.turns import Turns, join_turns

OF_A_POINT = (JobKind.MEASURE, JobKind.TRACE, JobKind.PRETRAIN)  # the jobs that train


class Worker:
    """One rank of one framework."""

    def __init__(self, directory: Path) -> None:
        """Read what there is to do; nothing is loaded yet."""
        read_source()  # now: the checkout may have changed by the time at which a record names it
        self.directory = directory
        self.description = WorkerDescription.from_json(
            json.loads((directory / "generation.json").read_text(encoding="utf-8"))
        )
        self.progress = ProgressFile(directory, faults=load_faults(self.description.rank))
        self.runtime: Runtime | None = None
        self.trainer_module: ModuleType | None = (
            None  # the twin's `trainer`; None for an implementation without training
        )
        self.ceilings: Ceilings | None = None
        self.ceiling_process: CeilingProcess | None = None
        self.turns = Turns()
        self._gemm_choices: dict[tuple[Any, ...], GemmChoice] = {}

    def load(self) -> None:
        """Import the framework and join the other ranks. Raises UsageError where this host changes what fp32 is."""
        require_ieee_float32()
        about = self.description
        keep_to_own_cores(local_rank=about.local_rank, local_size=about.world_size)
        if about.framework in references.COLLECTIVES:
            self.runtime = references.Runtime(world_size=about.world_size, strategy=about.strategy, **self._place)
            return
        modules = {name: load_framework(about.framework, name) for name in ("runtime", "trainer", "ceiling")}
        if needs_ceiling_process(about.jobs) and about.device != "cuda":  # before the framework starts anything
            self.ceiling_process = CeilingProcess(lambda: self._make_local_ceilings(modules["runtime"]))
        make = modules["runtime"].Runtime
        self.runtime = make(world_size=about.world_size, strategy=about.strategy, **self._place)
        self.trainer_module = modules["trainer"]
        self.ceilings = self._make_ceilings()
        self.turns = join_turns(rank=self.runtime.rank, world_size=self.runtime.world_size)

    def close(self) -> None:
        """End the process beside this one, if there is one."""
        process, self.ceiling_process = self.ceiling_process, None
        if process:
            process.close()

    def _make_ceilings(self) -> Ceilings:
        """Measured beside this process on a processor, and in it on a GPU, whose allocator starts a peak anew for each point."""
        about = self.description
        if self.runtime.device != "cpu":
            self.close()
        local = self.ceiling_process or LocalCeilings(about.framework, self.runtime)
        return Ceilings(about.framework, self.runtime, threads=about.threads, local=local)

    def _make_local_ceilings(self, module: ModuleType) -> LocalCeilings:
        """The ceilings of a process that is alone, whatever ranks this one joins."""
        runtime = module.Runtime(world_size=1, **self._place | {"device": "cpu"})
        return LocalCeilings(self.description.framework, runtime)

    @property
    def _place(self) -> dict[str, Any]:
        about = self.description
        return {name: getattr(about, name) for name in ("rank", "local_rank", "threads", "device")}

    def build_trainer(self, point: Point, weights: Arrays | None = None) -> Trainer:
        """The twin's trainer, from the initial weights that both frameworks share; `weights` replace some of them.

        All ranks call it: they may have to agree on a library of products.
        """
        point = self.with_library(point)
        precision = PRECISIONS[point.precision]
        initial = initial_weights(point, dtype=precision.parameter_dtype)
        return self.trainer_module.Trainer(point, initial | (weights or {}), precision=precision, runtime=self.runtime)

    def choose_gemm(self, point: Point) -> GemmChoice:
        """The library of the point's products; the first time for these shapes all ranks call it."""
        asked = (point.gemm, has_gemm_choice(point), *ceiling_question(point))
        if asked not in self._gemm_choices:
            choices = {"threads": self.description.threads}
            self._gemm_choices[asked] = choose_gemm(point, self.runtime, self.ceilings.local, **choices)
        return self._gemm_choices[asked]

    def with_library(self, point: Point) -> Point:
        """The point that names the library of its products."""
        return point.model_copy(update={"gemm": self.choose_gemm(point).library})

    def open_input(self, point: Point, batches: Batches, *, steps: range) -> Input | None:
        """The framework's own input of the batches of `steps`; None where the point reads `batches` itself."""
        if point.input == "array":
            return None
        module = load_framework(self.description.framework, "input")
        return module.Input(batches, steps=steps, workers=point.input_workers)

    def describe_place(self) -> dict[str, Any]:
        """Where this rank runs: fields of `hvbench.records.record.RankSamples`."""
        about = self.description
        return {
            "rank": self.runtime.rank,
            "host": about.host,
            "local_rank": about.local_rank,
            "threads": about.threads,
            "device": self.runtime.device,
        }


_texts: dict[tuple[Any, ...], Corpus] = {}  # by all that their tokens and labels depend on


def load_text(point: Point) -> Corpus:
    """The tokens of the point's text, read once per worker."""
    key = point.data, *point.tokenization.values()
    if point.has_label_file:
        key = *key, source_of(point), point.pretraining_data
    if key not in _texts:
        _texts[key] = prepare_text(point)
    return _texts[key]


def find_text_change(worker: Worker, text: Corpus, *, digest: str | None) -> dict[str, Any] | None:
    """The outcome where any rank reads another text than the run was begun with, of that `digest` (None: not known)."""
    return find_change(worker, text.source, found=text.digest, digest=digest)


def find_change(worker: Worker, source: str, *, found: str, digest: str | None) -> dict[str, Any] | None:
    """The outcome where any rank has `found` another digest of `source` than the run was begun with."""
    if digest is None:
        return None
    has_changed = worker.runtime.gather(float(found != digest))
    if not any(has_changed):
        return None
    rank = worker.runtime.rank if found != digest else has_changed.index(1.0)
    what = f"digest {found}" if found != digest else "another digest"
    message = (
        f"{source}: rank {rank} reads {what}, run.json says {digest}: it has changed since the run was begun, or "
        "is not the same on all hosts; not trained"
    )
    return {"status": "failed", "rank": rank, "phase": "data", "message": message}


def needs_ceiling_process(jobs: Sequence[dict[str, Any]]) -> bool:
    """Whether any of the jobs, as `generation.json` has them, measures ceilings, or has to choose a library of products."""
    default = MeasureSettings.model_fields["ceilings"].default
    measured = [job for job in jobs if job["kind"] == JobKind.MEASURE]
    if any(job["measure"].get("ceilings", default) for job in measured):
        return True
    return any(is_open(Point(**job["point"])) for job in jobs if job["kind"] in OF_A_POINT)

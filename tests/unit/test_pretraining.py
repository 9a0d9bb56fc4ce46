"""Pretraining: one checkpoint for all frameworks, made by a job before the others, recorded, and used again.

`Maker` stands where a launch would be: it writes the checkpoint that a task asks for, or ends the task as told.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hvbench.errors import UsageError
from hvbench.launch.coordinator import OnProgress
from hvbench.launch.requests import PretrainRequest
from hvbench.launch.task import Failure, FailureStatus, StartFailed, Task, TaskEnd
from hvbench.plan.jobs import Job
from hvbench.plan.skip import is_installed
from hvbench.registry import FRAMEWORKS
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.sweep.point import Silence
from hvbench.sweep.pretraining import find_pretrainings, identify_pretrainings, launch_pretrainings
from hvbench.sweep.tasks import Shared, make_task
from hvbench.training import corpus
from hvbench.training.checkpoints import Checkpoint, CheckpointHeader, save_checkpoint
from hvbench.training.pretraining import pretrained_file, pretraining_name, pretraining_point
from hvbench.training.schedule import samples_before
from hvbench.training.weights import initial_weights
from hvbench.worker.pretrain import load_pretrained
from tests.unit.test_sweep import GOOD, prepare

pytestmark = pytest.mark.skipif(
    not all(map(is_installed, FRAMEWORKS)), reason="points of a framework that is not installed are skipped"
)

POINT = Point(
    framework="pytorch", model="tiny", objective="classification", pretraining="masked_lm", pretraining_steps=7,
    world_size=2, data="synthetic",
)  # fmt: skip
OK = TaskEnd(results=[{"outcome": {"status": "ok"}}] * 2, failure=None, generation=0, seconds=1.0)
CRASHED = Failure(status=FailureStatus.FAILED, rank=1, phase="pretraining", message="RuntimeError: a reason")
NEVER = StartFailed(
    "pytorch workers failed to start", Failure(status=FailureStatus.FAILED, phase="start", message="no")
)


def vary(**fields: Any) -> Point:
    return POINT.model_copy(update=fields)


def end_with(failure: Failure) -> TaskEnd:
    return TaskEnd(results=[], failure=failure, generation=0, seconds=1.0)


class Maker:
    """Ends each task as written (an exception is raised); one that is ok has left its checkpoint."""

    members: dict = {}

    def __init__(self, *ends: TaskEnd | Exception) -> None:
        self.ends = list(ends)
        self.tasks: list[Task] = []

    def run(self, tasks: Sequence[Task], *, on_progress: OnProgress | None = None) -> Iterator[tuple[int, TaskEnd]]:
        for index, task in enumerate(tasks):
            end = self.ends.pop(0)
            self.tasks.append(task)
            if isinstance(end, Exception):
                raise end
            if end is OK:
                write(PretrainRequest.model_validate(task.job))
            yield index, end


HEAD = {
    "head.weight",
    "head.bias",
    "head_norm.gain",
    "head_norm.bias",
    "output.bias",
}  # of BERT's masked language model


def write(request: PretrainRequest, *, arrays: dict[str, np.ndarray] | None = None, tokens_digest: str = "0") -> None:
    """A checkpoint as a worker leaves it, but for its arrays where they are left out."""
    point = request.point
    header = CheckpointHeader(
        step=request.steps, samples=samples_before(point, request.steps), global_batch_size=point.global_batch_size, optimizer=point.optimizer,
        loss_scale=1.0, clean_steps=0, tokens_digest=tokens_digest, seed=point.seed, framework=point.framework,
    )  # fmt: skip
    save_checkpoint(Path(request.path), Checkpoint(header=header, arrays=arrays or {"parameters/a": np.zeros(2)}))


def find(*points: Point, repeats: int = 1, checkpoints: Path = Path("c"), **measure: Any) -> list[Any]:
    jobs = [Job(point=point, repeat=repeat) for repeat in range(repeats) for point in points]
    return find_pretrainings(jobs, MeasureSettings(repeats=repeats, **measure), checkpoints=checkpoints)


BOTH = (POINT, vary(framework="tensorflow"))


@pytest.mark.parametrize(
    ("points", "repeats", "measure", "trained"),
    [
        (BOTH, 1, {}, [("pytorch", "masked_lm", 0)]),  # one for both
        (BOTH[::-1], 1, {}, [("pytorch", "masked_lm", 0)]),  # in whichever order
        (BOTH, 3, {}, [("pytorch", "masked_lm", 0)]),
        (BOTH, 3, {"seed_per_repeat": True}, [("pytorch", "masked_lm", seed) for seed in range(3)]),
        (BOTH[1:], 1, {}, [("tensorflow", "masked_lm", 0)]),  # nobody else starts from it
        ((*BOTH, vary(gemm="onednn")), 1, {}, [("pytorch", "masked_lm", 0)]),  # a choice of one framework alone
        ((*BOTH, vary(num_classes=4)), 1, {}, [("pytorch", "masked_lm", 0)]),  # of what comes after
        ((*BOTH, vary(pretraining="causal_lm")), 1, {}, [("pytorch", name, 0) for name in ("masked_lm", "causal_lm")]),
        ((vary(pretraining="none"), Point(world_size=2)), 1, {}, []),
    ],
)
def test_all_points_that_mean_the_same_pretraining_share_it(
    points: tuple[Point, ...], repeats: int, measure: dict, trained: list[tuple[str, str, int]]
) -> None:
    found = find(*points, repeats=repeats, **measure)
    assert [(each.point.framework, each.point.objective, each.point.seed) for each in found] == trained
    assert len({each.path for each in found}) == len({each.name for each in found}) == len(found)
    assert all(each.point.gemm == Point.model_fields["gemm"].default for each in found)


def test_what_a_classifier_sees_may_differ_from_what_its_pretraining_saw() -> None:
    """So that either can be changed alone; the pretraining is the same."""
    masks = {
        (mask, learned): vary(attention_mask=mask, pretraining=learned).is_causal
        for mask in ("auto", "causal", "none")
        for learned in ("none", "causal_lm", "masked_lm")
    }
    assert [key for key, is_causal in masks.items() if is_causal] == [
        ("auto", "causal_lm"),
        *(("causal", learned) for learned in ("none", "causal_lm", "masked_lm")),
    ]
    assert pretraining_name(vary(attention_mask="causal")) == pretraining_name(POINT)
    assert not pretraining_point(vary(attention_mask="causal")).is_causal
    folder = vary(pretraining="none", initial_weights="x")
    assert folder.is_causal and not folder.model_copy(update={"attention_mask": "none"}).is_causal


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"pretraining_steps": 8}, {"precision": "bf16"}, {"learning_rate": 0.5}, {"world_size": 1},
     {"micro_batch_size": 4}, {"sequence_length": 64}, {"vocab_size": 512}, {"data": "stdlib"}],
)  # fmt: skip
def test_another_training_is_another_pretraining(changes: dict) -> None:
    assert pretrained_file(vary(**changes)) != pretrained_file(POINT)


def test_it_is_made_once_and_used_again(tmp_path: Path) -> None:
    wanted, lines = find(*BOTH, checkpoints=tmp_path), []
    maker = Maker(OK)
    assert launch_pretrainings(maker, wanted, report=lines.append) == {}
    assert [(task.framework, task.world_size, task.job["steps"]) for task in maker.tasks] == [("pytorch", 2, 7)]
    assert len(lines) == 1 and "7 steps of tiny, masked_lm, seed 0, by pytorch" in lines[0]
    assert launch_pretrainings(Maker(), wanted, report=lines.append) == {}, "an earlier session's is used again"
    ((name, about),) = identify_pretrainings(wanted).items()
    assert name == pretraining_name(BOTH[1])
    assert (about["framework"], about["steps"], about["seed"], len(about["digest"])) == ("pytorch", 7, 0, 16)


@pytest.mark.parametrize("end", [NEVER, end_with(NEVER.failure)])
def test_a_framework_that_cannot_start_leaves_it_to_the_next(end: TaskEnd | Exception, tmp_path: Path) -> None:
    maker = Maker(end, OK)
    assert launch_pretrainings(maker, find(*BOTH, checkpoints=tmp_path), report=lambda line: None) == {}
    assert [task.framework for task in maker.tasks] == ["pytorch", "tensorflow"]


DIVERGED = TaskEnd(
    results=[{"outcome": {"status": "diverged", "message": "norm nan"}}] * 2, failure=None, generation=0, seconds=1.0
)
GARBAGE = TaskEnd(results=[None], failure=None, generation=0, seconds=1.0)


@pytest.mark.parametrize(
    ("end", "status"), [(end_with(CRASHED), "failed"), (DIVERGED, "diverged"), (GARBAGE, "failed")]
)
def test_what_it_ends_in_is_the_outcome_of_all_that_start_from_it(end: TaskEnd, status: str, tmp_path: Path) -> None:
    wanted = find(*BOTH, checkpoints=tmp_path)
    ((path, failure),) = launch_pretrainings(Maker(end), wanted, report=lambda line: None).items()
    assert path == wanted[0].path and failure.status == status


SUITE = """
[point]
model = "tiny"
objective = "classification"
pretraining_steps = 3
micro_batch_size = 2
[axes]
framework = ["pytorch", "tensorflow"]
pretraining = ["none", "masked_lm"]
[measure]
steps = 2
"""


def test_points_without_a_start_end_as_their_pretraining_did_and_the_others_run(tmp_path: Path) -> None:
    sweep = prepare(tmp_path / "run", text=SUITE)
    sweep.run(Maker(end_with(CRASHED), GOOD, GOOD), Silence())
    records, _ = sweep.folder.read_records()
    ends = {(record.point.framework, record.point.pretraining): record.outcome for record in records}
    for framework in FRAMEWORKS:
        lost, fine = ends[framework, "masked_lm"], ends[framework, "none"]
        assert (lost.status, lost.phase, lost.message) == ("failed", "pretraining", "RuntimeError: a reason")
        assert fine.phase != "pretraining", "it was launched, and ended as its own ranks say"


def test_weights_that_changed_since_a_run_was_begun_are_refused(tmp_path: Path) -> None:
    sweep = prepare(tmp_path / "run", text=SUITE)
    jobs = sweep.plan.jobs
    sweep.pretrain(jobs, Maker(OK), Silence())
    ((name, about),) = sweep.folder.read_run()["pretraining"].items()
    sweep.pretrain(jobs, Maker(), Silence())
    assert sweep.folder.read_run()["pretraining"] == {name: about}
    job = next(job for job in jobs if job.point.is_pretrained)
    assert (
        make_task(job, Shared(settings=sweep.settings, pretrained=sweep.pretrained)).job["pretraining_digest"]
        == about["digest"]
    )
    assert (
        make_task(jobs[0], Shared(settings=sweep.settings, pretrained=sweep.pretrained)).job["pretraining_digest"]
        is None
    )
    path = sweep.checkpoints / pretrained_file(job.point)
    write(PretrainRequest(point=job.point, steps=3, path=str(path)), arrays={"parameters/a": np.ones(2)})
    with pytest.raises(UsageError, match="what it starts from has changed since it was begun"):
        sweep.pretrain(jobs, Maker(), Silence())
    with pytest.raises(UsageError, match="not what the other launches started from"):  # and a worker looks once more
        load_pretrained(job.point, None, checkpoints=sweep.checkpoints, digest=about["digest"])


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ({"family": "bert"}, HEAD),
        ({"family": "bert", "next_sentence": True}, HEAD | {"next_sentence.weight", "next_sentence.bias"}),
        ({"family": "llama", "pretraining": "causal_lm", "tied_embeddings": False}, {"output_embedding"}),
    ],
    ids=["bert", "bert that judged pairs", "llama"],
)
def test_a_classifier_leaves_the_head_of_its_pretraining(
    tmp_path: Path, fields: dict[str, Any], left: set[str]
) -> None:
    (tmp_path / "text.txt").write_text("some text of a few lines\n" * 400)
    kind = {"model": "tiny", "objective": "classification", "pretraining": "masked_lm", "pretraining_steps": 7}
    point = Point(**{**kind, "data": str(tmp_path / "text.txt"), "world_size": 1, **fields})
    text, model = corpus.prepare(point.data, **point.tokenization, cache=tmp_path), pretraining_point(point)
    weights = {name: value + 1 for name, value in initial_weights(model).items()}
    request = PretrainRequest(point=model, steps=7, path=str(tmp_path / pretrained_file(point)))
    write(
        request,
        arrays={f"parameters/{name}": value for name, value in weights.items()},
        tokens_digest=text.tokens_digest,
    )
    found = load_pretrained(point, text, checkpoints=tmp_path)
    assert weights.keys() - found.keys() == left and found.keys() <= initial_weights(point).keys()
    assert all(np.array_equal(value, weights[name]) for name, value in found.items())

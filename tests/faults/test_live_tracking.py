"""Trackers beside real sweeps: they see steps while these are taken, and one that is killed or hangs costs nothing."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from hvbench.records.store import RunFolder
from hvbench.tracking.export import track
from hvbench.tracking.trackers import STEPS_FOLDER
from tests import patience
from tests.faults.sweeps import RunningSweep, find_processes, start_sweep, wait_until
from tests.unit.sample_tracking import read_tensorboard, read_wandb

pytestmark = pytest.mark.slow
SCRIPT = """
import os, sys, time
from hvbench import probe

with probe.training(tokens_per_step=8) as training:
    for step in range(10_000):
        if step == 9:
            time.sleep(0.3)  # until steps are written down again
        with training.step():
            time.sleep(0.02)
            while sys.argv[1] == "waits" and step == 9 and not os.path.exists("go"):
                time.sleep(0.02)
        training.log(loss=1 / (step + 1))
"""
SUITE = """
question = "Does a tracker cost anything?"
[script]
command = "python train.py {{kind}}"
[axes]
kind = {kinds}
[measure]
warmup_steps = 2
steps = 18
"""
STEPS = 20
TINY = """
question = "Does a tracker see what the records say?"
[point]
model = "tiny"
num_layers = 1
micro_batch_size = 2
data = "synthetic"
framework = "pytorch"
straggler_seconds = 0.05
[measure]
warmup_steps = 2
steps = 58
evaluate_every = 20
ceilings = false
"""


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tests away from the trackers of the person who runs them."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)


def start(text: str, folder: Path, *options: str, np: int = 1) -> RunningSweep:
    folder.mkdir(exist_ok=True)
    (folder / "train.py").write_text(SCRIPT)
    return start_sweep(text, folder, np=np, options=("--json", "--no-parity", *options))


def wait_for(sweep: RunningSweep, condition: Callable[[], object]) -> None:
    def holds() -> object:
        assert sweep.process.poll() is None, sweep.wait()[1]
        return condition()

    wait_until(holds, seconds=patience.SECONDS, what=sweep.describe_processes)


def finish(sweep: RunningSweep) -> tuple[int, str]:
    code, output = sweep.wait()
    sweep.wait_for_nobody()
    assert not (sweep.folder.path / STEPS_FOLDER).exists()
    return code, output


def tracking(sweep: RunningSweep, name: str = "tensorboard") -> Path:
    return sweep.folder.path / "tracking" / name


def steps_shown(sweep: RunningSweep) -> dict[str, int]:
    """Launch -> steps that its event file has by now."""
    folders = list(tracking(sweep).glob("*"))
    return {folder.name: len(read_tensorboard(folder).get("loss", ())) for folder in folders if any(folder.iterdir())}


def afterwards(sweep: RunningSweep, names: list[str]) -> Path:
    """The folder of the trackers of the same run where it is tracked for the first time now."""
    copy = sweep.folder.path.parent / "again"
    shutil.copytree(sweep.folder.path, copy, ignore=shutil.ignore_patterns("tracking"))
    track(copy, RunFolder(copy).read_records()[0], names)
    return copy / "tracking"


def all_scalars(folder: Path) -> dict[str, dict[str, list[tuple[int, float, float]]]]:
    """Launch -> tag -> what TensorBoard's files of it hold."""
    return {path.name: read_tensorboard(path) for path in folder.iterdir()}


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A sweep of two launches with a tracker that was killed and one that hung, both in the first of them."""

    sweep: RunningSweep
    code: int
    output: str
    shown: dict[str, int]  # by TensorBoard, when it was killed
    live_ids: set[str]  # of W&B's runs by then


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT"):
            patch.delenv(name, raising=False)
        folder = tmp_path_factory.mktemp("killed")
        sweep = start(SUITE.format(kinds='["waits", "goes"]'), folder, "--no-report", "--track", "tensorboard,wandb")
    live = tracking(sweep, "wandb") / "live" / "wandb"
    wait_for(sweep, lambda: any(live.glob("offline-run-*")) and max(steps_shown(sweep).values(), default=0) >= 9)
    shown, ids = steps_shown(sweep), {path.name.rpartition("-")[2] for path in live.glob("offline-run-*")}
    (killed,) = find_processes(sweep.mark, command=" tensorboard ")
    os.kill(killed, signal.SIGKILL)
    (hung,) = find_processes(sweep.mark, command=" wandb ")
    os.kill(hung, signal.SIGSTOP)
    (folder / "go").touch()
    code, output = finish(sweep)
    return Ended(sweep=sweep, code=code, output=output, shown=shown, live_ids=ids)


def test_a_sweep_whose_trackers_are_killed_or_hang_is_complete(ended: Ended) -> None:
    assert ended.code == 0, ended.output
    records, problems = ended.sweep.folder.read_records()
    assert problems == [] and len(records) == 2
    for record in records:
        assert record.outcome.status == "ok" and [len(rank.step_seconds) for rank in record.ranks] == [STEPS]
    assert "Traceback" not in ended.output
    assert "tracking by tensorboard has stopped: killed by SIGKILL; the sweep goes on" in ended.output
    assert "tracking by wandb did not come to its end within 10 s" in ended.output


def test_steps_were_seen_before_the_launch_ended(ended: Ended) -> None:
    (shown,) = ended.shown.values()
    assert shown == 9, "it waits in its tenth step"


def test_what_they_hold_at_the_end_is_what_tracking_afterwards_gives(ended: Ended) -> None:
    other = afterwards(ended.sweep, ["tensorboard", "wandb"])
    found = all_scalars(tracking(ended.sweep))
    assert found == all_scalars(other / "tensorboard")
    assert len(found) == 2 and all(len(scalars["loss"]) == STEPS for scalars in found.values())
    sessions, again = read_wandb(tracking(ended.sweep, "wandb")), read_wandb(other / "wandb")
    assert {name: session.history["loss"] for name, session in sessions.items()} == {
        name: session.history["loss"] for name, session in again.items()
    }
    assert len(sessions) == 2 and {session.id for session in again.values()} == {one.id for one in sessions.values()}
    assert len(ended.live_ids) == 1 and ended.live_ids < {session.id for session in sessions.values()}


def test_a_training_of_hvbenchs_own_is_seen_step_by_step(tmp_path: Path) -> None:
    """Two ranks, whose losses differ: what is shown meanwhile is rank 0's, what stays the mean of both."""
    sweep = start(TINY, tmp_path, "--no-report", "--track", "tensorboard", np=2)
    wait_for(sweep, lambda: any((sweep.folder.path / STEPS_FOLDER).glob("*.jsonl")))
    workers = find_processes(sweep.mark, command="hvbench.worker")
    assert len(workers) >= 2
    for worker in workers:  # however busy the machine is, the tracker sees steps before the last one is done
        os.kill(worker, signal.SIGSTOP)
    wait_for(sweep, lambda: any(steps_shown(sweep).values()))
    meanwhile = all_scalars(tracking(sweep))
    for worker in workers:
        os.kill(worker, signal.SIGCONT)
    code, output = finish(sweep)
    assert code == 0, output
    ((name, scalars),) = all_scalars(tracking(sweep)).items()
    assert {name: scalars} == all_scalars(afterwards(sweep, ["tensorboard"]) / "tensorboard")
    assert len(scalars["loss"]) == 60 and len(scalars["validation_loss"]) == 4
    (record,), _ = sweep.folder.read_records()
    first = record.ranks[0]
    for curve in ("loss", "gradient_norm", "learning_rate", "step_seconds"):
        shown = {step: value for step, value, _ in meanwhile[name][curve]}
        known = dict(enumerate(getattr(first, curve), start=1))
        assert shown == pytest.approx({step: known[step] for step in shown}, rel=1e-6)
    assert list(shown) == list(range(1, len(shown) + 1)) and len(shown) < 60
    assert not list((sweep.folder.path / "logs").glob("tracking-*"))


def test_ctrl_c_ends_the_trackers_too(tmp_path: Path) -> None:
    sweep = start(SUITE.format(kinds='["waits"]'), tmp_path, "--no-report", "--track", "tensorboard,wandb")
    live = tracking(sweep, "wandb") / "live" / "wandb"
    wait_for(sweep, lambda: any(live.glob("offline-run-*")) and steps_shown(sweep))
    assert find_processes(sweep.mark, command="hvbench.tracking")
    sweep.press_ctrl_c()
    code, output = finish(sweep)
    assert code == 130 and "stopped by SIGINT" in output, output
    (record,), _ = sweep.folder.read_records()
    assert record.outcome.status == "interrupted" and steps_shown(sweep).keys() == {record.key}

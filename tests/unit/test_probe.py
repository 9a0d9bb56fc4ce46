"""The probe in a process that hvbench launched: samples, losses, stops and turns, and every way in which a training can end."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hvbench import probe
from hvbench.errors import HvbenchError
from hvbench.io.atomic import overwrite_json
from hvbench.launch import script
from hvbench.launch.process import _read_failure, _read_progress
from hvbench.launch.turns import VARIABLE as TURNS
from hvbench.launch.turns.scheduler import TurnLimits
from hvbench.launch.turns.server import TurnServer
from hvbench.probe import Measured, ProbeError
from hvbench.probe.clock import StepClock
from hvbench.probe.launched import BEFORE
from hvbench.probe.result import END
from hvbench.probe.samples import LoggedSamples
from hvbench.records.record import Outcome
from tests import patience
from tests.unit.sample_probe import MakeFolder, environment_of, folder, make_folder, run

__all__ = ["folder"]  # a fixture


def train(steps: int = 100, *, tokens_per_step: int | None = None, **logged: Any) -> None:
    """A loop around nothing; `logged` are values, or functions of the step that give one."""
    with probe.training(tokens_per_step=tokens_per_step) as training:
        for index in range(steps):
            with training.step():
                pass
            training.log(**{name: value(index) if callable(value) else value for name, value in logged.items()})


# Outside of a launch


def test_where_hvbench_launched_nothing_the_probe_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(probe.VARIABLE, raising=False)
    for _ in range(2):  # as often as one likes
        with probe.training(tokens_per_step=8) as training:
            assert not training.is_launched and not probe.current().is_launched
            with training.step(), training.paused():
                training.log(loss="whatever", tokens=object())
                training.evaluate(loss=None)
            training.begin(until_exit=True)
            training.begin_step()
            training.end_step()
    with pytest.raises(ZeroDivisionError), probe.training() as training, training.step():
        raise ZeroDivisionError


def test_help_is_a_tutorial() -> None:
    lines = probe.__doc__.splitlines()
    assert len(lines) <= 25
    for call in ("probe.training(", "training.step(", "training.log(", "training.paused(", "training.evaluate("):
        assert call in probe.__doc__


def test_the_launchers_side_and_the_probe_call_things_by_the_same_names() -> None:
    assert (probe.VARIABLE, END, BEFORE) == (script.VARIABLE, script.END, script.PHASE)


# The samples


def test_a_rank_leaves_the_samples_of_as_many_steps_as_were_asked_for(folder: MakeFolder) -> None:
    made = folder(warmup_steps=2, steps=5)
    with pytest.raises(Measured) as ended:
        train(tokens_per_step=16, loss=lambda step: np.float32(step) / 2)
    assert not ended.value.code
    result = made.result
    samples = result["samples"]
    assert result["outcome"] == {"status": "ok"}
    assert samples["loss"] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert len(samples["step_seconds"]) == len(samples["data_seconds"]) == 7
    assert samples["step_tokens"] == [16] * 7
    assert (samples["gradient_norm"], samples["learning_rate"], samples["loss_scale"]) == ([], [], [])
    assert {name: samples[name] for name in ("rank", "host", "threads", "device")} == {
        "rank": 0, "host": "here", "threads": 1, "device": "cpu",
    }  # fmt: skip
    assert samples["peak_rss_bytes"] >= samples["start_rss_bytes"] > 0
    assert {"script", "data", "first_step", "warmup", "measure"} <= samples["phase_seconds"].keys()
    environment = result["environment"]
    assert environment["tokens_digest"] is None and environment["memory_limit_bytes"] is None
    assert {"cpu_model", "hvbench_source_digest", "load_before", "load_after"} <= environment.keys()
    assert (made.path / "pid").read_text() == str(os.getpid())
    assert made.read("progress.json") | {"timed_seconds": 1.0} == {
        "index": 0, "phase": "finished", "step": 7, "steps": 7, "job": "script", "point": "train-0.r0",
        "loss": 3.0, "timed_tokens": 80, "timed_seconds": 1.0,
    }  # fmt: skip
    assert _read_progress(made.path)["step"] == 7


def test_the_loss_of_the_last_step_and_an_evaluation_behind_it_are_kept(folder: MakeFolder) -> None:
    made = folder(warmup_steps=1, steps=2)
    with pytest.raises(Measured), probe.training() as training:
        for _ in range(3):
            with training.step():
                training.log(loss=1.0)
        training.log(loss=9.0)
        training.evaluate(loss=5.0, samples=3, accuracy=0.5)
    samples = made.result["samples"]
    assert samples["loss"] == [1.0, 1.0, 9.0]
    (evaluation,) = samples["evaluations"]
    assert (evaluation["step"], evaluation["loss"], evaluation["samples"], evaluation["accuracy"]) == (3, 5.0, 3, 0.5)


def test_steps_waits_and_pauses_add_up_to_the_time_that_elapsed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    clock = StepClock()
    now += 7  # before the first step: no part of the training, nor is a pause there
    clock.begin_pause()
    now += 3
    clock.end_pause()
    clock.begin_step()
    now += 2
    clock.begin_pause()  # within a step
    clock.begin_pause()
    now += 50
    clock.end_pause()
    now += 5
    clock.end_pause()
    now += 1
    clock.end_step()
    assert clock.step_seconds == [3]
    now += 0.5
    clock.begin_pause()
    now += 40
    assert clock.end_evaluation() == (40, 3.5)
    now += 9  # a checkpoint, in the same pause
    clock.end_pause()
    now += 0.25
    clock.begin_step()
    now += 4
    clock.end_step()
    now += 20
    assert clock.end_evaluation() == (20, 7.75), "without a pause all time since the step is the evaluation's"
    assert clock.end_evaluation() == (0, 7.75)
    clock.begin_step()
    now += 4
    clock.end_step()
    assert (clock.step_seconds, clock.data_seconds) == ([3, 4, 4], [0, 0.75, 0])
    assert clock.training_seconds == sum(clock.step_seconds) + sum(clock.data_seconds)


class Tensor:
    """What frameworks hand around: it becomes a number when somebody asks."""

    def __init__(self, value: float) -> None:
        self.value = value

    def detach(self) -> Tensor:
        return Tensor(self.value)

    def __float__(self) -> float:
        return self.value


@pytest.mark.parametrize(
    ("logged", "kept"),
    [
        ([{"learning_rate": 0.1}, {"learning_rate": Tensor(0.2)}], {"learning_rate": [0.1, 0.2]}),
        ([{"learning_rate": 0.1}, {}], {"learning_rate": []}),
        ([{}, {"learning_rate": 0.1}], {"learning_rate": []}),
        ([{"learning_rate": math.inf}, {"learning_rate": 0.1}], {"learning_rate": []}),
        ([{"gradient_norm": math.inf}, {"gradient_norm": np.float64(3)}], {"gradient_norm": [None, 3.0]}),
        ([{"loss_scale": 2}, {"loss_scale": 4.0}], {"loss_scale": [2.0, 4.0]}),
        ([{"loss": 1}, {}], {"loss": [1.0, None]}),
        ([{"tokens": 8}, {}], {"step_tokens": [8, 8]}),
        ([{"tokens": 8}, {"tokens": np.int64(5)}], {"step_tokens": [8, 5]}),
        ([{"tokens": Tensor(8.0)}, {"tokens": 5}], {"step_tokens": [8, 5]}),
        ([{}, {"tokens": 5}], {"step_tokens": []}),
        ([{}, {}], {"step_tokens": [], "loss": [None, None], "skipped_steps": []}),
    ],
)
def test_what_is_not_known_of_every_step_is_not_listed(logged: list[dict], kept: dict) -> None:
    samples = LoggedSamples(tokens_per_step=None)
    for steps, values in enumerate(logged, start=1):
        samples.note(values, steps=steps)
    assert {name: samples.to_json(len(logged))[name] for name in kept} == kept


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": "abc"}, "training.log(loss='abc'): not a number"),
        ({"loss": "1.5"}, "training.log(loss='1.5'): not a number"),
        ({"loss": object()}, "training.log(loss=<object>): not a number"),
        ({"loss": 10**400}, "training.log(loss=1000"),
        ({"gradient_norm": np.ones(2)}, "training.log(gradient_norm=<ndarray>): not a number"),
        ({"tokens": 2.5}, "training.log(tokens=2.5): must be a whole number from 0 to 1099511627775"),
        ({"tokens": -1}, "training.log(tokens=-1): must be a whole number"),
        ({"tokens": math.nan}, "training.log(tokens=nan): must be a whole number"),
        ({"tokens": 2**40}, "training.log(tokens=1099511627776): must be a whole number"),
        ({"tokens": [1]}, "training.log(tokens=<list>): not a number"),
    ],
)
def test_what_is_no_number_is_refused_in_one_line(folder: MakeFolder, values: dict, message: str) -> None:
    made = folder()
    with pytest.raises(ProbeError) as refused:
        train(**values)
    assert str(refused.value).startswith(message) and "\n" not in str(refused.value)
    assert isinstance(refused.value, HvbenchError)
    assert made.failure["message"] == f"ProbeError: {refused.value}"


def test_a_number_of_tokens_may_change_and_is_this_ranks_own(folder: MakeFolder) -> None:
    made = folder(world_size=4, warmup_steps=1, steps=3)
    with pytest.raises(Measured):
        train(tokens_per_step=10, tokens=lambda step: 10 if step < 2 else 7)
    assert made.result["samples"]["step_tokens"] == [10, 10, 7, 7]
    assert made.read("progress.json")["timed_tokens"] == 4 * (10 + 7 + 7), "of all ranks, while they train"


def test_progress_is_written_over_whatever_its_length(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    for phase in ("measure" * 9, "x", "measure"):
        overwrite_json(path, {"index": 0, "phase": phase})
        assert _read_progress(tmp_path) == {"index": 0, "phase": phase[:40]}
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="link"):
        overwrite_json(tmp_path / "link", {})


# Its end


def evaluate_every_step(losses: list[float]) -> None:
    with probe.training() as training:
        for loss in losses:
            with training.step():
                pass
            with training.paused():
                training.evaluate(loss=loss, samples=4)


TARGET = {"evaluate_every": 1, "target_loss": 2.0, "stop_at_target": True}


@pytest.mark.parametrize(
    ("settings", "losses", "steps", "reason"),
    [
        (TARGET, [9, 9, 9, 1.5, 9, 9, 9, 9], 4, "target"),
        (TARGET, [1, 1, 1, 1, 9, 9, 9, 9], 3, "target"),  # not within the warm-up: one step has to be timed
        (TARGET, [9, 9, 9, 9, 9, 9, 1, 9], 7, None),  # the last evaluation ends nothing early
        (TARGET | {"stop_at_target": False}, [1] * 8, 7, None),
        ({"evaluate_every": 1, "patience": 2}, [9, 8, 7, 7, 7, 7, 7, 7], 5, "patience"),
        ({"evaluate_every": 1, "patience": 2}, [9, 8, 7, math.nan, 6.5, 6, 5, 4], 7, None),
        ({"evaluate_every": 1}, [9] * 8, 7, None),
    ],
)
def test_training_stops_where_that_of_a_twin_would(
    folder: MakeFolder, settings: dict, losses: list[float], steps: int, reason: str | None
) -> None:
    made = folder(warmup_steps=2, steps=5, **settings)
    with pytest.raises(Measured):
        evaluate_every_step(losses)
    samples = made.result["samples"]
    assert (len(samples["step_seconds"]), samples["stopped_by"]) == (steps, reason)
    assert [one["loss"] for one in samples["evaluations"]] == [
        None if math.isnan(loss) else loss for loss in losses[:steps]
    ]


@pytest.mark.parametrize("loss", [math.nan, -math.inf, 1e120])
def test_a_loss_that_is_no_number_any_more_has_diverged(folder: MakeFolder, loss: float) -> None:
    made = folder(warmup_steps=2, steps=5)
    with pytest.raises(Measured):
        train(loss=lambda step: loss if step == 3 else 1.0)
    outcome = made.result["outcome"]
    assert outcome == {"status": "diverged", "rank": 0, "phase": "measure", "message": f"loss {loss} at step 3"}
    Outcome.model_validate(outcome)
    assert made.result["samples"]["loss"] == [1.0, 1.0, 1.0, None]


def test_one_rank_of_several_that_diverges_leaves_no_other_waiting(folder: MakeFolder) -> None:
    """The others may see it a step later, or never: all train as long as they would have."""
    made = folder(world_size=2, rank=1, warmup_steps=2, steps=5)
    with pytest.raises(Measured):
        train(loss=lambda step: math.nan if step >= 1 else 1.0)
    assert made.result["outcome"] == {
        "status": "diverged", "rank": 1, "phase": "warmup", "message": "loss nan at step 1",
    }  # fmt: skip
    assert len(made.result["samples"]["loss"]) == 7


def test_a_script_that_raises_because_it_diverged_has_diverged(folder: MakeFolder) -> None:
    made = folder()
    with pytest.raises(FloatingPointError), probe.training() as training:
        with training.step():
            training.log(loss=math.nan)
        raise FloatingPointError("loss is NaN")
    failure = _read_failure(made.path)
    assert failure["status"] == "diverged"
    assert failure["message"] == "loss nan at step 0; FloatingPointError: loss is NaN"


class HorovodInternalError(RuntimeError):
    """Named as Horovod's own."""


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (ValueError("no such file\nreally"), {"status": "failed", "message": "ValueError: no such file … really"}),
        (MemoryError(), {"status": "oom", "message": "MemoryError"}),
        (HorovodInternalError("gone"), {"is_echo": True, "message": "HorovodInternalError: gone"}),
        (RuntimeError("[/x/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:21125"), {"is_echo": True, "message": "RuntimeError: [/x/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:21125"}),
        (RuntimeError("NCCL error: unhandled\nncclRemoteError: A call failed\nremote process exited"), {"is_echo": True, "message": "RuntimeError: NCCL error: unhandled … remote process exited"}),
        (ValueError("Graph execution error:\nCollective ops is aborted by: x\n[Op:f]"), {"is_echo": True, "message": "ValueError: Graph execution error: … [Op:f]"}),
        (KeyboardInterrupt(), {"status": "failed", "message": "KeyboardInterrupt"}),
        (SystemExit(3), {"message": "exited with code 3 when it had trained 4 of the 7 steps asked for (warmup_steps + steps)"}),
        (SystemExit(), {"message": "exited with code 0 when it had trained 4 of the 7 steps asked for (warmup_steps + steps)"}),
    ],
)  # fmt: skip
def test_an_exception_is_a_failure_and_goes_on(folder: MakeFolder, error: BaseException, failure: dict) -> None:
    made = folder()
    with pytest.raises(type(error)) as raised, probe.training() as training:
        for index in range(7):
            with training.step():
                if index == 4:
                    raise error
            training.log(loss=2.0)
    assert raised.value is error and raised.tb is not None
    read = _read_failure(made.path)
    expected = {"status": "failed", "is_echo": False, "phase": "measure", "index": 0, "step": 4, "loss": 2.0} | failure
    assert read == expected


def test_too_few_steps_are_said(folder: MakeFolder) -> None:
    made = folder(warmup_steps=5, steps=30)
    train(steps=12)
    assert made.failure["message"] == "trained 12 of the 35 steps asked for (warmup_steps + steps)"
    assert (made.failure["status"], made.failure["phase"], made.failure["step"]) == ("failed", "measure", 12)


def test_a_step_that_raised_is_none(folder: MakeFolder) -> None:
    made = folder(warmup_steps=1, steps=2)
    with pytest.raises(Measured), probe.training() as training:
        for index in range(9):
            try:
                with training.step():
                    training.log(loss=index)
                    if index % 2 == 0:
                        raise ValueError
            except ValueError:
                continue
    assert made.result["samples"]["loss"] == [1.0, 3.0, 5.0]


# Wrong calls


def within_a_step(training: probe.Training) -> None:
    with training.step(), training.step():
        pass


def within_a_pause(training: probe.Training) -> None:
    with training.paused(), training.step():
        pass


def evaluates_in_a_step(training: probe.Training) -> None:
    with training.step():
        training.evaluate(loss=1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (within_a_step, "training.step() within a step"),
        (within_a_pause, "training.step() within training.paused(): the time of a step would be left out"),
        (evaluates_in_a_step, "training.evaluate() within a step: evaluate between steps, in `with training.paused():`"),
        (lambda training: training.end_step(), "training.end_step() outside of a step"),
        (lambda training: training.__enter__(), "training.__enter__() outside of a step"),
        (lambda training: probe.training(), "a second probe.training() in this process: one training is measured, all of it in one `with`"),
        (lambda training: training.evaluate(loss=1.0, samples=0.5), "training.evaluate(samples=0.5): must be a whole number from 0 to 1099511627775"),
        (lambda training: training.evaluate(loss=None), "training.evaluate(loss=<NoneType>): not a number"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_refused_in_one_line_and_ends_the_training(folder: MakeFolder, call: Any, message: str) -> None:
    made = folder()
    with pytest.raises(ProbeError) as refused, probe.training() as training:
        call(training)
    assert str(refused.value) == message
    assert made.failure["message"] == f"ProbeError: {message}"


@pytest.mark.parametrize("method", ["step", "paused"])
def test_nothing_is_measured_before_or_after_the_with(folder: MakeFolder, method: str) -> None:
    folder()
    training = probe.training()
    with pytest.raises(ProbeError, match="before `with probe.training"), getattr(training, method)():
        pass
    with training:
        pass
    with pytest.raises(ProbeError, match="after the end of the training"), getattr(training, method)():
        pass
    with pytest.raises(ProbeError, match="log.. after the end"):
        training.log(loss=1.0)


def test_a_script_that_catches_its_end_is_told_again(folder: MakeFolder) -> None:
    folder(warmup_steps=1, steps=1)
    with pytest.raises(Measured), probe.training() as training:
        for _ in range(4):
            try:
                with training.step():
                    pass
            except SystemExit:
                with pytest.raises(Measured):
                    training.log(loss=1.0)
                raise


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "generation.json: No such file or directory; hvbench itself sets HVBENCH_PROBE: unset it"),
        ("{", "generation.json: not what hvbench writes: JSONDecodeError"),
        ("[]", "generation.json: not what hvbench writes: TypeError"),
        ('{"jobs": []}', "generation.json: not what hvbench writes: ValueError"),
        ('{"jobs": [{"measure": {}}]}', "generation.json: not what hvbench writes: KeyError: 'rank'"),
    ],
)
def test_a_folder_that_is_none_of_hvbenchs_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "generation.json").write_text(content)
    monkeypatch.setenv(probe.VARIABLE, str(tmp_path))
    with pytest.raises(ProbeError) as refused:
        probe.training()
    assert message in str(refused.value) and "\n" not in str(refused.value)


# Turns


def test_two_trainings_take_turns(folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in a thread of its own, at the turn server that `hvbench ab` and sweeps have."""
    order: list[str] = []

    def take_steps(arm: str, training: probe.Training) -> None:
        with pytest.raises(Measured):
            while True:
                with training.step():
                    order.append(arm)

    with TurnServer("ab", limits=TurnLimits(block_seconds=0.0)) as server:
        made, threads = [], []
        for arm in "ab":
            monkeypatch.setenv(TURNS, server.variable(arm))
            made.append(folder(place=0, warmup_steps=2, steps=5))
            training = probe.training()
            training.begin()
            threads.append(threading.Thread(target=take_steps, args=(arm, training)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=patience.SECONDS)
        assert {turn.arm for turn in server.turns} == {"a", "b"} and server.given_up is None
    for each in made:
        samples = each.result["samples"]
        assert len(samples["step_seconds"]) == 7 and "turn" in samples["phase_seconds"]
    assert sorted(order) == ["a"] * 7 + ["b"] * 7
    assert any(before == "a" != after for before, after in zip(order, order[1:], strict=False))
    assert any(before == "b" != after for before, after in zip(order, order[1:], strict=False))


def test_a_turn_server_that_is_gone_ends_the_training(folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    made = folder(place=0)
    monkeypatch.setenv(TURNS, "a:/nowhere")
    with pytest.raises(ConnectionError):
        train()
    assert made.failure["message"].startswith("ConnectionError: HVBENCH_TURNS=a:/nowhere: no turn server there")
    assert made.failure["phase"] == "data"


# Processes

LOOP = """
from hvbench import probe
def main():
    with probe.training() as training:
        while True:
            with training.step():
                pass
"""


def test_children_of_a_training_measure_nothing(tmp_path: Path) -> None:
    """One that is forked, as a loader of data is, does nothing; one that is started anew is refused in one line."""
    made = make_folder(tmp_path / "rank", warmup_steps=1, steps=3)
    done = run(
        made,
        LOOP
        + """
import multiprocessing, os, sys

def misuse(training):
    with training.step(), training.paused():
        training.log(loss=float("nan"))
    training.evaluate(loss=0.0)
    training.leave()

def again():
    try:
        main()
    except BaseException as error:
        sys.exit(f"{type(error).__name__}: {error}")

if __name__ == "__main__":
    with probe.training() as training:
        for index in range(9):
            with training.step():
                training.log(loss=index)
            if index == 1:
                for method, target, given in (("fork", misuse, (training,)), ("spawn", again, ())):
                    child = multiprocessing.get_context(method).Process(target=target, args=given)
                    child.start()
                    child.join()
                    print(method, child.exitcode, flush=True)
                if not os.fork():
                    raise ValueError("of the child alone")
                os.wait()
""",
        where=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["fork 0", "spawn 1"]
    pid = (made.path / "pid").read_text()
    refusal = f"ProbeError: a second process of rank 0 calls probe.training(), beside process {pid}: "
    assert refusal in done.stderr and "ValueError: of the child alone" in done.stderr
    assert made.result["samples"]["loss"] == [0.0, 1.0, 2.0, 3.0]


def test_a_training_waits_until_all_have_measured(tmp_path: Path) -> None:
    made = make_folder(tmp_path / "rank", warmup_steps=1, steps=2)
    (made.path / "end").unlink()
    with subprocess.Popen([sys.executable, "-c", LOOP + "main()"], env=environment_of(made)) as process:
        deadline = time.monotonic() + patience.SECONDS
        while not (made.path / "result-0.json").exists():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        assert process.poll() is None
        (made.path / "end").touch()
        assert process.wait(timeout=patience.SECONDS) == 0


@pytest.mark.parametrize(
    ("end", "message", "code"),
    [
        ("", "trained 3 of the 7 steps asked for (warmup_steps + steps)", 0),
        ("raise ValueError('no')", "ValueError: no", 1),
    ],
)
def test_a_callback_learns_how_its_process_ends(tmp_path: Path, end: str, message: str, code: int) -> None:
    made = make_folder(tmp_path / "rank")
    script = """
        from hvbench import probe
        training = probe.training()
        training.begin(until_exit=True)
        for _ in range(3):
            training.begin_step()
            training.end_step()
    """
    done = run(made, textwrap.dedent(script) + end, where=tmp_path)
    assert (done.returncode, made.failure["message"]) == (code, message)
    assert bool(done.stderr) == bool(code)

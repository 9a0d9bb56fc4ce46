"""HOROVOD_* variables: which values are taken, and one line for what Horovod would misread, ignore or die of."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvbench.cli import run
from hvbench.errors import UsageError
from hvbench.launch.process import worker_environment
from hvbench.launch.session import join_launch
from hvbench.launch.settings import require_horovod_settings, why_not_writable
from hvbench.plan.jobs import horovod_variables
from hvbench.spec.knob import knobs_of
from hvbench.spec.point import Point
from hvbench.spec.variables import VARIABLES, Surroundings, find_mistake

HERE = Surroundings(interfaces=("eth0", "lo"), why_not_writable=lambda path: "no" if path == "/no" else None)
LAUNCHED = Surroundings(interfaces=(), why_not_writable=lambda path: None, is_launched=True)

SWITCHES = [name for name, variable in VARIABLES.items() if variable is VARIABLES["HOROVOD_AUTOTUNE"]]
COUNTS = [name for name, variable in VARIABLES.items() if variable.allowed.startswith("a whole number")]

TAKEN = [
    *((name, value) for name in SWITCHES for value in "01"),
    *((name, "7") for name in COUNTS),
    ("HOROVOD_FUSION_THRESHOLD", "0"), ("HOROVOD_CYCLE_TIME", "0.5"), ("HOROVOD_CYCLE_TIME", "5"), ("HOROVOD_CYCLE_TIME", "1e1"),
    ("HOROVOD_LOG_LEVEL", "INFO"), ("HOROVOD_LOG_LEVEL", "trace"), ("HOROVOD_GLOO_IFACE", "eth0"), ("HOROVOD_CONTROLLER", "gloo"),
    ("HOROVOD_CPU_OPERATIONS", "gloo"), ("HOROVOD_THREAD_AFFINITY", "0,2"), ("HOROVOD_TIMELINE", "/yes"), ("HOROVOD_TIMELINE", "DYNAMIC"),
    ("HOROVOD_AUTOTUNE_LOG", "/yes"), ("HOROVOD_AUTOTUNE_GAUSSIAN_PROCESS_NOISE", "0.8"), ("HOROVOD_ELASTIC", "0"),
    ("HOROVOD_WITH_PYTORCH", "x"), ("HOROVOD_CUDA_HOME", "/x"), ("HOROVOD_GPU_OPERATIONS", "NCCL"), ("HOROVOD_START_TIMEOUT", "9"),
    ("HOROVOD_RANK", "x"), ("HOROVOD_GLOO_RENDEZVOUS_ADDR", "x"), ("HOROVOD_MY_PROJECT", "x"), ("OTHER", "x"),
]  # fmt: skip
REFUSED = [
    *((name, value) for name in SWITCHES for value in ("true", "yes", "on", "2", "-1")),
    *((name, value) for name in COUNTS for value in ("64MB", "-1", "1.5", "many", "1e3", "99999999999999999999")),
    ("HOROVOD_CYCLE_TIME", "fast"), ("HOROVOD_CYCLE_TIME", "-1"), ("HOROVOD_CYCLE_TIME", "nan"), ("HOROVOD_CYCLE_TIME", "inf"),
    ("HOROVOD_CYCLE_TIME", "5ms"), ("HOROVOD_LOG_LEVEL", "verbose"), ("HOROVOD_LOG_LEVEL", "2"), ("HOROVOD_CONTROLLER", "nccl"),
    ("HOROVOD_CONTROLLER", "mpi"), ("HOROVOD_CPU_OPERATIONS", "mpi"), ("HOROVOD_CPU_OPERATIONS", "CCL"), ("HOROVOD_THREAD_AFFINITY", "all"),
    ("HOROVOD_GLOO_IFACE", "eth9"), ("HOROVOD_TIMELINE", "/no"), ("HOROVOD_AUTOTUNE_LOG", "/no"), ("HOROVOD_ELASTIC", "1"),
    ("HOROVOD_GLOO_TIMEOUT_SECONDS", "0"), ("HOROVOD_AUTOTUNE_GAUSSIAN_PROCESS_NOISE", "2"), ("HOROVOD_NUM_NCCL_STREAMS", "0"),
    ("HOROVOD_FUSION_TRESHOLD", "1"), ("HOROVOD_CYCLETIME", "1"), ("HOROVOD_AUTOTUNE_LOGS", "x"), ("HOROVOD_TIME_LINE", "x"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), TAKEN)
def test_what_horovod_understands_is_taken(name: str, value: str) -> None:
    assert find_mistake({name: value}, HERE) is None
    assert find_mistake({name: ""}, HERE) is None, "empty is not set"


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_what_it_would_misread_is_one_line_that_says_what_is_allowed(name: str, value: str) -> None:
    line = find_mistake({name: value}, HERE)
    assert line is not None and line.startswith(name) and "\n" not in line and len(line) < 300
    assert any(word in line for word in ("must be", "there are", "cannot be written", "unset it", "did you mean")), line


def test_every_variable_is_tried() -> None:
    assert (
        set(VARIABLES) == {name for name, _ in TAKEN} & set(VARIABLES) == {name for name, _ in REFUSED} & set(VARIABLES)
    )


def test_what_a_launcher_sets_is_taken() -> None:
    assert find_mistake({"HOROVOD_CONTROLLER": "mpi", "HOROVOD_CPU_OPERATIONS": "mpi"}, LAUNCHED) is None


def test_what_hvbench_sets_for_a_point_is_taken() -> None:
    point = Point(world_size=2, fusion_threshold_bytes=2**39, cycle_time_seconds=1e-5, autotune=True)
    variables = horovod_variables(point)
    assert set(variables) == {knob.variable for knob in knobs_of(Point).values() if knob.variable}
    assert find_mistake(variables, HERE) is None


def test_an_interface_that_is_not_there_is_said_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HVBENCH_HOSTS", raising=False)
    monkeypatch.setenv("HOROVOD_GLOO_IFACE", "eth99")
    for command in (["plan", "smoke"], ["run", "data=synthetic", "--np", "2"], ["parity", "--np", "2"]):
        assert run(command) == 2
        message = capsys.readouterr().err
        assert message.startswith("hvbench: HOROVOD_GLOO_IFACE=eth99: no such network interface here; there are ")
        assert " lo" in message and len(message.splitlines()) == 1
    assert not any(tmp_path.iterdir()), "nothing was begun"
    with pytest.raises(UsageError), join_launch(1):
        raise AssertionError("it was launched")


def test_an_empty_setting_is_passed_on_to_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOROVOD_CYCLE_TIME", "")
    monkeypatch.setenv("HOROVOD_CACHE_CAPACITY", "0")
    assert "HOROVOD_CYCLE_TIME" not in worker_environment({})
    assert worker_environment({})["HOROVOD_CACHE_CAPACITY"] == "0"


def test_a_file_is_tried_where_it_would_be_written(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    assert why_not_writable(str(tmp_path / "new")) is why_not_writable(str(tmp_path / "there")) is None
    assert why_not_writable(str(tmp_path)) == "it is a folder"
    assert why_not_writable(str(tmp_path / "none/new")) == f"there is no folder {tmp_path / 'none'}"
    with pytest.raises(UsageError, match="^HOROVOD_TIMELINE=.*: cannot be written: it is a folder$"):
        require_horovod_settings(is_launched=False, environment={"HOROVOD_TIMELINE": str(tmp_path)})

"""What a user's shell has set for other programs breaks no command, least of all after something was measured."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hvbench.cli.display import report as report_module
from hvbench.cli.launches.sweep import report_measured_run
from hvbench.errors import StorageError, UsageError
from hvbench.io import surroundings
from hvbench.launch.turns.server import TurnServer
from hvbench.records.store import RunFolder
from tests.unit.sample_records import make_rank, make_record

COMMAND = [sys.executable, "-c", "from hvbench.cli import main; main()"]
USETEX = "text.usetex: True\nbackend: nonsense\nfont.family: No Such Font\nsavefig.format: nonsense\n"


def run(*words: str, cwd: Path, files: int | None = None, **changes: str | None) -> subprocess.CompletedProcess[str]:
    """A command of its own process; None takes a variable away, `files` may be open at once."""
    environment = {key: value for key, value in (dict(os.environ) | changes).items() if value is not None}

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    return subprocess.run(
        [*COMMAND, *words], cwd=cwd, env=environment, capture_output=True, text=True, errors="replace", timeout=300,
        preexec_fn=limit if files else None,
    )  # fmt: skip


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    """A run of one point of each framework."""
    folder = RunFolder(tmp_path / "run")
    folder.open_for_writing()
    folder.write_run({"suite": "smoke", "question": "Which – «faster»?"})
    for framework in ("pytorch", "tensorflow"):
        folder.write_record(make_record([make_rank(step_seconds=[0.2, 0.1, 0.11, 0.12])], framework=framework))
    folder.close()
    return folder.path


def test_a_report_survives_everything_at_once(measured: Path, tmp_path: Path) -> None:
    """Each of these ended it, or could: they are tried together because a process of its own takes seconds."""
    (tmp_path / "matplotlibrc").write_text(USETEX)
    (tmp_path / "file").touch()
    long = tmp_path / ("x" * 90)
    long.mkdir()
    done = run(
        "report", "run", cwd=tmp_path, files=64,
        MPLBACKEND="nonsense", MPLCONFIGDIR=str(tmp_path / "file" / "x"), MATPLOTLIBRC=str(tmp_path / "matplotlibrc"),
        PYTHONWARNINGS="error", PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0",
        PYTHONOPTIMIZE="2", PYTHONHASHSEED="0", PYTHONSAFEPATH="1", COLUMNS="0", LINES="-1", TERM="dumb", NO_COLOR="1",
        TZ="Nowhere/Nothing", TMPDIR=str(long), HOME=str(tmp_path / "file"), DISPLAY="nonsense:99", LANGUAGE="xx",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and done.stdout.endswith("report: run/report.html\n")
    assert "Which – «faster»?" in (measured / "report.md").read_text(encoding="utf-8")
    assert (measured / "plots" / "step_seconds.png").stat().st_size > 1000


CHEAP = {"version": ["--version"], "plan": ["plan", "tiny.toml"], "dry run": ["install-horovod", "--dry-run"]}
HOSTILE: dict[str, dict[str, str | None]] = {
    "optimised": {"PYTHONOPTIMIZE": "2", "PYTHONWARNINGS": "error"},
    "no UTF-8": {"PYTHONIOENCODING": "latin-1", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    "no home": {"HOME": None, "XDG_CACHE_HOME": None, "TMPDIR": "/nowhere", "COLUMNS": "0", "TERM": "nonsense"},
}


@pytest.mark.parametrize("changes", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("words", CHEAP.values(), ids=CHEAP)
def test_a_cheap_command_survives(tmp_path: Path, words: list[str], changes: dict[str, str | None]) -> None:
    (tmp_path / "tiny.toml").write_text(
        'question = "Größer – or ≤?"\n[point]\nmodel = "tiny"\ndata = "synthetic"\n', encoding="utf-8"
    )
    done = run(*words, cwd=tmp_path, **changes)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr


def test_a_folder_that_is_gone_is_one_line(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    words = [
        sys.executable,
        "-P",
        "-c",
        "import os; os.rmdir(os.getcwd()); from hvbench.cli import main; main()",
        "plan",
    ]
    done = subprocess.run(words, cwd=gone, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "hvbench: the current folder does not exist any more; change into one that does\n"


# Single causes, in this process


@pytest.mark.parametrize("length", [20, 90, 107, 200])
def test_turns_are_served_wherever_temporary_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    folder = tmp_path / ("x" * length)
    folder.mkdir()
    monkeypatch.setattr(surroundings.tempfile, "gettempdir", lambda: str(folder))
    with TurnServer(["a", "b"]) as server:
        assert server.path.is_socket() and len(os.fsencode(server.path)) <= surroundings.SOCKET_PATH_BYTES


def test_no_folder_for_a_socket_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surroundings, "SHORT_FOLDERS", (str(tmp_path / "missing"),))
    monkeypatch.setattr(surroundings.tempfile, "gettempdir", lambda: str(tmp_path / ("x" * 99)))
    with pytest.raises(StorageError, match="no folder for a socket: .*too long.*No such file.*set TMPDIR"):
        surroundings.make_socket_folder("hvbench-", name="socket")


@pytest.mark.parametrize(
    "error",
    [
        ImportError("cannot import name 'x' from 'tabulate' (/home/me/tabulate.py)"),
        ValueError("a\nb"),
        RecursionError(),
    ],
)
def test_a_report_that_fails_after_a_sweep_loses_nothing(
    measured: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*words: object, **options: object) -> None:
        raise error

    records = {path.name for path in (measured / "records").iterdir()}
    monkeypatch.setattr(report_module, "report_run", fail)
    with pytest.raises(StorageError) as caught:
        report_measured_run(measured, ())
    message = str(caught.value)
    assert caught.value.exit_code == 5 and "\n" not in message
    assert message.startswith(f"no report: {type(error).__name__}: {str(error).split(chr(10))[0]}")
    assert message.endswith(f"every record is safe: make the report with hvbench report {measured}")
    assert type(error).__name__ in (measured / "logs" / "report.log").read_text()
    assert {path.name for path in (measured / "records").iterdir()} == records


@contextlib.contextmanager
def soft_limit(files: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_low_limit_of_open_files_is_raised_and_a_high_one_kept() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for files in (256, surroundings.USUAL_FILES, surroundings.USUAL_FILES + 100):
        if hard != resource.RLIM_INFINITY and hard < files:
            continue
        with soft_limit(files):
            surroundings.raise_file_limit()
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == max(files, surroundings.USUAL_FILES)


def no_folder() -> str:
    raise FileNotFoundError


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("COLUMNS", "0", None),
        ("COLUMNS", "-5", None),
        ("COLUMNS", "wide", None),
        ("COLUMNS", "120", "120"),
        ("LINES", "", None),
    ],
)
def test_sizes_of_a_terminal_that_it_cannot_have_are_forgotten(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, kept: str | None, undisturbed: Callable[[], None]
) -> None:
    monkeypatch.setenv(name, value)
    surroundings.settle()
    assert os.environ.get(name) == kept


@pytest.fixture
def undisturbed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """`settle` changes this process: its environment is restored, its streams and limits are left alone."""
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)
    monkeypatch.setattr(surroundings, "raise_file_limit", lambda: None)
    return surroundings.settle


def test_a_current_folder_that_is_gone_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, undisturbed: Callable[[], None]
) -> None:
    monkeypatch.setattr(surroundings.os, "getcwd", no_folder)
    with pytest.raises(UsageError, match="does not exist any more"):
        undisturbed()
    assert os.environ["MPLBACKEND"] == "agg"

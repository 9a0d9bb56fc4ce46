"""The cache of wheels and its lock, and the lines of the log that an error shows."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hvbench.errors import InstallError, StorageError
from hvbench.install.cache import build_folder, cached_wheel, locked
from hvbench.install.process import last_words, run_logged
from hvbench.io.cache import cache_root
from tests import patience

HOLDER = """
import sys
from pathlib import Path
from hvbench.install.cache import locked
with locked(Path(sys.argv[1]), report=print):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("HVBENCH_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_root() == Path("/home/someone/.cache/hvbench")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_root() == Path("/xdg/hvbench")
    monkeypatch.setenv("HVBENCH_CACHE", str(tmp_path))
    assert cache_root() == tmp_path


def test_without_a_home_folder_the_user_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HVBENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HVBENCH_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(StorageError, match="^no cache folder: .*; set HVBENCH_CACHE to a folder that can be written$"):
        cache_root()


def test_only_a_finished_wheel_is_taken_from_the_cache(tmp_path: Path) -> None:
    folder = build_folder("0123456789ab", tmp_path)
    (folder / "build").mkdir()
    (folder / "build/horovod-0.28.1-half.whl").touch()
    assert cached_wheel(folder) is None
    (folder / "horovod-0.28.1-whole.whl").touch()
    assert cached_wheel(folder) == folder / "horovod-0.28.1-whole.whl"


def test_a_cache_that_cannot_be_written_is_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InstallError, match="set HVBENCH_CACHE to another folder") as raised:
        build_folder("0123456789ab", tmp_path / "file")
    assert "\n" not in str(raised.value)


def test_a_second_builder_says_so_and_waits(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        said: list[str] = []
        entered = threading.Event()

        def second() -> None:
            with locked(tmp_path, report=said.append):
                entered.set()

        waiter = threading.Thread(target=second)
        waiter.start()
        assert not entered.wait(0.3)
        assert "waiting" in said[0]
        holder.kill()  # a crash frees it
        assert entered.wait(patience.SECONDS)
        waiter.join()


def test_a_free_lock_is_silent(tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        with locked(tmp_path, report=said.append):
            pass
    assert said == []


def run(log: Path, script: str, **keywords: object) -> None:
    options = {"log": log, "environment": dict(os.environ), "report": print, **keywords}
    run_logged([sys.executable, "-c", script], "Compiling", **options)


def test_a_failure_shows_the_compilers_lines_and_the_log(tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    script = "print('a.cc:1:2: error: no such thing'); print('make: Error 1\\n' * 50); raise SystemExit(3)"
    with pytest.raises(InstallError) as raised:
        run(log, script)
    message = str(raised.value)
    assert "Compiling failed (exit code 3)" in message
    assert "a.cc:1:2: error: no such thing" in message
    assert message.count("make: Error 1") <= 3
    assert message.endswith(f"The whole log: {log}")


def test_the_last_lines_when_nothing_looks_like_an_error(tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    assert last_words(log).splitlines()[-1] == "  line 99"


def test_progress_is_redrawn_and_then_removed(tmp_path: Path) -> None:
    drawn: list[str] = []
    script = "import time; print('[ 37%] Building CXX object', flush=True); time.sleep(1.5)"
    run(tmp_path / "build.log", script, status=drawn.append)
    assert any(line.startswith("Compiling: 37 %, 0:0") for line in drawn)
    assert drawn[-1] == ""


def test_an_interrupt_ends_the_command_and_its_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = (
        "import subprocess; sleeper = subprocess.Popen(['sleep', '600']); "
        f"open({str(pid_file)!r}, 'w').write(str(sleeper.pid)); sleeper.wait()"
    )

    def interrupt(_: str) -> None:
        if pid_file.exists() and pid_file.read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "build.log", script, status=lambda line: interrupt(line) if line else None)
    child = Path("/proc") / pid_file.read_text() / "stat"
    for _ in range(50):  # gone, or a zombie that nobody has reaped yet
        if not child.exists() or child.read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("the grandchild is still running")

"""Whether the launcher's command is noticed when it dies: real processes, found by what horovodrun becomes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hvbench.launch.context import Context
from hvbench.launch.parent import Process, find_launchers, read_process, watching

FIND = """
import sys
from hvbench.launch.parent import find_ancestor
found = find_ancestor(tuple(word.encode() for word in sys.argv[1:]))
print(found and found.pid)
"""
SECONDS = 30.0


def ask_below_a_shell(tmp_path: Path, *begins: str) -> tuple[int, str]:
    """The number of a shell that runs `exec 3<&0; …`, and what a process below it finds by its first words."""
    (tmp_path / "find.py").write_text(FIND)
    words = " ".join(f"'{word}'" for word in (sys.executable, str(tmp_path / "find.py"), *begins))
    shell = subprocess.Popen(["/bin/sh", "-c", f"exec 3<&0; {words}; true"], stdout=subprocess.PIPE, text=True)
    return shell.pid, shell.communicate(timeout=SECONDS)[0].strip()


def test_an_ancestor_is_found_by_its_first_words(tmp_path: Path) -> None:
    pid, found = ask_below_a_shell(tmp_path, "/bin/sh", "-c", "exec 3<&0;")
    assert int(found) == pid


def test_an_ancestor_with_other_words_is_not_taken_for_it(tmp_path: Path) -> None:
    assert ask_below_a_shell(tmp_path, "/bin/sh", "-c", "mpirun --allow-run-as-root")[1] == "None"
    assert ask_below_a_shell(tmp_path, "sh", "-c", "exec 3<&0;")[1] == "None"
    assert ask_below_a_shell(tmp_path, *"abcdefgh")[1] == "None"


def test_a_process_that_is_killed_is_noticed_before_it_is_reaped() -> None:
    child = subprocess.Popen(["sleep", "1000"])
    process, died = read_process(child.pid), threading.Event()
    with watching([process], died.set):
        assert process.parent == os.getpid() and process.is_alive()
        child.send_signal(signal.SIGKILL)
        assert died.wait(SECONDS)
    child.wait()


def test_nothing_is_said_of_a_process_that_lives_nor_after_the_end() -> None:
    died = threading.Event()
    child = subprocess.Popen(["sleep", "1000"])
    with watching([read_process(child.pid)], died.set):
        time.sleep(1.5)  # one look
    child.kill()
    child.wait()
    time.sleep(1.5)
    assert not died.is_set()


def test_a_number_that_came_up_again_is_another_process() -> None:
    mine = read_process(os.getpid())
    assert mine is not None and not Process(pid=mine.pid, parent=mine.parent, started="1").is_alive()


def test_a_process_that_nobody_launched_watches_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = Context(launcher="none", rank=0, size=2, is_single_host=True)
    assert find_launchers(alone) == []
    assert find_launchers(replace(alone, launcher="mpi")) == [read_process(os.getppid())]
    monkeypatch.setenv("HVBENCH_TURNS", "a:/tmp/socket")  # without its turn server no rank continues
    assert find_launchers(alone) == [read_process(os.getppid())]

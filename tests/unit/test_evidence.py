"""Which rank a timeout is due to: read from the stack traces of `faulthandler`, here from a real process."""

from __future__ import annotations

import faulthandler
import threading
from pathlib import Path

import pytest

from hvbench.launch.diagnosis import Stack, describe_silence, read_stack, suspect

IN_TWIN = Stack(place="train_step (step.py:80)", is_inside_twin=True)
ELSEWHERE = Stack(place="hang (faults.py:60)", is_inside_twin=False)
AT_TURNS = Stack(place="_ask (turns.py:97)", is_inside_twin=False, is_at_turns=True)
NOWHERE = Stack(place=None, is_inside_twin=False)

DUMP = """Thread 0x00007f01 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 331 in wait
  File "/usr/lib/python3.11/threading.py", line 1009 in _bootstrap

Current thread 0x00007f02 (most recent call first):
  File "/env/lib/python3.11/site-packages/horovod/torch/mpi_ops.py", line 900 in synchronize
  File "/env/hvbench/frameworks/pytorch/step.py", line 87 in train_step
  File "/env/hvbench/worker/jobs.py", line 120 in measure
"""


def test_the_main_threads_innermost_function_of_hvbench_is_the_place() -> None:
    assert read_stack(DUMP) == Stack(place="train_step (step.py:87)", is_inside_twin=True)


def test_a_rank_that_waits_at_the_turn_server_waits_for_its_turn() -> None:
    text = """Current thread 0x00007f02 (most recent call first):
  File "/usr/lib/python3.11/socket.py", line 718 in readinto
  File "/env/hvbench/worker/turns.py", line 97 in _ask
  File "/env/hvbench/worker/turns.py", line 84 in step
  File "/env/hvbench/worker/loop.py", line 120 in run
"""
    assert read_stack(text) == AT_TURNS


def test_a_thread_outside_hvbench_has_its_innermost_function() -> None:
    assert read_stack(DUMP.rpartition("\n\n")[0]) == Stack(place="wait (threading.py:331)", is_inside_twin=False)


@pytest.mark.parametrize("text", ["", "garbage", "Thread 0x", '  File "' + "x" * 10_000, "\x00" * 100])
def test_no_stack_is_no_place(text: str) -> None:
    assert read_stack(text) == NOWHERE


def test_the_interpreters_own_dump_is_understood(tmp_path: Path) -> None:
    leave = threading.Event()
    thread = threading.Thread(target=leave.wait)
    thread.start()
    with (tmp_path / "stack.txt").open("w+") as file:
        faulthandler.dump_traceback(file)
        leave.set()
        thread.join()
        file.seek(0)
        assert read_stack(file.read()).place is not None


@pytest.mark.parametrize(
    ("stacks", "blamed"),
    [
        ({0: IN_TWIN, 1: ELSEWHERE}, 1),  # rank 0 may be waiting for rank 1, which waits for nobody
        ({0: IN_TWIN, 1: IN_TWIN}, 0),  # cannot be told apart
        ({0: ELSEWHERE, 1: NOWHERE}, 1),  # a process that cannot answer has stopped altogether
        ({0: AT_TURNS, 1: IN_TWIN}, 1),  # rank 0 has done its steps of the turn, and waits for rank 1 to do its
        ({0: AT_TURNS, 1: AT_TURNS}, 0),
        ({0: IN_TWIN}, 1),  # its agent did not answer either
        ({}, 0),
    ],
)
def test_the_rank_that_waits_for_nobody_is_blamed(stacks: dict[int, Stack], blamed: int) -> None:
    assert suspect([0, 1], stacks) == blamed


def test_the_message_names_the_place_if_there_is_one() -> None:
    assert describe_silence(1, {1: ELSEWHERE}) == "rank 1 was in hang (faults.py:60)"
    assert describe_silence(1, {1: AT_TURNS}) == "rank 1 waited for its turn"
    assert describe_silence(1, {1: NOWHERE}) == describe_silence(1, {}) == "rank 1 does not say where it is"

"""Ends of a point that need a launch each: frozen workers and agents, divergence, memory that a point really uses up."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvbench.records.record import Outcome
from hvbench.records.store import RunFolder
from tests import patience
from tests.faults.sweeps import (
    find_processes,
    plan_jobs,
    read_outcomes,
    run_sweep,
    start_and_hang,
    start_sweep,
    suite_text,
    wait_until,
)

pytestmark = [pytest.mark.slow, pytest.mark.long]
CGROUP = Path("/sys/fs/cgroup/memory")  # version 1
GROUP_BYTES = 700 * 2**20

TOO_LARGE = """
[point]
model = "small"
data = "synthetic"
vocab_size = 256
[axes]
framework = ["pytorch", "tensorflow"]
micro_batch_size = [2000, 1]
[measure]
warmup_steps = 1
steps = 1
"""


def outcomes(path: Path) -> list[Outcome]:
    """In running order."""
    records = read_outcomes(RunFolder(path / "run"))
    return [records[job.key].outcome for job in plan_jobs((path / "chaos.toml").read_text()) if job.key in records]


def test_a_frozen_worker_is_blamed(tmp_path: Path) -> None:
    text = suite_text(4)
    faults = [
        {"kind": "freeze", "rank": 1, "point": job.point.point_id, "phase": "measure"} for job in plan_jobs(text)[::2]
    ]
    code, output = run_sweep(text, tmp_path, faults=faults, options=["--timeout", "25"])
    assert code == 1, output
    first, second, third, fourth = outcomes(tmp_path)
    for frozen in (first, third):
        assert (frozen.status, frozen.rank, frozen.phase) == ("timeout", 1, "measure")
        assert frozen.message == "not finished after 25 s; rank 1 does not say where it is"
    assert (second.status, fourth.status) == ("ok", "ok")


def test_a_frozen_worker_is_blamed_by_the_peers_that_give_up_on_it(tmp_path: Path) -> None:
    text = suite_text(2, frameworks=("pytorch",))
    fault = {"kind": "freeze", "rank": 1, "point": plan_jobs(text)[0].point.point_id, "phase": "measure"}
    code, output = run_sweep(text, tmp_path, faults=[fault], options=["--timeout", "300"])
    frozen, other = outcomes(tmp_path)
    assert (code, frozen.status, frozen.rank, other.status) == (1, "failed", 1, "ok"), output
    assert frozen.message.startswith("does not answer the other ranks; rank 0 saw: ")


def test_an_agent_that_answers_no_more_ends_the_sweep(tmp_path: Path) -> None:
    sweep, keys = start_and_hang(tmp_path, options=["--timeout", "20"])
    (agent,) = find_processes(sweep.mark, command="hvbench.launch")
    os.kill(agent, signal.SIGSTOP)
    code, output = sweep.wait()
    sweep.wait_for_nobody()
    assert (
        code == 5 and "its agent is gone or does not answer; what was measured is safe, go on with --resume" in output
    )
    assert "Traceback" not in output
    statuses = {key: record.outcome.status for key, record in read_outcomes(sweep.folder).items()}
    assert statuses == {keys[0]: "ok", keys[1]: "timeout", keys[2]: "interrupted"}, "the third was about to be started"
    code, output = run_sweep((tmp_path / "chaos.toml").read_text(), tmp_path, options=["--resume"])
    assert code == 0, output


def test_a_learning_rate_of_a_hundred_diverges(tmp_path: Path) -> None:
    text = (
        suite_text(2)
        .replace("[axes]", "learning_rate = 100.0\nlr_warmup_steps = 0\n[axes]")
        .replace("steps = 3", "steps = 20")
    )
    code, output = run_sweep(text, tmp_path)
    assert code == 1, output
    assert [outcome.status for outcome in outcomes(tmp_path)] == ["diverged"] * 2, output


def test_a_batch_beyond_the_memory_limit_ends_in_oom_and_the_next_is_well(tmp_path: Path) -> None:
    code, output = run_sweep(TOO_LARGE, tmp_path, options=["--memory-limit", "1500MiB"])
    assert code == 1, output
    found = outcomes(tmp_path)
    print([outcome.message for outcome in found])
    assert [outcome.status for outcome in found] == ["oom", "ok"] * 2, output


@pytest.fixture
def memory_group() -> Iterator[Path]:
    group = CGROUP / "hvbench-test"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(GROUP_BYTES))
    except OSError as error:
        pytest.skip(f"no memory control group of one's own: {error}")
    yield group
    group.rmdir()


def test_what_the_kernel_kills_for_memory_ends_in_oom(memory_group: Path, tmp_path: Path) -> None:
    text = TOO_LARGE.replace(', "tensorflow"', "")
    sweep = start_sweep(text, tmp_path)
    wait_until(
        lambda: find_processes(sweep.mark, command="hvbench.launch"),
        seconds=patience.SECONDS,
        what=sweep.describe_processes,
    )
    (agent,) = find_processes(sweep.mark, command="hvbench.launch")
    (memory_group / "cgroup.procs").write_text(str(agent))
    code, output = sweep.wait()
    sweep.wait_for_nobody()
    first, second = outcomes(tmp_path)
    assert (code, first.status, first.rank, first.message) == (1, "oom", 1, "killed by SIGKILL, out of memory"), output
    assert second.status == "ok", output

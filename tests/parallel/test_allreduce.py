"""`hvbench allreduce` as a user runs it: real ranks over Gloo and MPI, every value checked, and what follows from it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hvbench.communication.record import read_records
from hvbench.records.store import RunFolder

SCRIPTS = Path(sys.executable).parent
WORDS = ["-b", "4KiB", "-e", "256KiB", "-f", "4", "--budget", "0.02"]


def run(words: list[str], *, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=550)


@pytest.mark.slow
def test_every_compression_over_gloo_beside_a_ring_over_mpi(tmp_path: Path) -> None:
    words = ["hvbench", "allreduce", "--np", "2", "--implementation", "pytorch,ring", *WORDS, "--out", "run"]
    done = run([*words, "--controller", "gloo,mpi", "--compression", "none,fp16,bf16"], folder=tmp_path)
    assert done.returncode == 0, done.stderr
    records, problems = read_records(tmp_path / "run")
    assert problems == [] and {record.outcome.status for record in records} == {"ok"}
    assert len(records) == 4 * (2 * 3 + 1), "four sizes; three compressions over two controllers, and the ring"
    for record in records:
        assert [rank.rank for rank in record.ranks] == [0, 1]
        assert all(rank.wrong_elements == 0 and len(rank.call_seconds) >= 5 for rank in record.ranks)
        assert {rank.largest_relative_error for rank in record.ranks} == {0.0}, (
            "halves of small whole numbers are exact"
        )
    assert done.stdout.count("# Best bus bandwidth") == 7
    for name in ("allreduce.json", "allreduce.txt", "allreduce.csv", "allreduce.png"):
        assert (tmp_path / "run" / name).is_file(), name
    again = run([*words, "--controller", "gloo", "--resume"], folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert len(read_records(tmp_path / "run")[0]) == len(records), "nothing is measured twice"
    refused = run(words, folder=tmp_path)
    assert refused.returncode == 5 and "holds a run already" in refused.stderr
    fitted = run(["hvbench", "predict", "run", "--ranks", "2,8", "--size", "1MiB"], folder=tmp_path)
    assert fitted.returncode == 0, fitted.stderr
    assert "pytorch gloo" in fitted.stdout and "4 times the ranks" in fitted.stdout


@pytest.mark.long
@pytest.mark.parametrize("np", [2, 3])
def test_every_way_there_is(tmp_path: Path, np: int) -> None:
    done = run(["hvbench", "allreduce", "--np", str(np), *WORDS, "--out", "run"], folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("# Best bus bandwidth") == 2 * 2 * 3 + 2


@pytest.mark.slow
def test_an_asynchronous_server_trains_without_waiting_for_anybody(tmp_path: Path) -> None:
    words = ["hvbench", "run", "strategy=parameter_server_async", "model=tiny", "data=synthetic", "micro_batch_size=2"]
    done = run(
        [*words, "steps=30", "warmup_steps=1", "lr_warmup_steps=1", "--np", "2", "--out", "run"], folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    (record,), _ = RunFolder(tmp_path / "run").read_records()
    losses = [rank.loss for rank in record.ranks]
    assert len(losses) == 2 and losses[0] != losses[1]
    norms = [rank.gradient_norm for rank in record.ranks]
    assert norms[0] != norms[1], "each update is of one rank's gradients"
    assert record.environment["controller"] is None

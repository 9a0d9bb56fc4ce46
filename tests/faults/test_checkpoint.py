"""`kill -9` of a rank while all ranks write a checkpoint: the one before stays whole, no half one counts, and `--resume` loses nothing."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

import pytest

from hvbench.errors import UsageError
from hvbench.io.atomic import TEMPORARY
from hvbench.sweep.export import find_steps
from hvbench.training.checkpoints import ONE_FILE_BYTES, find_checkpoint, identify_checkpoint, name_checkpoint
from tests import patience
from tests.faults.sweeps import RunningSweep, read_outcomes, start_sweep

SUITE = """
question = "Is a checkpoint ever half?"
[point]
framework = "pytorch"
model = "small"
num_layers = 1
vocab_size = 16384
sequence_length = 8
micro_batch_size = 1
data = "synthetic"
[measure]
warmup_steps = 1
steps = 3
checkpoint_every = 1
ceilings = false
"""
OPTIONS = ("--no-parity", "--no-report")


def kill_while_writing(sweep: RunningSweep, *, rank: int, step: int) -> Path:
    """SIGKILL to `rank`'s worker as soon as its file of the checkpoint after `step` is begun; the checkpoint's folder."""
    deadline = time.monotonic() + patience.SECONDS
    while time.monotonic() < deadline:
        assert sweep.process.poll() is None, sweep.wait()[1]
        for folder in sweep.folder.path.glob(f"checkpoints/*/step-{step:07d}"):
            for name in os.listdir(folder):
                if name.startswith(f".rank-{rank:04d}-") and (match := TEMPORARY.fullmatch(name)):
                    os.kill(int(match[1]), signal.SIGKILL)
                    return folder
    raise AssertionError(f"no file of rank {rank} after step {step}: {sweep.describe_processes()}")


@pytest.mark.slow
def test_a_rank_that_is_killed_while_all_write_loses_nothing(tmp_path: Path) -> None:
    sweep = start_sweep(SUITE, tmp_path, options=OPTIONS)
    half = kill_while_writing(sweep, rank=1, step=2)
    code, output = sweep.wait()
    sweep.wait_for_nobody()
    ((key, record),) = read_outcomes(sweep.folder).items()
    assert code == 1 and record.outcome.status == "failed", output
    assert record.outcome.rank == 1 and "SIGKILL" in record.outcome.message
    whole = find_checkpoint(half.parent / name_checkpoint(1))
    assert sum(path.stat().st_size for path in whole.iterdir()) > ONE_FILE_BYTES
    assert sorted(re.sub("-[0-9a-f]{12}", "", path.name) for path in whole.iterdir()) == [
        "manifest.json", "rank-0000.safetensors", "rank-0001.safetensors",
    ]  # fmt: skip
    before = identify_checkpoint(str(whole))
    assert find_steps(sweep.folder.path, record) == [1], "the half one is none"
    with pytest.raises(UsageError, match="no manifest.json: not a checkpoint, or one that was never finished"):
        identify_checkpoint(str(half))

    sweep = start_sweep(SUITE, tmp_path, options=[*OPTIONS, "--resume"])
    code, output = sweep.wait()
    sweep.wait_for_nobody()
    assert code == 0 and {name: one.outcome.status for name, one in read_outcomes(sweep.folder).items()} == {key: "ok"}
    assert find_steps(sweep.folder.path, record) == [1, 2, 3, 4]
    assert identify_checkpoint(str(whole)) == before, "the same training leaves the same, to the last bit"
    files = [path.name for path in half.parent.rglob("*") if path.is_file()]
    assert len(files) == 4 * 3 and not [name for name in files if name.startswith(".")], "nothing half written is left"

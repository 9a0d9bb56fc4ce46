"""The frameworks' own input: consecutive steps, workers that end with it, errors that come through."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hvbench.plan.skip import is_installed
from hvbench.registry import FRAMEWORKS

PROGRAM = """
import json, time, sys
import numpy as np
import psutil
from hvbench.frameworks import load_framework

Input = load_framework(sys.argv[1], "input").Input

def children():
    return [child.pid for child in psutil.Process().children()]

class Batches:
    dtypes = ("int32", "int32")

    def train_batch(self, step):
        if step == 7:
            raise OSError("the disk is gone")
        return np.full((2, 1, 3), step, np.int32), np.full((2, 1, 3), -step, np.int32)

def attempt(call):
    try:
        return call()
    except BaseException as error:
        return f"{type(error).__name__}: {error}"

found = {}
for workers in (0, 2):
    reader = Input(Batches(), steps=range(3, 20), workers=workers)
    batches = [reader.train_batch(step) for step in (3, 4, 5)]
    found[workers] = {
        "read": [[int(inputs[0, 0, 0]), int(targets[1, 0, 2])] for inputs, targets in batches],
        "is_int32": all(array.dtype == np.int32 and array.shape == (2, 1, 3) for batch in batches for array in batch),
        "processes": len(children()),
        "other_step": attempt(lambda: reader.train_batch(9)),
    }
    reader.close()
    found[workers]["left"] = len(children())
    reader = Input(Batches(), steps=range(6, 20), workers=workers)
    reader.train_batch(6)
    found[workers]["failure"] = attempt(lambda: reader.train_batch(7))
    reader.close()
    found[workers]["left_after_failure"] = len(children())
reader = Input(Batches(), steps=range(8, 20), workers=2)
reader.train_batch(8)
print(json.dumps(found | {"running": children()}), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_steps_come_in_order_and_no_worker_is_left(framework: str) -> None:
    if not is_installed(framework):
        pytest.skip(f"{framework} is not installed")
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, framework],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        found = json.loads(process.stdout.readline())
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    forks = 2 if framework == "pytorch" else 0  # DataLoader's workers are processes, tf.data's are threads
    for workers in ("0", "2"):
        one = found[workers]
        assert one["read"] == [[3, -3], [4, -4], [5, -5]] and one["is_int32"]
        assert one["processes"] == (forks if workers == "2" else 0)
        assert one["other_step"] == "ValueError: step 9 was asked for, the input is at step 6"
        assert "the disk is gone" in one["failure"]
        assert one["left"] == one["left_after_failure"] == 0
    assert len(found["running"]) == forks
    for pid in found["running"]:  # its process was killed in the middle of the training
        while is_running(pid):
            time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

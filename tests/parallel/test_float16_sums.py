"""Horovod's sum of float16, of every finite value with several others, is the one that numpy has."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parallel.ranks import run_ranks
from tests.parallel.test_launchers import launch

OTHERS = (12488.0, 100.0, -3.5, 0.0, 30000.0)
SUM = f"""
import numpy as np
hvd.init()
with np.errstate(all="ignore"):
    values = np.arange(2**16, dtype=np.uint16).view(np.float16)
    values = np.where(np.isfinite(values), values, 0).astype(np.float16)
    for other in np.float16({OTHERS}):
        mine = values if hvd.rank() == 0 else np.full_like(values, other)
        found = allreduce(mine, f"with {{other}}")
        expected = (values.astype(np.float32) + np.float32(other)).astype(np.float16)
        for place in np.flatnonzero(found != expected):
            print("WRONG", values[place], "+", other, "=", found[place], flush=True)
print("SUMMED", hvd.rank(), flush=True)
"""
ALLREDUCE = {
    "pytorch": """
import torch
import horovod.torch as hvd
def allreduce(values, name):
    return hvd.allreduce(torch.from_numpy(values), op=hvd.Sum, name=name).numpy()
""",
    "tensorflow": """
import tensorflow as tf
import horovod.tensorflow as hvd
def allreduce(values, name):
    return hvd.allreduce(tf.constant(values), op=hvd.Sum, name=name).numpy()
""",
}


@pytest.mark.slow
@pytest.mark.parametrize(("framework", "controller"), [("pytorch", "gloo"), ("pytorch", "mpi"), ("tensorflow", "gloo")])
def test_no_sum_loses_a_summand(tmp_path: Path, framework: str, controller: str) -> None:
    """Gloo left a sum out where it equalled the old value's bits, read as an integer: eight of the sums with 12488."""
    script = tmp_path / "sums.py"
    script.write_text(ALLREDUCE[framework] + SUM)
    if controller == "mpi":
        said = launch(["mpirun", "-np", "2", "--oversubscribe", "python", str(script)], folder=tmp_path).stdout
    else:
        said = run_ranks([str(script)], folder=tmp_path)
    assert said.count("SUMMED") == 2 and "WRONG" not in said, said

"""A point leaves nothing behind in its worker: what one trainer held does not count as the next point's memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hvbench.registry import FRAMEWORKS
from tests import patience

PROGRAM = """
import gc, sys, weakref
import numpy as np
from hvbench.frameworks import load_framework
from hvbench.spec.point import Point
from hvbench.spec.numerics import PRECISIONS
from hvbench.training.weights import initial_weights

framework = sys.argv[1]
runtime = load_framework(framework, "runtime").Runtime(rank=0, world_size=1, local_rank=0, threads=1, device="cpu")
point = Point(framework=framework, model="tiny", world_size=1, gradient_accumulation_steps=2, micro_batch_size=2, recompute="block")
trainer = load_framework(framework, "trainer").Trainer(
    point, initial_weights(point), precision=PRECISIONS["fp32"], runtime=runtime
)
tokens = np.zeros((2, 2, point.sequence_length), dtype=np.int32)
trainer.train_step(tokens, tokens, learning_rate=1e-3, loss_scale=1.0)
held = [weakref.ref(value) for value in (trainer, trainer.model, *trainer.model.parameters.values())]
del trainer
runtime.release()
gc.collect()
print("loaded:", *(name for name in ("torch._dynamo", "pandas", "matplotlib") if name in sys.modules))
print(sum(reference() is not None for reference in held), "of", len(held), "still there")
"""


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_trainer_is_freed_with_its_last_reference_and_loads_no_compiler(framework: str) -> None:
    """PyTorch's compiler takes longer to load than PyTorch, and a hundred megabytes; each worker would pay for it."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, framework], capture_output=True, text=True, timeout=patience.SECONDS
    )
    assert done.returncode == 0, done.stderr
    *_, loaded, freed = done.stdout.splitlines()
    assert freed.startswith("0 of ") and loaded == "loaded:", done.stdout

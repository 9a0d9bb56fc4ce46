"""The norm that gradients are clipped by is right for tensors of any size, in every framework."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import patience

VALUES = """
import numpy as np
values = [np.random.default_rng(number).standard_normal((2**11, 2**11), np.float32) * np.float32(1e-3) for number in range(2)]
expected = float(np.sqrt(sum(np.square(value, dtype=np.float64).sum() for value in values)))
"""
NORMS = {
    "pytorch": "import torch\nfrom hvbench.frameworks.pytorch.norms import global_norm\nnorm = global_norm([torch.from_numpy(value) for value in values])",
    "tensorflow": "import tensorflow as tf\nfrom hvbench.frameworks.tensorflow.norms import global_norm\nnorm = global_norm([tf.constant(value) for value in values])",
}


@pytest.mark.parametrize("framework", NORMS)
def test_the_norm_of_eight_million_values_is_right_to_eight_digits(framework: str) -> None:
    words = f"{VALUES}\n{NORMS[framework]}\nprint(abs(float(norm) / expected - 1))"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, timeout=patience.SECONDS)
    assert float(done.stdout) < 1e-8, done.stderr

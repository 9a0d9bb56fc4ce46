"""The seeds of dropout's masks: a function of the point, the rank and the pass, so that a run can be repeated and resumed.

Dropout (Srivastava et al., JMLR 15, 2014) is placed as in GPT-2: on the sum of embeddings, on attention probabilities and
on the outputs of the two projections into the residual stream; kept values are divided by the probability of keeping.
Each framework draws its masks with its own generator, so the twins agree in distribution (a test checks that), not
value by value; the parity check compares tensors without dropout.
"""

from __future__ import annotations

import numpy as np

from hvbench.spec.point import Point

Seed = tuple[int, int]  # both below 2^31


def dropout_seed(point: Point, *, rank: int, pass_number: int) -> Seed | None:
    """The seed of one backward pass of a rank, `pass_number` counted from 0 over its whole training; None without dropout."""
    if not point.dropout:
        return None
    random = np.random.default_rng([point.seed, rank, pass_number])
    high, low = random.integers(2**31, size=2).tolist()
    return high, low

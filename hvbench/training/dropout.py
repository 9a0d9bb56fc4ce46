"""Where dropout's random numbers come from: seeds alone, so that a run can be repeated and continued.

Dropout (Srivastava et al., JMLR 15, 2014) as in GPT-2: of the sum of embeddings, of attention probabilities and of what
the two projections add to the residual stream; what is kept is divided by the probability of keeping. Each framework
draws its masks with its own generator. So the twins agree in distribution, which a test holds, and not number by number;
traces that are compared tensor by tensor are taken without dropout.
"""

from __future__ import annotations

import numpy as np

from hvbench.spec.point import Point

Seed = tuple[int, int]  # both below 2^31


def dropout_seed(point: Point, *, rank: int, pass_number: int) -> Seed | None:
    """The seed of one backward pass, counted from 0 over the whole training of a rank; None without dropout."""
    if not point.dropout:
        return None
    random = np.random.default_rng([point.seed, rank, pass_number])
    high, low = random.integers(2**31, size=2).tolist()
    return high, low

"""Variances of several figures measured together -> each variance moderated by the others, with more degrees of freedom. Pure.

Smyth 2004 (Statistical Applications in Genetics and Molecular Biology 3:3, the library limma): the figures' true variances are taken
for draws from a scaled inverse chi-square distribution whose two parameters are estimated from the log variances. Where the
variances are as close as chance leaves equal ones, they are pooled; the further apart they are, the more each keeps its own.
"""

from __future__ import annotations

import numpy as np
from scipy import special

NEWTON_STEPS = 10  # of the inverse trigamma function, whose steps converge quadratically from the start below


def moderate(variances: np.ndarray, *, freedom: float) -> tuple[np.ndarray, np.ndarray]:
    """Moderated variances and their degrees of freedom, both (…, figures); `variances` > 0, each of `freedom` degrees.

    The degrees of freedom are at most those of all figures together. One figure alone keeps what it has.
    """
    figures = variances.shape[-1]
    if figures == 1:
        return variances, np.full(variances.shape, float(freedom))
    # The logarithm of a chi-square variance has a known mean and variance; what scatters beyond that is between figures.
    logs = np.log(variances) - special.digamma(freedom / 2) + np.log(freedom / 2)
    centre = logs.mean(axis=-1, keepdims=True)
    between = logs.var(axis=-1, ddof=1, keepdims=True) - special.polygamma(1, freedom / 2)
    are_unlike = between > 0
    half = np.where(are_unlike, invert_trigamma(np.where(are_unlike, between, 1.0)), 1.0)
    of_unlike = np.exp(centre + special.digamma(half) - np.log(half))
    common = np.where(are_unlike, of_unlike, variances.mean(axis=-1, keepdims=True))
    most = freedom * (figures - 1)
    prior = np.where(are_unlike, np.minimum(2 * half, most), most)
    moderated = (prior * common + freedom * variances) / (prior + freedom)
    return moderated, np.broadcast_to(prior + freedom, variances.shape)


def invert_trigamma(values: np.ndarray) -> np.ndarray:
    """x with trigamma(x) = value, for values > 0, by Newton's method on 1 / trigamma (Smyth 2004, appendix)."""
    x = 0.5 + 1 / values
    for _ in range(NEWTON_STEPS):
        trigamma = special.polygamma(1, x)
        x = x + trigamma * (1 - trigamma / values) / special.polygamma(2, x)
    return x

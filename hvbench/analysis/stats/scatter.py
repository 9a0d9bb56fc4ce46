"""How launches scatter about a fitted curve -> the standard error, with its degrees of freedom, of what follows from the fit.

Each launch may have a spread of its own (HC3: MacKinnon and White, J. Econometrics 29, 1985), and few launches decide about
some parameters: the degrees of freedom are those of Bell and McCaffrey (Survey Methodology 28, 2002). A machine that
drifts makes all launches of one repeat longer by one factor. That factor is no part of their scatter, but the figures
that it moves are known only as well as the repeats agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from hvbench.analysis.stats.confidence import CONFIDENCE

FLATTEST = 1e-9  # of a column of slopes: what is flatter than this, the launches say nothing of
UNKNOWN = 1e6  # standard error of such a parameter, in units of the largest slope


@dataclass(frozen=True, eq=False, kw_only=True)
class Scatter:
    """Of a least-squares fit of logarithms with parameters (p,) to launches (n,)."""

    influence: np.ndarray  # (p, n): of one launch's residual on each parameter
    residuals: np.ndarray  # (n,): without their repeat's mean, divided by 1 - leverage
    maker: np.ndarray  # (n, n): what makes residuals of errors
    blind: np.ndarray  # (p,): standard error of what the launches say nothing of; 0 for all others
    drift: float  # standard error of the mean of the repeats' factors
    repeats: int

    def half_width(self, gradient: np.ndarray, *, of_drift: float) -> float:
        """Half the interval's width of a figure: `gradient` (p,) by the parameters, `of_drift` by the logarithm of all seconds."""
        weights = gradient @ self.influence
        parts = [(float(((weights * self.residuals) ** 2).sum()), self._freedom(weights))]
        if self.repeats > 1:
            parts.append(((of_drift * self.drift) ** 2, float(self.repeats - 1)))
        known = sum(variance for variance, _ in parts)
        if known > 0:
            freedom = known**2 / sum(variance**2 / freedom for variance, freedom in parts)
            known *= float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2)) ** 2
        return math.sqrt(known + float(((gradient * self.blind) ** 2).sum()))

    def _freedom(self, weights: np.ndarray) -> float:
        """(sum of eigenvalues)^2 / sum of their squares, of the quadratic form that estimates the variance."""
        squares = weights**2
        trace = float((squares * np.diag(self.maker)).sum())
        both = float(squares @ self.maker**2 @ squares)
        return max(1.0, trace**2 / both) if both > 0 else 1.0


def measure_scatter(slopes: np.ndarray, residuals: np.ndarray, repeats: Sequence[int]) -> Scatter:
    """Of slopes (n, p) and residuals (n,) of the logarithms, and the repeat of each launch."""
    scale = np.sqrt((slopes**2).sum(axis=0))
    is_blind = scale <= FLATTEST * scale.max()
    scaled = np.where(is_blind, 0.0, slopes / np.where(is_blind, 1.0, scale))
    groups = np.unique(repeats)
    member = (np.asarray(repeats)[:, None] == groups).astype(float)  # (n, repeats)
    means = member.T @ residuals / member.sum(axis=0)
    design = np.hstack([scaled, member - member.mean(axis=0)])
    maker = np.eye(residuals.size) - design @ np.linalg.pinv(design)
    inverse = np.linalg.pinv(scaled.T @ scaled)
    kept = np.maximum(np.diag(maker), 1e-3)
    return Scatter(
        influence=(inverse @ scaled.T) / np.where(is_blind, 1.0, scale)[:, None],
        residuals=(residuals - member @ means) / kept,
        maker=maker / np.outer(kept, kept),
        blind=np.where(is_blind, UNKNOWN, 0.0),
        drift=float(means.std(ddof=1) / math.sqrt(groups.size)) if groups.size > 1 else 0.0,
        repeats=int(groups.size),
    )

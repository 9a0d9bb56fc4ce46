"""A line of values, run by run -> the places where a new level begins. Pure.

The logarithms are a level and steps, with autoregressive noise of order 1: rho from 0 to 1, at which the noise is a random walk on a
straight drift, and only a jump that stands out of all others is a step. All of it is fitted at once by least squares after whitening
(x[t] - rho x[t-1]), rho being the one that fits best. A step is believed if without it the fit is worse by more than chance makes it, n ln(RSS
without / RSS with) above a critical value, and still by much of that where a straight drift is fitted beside it. Steps are added
as long as they help, then the least useful is taken away until all that are left are believed: two steps that
cancel each other are found, too. `benchmarks/history_power.py` has how often that is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

MIN_RUNS = 6  # in fewer, a step cannot be distinguished from noise
MIN_SEGMENT = 2  # runs between two steps: one run alone is an outlier, not a change
MOST_STEPS = 4
RHOS = np.linspace(0.0, 1.0, 11)
LEAST_CHANGE = 1e-3  # of the level: runs that agree to the last digit are not known better than this
MOST_QUANTUM = (
    0.01  # of the level: values that repeat are counted in units of their smallest difference, if that is at most this
)
# Critical value of a step: constant up to 20 runs; the longer a line, the more a wandering machine resembles steps.
CRITICAL, LONG, CRITICAL_OF_LONG = 12.5, 20, 0.3
DRIFT_SHARE = 0.85  # of the critical value: what a step has to be worth beside a straight drift


def find_changes(values: Sequence[float], *, resolution: float = 0.0) -> list[int]:
    """Positions at which a new level begins; none in fewer than six runs. ValueError on values <= 0.

    `resolution`: in the unit of the values; a difference of levels that is not larger is none.
    """
    line = np.asarray(values, dtype=float)
    if (line <= 0).any():
        raise ValueError("a history needs values above 0")
    if len(line) < MIN_RUNS:
        return []
    unit = max(resolution, find_quantum(line), LEAST_CHANGE * float(np.median(line)))
    noise = unit / float(np.median(line)) / np.sqrt(12)  # rounding to a unit
    steps = select_steps(np.log(line), noise=noise)
    while steps:
        starts = [0, *steps, len(line)]
        levels = [np.median(line[a:b]) for a, b in zip(starts, starts[1:], strict=False)]
        sizes = np.abs(np.diff(levels))
        if sizes.min() > unit * (1 + 1e-9):
            break
        steps.pop(int(sizes.argmin()))
    return steps


def find_quantum(line: np.ndarray) -> float:
    """The smallest difference of values that repeat: of a counter that has ticks; 0 where they do not repeat or it is too large."""
    distinct = np.unique(line)
    if not 1 < len(distinct) <= len(line) / 2:
        return 0.0
    quantum = float(np.diff(distinct).min())
    return quantum if quantum <= MOST_QUANTUM * float(np.median(line)) else 0.0


def select_steps(logs: np.ndarray, *, noise: float) -> list[int]:
    """The steps that are believed, in order; `noise`: the least standard deviation of a value."""
    threshold, drifting = critical_value(len(logs)), Fits(logs, noise=noise, has_drift=True)
    for steps, least in eliminate(logs, noise=noise):
        if least > threshold and drifting.measure_removed(steps).min() > DRIFT_SHARE * threshold:
            return steps
    return []


def eliminate(logs: np.ndarray, *, noise: float) -> Iterator[tuple[list[int], float]]:
    """Steps and what the least useful of them is worth: all that may be some first, then each time without the least useful."""
    fits = Fits(logs, noise=noise)
    steps: list[int] = []
    while len(steps) < min(MOST_STEPS, (len(logs) - 4) // 2):
        worth = fits.measure_added(steps)
        if worth.max() <= 0:
            break
        steps = sorted([*steps, int(worth.argmax())])
    while steps:
        worth = fits.measure_removed(steps)
        yield steps, float(worth.min())
        steps = [step for step, each in zip(steps, worth, strict=True) if each > worth.min()]


class Fits:
    """Least squares of one line of logarithms with any steps, for all of RHOS at once."""

    def __init__(self, logs: np.ndarray, *, noise: float, has_drift: bool = False) -> None:
        self.count = len(logs) - 1  # whitened values
        self._floor = self.count * noise**2
        rho, place = RHOS[:, None], np.arange(self.count)
        self._values = (logs[1:] - rho * logs[:-1])[..., None]
        # A level, which is a straight drift where rho is 1; with a drift of its own wherever it is.
        base = np.stack([np.ones(self.count), place - place.mean()], axis=1)[:, : 1 + has_drift]
        self._base = np.broadcast_to(base, (len(RHOS), *base.shape))
        # A step at run k is 1 from there on; whitened: 1 at k and 1 - rho after it. (rho, values, k)
        at = place[:, None] + 1 - np.arange(len(logs))
        self._steps = np.where(at == 0, 1.0, np.where(at > 0, 1 - rho[..., None], 0.0))

    def _fit(self, steps: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """An orthonormal basis and the residuals, (rho, values, …)."""
        basis = np.linalg.qr(np.concatenate([self._base, self._steps[..., list(steps)]], axis=-1))[0]
        return basis, self._values - basis @ (basis.swapaxes(-1, -2) @ self._values)

    def _deviance(self, squares: np.ndarray) -> np.ndarray:
        return self.count * np.log(squares + self._floor + 1e-30).min(axis=0)

    def measure_added(self, steps: Sequence[int]) -> np.ndarray:
        """By how much each further step, by its run, lessens the deviance; 0 where none may be."""
        basis, residuals = self._fit(steps)
        further = self._steps - basis @ (basis.swapaxes(-1, -2) @ self._steps)
        lengths = np.square(further).sum(axis=1)
        lessened = np.square(further.swapaxes(-1, -2) @ residuals)[..., 0] / np.maximum(lengths, 1e-9)
        squares = np.square(residuals).sum(axis=1)
        worth = self._deviance(squares)[0] - self._deviance(
            np.maximum(squares - np.where(lengths > 1e-6, lessened, 0.0), 0.0)
        )
        for taken in [0, len(worth), *steps]:
            worth[max(0, taken - MIN_SEGMENT + 1) : taken + MIN_SEGMENT] = 0.0
        return worth

    def measure_removed(self, steps: Sequence[int]) -> np.ndarray:
        """By how much the deviance grows without each of the steps."""
        whole = self._deviance(np.square(self._fit(steps)[1]).sum(axis=1))[0]
        without = [self._fit([other for other in steps if other != step])[1] for step in steps]
        return np.array([self._deviance(np.square(each).sum(axis=1))[0] - whole for each in without])


def critical_value(runs: int) -> float:
    """What n ln(RSS without / RSS with) of a step has to exceed in a line of so many runs."""
    return CRITICAL + CRITICAL_OF_LONG * max(0, runs - LONG)

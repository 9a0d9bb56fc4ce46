"""What a search tries next: optuna's samplers, told what earlier launches were worth.

One goal: a tree of Parzen estimators over all dimensions together (Bergstra et al., NeurIPS 2011), which takes proposals that still run
for bad ones, so that several can be asked for at once. Two goals: NSGA-II (Deb et al., IEEE Trans. Evol. Comput. 6, 2002). Or random, to
compare with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hvbench.sweep.search.space import Choices, Dimension, Space, Values

SAMPLERS = ("auto", "tpe", "nsga2", "random")
STARTUP = 10  # random proposals before the estimators have anything to say
POPULATION = 12  # of NSGA-II: budgets are of dozens of launches


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Values to try, until their worth is told."""

    values: Values
    trial: Any  # optuna's


class Proposals:
    """Asks and tells; the same questions and answers in the same order give the same proposals."""

    def __init__(self, space: Space, *, goals: int, sampler: Any) -> None:
        """Args: `sampler` is optuna's, of `make_sampler`."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space = space
        self._study = optuna.create_study(directions=["minimize"] * goals, sampler=sampler)
        self._distributions = {name: _distribute(dimension) for name, dimension in space.dimensions.items()}

    def ask(self) -> Proposal:
        """Values to try."""
        trial = self._study.ask(self._distributions)
        values = {name: _read(self.space.dimensions[name], given) for name, given in trial.params.items()}
        return Proposal(values=values, trial=trial)

    def tell(self, proposal: Proposal, worth: Sequence[float] | None) -> None:
        """What a proposal was worth, a number a goal; None: it could not be tried, and says nothing."""
        from optuna.trial import TrialState

        if worth is None:
            self._study.tell(proposal.trial, state=TrialState.FAIL)
        else:
            self._study.tell(proposal.trial, list(worth))

    def learn(self, values: Values, worth: Sequence[float]) -> None:
        """The same of values that were not proposed here."""
        self._study.enqueue_trial({name: _write(self.space.dimensions[name], value) for name, value in values.items()})
        self.tell(self.ask(), worth)


def make_sampler(name: str, *, goals: int = 1, seed: int, startup: int = STARTUP) -> Any:
    """The sampler of optuna's that is meant."""
    from optuna import samplers

    if name == "random":
        return samplers.RandomSampler(seed=seed)
    if name == "nsga2" or (name == "auto" and goals > 1):
        return samplers.NSGAIISampler(seed=seed, population_size=POPULATION)
    return samplers.TPESampler(seed=seed, n_startup_trials=startup, multivariate=True, constant_liar=True)


def _distribute(dimension: Dimension) -> Any:
    """The distribution of optuna's: of a scale its places, for a category knows no neighbours."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(dimension, Choices):
        places = len(dimension.values)
        return IntDistribution(0, places - 1) if dimension.is_scale else CategoricalDistribution(range(places))
    if dimension.is_whole:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.is_log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.is_log)


def _read(dimension: Dimension, given: Any) -> Any:
    return dimension.values[given] if isinstance(dimension, Choices) else given


def _write(dimension: Dimension, value: Any) -> Any:
    return dimension.values.index(value) if isinstance(dimension, Choices) else value

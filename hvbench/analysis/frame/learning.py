"""Launches -> what each choice learned, seed by seed: the evidence that contrasts about learning are made of.

Launches of one seed start from the same weights and read the same batches, whichever framework trains them: they are one
piece of evidence about a loss and about the steps to it, and are averaged. Two choices are compared seed by seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from hvbench.analysis.frame.axes import order_values
from hvbench.analysis.frame.crossing import meet
from hvbench.analysis.frame.frames import NEVER_TRIED
from hvbench.analysis.frame.run import Run

# Where these differ a loss means something else, such as nats per class instead of nats per token.
MEANING_OF_LOSS = (
    "objective", "num_classes", "vocab_size", "data", "encoding", "text_field", "second_text_field", "label_field", "split_seed",
)  # fmt: skip
GAVE_UP = "gave up"


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The validation loss of one launch that ended in `ok`, evaluation by evaluation."""

    seed: int
    point_id: str
    repeat: int
    steps: np.ndarray
    seconds: np.ndarray  # of training until then, evaluations left out
    tokens: np.ndarray  # or steps, where some launch does not say its tokens
    losses: np.ndarray
    accuracies: np.ndarray
    arrival: float | None  # steps to the target loss; None where it was not reached

    def loss_at(self, tokens: float) -> float:
        """The loss after that many tokens, on the line between two evaluations; NaN outside of them."""
        return float(np.interp(tokens, self.tokens, self.losses, left=np.nan, right=np.nan))

    def loss_after(self, seconds: float) -> float:
        """The loss after that much training, likewise. A curve that bends down lies below that line: a loss is rather too high than too low."""
        return float(np.interp(seconds, self.seconds, self.losses, left=np.nan, right=np.nan))

    def accuracy_at(self, tokens: float) -> float:
        """The share of samples whose class was named, likewise."""
        return float(np.interp(tokens, self.tokens, self.accuracies, left=np.nan, right=np.nan))

    def steps_to(self, loss: float) -> float:
        """The steps after which the line between two evaluations first meets that loss; infinite where it never does."""
        return meet(self.steps, self.losses, loss)


@dataclass(frozen=True, kw_only=True)
class Learner:
    """One choice of what varies beside framework and seed: all its launches, seed by seed."""

    chosen: Mapping[str, Any]
    point_ids: tuple[str, ...]
    curves: tuple[Curve, ...]
    launches: int
    lost: Mapping[str, int]  # how launches ended that did not end in `ok`, or gave up -> how many
    is_emulated: bool

    @property
    def is_whole(self) -> bool:
        """Whether no launch was lost: a mean over the others would be one over the lucky ones."""
        return bool(self.curves) and not self.lost

    def losses_at(self, tokens: float) -> dict[int, float]:
        """Seed -> loss after that many tokens."""
        return mean_by_seed([(curve.seed, curve.loss_at(tokens)) for curve in self.curves])

    def accuracies_at(self, tokens: float) -> dict[int, float]:
        """Seed -> share of samples whose class was named."""
        return mean_by_seed([(curve.seed, curve.accuracy_at(tokens)) for curve in self.curves])

    @property
    def arrivals(self) -> dict[int, float]:
        """Seed -> steps to the target; only seeds all of whose launches arrived."""
        return mean_by_seed([(curve.seed, np.nan if curve.arrival is None else curve.arrival) for curve in self.curves])


def mean_by_seed(values: Sequence[tuple[int, float]]) -> dict[int, float]:
    """Seed -> mean of its values, in the order of the seeds; a seed with a value that is no number is left out."""
    found: dict[int, list[float]] = {}
    for seed, value in values:
        found.setdefault(seed, []).append(value)
    means = {seed: float(np.mean(found[seed])) for seed in sorted(found)}
    return {seed: mean for seed, mean in means.items() if np.isfinite(mean)}


def list_learners(run: Run, *, framework: str | None = None) -> list[Learner]:
    """One learner for each choice, in table order, over all frameworks or of one."""
    return run.derive(_list_learners).get(framework, [])


def choice_axes(run: Run) -> list[str]:
    """The axes that distinguish learners: all that vary, but the framework and the seed."""
    return [axis for axis in run.other_axes if axis != "seed"]


def shared_tokens(learners: Sequence[Learner]) -> float:
    """After how many tokens every launch was still evaluated: where all of them can be compared."""
    return min((float(curve.tokens[-1]) for learner in learners for curve in learner.curves), default=np.nan)


def are_losses_comparable(learners: Sequence[Learner]) -> bool:
    """Whether a loss means the same at all of them."""
    kinds = {tuple(learner.chosen.get(name) for name in MEANING_OF_LOSS) for learner in learners}
    return len(kinds) == 1


def _list_learners(run: Run) -> dict[str | None, list[Learner]]:
    points = run.points[~run.points["status"].isin(NEVER_TRIED)]
    curves = read_curves(run)
    axes = choice_axes(run)
    places = {axis: order_values(axis, points[axis]) for axis in axes}
    learners: dict[str | None, list[Learner]] = {}
    for framework in (None, *points["framework"].unique()):
        mine = points if framework is None else points[points["framework"] == framework]
        groups = mine.groupby(axes, sort=False, dropna=False) if axes else [((), mine)]
        found = [_make_learner(group, axes, curves) for _, group in groups if len(group)]
        found.sort(key=lambda learner: [places[axis].index(value) for axis, value in learner.chosen.items()])
        learners[framework] = found
    return learners


def _make_learner(launches: pd.DataFrame, axes: Sequence[str], curves: Mapping[int, Curve]) -> Learner:
    first = launches.iloc[0]
    ends = launches["status"].mask(launches["stopped_by"] == "patience", GAVE_UP)
    return Learner(
        chosen={axis: None if pd.isna(first[axis]) else first[axis] for axis in axes},
        point_ids=tuple(dict.fromkeys(launches["point_id"])),
        curves=tuple(curves[launch] for launch in launches["launch"] if launch in curves),
        launches=len(launches),
        lost={str(end): int(count) for end, count in ends[ends != "ok"].value_counts().items()},
        is_emulated=bool(launches["is_emulated"].any()),
    )


def read_curves(run: Run) -> dict[int, Curve]:
    """Launch -> its curve, of those that ended in `ok` and were evaluated; made once."""
    return run.derive(_read_curves)


def _read_curves(run: Run) -> dict[int, Curve]:
    good = run.points[run.points["status"] == "ok"].set_index("launch")
    evaluations = run.evaluations[run.evaluations["launch"].isin(good.index)]
    # Where nobody says how many tokens a step has, steps are what is alike.
    budget = "tokens" if evaluations["tokens"].notna().all() else "step"
    found = {}
    for launch, marks in evaluations.groupby("launch"):
        own = good.loc[launch]
        found[launch] = Curve(
            seed=int(own["trained_seed"]),
            point_id=str(own["point_id"]),
            repeat=int(own["repeat"]),
            steps=marks["step"].to_numpy(float),
            seconds=marks["training_seconds"].to_numpy(float),
            tokens=marks[budget].to_numpy(float),
            losses=marks["validation_loss"].to_numpy(float),
            accuracies=marks["accuracy"].to_numpy(float),
            arrival=None if pd.isna(own["steps_at_target"]) else float(own["steps_at_target"]),
        )
    return found

"""Forecasts from a run: fit the cost model, predict for more ranks or other links, and state the model's error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from hvbench.analysis.frame.run import Run
from hvbench.analysis.topics.links.bandwidth import show_bandwidth
from hvbench.analysis.topics.links.model import (
    break_even_from_afar,
    machine_models_of,
    models_of,
    payloads_of,
    predict_held_out,
)
from hvbench.communication.cost import Cost
from hvbench.communication.cost_report import (
    error_factors,
    fit_all,
    render_allreduces,
    render_costs,
    render_predictions,
)
from hvbench.communication.predict import Targets, predict_all
from hvbench.communication.record import read_records
from hvbench.communication.results import write_residuals
from hvbench.communication.run import ASKED
from hvbench.communication.summary import summarize
from hvbench.errors import MissingData, UsageError
from hvbench.records.store import RunFolder

LINKS = (2e8, 1e9, 1e10)  # bits per second: what is predicted for where neither the question nor the run says which
COMPUTED = "no link was measured: a step is that of one machine and the time of its bytes on the link, of which nothing is hidden beside other work"


@dataclass(frozen=True, kw_only=True)
class Question(Targets):
    """What to predict for, and an additional run to predict from."""

    beside: Path | None = None  # for a sweep: a run of hvbench allreduce, which has the cost of hops and sums


def forecast(run: Path, question: Question) -> str:
    """Predictions from a run of `hvbench allreduce`, or of a sweep on links of different bandwidth, or on one machine.

    Args:
        run: the run folder; a plot of the fit's residuals is written into one of `hvbench allreduce`.
        question: what is to be predicted.

    Returns:
        The model's parameters, its error on cases that it did not see, and the predictions, as text.

    Raises:
        MissingData: no launch of the run ended in `ok`.
        UsageError: nothing in the run can be fitted, or `question` asks for fewer than 2 ranks.
        StorageError: the plot cannot be written.
    """
    if min(question.world_sizes or (2,)) < 2:
        raise UsageError("--ranks: a rank alone communicates with nobody; give 2 or more")
    is_allreduce = (run / ASKED).exists()
    for folder in [run, question.beside] if is_allreduce else [question.beside]:
        if folder is not None and not (folder / ASKED).exists():
            raise UsageError(f"{folder}: not a run of hvbench allreduce")
    costs, held, problems = fit_all(summarize_run(run if is_allreduce else question.beside))
    blocks = [f"no model: {problem}" for problem in problems]
    if not is_allreduce:
        return "\n\n".join([*blocks, *forecast_steps(run, question, costs, error_factors(costs, held))])
    if not costs:
        if not problems:
            raise MissingData(f"{run}: no case ended in ok")
        raise UsageError(f"{run}: {'; '.join(problems)}")
    write_residuals(run, held)
    return "\n\n".join([*blocks, render_costs(costs, held), forecast_allreduces(question, costs, held)])


def forecast_allreduces(question: Question, costs: Mapping[str, Cost], held: pd.DataFrame) -> str:
    """Table of predicted all-reduces."""
    return render_allreduces(costs, error_factors(costs, held), question)


def forecast_steps(run: Path, question: Question, costs: Mapping[str, Cost], factors: Mapping[str, float]) -> list[str]:
    """Step time and efficiency of a sweep's configurations, with the model's error; raises UsageError."""
    folder = RunFolder(run)
    folder.read_run()
    records, unreadable = folder.read_records()
    if not any(record.is_measured for record in records):
        raise MissingData(
            f"{run}: no launch ended in ok with a timed step{f'; unreadable: {unreadable[0]}' if unreadable else ''}"
        )
    linked = Run(records)
    models = models_of(linked) or machine_models_of(linked)
    if not models:
        raise UsageError(
            f"{run}: holds no configuration on links of different bandwidth, nor one that ran compressed and uncompressed on one machine; "
            "run: hvbench lab -- hvbench sweep network, or hvbench sweep exchange"
        )
    is_linked = models[0].is_linked
    targets = question if is_linked or question.links else replace(question, links=LINKS)
    predictions = predict_all(models, targets, costs=costs, factors=factors)
    return [
        *(f"not a readable record: {problem}" for problem in unreadable),
        render_predictions(predictions),
        *(describe_held_out(linked) if is_linked else []),
        *(describe_break_even(linked) if is_linked else [COMPUTED]),
        "efficiency: against a step that never waits for the wire, uncompressed",
    ]


def describe_held_out(linked: Run) -> list[str]:
    """The model's error on held-out links, in one line; no line where there are too few links."""
    errors = predict_held_out(linked.points, payloads_of(linked.records))
    if not len(errors):
        return []
    errors = 100 * errors["relative_error"].abs()
    return [
        f"links that the model did not see: median error {errors.median():.3g} %, largest {errors.max():.3g} %, "
        f"n = {len(errors)}"
    ]


def describe_break_even(linked: Run) -> list[str]:
    """A line per configuration: where its compression breaks even, and where a model without the nearest links puts that."""
    return [
        f"{row.framework} {row.compression} breaks even at {show_bandwidth(row.break_even_bits_per_second)}; a model "
        f"without the nearest links says {show_bandwidth(row.predicted_bits_per_second)} ({100 * row.relative_error:+.1f} %)"
        for row in break_even_from_afar(linked.points, payloads_of(linked.records)).itertuples()
    ]


def summarize_run(run: Path | None) -> pd.DataFrame:
    """A row a case of a run's records; no rows without a run."""
    return summarize(read_records(run)[0] if run else [])

"""Launches -> estimates: a centre and an interval over the repeats of a point.

The unit of evidence is a launch. Its steps are correlated, so an interval comes from several launches or not at all.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import special
from scipy import stats as scipy_stats

from hvbench.analysis.frame.axes import axes_of, order_values
from hvbench.analysis.frame.breakdown import BREAKDOWN
from hvbench.analysis.frame.ceilings import PEAK_COLUMNS, kind_of_ranks, read_peaks
from hvbench.analysis.frame.quantiles import P95, tail_quantile
from hvbench.analysis.frame.run import Run
from hvbench.analysis.frame.targets import NOT_REACHED
from hvbench.analysis.stats.best import bound_by_best
from hvbench.analysis.stats.confidence import CONFIDENCE
from hvbench.analysis.stats.seeds import BEFORE_TARGET, OF_SEEDS, TO_TARGET, average_by, is_by_seed
from hvbench.records.record import VERDICTS


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Centre and confidence interval over `n` launches; one launch has no interval (`low` and `high` are None)."""

    centre: float
    low: float | None
    high: float | None
    n: int
    confidence: float = CONFIDENCE

    @property
    def relative_half_width(self) -> float:
        """Half the interval's width / the centre; infinite without an interval or with a centre that is not positive."""
        if self.low is None or self.high is None or self.centre <= 0:
            return math.inf
        return (self.high - self.low) / (2 * self.centre)


def estimate_mean(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Estimate:
    """Arithmetic mean of one value per launch, with Student's t interval. ValueError on no or non-finite values."""
    sample = np.asarray(values, dtype=float)
    if sample.size == 0 or not np.isfinite(sample).all():
        raise ValueError(f"an estimate needs finite values, found {sample.tolist()}")
    centre = float(sample.mean())
    if sample.size == 1:
        return Estimate(centre=centre, low=None, high=None, n=1, confidence=confidence)
    # Not t.interval(): it answers NaN when all launches agree exactly, as losses of one seed do.
    # Nor t.ppf() and sem(), which take 50 times as long: thousands of points are compared at once.
    error = float(sample.std(ddof=1)) / math.sqrt(sample.size)
    half = float(special.stdtrit(sample.size - 1, (1 + confidence) / 2)) * error
    return Estimate(centre=centre, low=centre - half, high=centre + half, n=int(sample.size), confidence=confidence)


def estimate_rate(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Estimate:
    """Geometric mean of one rate or duration per launch, with Student's t interval on the logarithm.

    On the log scale a rate and its reciprocal agree and the interval stays positive. ValueError on values <= 0.
    """
    sample = np.asarray(values, dtype=float)
    if (sample <= 0).any():
        raise ValueError(f"a rate or a duration is positive, found {sample.tolist()}")
    log = estimate_mean(np.log(sample), confidence=confidence)
    with np.errstate(over="ignore"):  # an end beyond all numbers is infinite
        low, high = (None if bound is None else float(np.exp(bound)) for bound in (log.low, log.high))
    return Estimate(centre=float(np.exp(log.centre)), low=low, high=high, n=log.n, confidence=confidence)


def estimate_ratio(
    numerators: Sequence[float], denominators: Sequence[float], *, confidence: float = CONFIDENCE
) -> Estimate:
    """Ratio of the geometric means of two sets of launches, with Welch's t interval on the logarithm; `n` of the smaller.

    No interval unless each set has two launches. ValueError on no, non-finite or non-positive values.
    """
    above, below = (estimate_rate(values, confidence=confidence) for values in (numerators, denominators))
    centre, n = above.centre / below.centre, min(above.n, below.n)
    if n < 2:
        return Estimate(centre=centre, low=None, high=None, n=n, confidence=confidence)
    if above.low == above.high and below.low == below.high:  # all equal: Welch's degrees of freedom are 0 / 0
        return Estimate(centre=centre, low=centre, high=centre, n=n, confidence=confidence)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # scipy's doubt about launches that agree exactly
        test = scipy_stats.ttest_ind(np.log(numerators), np.log(denominators), equal_var=False)
    low, high = (float(np.exp(bound)) for bound in test.confidence_interval(confidence))
    return Estimate(centre=centre, low=low, high=high, n=n, confidence=confidence)


def estimate_to_target(values: Sequence[float], before: Sequence[float]) -> Estimate:
    """Mean of when targets were seen to be reached, from one value per seed; `before`: at the evaluations that still missed them.

    The interval holds the mean of when they were reached, somewhere in between: from the lower end of Student's interval of
    `before` to the upper end of that of `values`. However close together the values are, they are no better known than that.
    """
    seen, missed = estimate_mean(values), estimate_mean(before)
    return replace(seen, low=None if missed.low is None else max(0.0, missed.low))


def take_largest(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Estimate:
    """The largest over the launches: for high-water marks, which have no interval."""
    return Estimate(centre=float(max(values)), low=None, high=None, n=len(values), confidence=confidence)


Estimator = Callable[[Sequence[float]], Estimate]
ESTIMATORS: dict[str, Estimator] = {
    "tokens_per_second": estimate_rate,
    "tokens_per_second_per_rank": estimate_rate,
    "model_flops_per_second": estimate_rate,
    "model_flops_utilization": estimate_rate,
    "model_flops_utilization_discounted": estimate_rate,
    "hardware_flops_utilization": estimate_rate,
    "model_flops_utilization_of_machine": estimate_rate,
    "gemm_flops_per_second": estimate_rate,
    "model_gemm_flops_per_second": estimate_rate,
    "ranks_together_ratio": estimate_rate,
    "memory_bandwidth_bytes_per_second": estimate_rate,
    "allreduce_busbw_bytes_per_second": estimate_rate,
    "allreduce_bytes": take_largest,
    "step_seconds_median": estimate_rate,
    "step_seconds_p95": estimate_rate,
    "step_seconds_autocorrelation": estimate_mean,
    "step_seconds_skewness": estimate_mean,
    "first_timed_step_ratio": estimate_rate,
    "first_step_seconds": estimate_rate,
    "data_seconds_median": estimate_mean,
    **dict.fromkeys(BREAKDOWN, estimate_mean),
    "parts_to_step": estimate_rate,
    "peak_rss_bytes": take_largest,
    "start_rss_bytes": take_largest,
    "parameters": take_largest,
    "trained_parameters": take_largest,
    "trained_parameters_share": take_largest,
    "allreduce_bytes_per_step": take_largest,
    "parameter_bytes": take_largest,
    "gradient_bytes": take_largest,
    "optimizer_state_bytes": take_largest,
    "activation_bytes": take_largest,
    "estimated_peak_bytes": take_largest,
    "peak_device_memory_bytes": take_largest,
    "gpu_joules_per_token": estimate_rate,
    "cpu_joules_per_token": estimate_rate,
    "gpu_sm_clock_mhz": estimate_mean,
    "gpu_power_limit_watts": estimate_mean,
    "clipped_fraction": estimate_mean,
    "final_loss": estimate_mean,
    "final_validation_loss": estimate_mean,
    "final_validation_accuracy": estimate_mean,
    "steps_to_target": estimate_mean,
    "tokens_to_target": estimate_mean,
    "seconds_to_target": estimate_mean,
    "seconds_after_first_step_to_target": estimate_mean,
    "evaluation_seconds_to_target": estimate_mean,
}

# Columns of `point_frame`, besides the axes and the metrics, that a summary of launches reads.
LAUNCH_COLUMNS = (
    "point_id", "status", "phase", "message", "target", "target_loss", "trained_seed", "loss_digest", "is_emulated",
    "parity", "timed_steps",
)  # fmt: skip


def summarize_launches(points: pd.DataFrame) -> pd.DataFrame:
    """`point_frame` -> one row per point, in table order.

    Each metric of ESTIMATORS becomes three columns: the centre over the `ok` launches, and `_low` and `_high` of its
    interval. A metric that some `ok` launch lacks (a loss that is no number) is missing, and so is one about learning
    where any launch diverged, or did not reach the target: a mean over the others would be a mean over the lucky ones.
    Launches of one seed are averaged before a metric of OF_SEEDS is estimated; `seeds_ok` counts the seeds. An interval
    of the way to a target also holds the distance to the evaluation before.
    """
    # Plain lists and one array: a frame a point would take most of a large report's time.
    axes = axes_of(points.columns)
    launches = points[[*LAUNCH_COLUMNS, *axes]].to_dict("records")
    metrics = points[[*ESTIMATORS, *BEFORE_TARGET.values()]].to_numpy(dtype="float64", na_value=np.nan)
    rows_of: dict[str, list[int]] = {}
    for index, launch in enumerate(launches):
        rows_of.setdefault(launch["point_id"], []).append(index)
    rows = [_summarize_point([launches[i] for i in group], metrics[group]) for group in rows_of.values()]
    bound_by_machine(rows, points)
    names = [
        "point_id",
        *axes,
        "is_emulated",
        "launches",
        "launches_ok",
        "seeds_ok",
        "status",
        "reason",
        "parity",
        "loss_digests",
    ]
    names += ["target_loss", "target", "timed_steps"]
    names += [key for name in ESTIMATORS for key in with_interval(name)]
    kinds = {name: points[name].dtype for name in axes}
    return sort_points(pd.DataFrame(rows, columns=names).astype(kinds)).reset_index(drop=True)


def bound_by_machine(rows: Sequence[dict[str, Any]], points: pd.DataFrame) -> None:
    """Give each point's MFU of the machine the interval that holds for the best of several libraries, its peak's scatter included."""
    name, rate = "model_flops_utilization_of_machine", "model_flops_per_second"
    launches = points[list(dict.fromkeys(("point_id", rate, *PEAK_COLUMNS)))].to_dict("records")
    peaks = read_peaks(launches)
    rates: dict[str, dict[int, float]] = {}
    kinds: dict[str, tuple[Any, ...]] = {}
    for launch in launches:
        if not pd.isna(launch[rate]):
            rates.setdefault(launch["point_id"], {})[launch["repeat"]] = launch[rate]
            kinds[launch["point_id"]] = kind_of_ranks(launch)
    for row in rows:
        point_id = row["point_id"]
        bounds = bound_by_best(rates[point_id], peaks.get(kinds[point_id], {})) if name in row else None
        low, high = bounds or (None, None)
        if bounds:
            low, high = min(low, row[name]), max(high, row[name])
        row |= {f"{name}_low": low, f"{name}_high": high}


def summary_of(run: Run) -> pd.DataFrame:
    """`summarize_launches` of a run, computed once."""
    return run.derive(_summarize_run)


def summary_rows(run: Run) -> list[dict[str, Any]]:
    """The rows of `summary_of`, made once: the same points are the same objects."""
    return run.derive(_list_summary_rows)


def list_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as mappings, which are read many times faster than a frame's own."""
    return frame.to_dict("records")


def _summarize_run(run: Run) -> pd.DataFrame:
    return pool_steps(summarize_launches(run.points), run)


def pool_steps(summary: pd.DataFrame, run: Run) -> pd.DataFrame:
    """`summary` with the p95 of all launches' steps for the points of which a launch alone has too few for one.

    The steps of one launch resemble each other, so a quantile of pooled steps has no interval.
    """
    good = run.points.loc[run.points["status"] == "ok", "launch"]
    steps = run.slowest_steps
    steps = steps[~steps["is_warmup"] & steps["launch"].isin(good)]
    pooled = {point_id: seconds.to_numpy() for point_id, seconds in steps.groupby("point_id")["step_seconds"]}
    quantiles = [
        tail_quantile(pooled[point_id], P95) if pd.isna(of_launches) and point_id in pooled else of_launches
        for point_id, of_launches in zip(summary["point_id"], summary["step_seconds_p95"], strict=True)
    ]
    return summary.assign(step_seconds_p95=pd.Series(quantiles, index=summary.index, dtype="float64"))


def _list_summary_rows(run: Run) -> list[dict[str, Any]]:
    return list_rows(summary_of(run))


def sort_points(points: pd.DataFrame) -> pd.DataFrame:
    """Rows by the axes in table order, choices in the order that `Point` declares them."""
    axes = axes_of(points.columns)
    ranked = {name: points[name].map({v: i for i, v in enumerate(order_values(name, points[name]))}) for name in axes}
    return points.loc[pd.DataFrame(ranked, index=points.index).sort_values(axes, kind="stable").index]


def with_interval(metric: str) -> tuple[str, str, str]:
    """The keys of a metric in a row of `summarize_launches`: its centre, and the ends of its interval."""
    return metric, f"{metric}_low", f"{metric}_high"


def read_estimate(row: Mapping[str, Any], metric: str) -> Estimate | None:
    """The estimate of `metric` in a row of `summarize_launches`, or None where it is missing; `n` counts seeds where they are what it rests on."""
    if pd.isna(row[metric]):
        return None
    low, high = (None if pd.isna(row[key]) else float(row[key]) for key in with_interval(metric)[1:])
    n = row["seeds_ok"] if is_by_seed(metric, seeds=int(row["seeds_ok"])) else row["launches_ok"]
    return Estimate(centre=float(row[metric]), low=low, high=high, n=int(n))


def _summarize_point(launches: list[dict[str, Any]], metrics: np.ndarray) -> dict[str, object]:
    """`metrics` is (launches, ESTIMATORS and BEFORE_TARGET)."""
    is_good = np.array([launch["status"] == "ok" for launch in launches])
    good = [launch for launch in launches if launch["status"] == "ok"]
    bad = [launch for launch in launches if launch["status"] != "ok"]
    targets = [launch["target"] for launch in launches if not pd.isna(launch["target"])]
    counts = Counter(launch["status"] for launch in launches)
    parities = [launch["parity"] for launch in launches if not pd.isna(launch["parity"])]
    seeds = np.array([launch["trained_seed"] for launch in good])
    row: dict[str, object] = {name: launches[0][name] for name in ("point_id", *axes_of(launches[0]), "target_loss")}
    row |= {
        "launches": len(launches),
        "launches_ok": len(good),
        "seeds_ok": len(set(seeds.tolist())),
        "status": ", ".join(
            status if count == len(launches) else f"{count} of {len(launches)} {status}"
            for status, count in counts.items()
        ),
        "reason": next((describe_end(launch) for launch in bad), None),
        "parity": min(parities, key=VERDICTS.index, default=None),
        "timed_steps": sum(launch["timed_steps"] for launch in good),
        "loss_digests": len({launch["loss_digest"] for launch in good if not pd.isna(launch["loss_digest"])}),
        "target": None,
        "is_emulated": any(launch["is_emulated"] for launch in launches),
    }
    hits = targets.count("reached")
    if targets:
        row["target"] = {0: NOT_REACHED, len(targets): "reached"}.get(hits, f"reached by {hits} of {len(targets)}")
    hidden = (OF_SEEDS if counts["diverged"] else frozenset()) | (TO_TARGET if hits < len(targets) else frozenset())
    columns = dict(zip([*ESTIMATORS, *BEFORE_TARGET.values()], metrics[is_good].T, strict=True))
    for name in ESTIMATORS:
        if name not in hidden and columns[name].size and np.isfinite(columns[name]).all():
            row |= _estimate_column(name, columns, seeds=seeds)
    return row


def _estimate_column(name: str, columns: Mapping[str, np.ndarray], *, seeds: np.ndarray) -> dict[str, float | None]:
    """One metric's centre and interval of columns (launches,), each launch with its seed."""
    values, before = columns[name], columns.get(BEFORE_TARGET.get(name, ""))
    if is_by_seed(name, seeds=len(set(seeds.tolist()))):
        values, before = average_by(seeds, values), before if before is None else average_by(seeds, before)
    estimate = ESTIMATORS[name](values) if before is None else estimate_to_target(values, before)
    return {name: estimate.centre, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def describe_end(row: Mapping[str, Any]) -> str | None:
    """Phase and message of a launch that is not `ok`, as one string."""
    parts = [str(row[name]) for name in ("phase", "message") if not pd.isna(row[name])]
    return ": ".join(parts) or None

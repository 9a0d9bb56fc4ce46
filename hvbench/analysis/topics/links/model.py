"""Step times on links of different bandwidth -> a model of the step: where compression breaks even, other links, more ranks.

    step = local + max(0, wire x 8 x 2 (n - 1) / n x payload / bandwidth - hidden)

`local` is everything but waiting for the wire, casts included; `hidden` is what of the wire's time runs beside other
work; `wire` is what the link costs of its nominal time (headers, gaps), the same for every compression. They are fitted to
the launches by the logarithm of their step times. Intervals come from launches drawn again (bootstrap, Efron 1979): a
launch is the unit of evidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize

from hvbench.analysis.frame.axes import AXES
from hvbench.analysis.frame.run import Run
from hvbench.analysis.stats.confidence import CONFIDENCE
from hvbench.records.record import Record

DRAWS = 200
LEAST_LINKS = 2
SEARCHED_BITS_PER_SECOND = (1e5, 1e13)
WIRE_BOUNDS = (0.5, 3.0)
STARTS = (0.0, 0.3)  # of local: from where the search for `hidden` begins
NOT_OF_A_MODEL = ("compression", "link_bits_per_second", "seed")


@dataclass(frozen=True, kw_only=True)
class Span:
    """A value and its interval; either end may be missing, or infinite."""

    centre: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class LinkModel:
    """One configuration of one framework on links of different bandwidth; mappings are by compression."""

    point: Mapping[str, Any]  # the axes that all its points share
    world_size: int
    payload_bytes: Mapping[str, float]  # of one rank and step, on the wire
    local_seconds: Mapping[str, float]
    hidden_seconds: Mapping[str, float]
    wire: float
    launches: int
    links: tuple[float, float]  # slowest and fastest that were measured, bits per second
    draws: tuple[LinkModel, ...] = ()

    def step_seconds(self, compression: str, *, bits_per_second: float, world_size: int | None = None) -> float:
        """Predicted seconds of a step; more ranks only mean that more of the payload crosses each link."""
        n = world_size or self.world_size
        wire = self.wire * 8 * 2 * (n - 1) / n * self.payload_bytes[compression] / bits_per_second
        return self.local_seconds[compression] + max(0.0, wire - self.hidden_seconds[compression])

    def step_span(self, compression: str, *, bits_per_second: float, world_size: int | None = None) -> Span:
        """The same with its interval over the draws."""
        return spread(
            self.step_seconds(compression, bits_per_second=bits_per_second, world_size=world_size),
            [
                each.step_seconds(compression, bits_per_second=bits_per_second, world_size=world_size)
                for each in self.draws
            ],
        )

    def break_even(self, compression: str, *, world_size: int | None = None) -> float:
        """Bits per second below which `compression` makes a step shorter; inf or 0 where it always or never does."""

        def gain(logarithm: float) -> float:
            link = {"bits_per_second": math.exp(logarithm), "world_size": world_size}
            return self.step_seconds("none", **link) - self.step_seconds(compression, **link)

        low, high = map(math.log, SEARCHED_BITS_PER_SECOND)
        if gain(high) >= 0:
            return math.inf
        if gain(low) <= 0:
            return 0.0
        return math.exp(optimize.brentq(gain, low, high))

    def break_even_span(self, compression: str, *, world_size: int | None = None) -> Span:
        """The same with its interval over the draws."""
        return spread(
            self.break_even(compression, world_size=world_size),
            [each.break_even(compression, world_size=world_size) for each in self.draws],
        )

    def parameter_span(self, name: str, compression: str | None = None) -> Span:
        """A fitted parameter with its interval over the draws: `local_seconds` or `hidden_seconds` of one compression, `wire`."""

        def read(model: LinkModel) -> float:
            value = getattr(model, name)
            return value if compression is None else value[compression]

        return spread(read(self), [read(each) for each in self.draws])

    def describe_reach(self, *, bits_per_second: float | None = None, world_size: int | None = None) -> str:
        """How far beyond what was measured a prediction goes, in words; empty inside of it."""
        parts = []
        if world_size and world_size != self.world_size:
            parts.append(f"{world_size / self.world_size:.3g} times the ranks")
        if bits_per_second and math.isfinite(bits_per_second) and bits_per_second > 0:
            beyond = max(self.links[0] / bits_per_second, bits_per_second / self.links[1])
            if beyond > 1 + 1e-9:
                parts.append(f"{beyond:.3g} times beyond the links")
        return ", ".join(parts)


def spread(centre: float, draws: Sequence[float]) -> Span:
    """`centre` with the middle part of the draws; no interval without draws."""
    if not draws:
        return Span(centre=centre, low=math.nan, high=math.nan)
    # Draws may be infinite: an interval may end in "always".
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method="nearest")
    return Span(centre=centre, low=float(low), high=float(high))


def models_of(run: Run) -> list[LinkModel]:
    """`link_models` of a run, fitted once; none where no link was shaped."""
    return run.derive(_fit_run)


def has_shaped_links(run: Run) -> bool:
    """Whether any launch ran on a link of a stated bandwidth."""
    return bool(run.points["link_bits_per_second"].notna().any())


def payloads_of(records: Sequence[Record]) -> dict[str, float]:
    """Point id -> bytes that one rank all-reduces in a step."""
    return {record.point_id: float(record.model.allreduce_bytes_per_step) for record in records}


def _fit_run(run: Run) -> list[LinkModel]:
    return link_models(run.points, payloads_of(run.records)) if has_shaped_links(run) else []


def link_models(
    points: pd.DataFrame, payloads: Mapping[str, float], *, draws: int = DRAWS, seed: int = 0
) -> list[LinkModel]:
    """A model of each configuration in `point_frame` that ran on links of different bandwidth.

    `payloads`: point id -> bytes that one rank all-reduces in a step. `draws` of the launches make its intervals.
    """
    good = points[(points["status"] == "ok") & points["link_bits_per_second"].notna()]
    shared = [name for name in AXES if name not in NOT_OF_A_MODEL]
    models = []
    for values, rows in good.groupby(shared, sort=False, dropna=False):
        plain = rows[rows["compression"] == "none"]
        if plain["link_bits_per_second"].nunique() < LEAST_LINKS:
            continue
        point = {name: None if pd.isna(value) else value for name, value in zip(shared, values, strict=True)}
        sizes = {str(row.compression): float(payloads[row.point_id]) for row in rows.itertuples()}
        models.append(_fit_with_draws(rows, point=point, payloads=sizes, draws=draws, seed=seed))
    return models


def predict_held_out(points: pd.DataFrame, payloads: Mapping[str, float]) -> pd.DataFrame:
    """Each configuration's step on each link but the slowest and fastest, beside a model that did not see that link."""
    good = points[(points["status"] == "ok") & points["link_bits_per_second"].notna()]
    rows = []
    for link in sorted(good["link_bits_per_second"].unique())[1:-1]:
        held = good[good["link_bits_per_second"] == link]
        for model in link_models(good[good["link_bits_per_second"] != link], payloads, draws=0):
            mine = held[np.all([_equals(held[name], value) for name, value in model.point.items()], axis=0)]
            for compression, same in mine.groupby("compression", sort=False):
                if compression not in model.local_seconds:
                    continue
                measured = float(np.exp(np.log(same["step_seconds_median"].astype(float)).mean()))
                predicted = model.step_seconds(str(compression), bits_per_second=float(link))
                rows.append(
                    {
                        "framework": model.point["framework"], "compression": compression, "link_bits_per_second": link,
                        "step_seconds": measured, "predicted_seconds": predicted, "relative_error": predicted / measured - 1,
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def break_even_from_afar(points: pd.DataFrame, payloads: Mapping[str, float]) -> pd.DataFrame:
    """Each break-even beside that of a model that did not see the nearest measured link on either side of it."""
    good = points[(points["status"] == "ok") & points["link_bits_per_second"].notna()]
    links = sorted(float(link) for link in good["link_bits_per_second"].unique())
    rows = []
    for model in link_models(good, payloads, draws=0):
        for compression in (name for name in model.local_seconds if name != "none"):
            found = model.break_even(compression)
            near = {
                max((each for each in links if each <= found), default=None),
                min((each for each in links if each > found), default=None),
            }
            for far in link_models(good[~good["link_bits_per_second"].isin(near - {None})], payloads, draws=0):
                if far.point == model.point and compression in far.local_seconds and 0 < found < math.inf:
                    guess = far.break_even(compression)
                    rows.append(
                        {
                            "framework": model.point["framework"], "compression": compression,
                            "break_even_bits_per_second": found, "predicted_bits_per_second": guess,
                            "relative_error": guess / found - 1,
                        }
                    )  # fmt: skip
    return pd.DataFrame(rows)


def _equals(column: pd.Series, value: Any) -> np.ndarray:
    same = column.isna() if pd.isna(value) else (column == value).fillna(False)
    return same.to_numpy(dtype=bool)


def _fit_with_draws(
    rows: pd.DataFrame, *, point: Mapping[str, Any], payloads: Mapping[str, float], draws: int, seed: int
) -> LinkModel:
    model = _fit(rows, point=point, payloads=payloads)
    if rows.groupby(["compression", "link_bits_per_second"]).size().min() < 2:
        return model  # one launch a link: nothing says how they scatter
    random = np.random.default_rng(seed)
    groups = [group.to_numpy() for group in rows.groupby(["compression", "link_bits_per_second"]).groups.values()]
    drawn = []
    for _ in range(draws):
        chosen = np.concatenate([random.choice(group, size=len(group)) for group in groups])
        drawn.append(_fit(rows.loc[chosen], point=point, payloads=payloads, start=model))
    return replace(model, draws=tuple(drawn))


def _fit(
    rows: pd.DataFrame, *, point: Mapping[str, Any], payloads: Mapping[str, float], start: LinkModel | None = None
) -> LinkModel:
    """The model with the least squares of the logarithm. The search starts at `start`, or at several places."""
    names = sorted(payloads)
    n = int(point["world_size"])
    seconds = rows["step_seconds_median"].to_numpy(dtype=float)
    links = rows["link_bits_per_second"].to_numpy(dtype=float)
    which = np.array([names.index(name) for name in rows["compression"]])
    nominal = 8 * 2 * (n - 1) / n * np.array([payloads[names[i]] for i in which]) / links
    least = np.array([seconds[which == i].min() for i in range(len(names))])

    def predict(parameters: np.ndarray) -> np.ndarray:
        wire, local, hidden = parameters[0], parameters[1 : 1 + len(names)], parameters[1 + len(names) :]
        return local[which] + np.maximum(0.0, wire * nominal - hidden[which])

    lower = np.concatenate([[WIRE_BOUNDS[0]], 0.05 * least, 0 * least])
    upper = np.concatenate([[WIRE_BOUNDS[1]], 1.5 * least, 1.5 * least])
    if start:
        given = [[start.wire], *([by[name] for name in names] for by in (start.local_seconds, start.hidden_seconds))]
        begins = [np.clip(np.concatenate(given), lower * 1.001 + 1e-12, upper * 0.999)]
    else:
        begins = [np.concatenate([[1.0], 0.9 * least, share * least + 1e-9]) for share in STARTS]
    results = [
        optimize.least_squares(lambda p: np.log(predict(p) / seconds), begin, bounds=(lower, upper), x_scale=upper)
        for begin in begins
    ]
    best = min(results, key=lambda result: result.cost).x
    return LinkModel(
        point=point,
        world_size=n,
        payload_bytes=payloads,
        local_seconds=dict(zip(names, map(float, best[1 : 1 + len(names)]), strict=True)),
        hidden_seconds=dict(zip(names, map(float, best[1 + len(names) :]), strict=True)),
        wire=float(best[0]),
        launches=len(rows),
        links=(float(links.min()), float(links.max())),
    )

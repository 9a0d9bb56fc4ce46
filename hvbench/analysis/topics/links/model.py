"""Step times on links of different bandwidth -> a model of the step: where compression breaks even, other links, more ranks.

    step = local + max(0, wire x 8 x 2 (n - 1) / n x payload / bandwidth - hidden)

with n - 1 in the place of 2 (n - 1) / n where every rank gets what all others send (`Compression.is_gathered`).

`local` is everything but waiting for the wire, casts included; `hidden` is what of the wire's time runs beside other
work; `wire` is what the link costs of its nominal time (headers, gaps), the same for every compression. They are fitted to
the launches by the logarithm of their step times. Intervals are Student's t about the fit (delta method) by the scatter of
the launches about it (`hvbench.analysis.stats.scatter`); a launch is the unit of evidence. Where compression breaks even is bounded as Fieller bounds a ratio: by every bandwidth at
which the difference of the two steps may be 0.

Where no link was shaped, all launches ran on one machine, `local` is their step, and the wire's time is computed: `wire` is 1 and nothing is
hidden. These two are assumed, and intervals are those of the steps alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize

from hvbench.analysis.frame.axes import AXES
from hvbench.analysis.frame.run import Run
from hvbench.analysis.stats.scatter import Scatter, measure_scatter
from hvbench.records.record import Record
from hvbench.spec.compression import COMPRESSIONS

LEAST_LINKS = 2
SEARCHED_BITS_PER_SECOND = (1e5, 1e13)
SEARCHED = 400  # bandwidths between those, at which an end of the break-even's interval is looked for
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
    scatter: Scatter | None = None  # of the launches about it; None: too few say how they scatter
    is_linked: bool = True  # else no link was shaped: the wire's time is computed, and no machine's drift is in it

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether a point with these values is one of the configuration's, and its compression one of those that were measured."""
        same = (value is None if pd.isna(row[name]) else row[name] == value for name, value in self.point.items())
        return row["compression"] in self.local_seconds and all(same)

    def step_seconds(self, compression: str, *, bits_per_second: float, world_size: int | None = None) -> float:
        """Predicted seconds of a step; more ranks only mean that more of the payload crosses each link."""
        wire = self.wire * self.nominal_seconds(compression, bits_per_second=bits_per_second, world_size=world_size)
        return self.local_seconds[compression] + max(0.0, wire - self.hidden_seconds[compression])

    def nominal_seconds(self, compression: str, *, bits_per_second: float, world_size: int | None = None) -> float:
        """Seconds of a step's payload on a link that does what it says."""
        n = world_size or self.world_size
        return 8 * COMPRESSIONS[compression].crossing_share(n) * self.payload_bytes[compression] / bits_per_second

    def step_span(self, compression: str, *, bits_per_second: float, world_size: int | None = None) -> Span:
        """The same with its interval."""
        link = {"bits_per_second": bits_per_second, "world_size": world_size}
        return self._span(self.step_seconds(compression, **link), self._step_gradient(compression, **link))

    def efficiency_span(
        self, compression: str, *, bits_per_second: float, world_size: int | None = None, added_seconds: float = 0.0
    ) -> Span:
        """A step that never waits for the wire, uncompressed, over the predicted one and what is added to it, with its interval."""
        link = {"bits_per_second": bits_per_second, "world_size": world_size}
        local, step = self.local_seconds["none"], self.step_seconds(compression, **link) + added_seconds
        slope = self._unit("local_seconds", "none") / step - self._step_gradient(compression, **link) * local / step**2
        return self._span(local / step, slope)

    def gain_seconds(self, compression: str, *, bits_per_second: float, world_size: int | None = None) -> float:
        """By how much compressing makes a step shorter."""
        plain, packed = (
            self.step_seconds(name, bits_per_second=bits_per_second, world_size=world_size)
            for name in ("none", compression)
        )
        return plain - packed

    def break_even(self, compression: str, *, world_size: int | None = None) -> float:
        """Bits per second below which `compression` makes a step shorter; inf or 0 where it always or never does."""

        def gain(logarithm: float) -> float:
            return self.gain_seconds(compression, bits_per_second=math.exp(logarithm), world_size=world_size)

        return cross_zero(gain)

    def break_even_span(self, compression: str, *, world_size: int | None = None) -> Span:
        """The same with its interval: from where the gain may be none to where it must be."""
        centre = self.break_even(compression, world_size=world_size)
        if self.scatter is None:
            return Span(centre=centre, low=math.nan, high=math.nan)

        def bound(side: int) -> Callable[[float], float]:
            def gain(logarithm: float) -> float:
                link = {"bits_per_second": math.exp(logarithm), "world_size": world_size}
                slope = self._step_gradient("none", **link) - self._step_gradient(compression, **link)
                return self.gain_seconds(compression, **link) + side * self._half_width(slope)

            return gain

        return Span(centre=centre, low=cross_zero(bound(-1)), high=cross_zero(bound(1), is_last=True))

    def parameter_span(self, name: str, compression: str | None = None) -> Span:
        """A fitted parameter with its interval: `local_seconds` or `hidden_seconds` of one compression, `wire`."""
        value = getattr(self, name) if compression is None else getattr(self, name)[compression]
        return self._span(value, self._unit(name, compression))

    @property
    def _parameters(self) -> np.ndarray:
        """wire, then local_seconds and hidden_seconds of every compression, in the order of their names."""
        names = sorted(self.local_seconds)
        return np.array([self.wire, *(by[name] for by in (self.local_seconds, self.hidden_seconds) for name in names)])

    def _unit(self, name: str, compression: str | None) -> np.ndarray:
        """The gradient of one parameter."""
        names = sorted(self.local_seconds)
        first = {"wire": 0, "local_seconds": 1, "hidden_seconds": 1 + len(names)}[name]
        unit = np.zeros(1 + 2 * len(names))
        unit[first + (names.index(compression) if compression else 0)] = 1.0
        return unit

    def _step_gradient(self, compression: str, *, bits_per_second: float, world_size: int | None = None) -> np.ndarray:
        """Derivatives of a step's seconds by the parameters."""
        nominal = self.nominal_seconds(compression, bits_per_second=bits_per_second, world_size=world_size)
        gradient = self._unit("local_seconds", compression)
        if self.wire * nominal > self.hidden_seconds[compression]:
            gradient += self._unit("wire", None) * nominal - self._unit("hidden_seconds", compression)
        return gradient

    def _half_width(self, gradient: np.ndarray) -> float:
        """Of a figure's interval. All parameters are times, or shares of one: a machine that drifts moves all by one factor."""
        assert self.scatter is not None
        parameters = self._parameters
        if not self.is_linked:
            parameters[0] = 0.0
        return self.scatter.half_width(gradient, of_drift=float(gradient @ parameters))

    def _span(self, centre: float, gradient: np.ndarray) -> Span:
        """`centre` and its interval, on the logarithm so that it stays positive; none without a covariance."""
        if self.scatter is None:
            return Span(centre=centre, low=math.nan, high=math.nan)
        half = self._half_width(gradient)
        if centre <= 0:
            return Span(centre=centre, low=0.0, high=centre + half)
        factor = math.exp(min(half / centre, 700.0))
        return Span(centre=centre, low=centre / factor, high=centre * factor)

    def describe_reach(self, *, bits_per_second: float | None = None, world_size: int | None = None) -> str:
        """How far beyond what was measured a prediction goes, in words; empty inside of it."""
        parts = []
        if world_size and world_size != self.world_size:
            parts.append(f"{world_size / self.world_size:.3g} times the ranks")
        if not self.is_linked:
            parts.append("a link, where none was measured")
        elif bits_per_second and math.isfinite(bits_per_second) and bits_per_second > 0:
            beyond = max(self.links[0] / bits_per_second, bits_per_second / self.links[1])
            if beyond > 1 + 1e-9:
                parts.append(f"{beyond:.3g} times beyond the links")
        return ", ".join(parts)


def cross_zero(gain: Callable[[float], float], *, is_last: bool = False) -> float:
    """Bandwidth, in bits per second, at which `gain` of its logarithm falls through 0; inf or 0 where it stays above or below.

    Of several the first that a bandwidth on the rise meets, or the last.
    """
    places = np.linspace(*map(math.log, SEARCHED_BITS_PER_SECOND), SEARCHED)
    is_above = np.array([gain(place) > 0 for place in places])
    if is_above.all() or (is_last and is_above[-1]):
        return math.inf
    if not is_above.any() or (not is_last and not is_above[0]):
        return 0.0
    last = int(np.flatnonzero(is_above)[-1]) if is_last else int(np.flatnonzero(~is_above)[0]) - 1
    return math.exp(optimize.brentq(gain, places[last], places[last + 1]))


def models_of(run: Run) -> list[LinkModel]:
    """`link_models` of a run, fitted once; none where no link was shaped."""
    return run.derive(_fit_run)


def has_shaped_links(run: Run) -> bool:
    """Whether any launch ran on a link of a stated bandwidth."""
    return bool(run.points["link_bits_per_second"].notna().any())


def payloads_of(records: Sequence[Record]) -> dict[str, float]:
    """Point id -> bytes that one rank all-reduces in a step."""
    return {record.point_id: float(record.model.allreduce_bytes_per_step) for record in records}


def machine_models_of(run: Run) -> list[LinkModel]:
    """`machine_models` of a run, fitted once."""
    return run.derive(_fit_machine_run)


def _fit_run(run: Run) -> list[LinkModel]:
    return link_models(run.points, payloads_of(run.records)) if has_shaped_links(run) else []


def _fit_machine_run(run: Run) -> list[LinkModel]:
    return machine_models(run.points, payloads_of(run.records))


def link_models(points: pd.DataFrame, payloads: Mapping[str, float]) -> list[LinkModel]:
    """A model of each configuration in `point_frame` that ran on links of different bandwidth.

    `payloads`: point id -> bytes that one rank all-reduces in a step.
    """
    good = points[(points["status"] == "ok") & points["link_bits_per_second"].notna()]
    return [
        _fit(rows, point=point, payloads=_sizes_of(rows, payloads))
        for point, rows in _configurations(good)
        if rows.loc[rows["compression"] == "none", "link_bits_per_second"].nunique() >= LEAST_LINKS
    ]


def machine_models(points: pd.DataFrame, payloads: Mapping[str, float]) -> list[LinkModel]:
    """A model of each configuration in `point_frame` of which several ranks ran without a shaped link, compressed and not.

    `payloads`: point id -> bytes that one rank all-reduces in a step, 0 where none does.
    """
    good = points[
        (points["status"] == "ok") & points["link_bits_per_second"].isna() & points["step_seconds_median"].notna()
    ]
    models = []
    for point, rows in _configurations(good):
        sizes = _sizes_of(rows, payloads)
        if "none" in sizes and len(sizes) > 1 and all(sizes.values()):
            models.append(_fit_machine(rows, point=point, payloads=sizes))
    return models


def _configurations(points: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Launches by what their points have in common but compression and link: those axes, and the rows."""
    shared = [name for name in AXES if name not in NOT_OF_A_MODEL]
    for values, rows in points.groupby(shared, sort=False, dropna=False):
        yield {name: None if pd.isna(value) else value for name, value in zip(shared, values, strict=True)}, rows


def _sizes_of(rows: pd.DataFrame, payloads: Mapping[str, float]) -> dict[str, float]:
    """Compression -> bytes of a rank and step."""
    return {str(row.compression): float(payloads[row.point_id]) for row in rows.itertuples()}


def predict_held_out(points: pd.DataFrame, payloads: Mapping[str, float]) -> pd.DataFrame:
    """Each configuration's step on each link but the slowest and fastest, beside a model that did not see that link."""
    good = points[(points["status"] == "ok") & points["link_bits_per_second"].notna()]
    rows = []
    for link in sorted(good["link_bits_per_second"].unique())[1:-1]:
        held = good[good["link_bits_per_second"] == link]
        for model in link_models(good[good["link_bits_per_second"] != link], payloads):
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
    for model in link_models(good, payloads):
        for compression in (name for name in model.local_seconds if name != "none"):
            found = model.break_even(compression)
            near = {
                max((each for each in links if each <= found), default=None),
                min((each for each in links if each > found), default=None),
            }
            for far in link_models(good[~good["link_bits_per_second"].isin(near - {None})], payloads):
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


def _fit(rows: pd.DataFrame, *, point: Mapping[str, Any], payloads: Mapping[str, float]) -> LinkModel:
    """The model with the least squares of the logarithm; the search begins at several places."""
    names = sorted(payloads)
    n = int(point["world_size"])
    seconds = rows["step_seconds_median"].to_numpy(dtype=float)
    links = rows["link_bits_per_second"].to_numpy(dtype=float)
    which = np.array([names.index(name) for name in rows["compression"]])
    crossing = np.array([COMPRESSIONS[name].crossing_share(n) * payloads[name] for name in names])
    nominal = 8 * crossing[which] / links
    least = np.array([seconds[which == i].min() for i in range(len(names))])

    def predict(parameters: np.ndarray) -> np.ndarray:
        wire, local, hidden = parameters[0], parameters[1 : 1 + len(names)], parameters[1 + len(names) :]
        return local[which] + np.maximum(0.0, wire * nominal - hidden[which])

    lower = np.concatenate([[WIRE_BOUNDS[0]], 0.05 * least, 0 * least])
    upper = np.concatenate([[WIRE_BOUNDS[1]], 1.5 * least, 1.5 * least])
    results = [
        optimize.least_squares(lambda p: np.log(predict(p) / seconds), begin, bounds=(lower, upper), x_scale=upper)
        for begin in (np.concatenate([[1.0], 0.9 * least, share * least + 1e-9]) for share in STARTS)
    ]
    best = min(results, key=lambda result: result.cost)
    # One launch a point: nothing says how launches scatter.
    is_repeated = rows.groupby(["compression", "link_bits_per_second"]).size().min() > 1
    scatter = measure_scatter(best.jac, best.fun, rows["repeat"].tolist()) if is_repeated else None
    return LinkModel(
        point=point,
        world_size=n,
        payload_bytes=payloads,
        local_seconds=dict(zip(names, map(float, best.x[1 : 1 + len(names)]), strict=True)),
        hidden_seconds=dict(zip(names, map(float, best.x[1 + len(names) :]), strict=True)),
        wire=float(best.x[0]),
        launches=len(rows),
        links=(float(links.min()), float(links.max())),
        scatter=scatter,
    )


def _fit_machine(rows: pd.DataFrame, *, point: Mapping[str, Any], payloads: Mapping[str, float]) -> LinkModel:
    """Steps by compression: their geometric means over the launches, and how launches scatter about these."""
    names = sorted(payloads)
    logarithms = np.log(rows["step_seconds_median"].to_numpy(dtype=float))
    which = np.array([names.index(name) for name in rows["compression"]])
    local = np.array([math.exp(logarithms[which == index].mean()) for index in range(len(names))])
    slopes = np.zeros((len(rows), 1 + 2 * len(names)))
    slopes[np.arange(len(rows)), 1 + which] = 1 / local[which]
    scatter = None
    if rows.groupby("compression").size().min() > 1:
        found = measure_scatter(slopes, np.log(local)[which] - logarithms, rows["repeat"].tolist())
        scatter = replace(found, blind=np.zeros_like(found.blind))  # of what is assumed
    return LinkModel(
        point=point,
        world_size=int(point["world_size"]),
        payload_bytes=payloads,
        local_seconds=dict(zip(names, map(float, local), strict=True)),
        hidden_seconds=dict.fromkeys(names, 0.0),
        wire=1.0,
        launches=len(rows),
        links=(math.inf, math.inf),
        scatter=scatter,
        is_linked=False,
    )

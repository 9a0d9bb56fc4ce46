"""An alpha-beta model of the time of an all-reduce, fitted per implementation and controller, validated on held-out cases.

    seconds = calls x (call + queue x (crowding - 1))
              + crowding x (hop x 2 (n - 1) + byte x B + tail_byte x max(0, B - knee) + cast x values) + wire x 8 B / link

with B = 2 (n - 1) / n x payload on the wire, the bytes that each rank sends in a ring (alpha-beta model: Hockney, Parallel
Computing 1994; the ring's cost: Thakur, Rabenseifner & Gropp, IJHPCA 2005).

    calls       Horovod operations per all-reduce: 2 for bf16, else 1
    cast        cost of a compression per float32 value: casts, and slower sums
    knee        message size from which a byte costs more, because messages no longer fit the caches
    crowding    ranks on a host / its cores, at least 1: ranks that share a core multiply all work by it, but not the wait
                for the wire or for Horovod's next cycle (`call`); each call then also waits in a `queue` for a core
    wire        share of a link's nominal time; on a link that hvbench shaped, the first bytes of a call pass at once: what
                the token bucket has gathered during the `rest` before the call, at most its size

Times are fitted by their logarithms, so that a case of microseconds counts as much as one of seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import optimize, special

from hvbench.analysis.stats.confidence import CONFIDENCE
from hvbench.launch.link import burst_bytes
from hvbench.spec.compression import WIRE_FORMATS
from hvbench.training.products import busbw_factor

CASTING = tuple(name for name, wire in WIRE_FORMATS.items() if wire.is_compressed)
LEAST_ROWS = 6  # cases for a fit
SMALLEST = 1e-15  # avoids a division by 0 and a logarithm of 0
NEGLIGIBLE = 1e-4  # a term below this share of every case's time is set to 0
ROBUST_SCALE = 0.1  # of the soft L1 loss: a deviation of the logarithm beyond this counts less than squared
RESTS = (
    0.0,
    1e-3,
    2e-3,
    4e-3,
    8e-3,
    16e-3,
    32e-3,
)  # seconds during which a token bucket may have filled; all are tried
EARNED = 0.9  # a knee is used only where the loss falls below this share: two more parameters always fit noise better


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The fitted model of one implementation and controller; the module's docstring has the formula."""

    family: str  # implementation and controller, such as `pytorch gloo`
    call_seconds: float  # per call
    queue_seconds: float  # per call and unit of crowding above 1
    hop_seconds: float  # per hop
    byte_seconds: float  # per byte sent
    tail_byte_seconds: float  # per byte sent beyond the knee, in addition
    knee_bytes: float  # infinite where there is no knee
    cast_seconds: Mapping[str, float]  # compression -> per value, for the compressions that were measured
    wire: float  # factor on the link's nominal time; 1 where no link was shaped
    rest_seconds: float  # during which a shaped link's token bucket fills before a call
    cases: int  # that it was fitted to
    largest_world_size: int
    payload_range_bytes: tuple[int, int]
    link_range_bits_per_second: tuple[float, float] | None

    def predict(
        self,
        *,
        payload_bytes: float,
        world_size: float,
        compression: str = "none",
        link_bits_per_second: float | None = None,
        latency_seconds: float = 0.0,
    ) -> float:
        """Predicted seconds of one all-reduce where every rank has a core, over a link without a token bucket.

        Args:
            payload_bytes: Of the float32 values.
            world_size: Ranks.
            compression: Wire format.
            link_bits_per_second: Bandwidth of each rank's link; None: as in the fitted cases.
            latency_seconds: Additional time per hop, compared with the fitted cases.
        """
        values = payload_bytes / 4
        crossing = busbw_factor(world_size) * values * WIRE_FORMATS[compression].value_bytes
        hops = 2 * (world_size - 1)
        software = (
            self.call_seconds * WIRE_FORMATS[compression].operations
            + self.hop_seconds * hops
            + self.byte_seconds * crossing
            + self.tail_byte_seconds * max(0.0, crossing - self.knee_bytes)
            + self.cast_seconds.get(compression, 0.0) * values
        )
        wire = self.wire * 8 * crossing / link_bits_per_second if link_bits_per_second else 0.0
        return software + wire + hops * latency_seconds

    @property
    def parameters(self) -> np.ndarray:
        """The fitted parameters, in the order of the columns of `_terms`."""
        casts = (self.cast_seconds.get(name, 0.0) for name in CASTING)
        return np.array(
            [
                self.call_seconds, self.queue_seconds, self.hop_seconds, self.byte_seconds, self.tail_byte_seconds, self.wire, *casts,
            ]
        )  # fmt: skip

    def describe_reach(self, *, payload_bytes: float, world_size: float, link_bits_per_second: float | None) -> str:
        """How far a prediction extrapolates beyond the fitted cases, in words; empty within their range."""
        parts = []
        if world_size > self.largest_world_size:
            parts.append(f"{world_size / self.largest_world_size:.3g} times the ranks")
        low, high = self.payload_range_bytes
        if not low <= payload_bytes <= high:
            parts.append(f"{max(payload_bytes / high, low / payload_bytes):.3g} times beyond the sizes")
        if link_bits_per_second:
            if self.link_range_bits_per_second is None:
                parts.append("a link, where none was measured")
            else:
                slow, fast = self.link_range_bits_per_second
                if not slow <= link_bits_per_second <= fast:
                    beyond = max(link_bits_per_second / fast, slow / link_bits_per_second)
                    parts.append(f"{beyond:.3g} times beyond the links")
        return ", ".join(parts)


def families(summary: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """`IMPLEMENTATION CONTROLLER` -> its rows of `summarize` that have times."""
    good = summary.dropna(subset=["p50_seconds"])
    return {" ".join(key): rows for key, rows in good.groupby(["implementation", "controller"], sort=False)}


def fit(family: str, rows: pd.DataFrame) -> Cost:
    """Fit the model of one family to `rows` of `summarize`. Raises ValueError where there are fewer than LEAST_ROWS.

    The rest and the knee are chosen by trying candidates; all other parameters are fitted for each candidate.
    """
    if len(rows) < LEAST_ROWS:
        raise ValueError(f"{family}: {len(rows)} cases are too few for a model; {LEAST_ROWS} are needed")
    seconds, crossing = rows["p50_seconds"].to_numpy(dtype=float), _crossing(rows)
    links = rows["link_bits_per_second"].dropna().astype(float)
    plain = {
        rest: _refine(_terms(rows, knee=np.inf, rest=rest), seconds) for rest in (RESTS if len(links) else RESTS[:1])
    }
    rest = min(plain, key=lambda seconds: plain[seconds][1])
    knees = [np.inf, *np.unique(crossing)[1:-1]]
    rough = {knee: _fit_relative(_terms(rows, knee=knee, rest=rest), seconds)[1] for knee in knees}
    best = min(rough, key=rough.__getitem__)
    bent = _refine(_terms(rows, knee=best, rest=rest), seconds)
    knee, (parameters, _) = (best, bent) if bent[1] < EARNED * plain[rest][1] else (np.inf, plain[rest])
    call, queue, hop, byte, tail, wire, *casts = parameters
    measured = set(rows["compression"])
    return Cost(
        family=family,
        call_seconds=call,
        queue_seconds=queue,
        hop_seconds=hop,
        byte_seconds=byte,
        tail_byte_seconds=tail,
        knee_bytes=knee,
        cast_seconds={name: cast for name, cast in zip(CASTING, casts, strict=True) if name in measured},
        wire=wire if len(links) else 1.0,
        rest_seconds=rest,
        cases=len(rows),
        largest_world_size=int(rows["world_size"].max()),
        payload_range_bytes=(int(rows["payload_bytes"].min()), int(rows["payload_bytes"].max())),
        link_range_bits_per_second=(links.min(), links.max()) if len(links) else None,
    )


def predict_rows(cost: Cost, rows: pd.DataFrame) -> np.ndarray:
    """Predicted seconds [rows] of rows of `summarize`, with the crowding and the link of each."""
    return _terms(rows, knee=cost.knee_bytes, rest=cost.rest_seconds) @ cost.parameters


def hold_out(family: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Cross-validation: each case with the prediction of a model fitted without its size, or without its number of ranks.

    `kind` is `size` (every size except the smallest and the largest is held out in turn) or `world_size` (the largest is
    held out, where there are several); `relative_error` = predicted / measured - 1.
    """
    parts = []
    for size in sorted(rows["payload_bytes"].unique())[1:-1]:
        parts.append(_hold_out(family, rows, rows["payload_bytes"] == size, kind="size"))
    if rows["world_size"].nunique() > 1:
        parts.append(_hold_out(family, rows, rows["world_size"] == rows["world_size"].max(), kind="world_size"))
    return (
        pd.concat([part for part in parts if part is not None]) if any(p is not None for p in parts) else pd.DataFrame()
    )


def error_factor(held_out: pd.DataFrame) -> float:
    """Factor within which the next prediction is, too high or too low, 95 times in 100; NaN without any held-out case.

    Of n held-out cases the one of rank 95 % of n + 1 (Vovk et al., Algorithmic Learning in a Random World, 2005: it covers for
    any distribution); of fewer than 19, which have no such rank, Student's t about no error on the logarithm.
    """
    if held_out.empty:
        return np.nan
    errors = np.sort(np.abs(np.log1p(held_out["relative_error"].to_numpy(dtype=float))))
    rank = math.ceil(round(CONFIDENCE * (errors.size + 1), 9))
    if rank <= errors.size:
        return float(np.exp(errors[rank - 1]))
    typical = math.sqrt(float(np.mean(errors**2)))
    return float(np.exp(special.stdtrit(errors.size, (1 + CONFIDENCE) / 2) * typical))


def _hold_out(family: str, rows: pd.DataFrame, chosen: pd.Series, *, kind: str) -> pd.DataFrame | None:
    if (~chosen).sum() < LEAST_ROWS:
        return None
    predicted = predict_rows(fit(family, rows[~chosen]), rows[chosen])
    held = rows.loc[chosen, ["path", "world_size", "link_bits_per_second", "payload_bytes", "p50_seconds"]]
    return held.assign(
        family=family, kind=kind, predicted_seconds=predicted, relative_error=predicted / held["p50_seconds"] - 1
    )


def _crossing(rows: pd.DataFrame) -> np.ndarray:
    """B of each row: the bytes that each rank sends."""
    wire_bytes = (
        rows["payload_bytes"].to_numpy(dtype=float)
        / 4
        * rows["compression"].map(lambda name: WIRE_FORMATS[name].value_bytes).to_numpy(dtype=float)
    )
    return busbw_factor(rows["world_size"].to_numpy(dtype=float)) * wire_bytes


def _fit_relative(terms: np.ndarray, seconds: np.ndarray) -> tuple[np.ndarray, float]:
    """(nonnegative parameters, root of the summed squares) with the least relative errors: convex, hence a unique optimum."""
    return optimize.nnls(terms / seconds[:, None], np.ones(len(seconds)))


def _refine(terms: np.ndarray, seconds: np.ndarray) -> tuple[np.ndarray, float]:
    """(nonnegative parameters, loss) with the least soft L1 loss of the logarithms, which is robust to outliers."""
    start, _ = _fit_relative(terms, seconds)

    def deviations(scaled: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(terms @ (scaled * scale), SMALLEST) / seconds)

    # Scale the parameters so that one unit of each adds about the same: the time of the longest case.
    scale = seconds.max() / np.maximum(np.abs(terms).max(axis=0), SMALLEST)
    begin = np.maximum(start / scale, 1e-9)
    result = optimize.least_squares(deviations, begin, bounds=(0.0, np.inf), loss="soft_l1", f_scale=ROBUST_SCALE)
    parameters = result.x * scale
    shares = (terms * parameters / seconds[:, None]).max(axis=0)
    return np.where(shares > NEGLIGIBLE, parameters, 0.0), float(result.cost)


def gathered_bytes(bits_per_second: float, *, rest: float) -> float:
    """Bytes that a shaped link lets pass at once after `rest` seconds without traffic."""
    return min(burst_bytes(bits_per_second), rest * bits_per_second / 8)


def _terms(rows: pd.DataFrame, *, knee: float, rest: float) -> np.ndarray:
    """The model's terms [rows, parameters]; columns: call, queue, hop, byte, tail byte, wire, casts."""
    crossing, world_size = _crossing(rows), rows["world_size"].to_numpy(dtype=float)
    crowding = np.maximum(1.0, (rows["ranks_on_host"] / rows["cores"]).to_numpy(dtype=float))
    links = rows["link_bits_per_second"].to_numpy(dtype=float, na_value=np.inf)
    bursts = np.array([gathered_bytes(link, rest=rest) if np.isfinite(link) else 0.0 for link in links])
    values = rows["payload_bytes"].to_numpy(dtype=float) / 4
    tail = np.maximum(0.0, crossing - knee) if np.isfinite(knee) else np.zeros_like(crossing)
    calls = rows["compression"].map(lambda name: WIRE_FORMATS[name].operations).to_numpy(dtype=float)
    columns: Sequence[np.ndarray] = [
        calls,
        calls * (crowding - 1),
        crowding * 2 * (world_size - 1),
        crowding * crossing,
        crowding * tail,
        8 * np.maximum(0.0, crossing - bursts) / links,
        *(crowding * values * (rows["compression"] == name).to_numpy() for name in CASTING),
    ]
    return np.stack(columns, axis=1)

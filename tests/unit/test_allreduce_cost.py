"""The cost model recovers known parameters, estimates its error, and says how far it extrapolates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hvbench.communication.cost import Cost, error_factor, families, fit, hold_out, predict_rows
from hvbench.communication.cost_report import fit_all, render_allreduces, render_costs
from hvbench.communication.predict import Targets
from hvbench.communication.summary import COLUMNS
from hvbench.spec.compression import WIRE_FORMATS
from hvbench.training.products import busbw_factor

SIZES = [4**power for power in range(5, 15)]
TRUTH = {
    "call": 8e-4,
    "queue": 1.5e-3,
    "hop": 5e-5,
    "byte": 6e-10,
    "fp16": 9e-10,
    "bf16": 2e-9,
    "wire": 1.1,
    "rest": 2e-3,
}


def gathered(link: float) -> float:
    """Bytes that the token bucket of a shaped link lets pass at once."""
    return min(max(128 * 1024, link / 8 * 4e-3), TRUTH["rest"] * link / 8)


def seconds_of(size: int, n: int, compression: str, link: float | None, *, crowding: float) -> float:
    """Written from the formula in the module's docstring, not from its code."""
    wire_bytes = size / 4 * WIRE_FORMATS[compression].value_bytes
    crossing = 2 * (n - 1) / n * wire_bytes
    calls = 2 if compression == "bf16" else 1
    waiting = calls * (TRUTH["call"] + TRUTH["queue"] * (crowding - 1))
    software = TRUTH["hop"] * 2 * (n - 1) + TRUTH["byte"] * crossing + TRUTH.get(compression, 0.0) * size / 4
    shaped = max(0.0, crossing - gathered(link)) if link else 0.0
    return waiting + crowding * software + (TRUTH["wire"] * 8 * shaped / link if link else 0.0)


def make_rows(*, noise: float = 0.0, links: tuple[float | None, ...] = (None,), worlds=(2, 3, 4)) -> pd.DataFrame:
    random = np.random.default_rng(1)
    rows = [
        {
            "path": f"pytorch gloo {compression}", "implementation": "pytorch", "controller": "gloo",
            "compression": compression, "world_size": n, "link_bits_per_second": link, "payload_bytes": size,
            "ranks_on_host": n, "cores": 2, "status": "ok",
            "p50_seconds": seconds_of(size, n, compression, link, crowding=max(1, n / 2)) * np.exp(noise * random.standard_normal()),
        }
        for n in worlds for compression in WIRE_FORMATS for link in links for size in SIZES
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def only(rows: pd.DataFrame) -> Cost:
    ((name, family),) = families(rows).items()
    return fit(name, family)


def test_a_fit_recovers_the_parameters() -> None:
    cost = only(make_rows(links=(None, 2e8, 1e9)))
    assert cost.family == "pytorch gloo"
    assert cost.call_seconds == pytest.approx(TRUTH["call"], rel=0.02)
    assert cost.queue_seconds == pytest.approx(TRUTH["queue"], rel=0.05)
    assert cost.hop_seconds == pytest.approx(TRUTH["hop"], rel=0.05)
    assert cost.byte_seconds == pytest.approx(TRUTH["byte"], rel=0.01)
    assert cost.cast_seconds == pytest.approx({"fp16": TRUTH["fp16"], "bf16": TRUTH["bf16"]}, rel=0.01)
    assert cost.wire == pytest.approx(TRUTH["wire"], rel=0.01)
    assert cost.rest_seconds == TRUTH["rest"]
    assert cost.tail_byte_seconds == 0 or not np.isfinite(cost.knee_bytes)


def test_a_knee_is_found_where_there_is_one() -> None:
    rows = make_rows(worlds=(2,))
    crossing = rows["payload_bytes"] / 4 * rows["compression"].map(lambda name: WIRE_FORMATS[name].value_bytes)
    rows["p50_seconds"] += 5e-9 * np.maximum(0, crossing - 2**22)
    cost = only(rows)
    assert cost.knee_bytes == 2**22
    assert cost.tail_byte_seconds == pytest.approx(5e-9, rel=0.05)


def test_a_compression_that_was_not_measured_has_no_parameter() -> None:
    rows = make_rows(noise=0.02, worlds=(2, 4))
    rows = rows[rows["compression"] != "bf16"]
    cost = only(rows)
    assert set(cost.cast_seconds) == {"fp16"}
    costs, held, _ = fit_all(rows)
    (line,) = [line for line in render_costs(costs, held).splitlines() if line.startswith("pytorch gloo")]
    assert "–" in line and "e-" not in line
    assert "bf16" not in render_allreduces(costs, {"pytorch gloo": 1.1}, Targets(payloads=(2**20,)))


def test_without_a_link_the_measured_ones_are_predicted() -> None:
    costs, _, _ = fit_all(make_rows(links=(2e8, 1e9), worlds=(2, 4)))
    text = render_allreduces(costs, {"pytorch gloo": 1.1}, Targets(payloads=(2**24,)))
    assert text == render_allreduces(costs, {"pytorch gloo": 1.1}, Targets(payloads=(2**24,), links=(2e8, 1e9)))
    assert "200 Mbit/s" in text and "as measured" not in text


def test_a_prediction_is_the_formula() -> None:
    cost = only(make_rows(links=(None, 2e8)))
    for n, compression, link in ((2, "none", None), (64, "fp16", 1e9), (7, "bf16", 1e8)):
        predicted = cost.predict(payload_bytes=2**24, world_size=n, compression=compression, link_bits_per_second=link)
        at_once = TRUTH["wire"] * 8 * gathered(link) / link if link else 0.0  # a real link lets nothing pass at once
        assert predicted == pytest.approx(seconds_of(2**24, n, compression, link, crowding=1) + at_once, rel=0.02)
    slow = cost.predict(payload_bytes=2**24, world_size=8, latency_seconds=1e-3)
    assert slow - cost.predict(payload_bytes=2**24, world_size=8) == pytest.approx(14e-3)


def test_held_out_sizes_and_ranks_are_predicted_as_well_as_the_noise_allows() -> None:
    rows = make_rows(noise=0.05)
    held = hold_out("pytorch gloo", rows)
    assert set(held["kind"]) == {"size", "world_size"}
    sizes, worlds = (held[held["kind"] == kind] for kind in ("size", "world_size"))
    assert set(sizes["payload_bytes"]) == set(SIZES[1:-1])
    assert set(worlds["world_size"]) == {4} and len(worlds) == 3 * len(SIZES)
    assert sizes["relative_error"].abs().median() < 0.06
    assert worlds["relative_error"].abs().median() < 0.10
    assert 1.05 < error_factor(held) < 1.35


def test_one_disturbed_case_moves_little() -> None:
    rows = make_rows()
    before = predict_rows(only(rows), rows)
    rows.loc[5, "p50_seconds"] *= 10
    after = predict_rows(only(rows), rows)
    assert np.abs(after / before - 1).max() < 0.1


def test_reach_says_what_is_beyond_the_cases() -> None:
    cost = only(make_rows(links=(2e8, 1e9)))
    assert cost.describe_reach(payload_bytes=2**20, world_size=4, link_bits_per_second=5e8) == ""
    beyond = cost.describe_reach(payload_bytes=4**15, world_size=64, link_bits_per_second=1e10)
    assert beyond == "16 times the ranks, 4 times beyond the sizes, 10 times beyond the links"
    unlinked = only(make_rows()).describe_reach(payload_bytes=2**20, world_size=2, link_bits_per_second=1e9)
    assert unlinked == "a link, where none was measured"


def test_too_few_cases_are_no_model() -> None:
    with pytest.raises(ValueError, match="5 cases are too few"):
        fit("ring mpi", make_rows().head(5))


def test_the_factor_is_that_of_nccl_tests() -> None:
    assert [busbw_factor(n) for n in (2, 4, 8)] == [1.0, 1.5, 1.75]

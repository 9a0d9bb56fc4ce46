"""What the wire's number format loses of gradients: counted as the formats themselves lose it, recorded, told, warned of."""

from __future__ import annotations

import numpy as np
import pytest

from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.facts import list_warnings
from hvbench.analysis.report.terminal import render_terminal
from hvbench.analysis.topics.wire import TOPIC, find_large_losses, lost_shares, wire_tables
from hvbench.launch.requests import MeasureRequest
from hvbench.plan.jobs import Job
from hvbench.plan.risks import describe_wire_risks
from hvbench.records.record import Record, WireLook
from hvbench.spec.compression import WIRE_FORMATS
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.training.wire import (
    WireLosses,
    count_losses,
    describe_risk,
    is_watched,
    least_infinite,
    least_kept,
    least_sent,
)
from hvbench.worker.measure import is_first_of_seed
from hvbench.worker.wire import describe_losses
from tests.unit.sample_records import make_rank, make_record


def round_to(values: np.ndarray, compression: str) -> np.ndarray:
    """float32 values as the wire has them, to nearest, ties to even."""
    if compression == "fp16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).astype(np.float32)
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) & np.uint32(0xFFFF0000)).view(np.float32)


def point_of(compression: str, **fields) -> Point:
    return Point(model="tiny", world_size=2, compression=compression, **fields)


def count(values: list[float], *, all_finite: bool = True, averages: list[float] | None = None, **fields) -> WireLosses:
    gradients = {"w": np.array(values, np.float32)}
    averaged = {"w": np.array(averages, np.float32)} if averages else gradients
    return count_losses(gradients, averaged, point=point_of(**{"compression": "fp16"} | fields), all_finite=all_finite)


def test_the_bounds_of_the_formats() -> None:
    fp16, bf16 = WIRE_FORMATS["fp16"], WIRE_FORMATS["bf16"]
    assert (least_sent(fp16), least_kept(fp16), least_infinite(fp16)) == (2.0**-25, 2.0**-19, 65520.0)
    assert (least_sent(bf16), least_kept(bf16)) == (2.0**-134, 2.0**-129)
    assert least_infinite(bf16) == (2 - 2.0**-8) * 2.0**127


@pytest.mark.parametrize("compression", ["fp16", "bf16"])
def test_what_becomes_zero_and_what_becomes_infinite_is_what_the_format_makes_of_it(compression: str) -> None:
    """At every power of two and beside it, where a rule that is off by one place would show."""
    exponents = np.ldexp(np.float64(1), np.arange(-148, 128))
    values = np.concatenate([exponents * share for share in (1, 1 + 2.0**-12, 1.5, 2 - 2.0**-12)])
    values = values[values < 3.4e38].astype(np.float32)
    with np.errstate(over="ignore"):
        sent = round_to(values, compression)
    losses = count(list(values) + [0.0], compression=compression, averages=list(values) + [0.0])
    assert losses.values == values.size
    assert losses.zeros == int((sent == 0).sum())
    assert losses.overflows == int(np.isinf(sent).sum())
    wire = WIRE_FORMATS[compression]
    bits_left = wire.significand_bits - np.maximum(
        0, wire.least_exponent - np.floor(np.log2(values.astype(np.float64)))
    )
    assert losses.underflows == int((bits_left < wire.significand_bits / 2).sum())


def test_norms_say_how_much_is_lost_and_not_only_of_how_many() -> None:
    losses = count([3.0, 4.0, 1e-7, 0.0, float("nan"), float("inf")], all_finite=False)
    assert (losses.values, losses.underflows, losses.zeros, losses.overflows) == (3, 1, 0, 0)
    assert losses.norm == pytest.approx(5.0) and losses.underflow_norm == pytest.approx(1e-7)


@pytest.mark.parametrize(
    ("predivide", "values", "zeros", "overflows"),
    [
        (1.0, [1.0, 1e-3, 1e-8], 1, 0),
        (1e6, [1.0, 1e-3, 1e-8], 2, 0),  # 1e-3 / 1e6 is zero, 1 / 1e6 is not
        (1e-6, [1.0, 1e-3, 1e-8], 1, 1),  # rounded to fp16 before it is multiplied: 1e-8 is lost, 1 becomes 1e6
        (4.0, [70000.0], 0, 1),  # for the same reason
    ],
)
def test_gradient_predivide_moves_gradients_out_at_either_end(
    predivide: float, values: list[float], zeros: int, overflows: int
) -> None:
    losses = count(values, gradient_predivide=predivide)
    assert (losses.zeros, losses.overflows) == (zeros, overflows)


def test_a_sum_that_overflows_is_the_wires_only_where_every_rank_sent_finite_values() -> None:
    averages = [float("inf"), 1.0, float("nan")]
    assert count([60000.0, 1.0, 2.0], averages=averages).overflows == 2
    assert count([60000.0, 1.0, 2.0], averages=averages, all_finite=False).overflows == 0


def test_pieces_of_a_large_tensor_add_up() -> None:
    values = np.full((3, 1 << 20), 1e-3, np.float32)
    values[2, -7:] = 1e-8
    losses = count_losses({"w": values}, {"w": values}, point=point_of("fp16"), all_finite=True)
    assert (losses.values, losses.zeros) == (3 << 20, 7)


def test_only_what_is_cast_among_ranks_is_watched() -> None:
    assert [is_watched(point_of(name)) for name in WIRE_FORMATS] == [False, True, True]
    assert not is_watched(Point(model="tiny", world_size=1, compression="fp16"))


def test_a_divergence_names_the_shares() -> None:
    look = {"values": 200, "underflows": 37, "overflows": 1}
    told = describe_losses([look], point_of("fp16"))
    assert told == "; fp16 on the wire: 18 % of this step's gradients underflow, 0.5 % overflow"
    assert describe_losses([], point_of("fp16")) == describe_losses([look | {"values": 0}], point_of("fp16")) == ""


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"compression": "fp16"}, None),
        ({"compression": "fp16", "gradient_predivide": 2.0}, None),
        ({"compression": "fp16", "gradient_predivide": 1e6}, "gradients up to 3e-02 become zero"),
        ({"compression": "fp16", "gradient_predivide": 1e-6}, "sums of gradients from 3e-02 on become infinite"),
        ({"compression": "bf16"}, None),
        ({"compression": "none"}, None),
    ],
)
def test_the_plan_warns_of_settings_that_lose_gradients(fields: dict, words: str | None) -> None:
    point = Point(model="tiny", world_size=2, **fields)
    risk = describe_risk(point, parameters=10**6, scale=1.0)
    assert (risk is None) if words is None else words in risk
    if fields.get("gradient_predivide") == 1e6:
        assert describe_risk(point, parameters=10**4, scale=2.0**15) is None, "a loss scale lifts gradients"


def test_a_plan_tells_of_each_point_at_risk_once() -> None:
    points = [point_of("fp16", gradient_predivide=predivide, framework="pytorch") for predivide in (1.0, 1e6)]
    (line,) = describe_wire_risks([Job(point=point, repeat=repeat) for point in points for repeat in range(2)])
    assert line.startswith("pytorch-tiny-b8x1-fp32-fp16: fp16 on the wire with gradient_predivide 1e+06: ")


# In the report


def look(*, values: int = 1000, norm: float = 2.0, loss_scale: float = 1.0, **lost: float) -> WireLook:
    counts = {"underflows": 0, "zeros": 0, "underflow_norm": 0.0, "overflows": 0} | lost
    return WireLook(step=10, loss_scale=loss_scale, values=values, norm=norm, **counts)


def launch(*looks: WireLook, **fields) -> Record:
    """A launch of a rank for each look."""
    ranks = [make_rank(rank, step_seconds=[1.0] * 10, wire=[each]) for rank, each in enumerate(looks)]
    return make_record(ranks, **{"compression": "fp16"} | fields)


def test_shares_are_of_all_ranks_together_and_know_no_loss_scale() -> None:
    """(30 + 10) / 2000 underflow; of the norms, 3² + 4² = 5² of 30² + 40² = 50²."""
    shares = lost_shares(
        [
            look(norm=30.0, underflows=30, zeros=20, underflow_norm=3.0),
            look(norm=40.0 * 8, underflows=10, zeros=4, underflow_norm=4.0 * 8, loss_scale=8.0, overflows=2),
        ]
    )
    expected = {"underflows_share": 0.02, "zeros_share": 0.012, "overflows_share": 0.001, "underflow_norm_share": 0.1}
    assert shares == pytest.approx(expected)
    assert all(np.isnan(share) for share in lost_shares([look(values=0, norm=0.0)]).values())


@pytest.mark.parametrize(
    ("lost", "precision", "is_told"),
    [
        ({"underflows": 120, "zeros": 40, "underflow_norm": 6e-4}, "fp32", False),  # plain fp16: many values, no norm
        ({"underflows": 500, "zeros": 100, "underflow_norm": 0.05}, "fp32", True),
        ({"underflows": 500, "zeros": 100, "underflow_norm": 0.05}, "fp16", True),
        ({"overflows": 1}, "bf16", True),
        ({"overflows": 1}, "fp16", False),  # the loss scale is lowered, and the step made again
    ],
)
def test_a_loss_that_changes_training_is_told_wherever_figures_are_read(
    lost: dict[str, float], precision: str, is_told: bool
) -> None:
    run = Run([launch(look(**lost), look(), precision=precision)])
    told = find_large_losses(run)
    assert len(told) == is_told
    assert [text for _, text in list_warnings(run) if "on the wire lost" in text] == told
    assert ("on the wire lost" in "\n".join(render_terminal(run))) == is_told
    assert ("Gradients lost on the wire" in "\n".join(render_terminal(run))) == is_told


def test_the_table_has_a_row_for_each_point_that_was_looked_at() -> None:
    lost = look(underflows=500, zeros=100, overflows=4, underflow_norm=0.5)
    run = Run(
        [launch(lost, lost, repeat=repeat) for repeat in range(2)] + [make_record([make_rank(step_seconds=[1.0])])]
    )
    (table,) = wire_tables(run)
    assert len(table.cells) == 1 and TOPIC.needs.is_met(run)
    row = dict(zip(table.header, table.cells[0], strict=True))
    assert (row["n"], row["underflow (%)"], row["sent as zero (%)"], row["overflow (%)"]) == ("2", "50", "10", "0.4")
    assert row["underflow (% of the norm)"] == "25"


def test_records_without_a_look_say_nothing() -> None:
    run = Run([make_record([make_rank(step_seconds=[1.0] * 3)], compression="fp16")])
    assert not TOPIC.needs.is_met(run) and find_large_losses(run) == []


@pytest.mark.parametrize(
    ("repeat", "seed_per_repeat", "is_first"), [(0, False, True), (1, False, False), (2, False, False), (1, True, True)]
)
def test_launches_of_one_seed_look_at_the_wire_once(repeat: int, seed_per_repeat: bool, is_first: bool) -> None:
    settings = MeasureSettings(seed_per_repeat=seed_per_repeat)
    request = MeasureRequest(point=Point(model="tiny"), measure=settings, repeat=repeat)
    assert is_first_of_seed(request) == is_first

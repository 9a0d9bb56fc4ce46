"""MFU against hand-computed cases: FLOPs with and without those that a causal mask hides, peaks, and what intervals cover."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hvbench.analysis.frame.best import best_by_others
from hvbench.analysis.frame.ceilings import peak_of
from hvbench.analysis.frame.frames import point_frame
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import NOT_AVAILABLE
from hvbench.analysis.stats.best import bound_by_best
from hvbench.analysis.stats.estimates import summarize_launches
from hvbench.analysis.topics.ceilings import utilization_table
from hvbench.records.record import Record
from hvbench.spec.point import Point
from hvbench.training.flops import hidden_flops_per_token, model_facts, recomputed_flops_per_token
from tests.unit.sample_records import make_ceiling, make_rank, make_record

# The FLOPs of attention that a causal mask hides


@pytest.mark.parametrize(
    ("fields", "hidden"),
    [
        ({}, 6 * 2 * 32 * 31),  # tiny: L = 2, W = 32, T = 32; of 32 positions each attends to 16.5 on average
        ({"sequence_length": 1}, 0),  # a token that is alone attends to itself, mask or none
        ({"sequence_length": 2}, 6 * 2 * 32),  # of two pairs a token a quarter: 12 L W T = 24 L W, of it 6 L W
        ({"objective": "masked_lm"}, 0),  # encoders attend to everything
        ({"family": "bert"}, 0),
        ({"family": "bert", "objective": "causal_lm"}, 6 * 2 * 32 * 31),
        ({"objective": "classification"}, 0),
        ({"objective": "classification", "pretraining": "masked_lm"}, 0),
        ({"objective": "classification", "pretraining": "causal_lm"}, 6 * 2 * 32 * 31),  # fine-tuning keeps the mask
    ],
)
def test_flops_that_a_causal_mask_hides(fields: dict, hidden: int) -> None:
    assert hidden_flops_per_token(Point(model="tiny", **fields)) == hidden


@pytest.mark.parametrize("length", [1, 2, 7, 64])
def test_what_is_left_is_one_pair_of_products_for_each_position_that_is_seen(length: int) -> None:
    """12 L H Q FLOPs for each of the T (T + 1) / 2 pairs of a sequence."""
    point = Point(model="small", sequence_length=length)
    facts = model_facts(point)
    pairs = sum(key <= query for query in range(length) for key in range(length))
    attention = 12 * point.num_layers * point.hidden_size * pairs / length
    assert facts.model_flops_per_token - hidden_flops_per_token(point) == 6 * facts.parameters_in_flops + attention


def test_a_kernel_that_skips_cannot_exceed_its_peak() -> None:
    """All FLOPs that are left at the peak's rate: the full count says more than 100 %, the discounted one 100 %."""
    point = Point(model="tiny", num_layers=1, hidden_size=32, sequence_length=512, world_size=1, micro_batch_size=1)
    facts = model_facts(point)
    left = facts.model_flops_per_token - hidden_flops_per_token(point)
    seconds = left * facts.tokens_per_step / 1e9
    record = make_record([make_rank(step_seconds=[9.0, seconds], ceiling=make_ceiling(1e9))], **point.model_dump())
    row = point_frame([record]).iloc[0]
    assert row["model_flops_utilization"] == pytest.approx(facts.model_flops_per_token / left)
    assert row["model_flops_utilization"] > 1
    assert row["model_flops_utilization_discounted"] == pytest.approx(1.0)


@pytest.mark.parametrize("objective", ["causal_lm", "masked_lm", "classification"])
def test_the_table_has_both_figures(objective: str) -> None:
    records = [launch(1.0, peak=1e9, repeat=repeat, objective=objective) for repeat in range(2)]
    table = utilization_table(Run(records))
    (cells,) = (dict(zip(table.header, row, strict=True)) for row in table.cells)
    full, discounted = (float(cells[name]) for name in ("MFU (%)", "MFU, causal mask discounted (%)"))
    facts = records[0].model
    share = 1 - (6 * 2 * 32 * 31 / facts.model_flops_per_token if objective == "causal_lm" else 0)
    assert discounted == pytest.approx(full * share, rel=1e-3)


# What is recomputed


@pytest.mark.parametrize(
    ("fields", "more"),
    [  # tiny: L = 2, W = 32, T = 32; a token's forward: 24 W^2 = 24,576 in linear layers, 4 W T = 4,096 in attention
        ({}, 0),
        ({"recompute": "block"}, 2 * (24_576 + 4_096 - 8_192)),  # but for the last product, 8 W^2
        ({"recompute": "attention"}, 2 * (8_192 + 4_096 - 2_048)),  # 8 W^2 in its layers, the last 2 W^2
        ({"recompute": "block", "dropout": 0.1}, 2 * (24_576 + 4_096)),  # the mask behind it is drawn again after it
        ({"recompute": "block", "gemm": "onednn"}, 2 * (24_576 + 4_096)),
        ({"recompute": "block", "dropout": 0.1, "framework": "tensorflow"}, 2 * (24_576 + 4_096 - 8_192)),
        ({"recompute": "block", "objective": "classification"}, 2 * (24_576 + 4_096 - 8_192)),
    ],
)
def test_flops_that_are_computed_twice(fields: dict, more: int) -> None:
    point = Point(model="tiny", **fields)
    assert recomputed_flops_per_token(point) == more
    assert model_facts(point) == model_facts(Point(model="tiny", **{**fields, "recompute": "none"}))


@pytest.mark.parametrize("recompute", ["none", "block", "attention"])
@pytest.mark.parametrize("framework", ["pytorch", "tensorflow"])
def test_what_a_fused_attention_computes_again_by_itself_is_not_counted(framework: str, recompute: str) -> None:
    """Of a point it is the same work, however many tokens long and in however many strips: MFU and HFU compare the algorithms."""
    fused, plain = (
        Point(model="tiny", framework=framework, recompute=recompute, attention=attention, sequence_length=2048)
        for attention in ("fused", "plain")
    )
    assert recomputed_flops_per_token(fused) == recomputed_flops_per_token(plain)
    assert (recomputed_flops_per_token(fused) == 0) == (recompute == "none")
    assert model_facts(fused) == model_facts(plain)


def test_hfu_stands_beside_mfu_where_anything_is_recomputed() -> None:
    records = [
        launch(rate, peak=1e9, repeat=repeat, recompute=recompute)
        for recompute, rate in (("none", 1.0), ("block", 0.8))
        for repeat in range(2)
    ]
    table = utilization_table(Run(records))
    kept, again = (dict(zip(table.header, row, strict=True)) for row in table.cells)
    assert kept["HFU (%)"] == NOT_AVAILABLE and float(again["MFU (%)"]) == pytest.approx(
        0.8 * float(kept["MFU (%)"]), rel=1e-2
    )
    share = 1 + 40_960 / records[0].model.model_flops_per_token
    assert float(again["HFU (%)"]) == pytest.approx(float(again["MFU (%)"]) * share, rel=1e-2)
    assert any(note.startswith("HFU: ") for note in table.notes)
    usual = utilization_table(Run(records[:2]))
    assert "HFU (%)" not in usual.header and not any("HFU" in note for note in usual.notes)


# The peak


def launch(rate: float, *, peak: float, repeat: int, **fields) -> Record:
    """One rank that trains at `rate` steps per second, and how fast its products are."""
    rank = make_rank(step_seconds=[9.0, 1 / rate, 1 / rate], ceiling=make_ceiling(peak))
    return make_record([rank], repeat=repeat, generation=repeat, micro_batch_size=4, **fields)


def test_a_peak_is_the_mean_of_readings_that_it_was_not_chosen_by() -> None:
    """Chosen by 9e9, the largest of several; read again at 4e9, 2e9 and 1e9, whose geometric mean is 2e9."""
    assert peak_of(make_ceiling(9e9, together_flops_per_second=[4e9, 2e9, 1e9])) == pytest.approx(2e9)
    assert peak_of(make_ceiling(9e9)) == 9e9  # an older record has no other


def test_the_machines_peak_is_no_largest_reading() -> None:
    """TensorFlow's products at 2, 8 and 4 GFLOP/s, PyTorch's at 0.1: against the mean of 4, not against 8."""
    peaks = (2e9, 8e9, 4e9)
    records = [launch(1.0, peak=1e8, repeat=repeat, framework="pytorch") for repeat in range(3)]
    records += [launch(1.0, peak=peak, repeat=repeat, framework="tensorflow") for repeat, peak in enumerate(peaks)]
    summary = summarize_launches(point_frame(records)).set_index("framework")
    achieved = 4 * 32 * records[0].model.model_flops_per_token
    name = "model_flops_utilization_of_machine"
    for framework in ("pytorch", "tensorflow"):
        assert summary.loc[framework, name] == pytest.approx(achieved / 4e9)
    # The steps did not scatter at all: the interval is that of the peak, t(0.975, 2) x sd / sqrt(3).
    half = 4.302652729749 * math.log(2) / math.sqrt(3)
    assert summary.loc["pytorch", f"{name}_high"] == pytest.approx(achieved / 4e9 * math.exp(half))
    assert summary.loc["pytorch", f"{name}_low"] == pytest.approx(achieved / 4e9 * math.exp(-half))


def test_points_that_share_workers_are_one_reading_of_the_peak() -> None:
    """Workers of repeat 0 read 1 GFLOP/s for two points, other workers of repeat 0 read 4: together 2, not the cube root of 4."""
    first = [launch(1.0, peak=1e9, repeat=0, gradient_accumulation_steps=steps) for steps in (1, 2)]
    other = launch(1.0, peak=4e9, repeat=0, strategy="native")
    row = point_frame([*first, other.model_copy(update={"generation": 7})]).iloc[0]
    assert row["model_flops_per_second"] / row["model_flops_utilization_of_machine"] == pytest.approx(2e9)


def test_a_launch_whose_repeat_read_no_peak_is_held_against_the_others() -> None:
    records = [launch(1.0, peak=peak, repeat=repeat) for repeat, peak in enumerate((1e9, 4e9))]
    alone = make_record([make_rank(step_seconds=[9.0, 1.0, 1.0])], repeat=2, micro_batch_size=4)
    row = point_frame([*records, alone]).iloc[2]
    assert row["model_flops_per_second"] / row["model_flops_utilization_of_machine"] == pytest.approx(2e9)


@pytest.mark.parametrize(
    ("readings", "best"),
    [
        ({"a": {0: 2.0}}, {0: 2.0}),
        ({"a": {0: 2.0}, "b": {0: 3.0}}, {0: 3.0}),  # one round only: nothing else to choose by
        # b is the better one in round 1, so its 1 counts in round 0; a is the better one in round 0.
        ({"a": {0: 4.0, 1: 2.0}, "b": {0: 1.0, 1: 3.0}}, {0: 1.0, 1: 2.0}),
        ({"a": {0: 4.0, 1: 4.0, 2: 4.0}, "b": {0: 9.0, 1: 1.0, 2: 1.0}}, {0: 4.0, 1: 4.0, 2: 4.0}),
        ({"a": {0: 2.0, 1: 2.0}, "b": {0: 9.0}}, {0: 2.0, 1: 2.0}),  # b was read in no other round
        ({"a": {0: 2.0}, "b": {1: 3.0}}, {0: 2.0, 1: 3.0}),  # one candidate in each round
        ({}, {}),
    ],
)
def test_the_best_is_chosen_by_the_other_rounds(readings: dict, best: dict) -> None:
    assert best_by_others(readings) == best


# Coverage, by simulation: launches scatter by 3 %, peaks by 5 %, repeats move all of them by 10 %

SWEEPS = 600


def simulate(*, repeats: int, peaks: dict[str, float], seed: int) -> tuple[float, float]:
    """(share of intervals that hold rate / peak, geometric mean of the estimates / the truth) over simulated sweeps.

    `peaks`: of each library. The rate is 1, so that the truth is 1 / the largest peak.
    """
    random = np.random.default_rng(seed)
    truth, hits, logs = 1 / max(peaks.values()), 0, []
    for _ in range(SWEEPS):
        drift = np.exp(random.normal(0, 0.10, repeats))
        rates = dict(enumerate(drift * np.exp(random.normal(0, 0.03, repeats))))
        read = {
            name: dict(enumerate(peak * drift * np.exp(random.normal(0, 0.05, repeats))))
            for name, peak in peaks.items()
        }
        low, high = bound_by_best(rates, read)
        hits += low <= truth <= high
        logs += [math.log(rates[repeat] / peak / truth) for repeat, peak in best_by_others(read).items()]
    return hits / SWEEPS, math.exp(float(np.mean(logs)))


@pytest.mark.parametrize("repeats", [3, 10])
@pytest.mark.parametrize(
    "peaks",
    [
        {"a": 1.0},  # the framework's own
        {"a": 1.0, "b": 0.97},
        {"a": 1.0, "b": 1.0},
        dict.fromkeys("abcd", 1.0),
    ],
    ids=["own", "close", "equal", "four"],
)
def test_intervals_of_utilization_cover_what_they_say(repeats: int, peaks: dict[str, float]) -> None:
    coverage, bias = simulate(repeats=repeats, peaks=peaks, seed=repeats)
    assert coverage >= 0.93
    assert bias == pytest.approx(1.0, abs=0.02)


def test_bounds_by_hand() -> None:
    """Ratios to a: 1/2 and 1/8, ln sd = ln 4 / sqrt 2; to b always 1/16, the best, without any scatter."""
    values, a, b = {0: 1.0, 1: 1.0}, {0: 2.0, 1: 8.0}, {0: 16.0, 1: 16.0}
    half = math.exp(12.706204736 * math.log(4) / 2)
    assert bound_by_best(values, {"a": a}) == pytest.approx((0.25 / half, 0.25 * half))
    assert bound_by_best(values, {"b": b}) == pytest.approx((1 / 16, 1 / 16))
    assert bound_by_best(values, {"a": a, "b": b}) == pytest.approx((0.25 / half, 1 / 16))
    assert bound_by_best(values, {"a": {0: 2.0}}) is bound_by_best(values, {}) is bound_by_best({}, {"a": a}) is None


def test_records_of_any_rates_have_a_summary() -> None:
    """Two launches whose peaks are 10^150 apart: the interval is endless, and nothing fails."""
    records = [launch(1.0, peak=peak, repeat=repeat) for repeat, peak in enumerate((1e-60, 1e90))]
    row = summarize_launches(point_frame(records)).iloc[0]
    assert (
        row["model_flops_utilization_of_machine_low"] == 0
        and row["model_flops_utilization_of_machine_high"] == math.inf
    )

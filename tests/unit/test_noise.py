"""The noise-scale estimator on a quadratic whose answer is known, and the trade-off on steps that follow it exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hvbench.analysis.frame.run import Run
from hvbench.analysis.topics.batch.noise import Looks, NoiseScale, estimate_noise_scale, join_looks, read_looks
from hvbench.analysis.topics.batch.plot import plot_tradeoff
from hvbench.analysis.topics.batch.table import tradeoff_table
from hvbench.analysis.topics.batch.topic import batch_plots, batch_tables
from hvbench.analysis.topics.batch.tradeoff import find_curves, fit_tradeoff
from hvbench.analysis.topics.noise import TOPIC, noise_tables
from tests.unit.sample_noise import BATCHES, NOISE, SIGNAL, TRUTH, batch_record, quadratic_record
from tests.unit.sample_records import make_rank, make_record


@pytest.mark.parametrize(("ranks", "accumulation", "micro_batch"), [(4, 1, 4), (1, 4, 4), (2, 8, 1), (2, 1, 16)])
def test_it_finds_the_known_answer_over_ranks_and_over_accumulation(ranks, accumulation, micro_batch) -> None:
    looks = read_looks(quadratic_record(ranks=ranks, accumulation=accumulation, micro_batch=micro_batch, looks=1500))
    assert np.mean(looks.noise) == pytest.approx(NOISE, rel=0.05)
    assert np.mean(looks.signal) == pytest.approx(SIGNAL, rel=0.1)
    scale = estimate_noise_scale(looks)
    assert scale.centre == pytest.approx(TRUTH, rel=0.1)
    assert scale.low < TRUTH < scale.high


def test_it_averages_before_it_divides() -> None:
    looks = read_looks(quadratic_record(ranks=2, accumulation=2, looks=1500))
    with np.errstate(divide="ignore"):
        mean_of_ratios = float(np.mean(looks.noise / looks.signal))
    assert abs(mean_of_ratios / TRUTH - 1) > 0.3
    assert estimate_noise_scale(looks).centre == pytest.approx(TRUTH, rel=0.1)


def test_the_interval_covers_the_answer_as_often_as_it_says() -> None:
    hits, rounds = 0, 60
    for seed in range(rounds):
        scale = estimate_noise_scale(read_looks(quadratic_record(accumulation=16, looks=30, seed=seed)))
        low, high = (open_end if end is None else end for end, open_end in ((scale.low, 0.0), (scale.high, math.inf)))
        hits += low <= TRUTH <= high
    assert hits / rounds >= 0.88  # 95 % but for three standard errors of 60 rounds


def test_a_gradient_that_drowns_has_an_open_interval() -> None:
    scale = estimate_noise_scale(read_looks(quadratic_record(accumulation=2, micro_batch=1, looks=20)))
    assert scale.high is None
    assert scale.low is None or scale.low < TRUTH


def test_what_cannot_be_used_is_left_out() -> None:
    assert read_looks(quadratic_record(ranks=1, accumulation=1)).noise.size == 0  # one micro-batch is its own average
    record = quadratic_record(ranks=2, looks=6)
    bad = record.ranks[1].gradient_noise[2].model_copy(update={"micro_gradient_norms": [None]})
    looks = [*record.ranks[1].gradient_noise[:2], bad, *record.ranks[1].gradient_noise[3:5]]  # the last is missing
    ranks = [record.ranks[0], record.ranks[1].model_copy(update={"gradient_noise": looks})]
    assert read_looks(record.model_copy(update={"ranks": ranks})).step.tolist() == [0, 1, 3, 4]
    assert estimate_noise_scale(join_looks([])).centre is None


def test_the_table_pools_launches_and_states_the_later_half() -> None:
    records = [
        quadratic_record(accumulation=16, looks=40, seed=seed, repeat=seed, seed_per_repeat=True) for seed in range(2)
    ]
    (table,) = noise_tables(Run(records))
    row = dict(zip(table.header, table.cells[0], strict=True))
    assert (row["global batch"], row["n"], row["looks"]) == ("64", "2", "80")
    assert table.data["looks_late"].tolist() == [40]
    assert table.data["noise_scale_samples"][0] == pytest.approx(TRUTH, rel=0.25)
    assert not TOPIC.needs.is_met(Run([make_record([make_rank(step_seconds=[1.0] * 3)])]))


# The trade-off


def test_the_fit_returns_what_the_steps_were_made_of() -> None:
    fit = fit_tradeoff(BATCHES, [50 * (1 + 90 / batch) for batch in BATCHES])
    assert fit.fewest_steps.centre == pytest.approx(50)
    assert fit.fewest_samples.centre == pytest.approx(50 * 90)
    assert fit.critical_batch.centre == pytest.approx(90)


def test_the_fits_interval_covers_the_answer_as_often_as_it_says() -> None:
    random, hits, rounds = np.random.default_rng(0), 0, 200
    batches = BATCHES * 3
    for _ in range(rounds):
        steps = [50 * (1 + 90 / batch) * random.lognormal(0, 0.1) for batch in batches]
        critical = fit_tradeoff(batches, steps).critical_batch
        hits += critical.low is not None and critical.low <= 90 <= critical.high
    assert 0.90 <= hits / rounds <= 0.99


def test_two_batches_are_no_curve_and_a_line_without_a_bend_is_open() -> None:
    assert fit_tradeoff([16, 32], [100, 50]) is None
    straight = fit_tradeoff(
        BATCHES, [1000 / batch * scatter for batch, scatter in zip(BATCHES, (1, 1.1, 0.9, 1.1, 0.9), strict=True)]
    )
    assert straight.critical_batch.high is None and straight.fewest_steps.low is None


def test_the_curve_and_its_table_leave_out_batches_that_missed_the_target() -> None:
    records = [
        batch_record(batch, round(50 * (1 + 90 / batch)), repeat=repeat, framework=framework)
        for batch in BATCHES for repeat in range(2) for framework in ("pytorch", "tensorflow")
    ]  # fmt: skip
    records += [batch_record(512, None), batch_record(512, 20, repeat=1)]
    run = Run(records)
    first = find_curves(run)[0]
    assert sorted(first.launches) == [*BATCHES, 512] and sorted(first.complete) == list(BATCHES)
    assert first.fit.critical_batch.centre == pytest.approx(90, rel=0.02)
    table = tradeoff_table(run)
    row = dict(zip(table.header, table.cells[0], strict=True))
    assert (row["n"], row["batches fitted"]) == ("10", "5 of 6")
    figure = plot_tradeoff(run)
    assert len(figure.axes) == 1
    assert "save no steps?" in figure.get_suptitle()


def test_batches_without_a_target_are_no_curve() -> None:
    records = [make_record([make_rank(step_seconds=[1.0] * 3)], micro_batch_size=batch) for batch in BATCHES]
    run = Run(records)
    assert find_curves(run) == batch_tables(run) == [] and batch_plots(run) == {}


def test_equal_estimates_or_estimates_without_noise_have_no_bound() -> None:
    equal = Looks(step=np.arange(6), noise=np.full(6, 2.0), signal=np.full(6, 0.5))
    assert estimate_noise_scale(equal) == NoiseScale(centre=4.0, low=None, high=None, looks=6)
    silent = Looks(step=np.arange(6), noise=np.zeros(6), signal=np.ones(6))
    assert estimate_noise_scale(silent).centre is None
    assert fit_tradeoff(BATCHES, [0] * 5) is None


def test_a_batch_that_grows_is_on_no_curve_over_the_batch() -> None:
    """B S samples hold for one batch alone: launches with a batch warm-up are left out, and the others stay."""
    records = [batch_record(batch, steps) for batch, steps in ((8, 200), (16, 120), (32, 80))]
    curves = find_curves(Run(records))
    assert len(curves) == 1 and list(curves[0].launches) == [8, 16, 32]
    growing = [
        record.model_copy(update={"point": record.point.model_copy(update={"batch_warmup_steps": 50})})
        for record in records
    ]
    assert find_curves(Run(growing)) == []
    assert [list(curve.launches) for curve in find_curves(Run([*records, *growing]))] == [[8, 16, 32]]

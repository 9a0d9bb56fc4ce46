"""Launches of one seed are one piece of evidence about losses, noise and steps to a target, however many there are."""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvbench.analysis.frame.run import Run
from hvbench.analysis.stats.estimates import summary_of
from hvbench.analysis.stats.seeds import OF_SEEDS, OF_SEEDS_AND_MACHINE
from hvbench.analysis.topics.batch.table import tradeoff_table
from hvbench.analysis.topics.catalogue import TOPICS
from hvbench.analysis.topics.noise import noise_tables
from hvbench.analysis.topics.targets import target_table
from hvbench.records.record import Record
from hvbench.spec.settings import MeasureSettings
from tests.unit.sample_noise import BATCHES, batch_record, quadratic_record
from tests.unit.sample_records import make_evaluation, make_rank, make_record

LOSSES = st.lists(st.floats(1.5, 2.9), min_size=2, max_size=4)  # of each seed, when it reached the target


def seeded(record: Record, seed: int, *, repeat: int) -> Record:
    """The same launch as repeat `repeat` of a point that trains with `seed`."""
    point = record.point.model_copy(update={"seed": seed})
    measure = record.measure.model_copy(update={"seed_per_repeat": False})
    return record.model_copy(update={"point": point, "measure": measure, "repeat": repeat})


def train(loss: float) -> Record:
    """A launch that is at the target after some steps: the lower the loss, the sooner."""
    steps = 10 * round(10 * loss)
    evaluations = [
        make_evaluation(at, value, training_seconds=0.1 * at)
        for at, value in ((0, 5.0), (steps - 10, 4.0), (steps, loss))
    ]
    losses = [5.0] * (steps - 1) + [loss]
    return make_record(
        [make_rank(step_seconds=[0.1] * steps, loss=losses, evaluations=evaluations)], target_loss=3.0, world_size=1
    )


def widths(table: pd.DataFrame, names: Callable[[str], bool]) -> dict[str, list[float]]:
    """Figure -> the widths of its intervals, infinite where one is open."""
    ends = table.astype(object).where(table.notna(), math.nan)
    return {
        name: (
            ends[f"{name}_high"].astype(float).fillna(math.inf) - ends[f"{name}_low"].astype(float).fillna(0.0)
        ).tolist()
        for name in table.columns
        if f"{name}_low" in table.columns and names(name)
    }


def assert_no_surer(once: dict[str, list[float]], again: dict[str, list[float]]) -> None:
    assert once and once.keys() == again.keys()
    for name, before in once.items():
        assert all(b == a or b >= a * (1 - 1e-9) for a, b in zip(before, again[name], strict=True)), name


@settings(max_examples=10, deadline=None)
@given(losses=LOSSES, extra=st.lists(st.integers(0, 3), min_size=1, max_size=6))
def test_more_launches_of_a_seed_make_no_figure_about_learning_surer(losses: list[float], extra: list[int]) -> None:
    once = [seeded(train(loss), seed, repeat=seed) for seed, loss in enumerate(losses)]
    again = once + [
        seeded(once[which % len(once)], which % len(once), repeat=10 + number) for number, which in enumerate(extra)
    ]
    runs = [Run([record.model_copy(update={"point_id": "p"}) for record in records]) for records in (once, again)]
    of_learning = OF_SEEDS | OF_SEEDS_AND_MACHINE
    assert_no_surer(*(widths(summary_of(run), of_learning.__contains__) for run in runs))
    assert_no_surer(*(widths(target_table(run).data, lambda _: True) for run in runs))


def test_one_seed_has_no_interval_of_anything_about_learning() -> None:
    (row,) = summary_of(Run([seeded(train(2.0), 7, repeat=repeat) for repeat in range(3)])).to_dict("records")
    known = [name for name in OF_SEEDS if not pd.isna(row[name])]
    assert {"final_loss", "final_validation_loss", "steps_to_target", "tokens_to_target"} <= set(known)
    assert all(pd.isna(row[f"{name}{end}"]) for name in known for end in ("_low", "_high"))
    assert (row["launches_ok"], row["seeds_ok"]) == (3, 1)
    assert not pd.isna(row["seconds_to_target_low"])  # by the machine, which each launch meets anew


def test_seeds_are_those_that_were_trained() -> None:
    of_one, of_three = (
        [train(2.0).model_copy(update={"repeat": repeat, "measure": MeasureSettings(seed_per_repeat=each)}) for repeat in range(3)]
        for each in (False, True)
    )  # fmt: skip
    assert [record.trained_seed for record in of_one] == [0, 0, 0]
    assert [record.trained_seed for record in of_three] == [0, 1, 2]
    assert summary_of(Run(of_three))["seeds_ok"].tolist() == [3]


@pytest.mark.parametrize("copies", [2, 3])
def test_looks_at_the_noise_of_one_seed_are_seen_once(copies: int) -> None:
    record = quadratic_record(accumulation=4, looks=12)
    once, again = (
        noise_tables(Run([seeded(record, 0, repeat=repeat) for repeat in range(n)]))[0].data for n in (1, copies)
    )
    figures = [name for name in once.columns if name.startswith(("noise_scale", "looks"))]
    pd.testing.assert_frame_equal(once[figures], again[figures])


def test_a_fit_over_batches_is_no_surer_by_more_launches_of_its_seeds() -> None:
    scatter = (1.0, 1.08, 0.93, 1.04, 0.97)
    launches = [
        batch_record(batch, round(50 * (1 + 90 / batch) * by)) for batch, by in zip(BATCHES, scatter, strict=True)
    ]
    once, again = (
        tradeoff_table(Run([seeded(one, 0, repeat=r) for one in launches for r in range(n)])).data for n in (1, 3)
    )
    figures = [name for name in once.columns if name != "n"]
    pd.testing.assert_frame_equal(once[figures], again[figures])
    assert once["critical_batch_low"].notna().all() and again["n"].tolist() == [15]


def test_no_table_of_any_topic_is_surer_about_learning_by_copies_of_a_launch() -> None:
    """Whatever topic is added: an interval that ten copies of every launch make narrower is one of the machine's."""
    once = [seeded(train(loss), seed, repeat=seed) for seed, loss in enumerate((1.6, 2.1, 2.7))]
    again = [seeded(record, record.point.seed, repeat=10 * n + record.repeat) for n in range(10) for record in once]
    runs = [Run([record.model_copy(update={"point_id": "p"}) for record in records]) for records in (once, again)]
    found = [
        {(table.name, name): width for topic in TOPICS if topic.needs.is_met(run) for table in topic.tables(run)
         for name, width in widths(table.data, lambda _: True).items()}
        for run in runs
    ]  # fmt: skip
    surer = {name for (_, name), width in found[0].items() if found[1].get((_, name), width) < width}
    about_learning = {
        name for name in surer if "loss" in name or "target" in name or "noise" in name or "batch" in name
    }
    assert about_learning == set()

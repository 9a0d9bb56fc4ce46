"""Records as JSON: they read back as written, and nothing else is accepted as a record."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from pydantic import ValidationError

from hvbench.records.record import SCHEMA_VERSION, Outcome, Record
from tests.unit.sample_records import make_ceiling, make_convergence, make_launch, make_rank, make_record


def through_json(record: Record) -> Record:
    return Record.model_validate(json.loads(json.dumps(record.model_dump(), allow_nan=False)))


@pytest.mark.parametrize(
    "record",
    [
        make_launch({"framework": "tensorflow", "precision": "bf16"}),
        make_convergence()[0],
        make_record(status="oom", message="killed by SIGKILL", phase="measure"),
        make_record(
            [make_rank(step_seconds=[0.1, 0.2], loss=[5.0, None], gradient_norm=[None, 1.0], skipped_steps=[1])]
        ),
        make_record(target_loss=2.0, data="größer.txt"),
    ],
    ids=["launch", "convergence", "failure", "overflow", "target"],
)
def test_a_record_survives_json(record: Record) -> None:
    assert through_json(record) == record


def test_floats_keep_every_digit() -> None:
    seconds = [0.1 + 0.2, 1e-300, 5e-324, 1 / 3]
    record = make_record([make_rank(step_seconds=seconds)])
    assert through_json(record).ranks[0].step_seconds == seconds


def test_the_version_is_part_of_the_record() -> None:
    assert make_record().model_dump()["schema_version"] == SCHEMA_VERSION == 5


def test_the_schema_history_above_the_version_begins_with_it() -> None:
    import inspect

    import hvbench.records.record

    history, version, _ = inspect.getsource(hvbench.records.record).partition(f"\nSCHEMA_VERSION = {SCHEMA_VERSION}\n")
    assert version
    assert history.rpartition("newest first:\n#")[2].split()[0] == str(SCHEMA_VERSION)


def test_the_warm_up_is_the_settings_own() -> None:
    assert make_record(warmup_steps=4).warmup_steps == 4


@pytest.mark.parametrize(
    "change",
    [{"schema_version": 6}, {"surprise": 1}, {"repeat": True}, {"duration_seconds": float("nan")}, {"ranks": None}],
    ids=lambda change: next(iter(change)),
)
def test_what_the_schema_does_not_know_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Record.model_validate(make_record().model_dump() | change)


def test_an_outcome_is_one_of_the_documented() -> None:
    assert Outcome(status="diverged").status == "diverged"
    with pytest.raises(ValidationError):
        Outcome(status="great")


@pytest.mark.parametrize("rate", [0.0, -1.0, 1e-300, 1e300, math.inf, math.nan])
def test_a_reading_is_a_rate_that_can_be_added_and_divided(rate: float) -> None:
    with pytest.raises(ValidationError):
        make_ceiling(together_flops_per_second=[rate])

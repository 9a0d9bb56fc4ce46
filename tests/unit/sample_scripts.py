"""Records of people's own training: real classes, invented samples, speeds and losses that are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hvbench.analysis.frame.run import Run
from hvbench.records.record import Outcome, Record
from hvbench.spec.script import ScriptPoint
from hvbench.spec.settings import MeasureSettings
from tests.unit.sample_records import ENVIRONMENT, make_evaluation, make_rank

COMMAND = "python train.py --batch {batch} --dtype {dtype}"
STEPS, WARMUP = 13, 3
SILENT = {"gradient_norm": [], "learning_rate": [], "loss_scale": [], "data_prepare_seconds": 0.0, "build_seconds": 0.0}
SOURCE = {"revision": "4f2c1a9b8d7e", "is_dirty": False, "digest": "93ab44c0d1e2"}


def seconds_of(values: Mapping[str, Any]) -> float:
    """Seconds of a step, as if they were known: batch 16 takes 1.5 times as long as 8, bf16 0.8 times as long as fp32."""
    return 0.01 * (0.5 + values.get("batch", 8) / 16) * (0.8 if values.get("dtype") == "bf16" else 1.0)


def make_script_record(
    values: Mapping[str, Any] | None = None,
    *,
    repeat: int = 0,
    ranks: int = 2,
    tokens: int | None = 512,
    has_loss: bool = True,
    evaluates: bool = False,
    status: str = "ok",
    slower: float = 1.0,
    command: str = COMMAND,
    source: Mapping[str, Any] = SOURCE,
    measure: Mapping[str, Any] | None = None,
    **point: Any,
) -> Record:
    """A launch; `tokens`: of a batch of 8 in a step over all ranks, None where the script does not say; `slower`: a factor of its steps."""
    values = {"batch": 8, "dtype": "fp32"} if values is None else values
    made = ScriptPoint(command=command, values=dict(values), world_size=ranks, **point)
    random = np.random.default_rng([repeat, *made.point_id.encode()])
    steps = STEPS if status == "ok" else 5
    seconds = slower * seconds_of(values) * float(random.normal(1.0, 0.01))
    samples = []
    for rank in range(ranks):
        times = seconds * random.lognormal(0.0, 0.01, steps)
        times[0] += 0.5
        loss = [3.0 - 0.05 * step + 0.01 * rank for step in range(steps)] if has_loss else [None] * steps
        of_step = [] if tokens is None else [int(tokens * values.get("batch", 8) / 8)] * steps
        marks = range(0, steps + 1, 4) if evaluates and rank == 0 else ()
        samples.append(
            make_rank(
                rank,
                step_seconds=times.tolist(),
                loss=loss,
                step_tokens=of_step,
                evaluations=[
                    make_evaluation(step, 3.1 - 0.05 * step, training_seconds=step * seconds) for step in marks
                ],
                peak_rss_bytes=int(2**20 * (300 + 10 * values.get("batch", 8))),
                **SILENT,
            )
        )
    failure = {} if status == "ok" else {"rank": 0, "phase": "measure", "message": "RuntimeError: boom"}
    return Record(
        suite="mine",
        point_id=made.point_id,
        point=made,
        repeat=repeat,
        measure=MeasureSettings(warmup_steps=WARMUP, steps=STEPS - WARMUP, **(measure or {})),
        outcome=Outcome(status=status, **failure),
        model=None,
        environment={**ENVIRONMENT, "script": dict(source)},
        ranks=samples,
        started_at=f"2024-05-06T07:{repeat:02d}:00Z",
        duration_seconds=3.0,
    )


def make_script_records(
    choices: Sequence[Mapping[str, Any]] = ({"batch": 8, "dtype": "fp32"}, {"batch": 16, "dtype": "fp32"}),
    *,
    repeats: int = 5,
    **facts: Any,
) -> list[Record]:
    """Launches of every configuration, `repeats` of each."""
    return [make_script_record(values, repeat=repeat, **facts) for repeat in range(repeats) for values in choices]


def make_script_run(records: Sequence[Record], **request: Any) -> Run:
    """A run of these launches, asked for by a suite."""
    asked = {
        "suite": "mine",
        "question": "Is our training as fast as last week?",
        "command": "hvbench sweep mine.toml --np 2",
    }
    return Run(list(records), asked | request)

"""MLPerf's training log (mlcommons/logging, `mllog`): a line an event, `:::MLLOG {...}`, launch after launch.

Keys are those of `mlperf_logging.mllog.constants`. Events lie where the record says that they were: set-up before `run_start`, evaluations after the
training and the evaluations before them. hvbench is no submission: what only a submission has is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from hvbench.analysis.frame.run import Run
from hvbench.analysis.frame.samples import evaluations_of, sort_records
from hvbench.records.record import Record
from hvbench.spec.point import Point

BEFORE_TRAINING = ("start", "ceiling", "data", "build")  # phases
POINT, BEGIN, END = "POINT_IN_TIME", "INTERVAL_START", "INTERVAL_END"


def render_mlperf(run: Run) -> str:
    """All lines of the launches of hvbench's own training; of scripts, of which it knows no samples, none."""
    lines = [
        line for record in sort_records(run.records) if isinstance(record.point, Point) for line in _launch(record)
    ]
    return "".join(f"{line}\n" for line in lines)


def _launch(record: Record) -> Iterator[str]:
    about = {"point_id": record.point_id, "repeat": record.repeat}
    start = datetime.fromisoformat(record.started_at).timestamp()
    phases = record.ranks[0].phase_seconds if record.ranks else {}
    begun = start + sum(phases.get(name, 0.0) for name in BEFORE_TRAINING)

    def line(seconds: float, kind: str, key: str, value: Any = None, **metadata: Any) -> str:
        event = {"namespace": "", "time_ms": round(1e3 * seconds), "event_type": kind, "key": key, "value": value,
                 "metadata": {"file": "", "lineno": 0, **about, **metadata}}  # fmt: skip
        return f":::MLLOG {json.dumps(event, allow_nan=False)}"

    point = record.point
    facts = {
        "submission_benchmark": record.suite, "submission_platform": record.environment.get("cpu_model") or "", "seed": record.trained_seed,
        "global_batch_size": point.global_batch_size, "gradient_accumulation_steps": point.gradient_accumulation_steps,
        "max_sequence_length": point.sequence_length, "opt_name": point.optimizer, "opt_base_learning_rate": point.learning_rate,
        "opt_learning_rate_warmup_steps": point.lr_warmup_steps,
    }  # fmt: skip
    yield line(start, BEGIN, "init_start")
    for key, value in facts.items():
        yield line(start, POINT, key, value)
    yield line(begun, END, "init_stop")
    yield line(begun, BEGIN, "run_start")
    spent, latest = 0.0, begun  # seconds in evaluations; the last event
    for evaluation in evaluations_of(record):
        samples = evaluation.step * point.global_batch_size
        at = begun + evaluation.training_seconds + spent
        yield line(at, BEGIN, "eval_start", samples_count=samples)
        spent += evaluation.evaluation_seconds
        latest = at + evaluation.evaluation_seconds
        yield line(latest, POINT, "eval_error", evaluation.validation_loss, samples_count=samples)
        yield line(latest, END, "eval_stop", samples_count=samples)
    status = "success" if record.outcome.status == "ok" else "aborted"
    yield line(max(latest, start + record.duration_seconds), END, "run_stop", status=status)

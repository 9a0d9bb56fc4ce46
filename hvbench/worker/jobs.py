"""A worker's list of jobs: each request is read, done by the module of its kind, and its result written."""

from __future__ import annotations

from typing import Any

from hvbench.communication.record import AllreduceRequest
from hvbench.io.atomic import write_json
from hvbench.launch.requests import JobKind, MeasureRequest, PretrainRequest, TraceRequest
from hvbench.spec.point import Point
from hvbench.worker.allreduce import time_allreduce
from hvbench.worker.measure import measure
from hvbench.worker.pretrain import pretrain
from hvbench.worker.trace import trace
from hvbench.worker.worker import Worker

Result = dict[str, Any]  # JSON, validated by who reads it


def run_jobs(worker: Worker) -> None:
    """Load the framework, join the ranks, do every job, leave the ranks.

    `result-N.json` is written after each job. Whatever a job raises ends the worker, and with it this list.
    """
    jobs = worker.description.jobs
    worker.progress.note(job=jobs[0]["kind"] if jobs else None)
    worker.progress.enter("start")
    worker.load()
    for index, job in enumerate(jobs):
        result = run_job(worker, index, job)
        write_json(worker.directory / f"result-{index}.json", result)
    worker.progress.enter("finished")
    worker.close()
    worker.runtime.shutdown()


def run_job(worker: Worker, index: int, job: dict[str, Any]) -> Result:
    """Do one job; raises ValueError (pydantic's) for a request that cannot be read."""
    match JobKind(job["kind"]):
        case JobKind.ALLREDUCE:
            request = AllreduceRequest.model_validate(job)
            worker.progress.enter("build", index=index, step=0, point=request.case.case_id, job=request.kind)
            return time_allreduce(worker, request)
        case JobKind.PRETRAIN:
            request = PretrainRequest.model_validate(job)
            enter_point(worker, index, request.point, phase="data", kind=request.kind)
            return pretrain(worker, request)
        case JobKind.TRACE:
            request = TraceRequest.model_validate(job)
            enter_point(worker, index, request.point, phase="data", kind=request.kind)
            return trace(worker, request)
        case JobKind.MEASURE:
            request = MeasureRequest.model_validate(job)
            enter_point(worker, index, request.point, phase="ceiling", kind=request.kind)
            return measure(worker, request)


def enter_point(worker: Worker, index: int, point: Point, *, phase: str, kind: str) -> None:
    """Start a point's progress, without the steps and losses of the one before."""
    worker.progress.enter(
        phase, index=index, step=0, loss=None, timed_tokens=0, validation_step=0, point=point.point_id, job=kind
    )

"""What a script's process leaves at its end: `result-0.json`, and then its wait for the ranks that still train."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvbench.launch.script import END
from hvbench.probe.clock import StepClock
from hvbench.probe.device import device_name, library_versions, peak_device_memory_bytes
from hvbench.probe.evaluations import Evaluations
from hvbench.probe.request import Request
from hvbench.probe.samples import LoggedSamples
from hvbench.records.environment import describe_environment, describe_load
from hvbench.worker.memory import peak_rss_bytes, rss_bytes

END_SECONDS = 60.0  # to wait for it: a rank that ends earlier may tear down connections that others need
POLL_SECONDS = 0.02

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Start:
    """The process when its training began: interpreter, libraries, and what the script has built by then."""

    rss_bytes: int
    load: Json


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """All that was measured of one rank."""

    request: Request
    start: Start
    clock: StepClock
    samples: LoggedSamples
    evaluations: Evaluations


def read_start() -> Start:
    """Memory and load now."""
    return Start(rss_bytes=rss_bytes(), load=describe_load())


def describe_result(measured: Measurement) -> Json:
    """The content of `result-0.json`, but for `phase_seconds`."""
    return {
        "outcome": _describe_outcome(measured),
        "environment": _describe_environment(measured),
        "samples": _describe_samples(measured),
    }


def describe_steps(clock: StepClock, samples: LoggedSamples, *, begin: int, end: int) -> dict[str, list[float | None]]:
    """What `hvbench.records.steps` says of the steps from `begin` to before `end`, which have been trained."""
    seconds = {"step_seconds": clock.step_seconds_after(begin), "data_seconds": clock.data_seconds_after(begin)}
    return {**seconds, **samples.values_of(begin, end)}


def await_end(folder: Path) -> None:
    """Wait until the agent says that all ranks have their results, for `END_SECONDS` at most, or until the folder is gone."""
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline and folder.exists() and not (folder / END).exists():
        time.sleep(POLL_SECONDS)


def _describe_outcome(measured: Measurement) -> Json:
    nonfinite = measured.samples.nonfinite
    if nonfinite is None:
        return {"status": "ok"}
    phase = measured.request.phase_of(nonfinite.step)
    return {"status": "diverged", "rank": measured.request.rank, "phase": phase, "message": str(nonfinite)}


def _describe_environment(measured: Measurement) -> Json:
    uses_horovod = measured.request.world_size > 1 and "horovod" in sys.modules
    return {
        **describe_environment(),
        "framework_versions": library_versions(),
        "load_before": measured.start.load,
        "load_after": describe_load(),
        "tokens_digest": None,  # what a script trains on is its own affair
        "controller": os.environ.get("HOROVOD_CONTROLLER") if uses_horovod else None,
        "memory_limit_bytes": measured.request.memory_limit_bytes,
    }


def _describe_samples(measured: Measurement) -> Json:
    """Fields of `hvbench.records.record.RankSamples`."""
    request = measured.request
    return {
        "rank": request.rank,
        "host": request.host,
        "local_rank": request.local_rank,
        "threads": request.threads,
        "device": device_name(),
        "step_seconds": measured.clock.step_seconds,
        "data_seconds": measured.clock.data_seconds,
        **measured.samples.to_json(len(measured.clock.step_seconds)),
        "evaluations": measured.evaluations.done,
        "stopped_by": measured.evaluations.stopped_by,
        "data_prepare_seconds": 0.0,  # nobody but the script knows when it prepares what
        "build_seconds": 0.0,
        "peak_rss_bytes": peak_rss_bytes(),
        "start_rss_bytes": measured.start.rss_bytes,
        "peak_device_memory_bytes": peak_device_memory_bytes(),
    }

"""One case of `hvbench allreduce` in a worker: build the collective, time its calls, describe the machine."""

from __future__ import annotations

from typing import Any

from hvbench.communication.calls import time_case
from hvbench.communication.record import AllreduceRequest
from hvbench.frameworks import load_framework, references
from hvbench.records.environment import describe_environment, describe_load
from hvbench.worker.worker import Worker


def time_allreduce(worker: Worker, request: AllreduceRequest) -> dict[str, Any]:
    """Time one case: fields of `hvbench.communication.record.RankCalls`, and the environment."""
    case, runtime = request.case, worker.runtime
    runtime.release()
    kind = references.COLLECTIVES.get(case.implementation)
    kind = kind or load_framework(case.implementation, "collective").Collective
    collective = kind(case.payload_bytes // 4, compression=case.compression, runtime=runtime)
    load_before = describe_load()
    calls = time_case(case, request.settings, collective, runtime=runtime, enter=worker.progress.enter)
    loads = {"load_before": load_before, "load_after": describe_load()}
    about = worker.description
    place = {"host": about.host, "rank": about.rank, "local_rank": about.local_rank, "threads": about.threads}
    return {
        "calls": {**place, **calls},
        "environment": {**describe_environment(), "framework_versions": runtime.versions(), **loads},
    }

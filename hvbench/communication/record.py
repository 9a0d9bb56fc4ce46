"""The record of one launch of one all-reduce case: the settings, the environment and the time of every call on every rank.

Written once, as `results/allreduce/TIME/records/CASE_ID.rREPEAT.json`. Summaries are computed when records are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from hvbench.errors import UsageError
from hvbench.io.untrusted import load_json, read_regular_file
from hvbench.records.record import Line, Outcome, Real, Seconds, Whole
from hvbench.records.store import RECORD_NAME
from hvbench.registry import FRAMEWORKS
from hvbench.spec.compression import WIRE_FORMATS
from hvbench.spec.exchange import CONTROLLERS
from hvbench.spec.knob import Spec
from hvbench.spec.messages import describe_validation_error

# Schema history, newest first:
#   2   ranks: head_seconds; a call's time runs from the end of the one before, and not from a barrier
#   1   case, repeat, settings, outcome, environment, ranks
SCHEMA_VERSION = 2
MAX_RECORD_BYTES = 64_000_000
MAX_DEPTH = 8

Ranks = Annotated[int, Field(ge=1, le=1_000_000)]
Payload = Annotated[int, Field(ge=4, lt=2**40, multiple_of=4)]
Calls = Annotated[list[Seconds], Field(max_length=2**20)]


class Case(Spec):
    """One path, message size, number of ranks and link. `payload_bytes`: of the float32 values, before compression."""

    implementation: Literal[(*FRAMEWORKS, "mpi4py", "ring")]
    controller: Literal[*CONTROLLERS]
    compression: Literal[*WIRE_FORMATS]
    world_size: Ranks
    payload_bytes: Payload
    link_bits_per_second: Whole | None = None

    @property
    def path(self) -> str:
        """Implementation, controller and compression, such as `pytorch gloo fp16`."""
        return f"{self.implementation} {self.controller} {self.compression}"

    @property
    def case_id(self) -> str:
        """The case as a readable file name."""
        link = f"-{self.link_bits_per_second}bps" if self.link_bits_per_second else ""
        return f"{self.path.replace(' ', '-')}-n{self.world_size}{link}-{self.payload_bytes}"


class CallSettings(Spec):
    """How many calls of a case are made."""

    warmup_calls: Annotated[int, Field(ge=1, le=1000)] = 3
    least_calls: Annotated[int, Field(ge=1, le=100_000)] = 5
    most_calls: Annotated[int, Field(ge=1, le=100_000)] = 100
    budget_seconds: Annotated[float, Field(gt=0.0, le=3600.0)] = Field(0.5, description="of timed calls, roughly")


class AllreduceRequest(Spec):
    """What a worker is asked to time; the other kinds of request are in `hvbench.launch.requests`."""

    kind: Literal["allreduce"] = "allreduce"
    case: Case
    settings: CallSettings


class RankCalls(Spec):
    """What one rank measured and checked in one launch."""

    rank: Whole
    host: Line
    local_rank: Whole
    threads: Whole
    cores: Whole = Field(description="that this rank's host gives all of its ranks")
    ranks_on_host: Whole
    call_seconds: Calls = Field(description="timed calls, in order, each from the end of the one before")
    head_seconds: Calls = Field(
        default=[], description="the call at the head of each train, from this rank's exit of a barrier; of no figure"
    )
    wrong_elements: Whole = Field(description="over all calls, warm-up included")
    largest_relative_error: Real


class AllreduceRecord(Spec):
    """One launch of one case."""

    schema_version: Literal[1, 2] = SCHEMA_VERSION
    case: Case
    repeat: Whole
    settings: CallSettings
    outcome: Outcome
    environment: dict[str, Any]
    ranks: list[RankCalls]
    started_at: Line = Field(description="UTC, ISO 8601")
    duration_seconds: Seconds

    @property
    def key(self) -> str:
        """Name of the record's file, without its extension."""
        return f"{self.case.case_id}.r{self.repeat}"


def read_records(folder: Path) -> tuple[list[AllreduceRecord], list[str]]:
    """(every readable record of a run, by case and repeat; a line for each file that is not one).

    An attempt that did not end in `ok` counts only while no later one was made.
    """
    records: list[AllreduceRecord] = []
    problems = []
    for path in sorted((folder / "records").glob("*.json"), key=attempt_key):
        try:
            values = load_json(
                read_regular_file(path, max_bytes=MAX_RECORD_BYTES), where=str(path), max_depth=MAX_DEPTH
            )
            records.append(AllreduceRecord.model_validate(values))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            problems.append(f"{path}: {describe_validation_error(first, allowed=list(AllreduceRecord.model_fields))}")
        except OSError as error:
            problems.append(f"{path}: cannot be read: {error.strerror}")
        except UsageError as error:
            problems.append(str(error))
    last = {record.key: record for record in records}  # later attempts come later
    return [each for each in records if each.outcome.status == "ok" or each is last[each.key]], problems


def attempt_key(path: Path) -> tuple[str, int, int]:
    """What the files of records are sorted by: case, repeat, attempt, each as a number and not as text."""
    match = RECORD_NAME.fullmatch(path.name)
    return (match["point_id"], int(match["repeat"]), int(match["attempt"] or 1)) if match else (path.name, 0, 0)

"""What hvbench asks of a script's process: `generation.json` in the folder of its rank, read without a model of it.

The script's interpreter may have another revision of hvbench than the one that launched it, so only the fields that the
probe needs are looked at.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvbench.errors import ProbeError


@dataclass(frozen=True, kw_only=True)
class Request:
    """Who this rank is, and what is measured of its training."""

    folder: Path
    rank: int
    world_size: int
    local_rank: int
    host: str
    threads: int
    memory_limit_bytes: int | None
    key: str  # of the launch
    profile: Path | None  # folder for what the framework's profiler records; None: nothing is recorded
    steps_file: Path | None  # to which rank 0 appends its steps while it trains; None: none
    place: int | None  # number of the launch among those that are run in turns
    warmup_steps: int
    steps: int  # timed ones, after the warm-up
    target_loss: float | None  # that ends the training; None: none does
    patience: int  # evaluations without a better loss that end it; 0: none do

    @property
    def total_steps(self) -> int:
        """Warm-up included."""
        return self.warmup_steps + self.steps

    def phase_of(self, step: int) -> str:
        """`first_step`, `warmup` or `measure`, for a step counted from 0."""
        if step == 0:
            return "first_step"
        return "warmup" if step < self.warmup_steps else "measure"


def read_request(folder: Path, *, variable: str) -> Request:
    """The request in a folder that an environment `variable` names; raises ProbeError where there is none."""
    try:
        fields = json.loads((folder / "generation.json").read_text(encoding="utf-8"))
        (job,) = fields["jobs"]
        return _make_request(folder, fields, job, job["measure"])
    except OSError as error:
        problem = error.strerror
    except (ValueError, KeyError, TypeError) as error:
        problem = f"not what hvbench writes: {type(error).__name__}: {error}"
    raise ProbeError(f"{variable}={folder}: generation.json: {problem}; hvbench itself sets {variable}: unset it")


def _make_request(folder: Path, fields: dict[str, Any], job: dict[str, Any], measure: dict[str, Any]) -> Request:
    target = measure.get("target_loss") if measure.get("stop_at_target") else None
    limit = fields.get("memory_limit_bytes")
    return Request(
        folder=folder,
        rank=int(fields["rank"]),
        world_size=int(fields["world_size"]),
        local_rank=int(fields["local_rank"]),
        host=str(fields["host"]),
        threads=int(fields["threads"]),
        memory_limit_bytes=None if limit is None else int(limit),
        key=str(job.get("key", "")),
        profile=Path(job["profile"]) if job.get("profile") else None,
        steps_file=Path(job["steps_file"]) if job.get("steps_file") and not fields["rank"] else None,
        place=job.get("place"),
        warmup_steps=int(measure["warmup_steps"]),
        steps=int(measure["steps"]),
        target_loss=None if target is None else float(target),
        patience=int(measure.get("patience", 0)),
    )

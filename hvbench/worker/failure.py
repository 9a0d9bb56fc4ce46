"""How a worker reports the exception that ended it: one line for the record, the traceback for the log."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hvbench.io.atomic import write_json
from hvbench.launch import diagnosis
from hvbench.launch.diagnosis import OUT_OF_MEMORY
from hvbench.launch.own_process import limit_memory
from hvbench.launch.task import FailureStatus
from hvbench.worker.progress import ProgressFile

MAX_LINE = 500  # characters


def report_failure(directory: Path, error: BaseException, *, progress: ProgressFile | None) -> None:
    """Print the exception, and write `failure.json`; the memory that a failed step holds is released first, for this needs some too."""
    limit_memory(None)
    traceback.print_exc()
    traceback.clear_frames(error.__traceback__)
    write_failure(directory, describe_failure(error), state=progress.state if progress else {})


def write_failure(directory: Path, failure: Mapping[str, Any], *, state: Mapping[str, Any]) -> None:
    """Write `failure.json`: what `describe_failure` returns, and where the process was, by its progress; no limit on memory is left."""
    limit_memory(None)
    place = {"phase": state.get("phase") or "start", "index": state.get("index", -1)}
    place |= {name: state.get(name) for name in ("step", "loss")}
    write_json(directory / "failure.json", {**failure, **place})


def describe_failure(error: BaseException) -> dict[str, Any]:
    """Status and one line for an exception that ended a worker.

    `is_echo`: it only says that another rank is gone, whose own failure is the cause.
    """
    message = f"{type(error).__name__}: {error}".strip(": \n").splitlines()
    line = message[0] if len(message) == 1 else f"{message[0]} … {message[-1]}"
    is_oom = isinstance(error, MemoryError) or any(text in str(error) for text in OUT_OF_MEMORY)
    if is_oom:  # TensorFlow says it somewhere in the middle
        line = next((part for part in message if any(text in part for text in OUT_OF_MEMORY)), line)
    line = "".join(letter if letter.isprintable() else " " for letter in line)
    is_echo = diagnosis.is_echo(f"{type(error).__name__}: {error}")
    status = FailureStatus.OOM if is_oom else FailureStatus.FAILED
    return {"status": status.value, "message": line[:MAX_LINE], "is_echo": is_echo and not is_oom}

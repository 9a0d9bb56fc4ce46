"""Fault injection: how the tests make a worker fail as they choose, at a chosen rank, point and phase.

    HVBENCH_FAULTS='[{"kind": "kill", "rank": 1, "point": "tensorflow-tiny", "phase": "measure"}]'

Only tests and studies set this variable; a worker looks it up once, when it starts.

`kind` is one of KINDS; `rank`, `point` (part of a point's id) and `phase` say where, and any of them may be left out;
`job` says in which kind of job, `measure` if left out: the parity check before a sweep (`trace`) is not affected.
`garbage` takes `file` ("result", "progress" or "failure") and `content` too.
`slow` takes `share`: 0.05 makes every step of the point 5 % longer, inside the clock, which is how the gate's power is
measured (docs/ci.md).
`diverge` takes `step`: from that step on, counted from 0, this rank's gradient norm is no number.
`clock` takes `folder`, and disturbs nothing: each rank leaves there, as POINT_ID.PID.json, when each of its steps began and ended by
the host's monotonic clock, which all ranks of a host share: a clock on the wall that the worker's own is held against.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VARIABLE = "HVBENCH_FAULTS"
BLOCK_BYTES = 1 << 24

Fault = Mapping[str, Any]
State = Mapping[str, Any]


def load_faults(rank: int) -> list[Fault]:
    """The faults meant for this rank, if a test has set any."""
    text = os.environ.get(VARIABLE)
    return [fault for fault in json.loads(text) if fault.get("rank", rank) == rank] if text else []


def inject(faults: list[Fault], state: State, *, directory: Path) -> None:
    """Inject the faults that are meant for the point and the phase that `state` (the worker's progress) names."""
    for fault in faults:
        is_here = (
            fault.get("point", "") in (state.get("point") or "")
            and fault.get("phase", state["phase"]) == state["phase"]
        )
        if is_here and fault.get("job", "measure") == state.get("job", "measure"):
            KINDS[fault["kind"]](fault, state, directory)


def raise_error(fault: Fault, state: State, directory: Path) -> None:
    """An exception of this rank alone."""
    raise RuntimeError(f"a fault on purpose in {state['phase']}")


def kill(fault: Fault, state: State, directory: Path) -> None:
    """What the kernel's OOM killer does."""
    os.kill(os.getpid(), signal.SIGKILL)


def leave(fault: Fault, state: State, directory: Path) -> None:
    """Exit with code 0 and without a reason."""
    os._exit(0)


def hang(fault: Fault, state: State, directory: Path) -> None:
    """Sleep in Python for ever; the other ranks wait in their next all-reduce."""
    while True:
        time.sleep(3600)


def hang_with_gil(fault: Fault, state: State, directory: Path) -> None:
    """Sleep in C for ever without releasing the interpreter's lock: no other thread of this process runs Python."""
    ctypes.PyDLL(None).sleep(1 << 30)


def hang_in_allreduce(fault: Fault, state: State, directory: Path) -> None:
    """Wait in an all-reduce that no other rank takes part in, while they wait in theirs."""
    if "horovod.torch" in sys.modules:
        hvd, tensor = sys.modules["horovod.torch"], sys.modules["torch"].ones(1)
    else:
        hvd, tensor = sys.modules["horovod.tensorflow"], sys.modules["tensorflow"].ones(1)
    hvd.allreduce(tensor, name="a fault on purpose")


def freeze(fault: Fault, state: State, directory: Path) -> None:
    """Stop every thread, Horovod's own included: what a host that swaps or a debugger does."""
    os.kill(os.getpid(), signal.SIGSTOP)


def write_garbage(fault: Fault, state: State, directory: Path) -> None:
    """Overwrite a file that the agent reads.

    Then, after a result, wait for the agent to notice (a worker that continued would soon replace it by a right one);
    after the failure file, which is read at the end, exit; after any other, continue.
    """
    kind = fault.get("file", "result")
    name = f"result-{state['index']}.json" if kind == "result" else f"{kind}.json"
    (directory / name).write_bytes(fault.get("content", "\x00{garbage").encode(errors="surrogateescape"))
    if kind == "failure":
        os._exit(1)
    if kind == "result":
        hang(fault, state, directory)


def do_nothing(fault: Fault, state: State, directory: Path) -> None:
    """Nothing at a phase: `slow`, `diverge` and `clock` act in steps."""


class SlowTrainer:
    """A trainer (`hvbench.frameworks.contract`) whose steps take longer by a share of themselves."""

    def __init__(self, trainer: Any, share: float) -> None:
        self.trainer = trainer
        self.share = share

    def train_step(self, *arguments: Any, **named: Any) -> Any:
        """The step, and in proportion more of it: a busy core, and exact where a sleep would last longer than asked."""
        begun = time.perf_counter()
        result = self.trainer.train_step(*arguments, **named)
        ended = time.perf_counter()
        while time.perf_counter() - ended < (ended - begun) * self.share:
            pass
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self.trainer, name)


class DivergingTrainer:
    """A trainer (`hvbench.frameworks.contract`) whose gradients are no numbers from a step on, as this rank sees them."""

    def __init__(self, trainer: Any, step: int) -> None:
        self.trainer = trainer
        self.steps_left = step

    def train_step(self, *arguments: Any, **named: Any) -> Any:
        """The step, and from the chosen one on NaN as its gradient norm."""
        result = self.trainer.train_step(*arguments, **named)
        self.steps_left -= 1
        return dataclasses.replace(result, gradient_norm=math.nan) if self.steps_left < 0 else result

    def __getattr__(self, name: str) -> Any:
        return getattr(self.trainer, name)


class WatchedTrainer:
    """A trainer (`hvbench.frameworks.contract`) that leaves in a file when each of its steps began and ended, by the clock of the host."""

    def __init__(self, trainer: Any, path: Path) -> None:
        self.trainer = trainer
        self.path = path
        self.seconds: list[tuple[float, float]] = []

    def train_step(self, *arguments: Any, **named: Any) -> Any:
        """The step, and a look at the clock before and behind it."""
        begun = time.monotonic()
        result = self.trainer.train_step(*arguments, **named)
        self.seconds.append((begun, time.monotonic()))
        return result

    def close(self) -> None:
        """Write the file, and end the training."""
        self.path.write_text(json.dumps(self.seconds), encoding="utf-8")
        self.trainer.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.trainer, name)


def disturb(trainer: Any, faults: list[Fault], *, point: str) -> Any:
    """`trainer`, or a slower, a diverging or a watched one where a fault says so for this point."""
    for fault in faults:
        if fault.get("point", "") not in point:
            continue
        if fault["kind"] == "slow":
            trainer = SlowTrainer(trainer, fault["share"])
        elif fault["kind"] == "diverge":
            trainer = DivergingTrainer(trainer, fault["step"])
        elif fault["kind"] == "clock":
            trainer = WatchedTrainer(trainer, Path(fault["folder"]) / f"{point}.{os.getpid()}.json")
    return trainer


def run_out_of_memory(fault: Fault, state: State, directory: Path) -> None:
    """Allocate until there is no more; only under a limit, and untouched: filling gigabytes takes a busy machine long."""
    if resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY:
        raise RuntimeError("the fault `oom` needs --memory-limit")
    import numpy as np

    blocks = []
    while True:
        blocks.append(np.empty(BLOCK_BYTES, dtype=np.uint8))


KINDS = {
    "raise": raise_error,
    "kill": kill,
    "exit": leave,
    "hang": hang,
    "hang-gil": hang_with_gil,
    "hang-allreduce": hang_in_allreduce,
    "freeze": freeze,
    "garbage": write_garbage,
    "oom": run_out_of_memory,
    "slow": do_nothing,
    "diverge": do_nothing,
    "clock": do_nothing,
}

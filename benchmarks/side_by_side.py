"""A round of `benchmarks/peers.py`: a fresh process for every contender, all alive at the same time, of which one runs.

They build, trace and compile beside each other; then they take turns, a step or a few each, in an order that is drawn anew
every second time around. So what the machine does to one of them it does to all.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.contenders import Contender
from hvbench.errors import LaunchError
from hvbench.launch.turns import VARIABLE
from hvbench.launch.turns.scheduler import TurnLimits
from hvbench.launch.turns.server import TurnServer

ROOT = Path(__file__).resolve().parents[1]
PATIENCE_SECONDS = 900.0  # for all to be ready: compilers share the cores; and for one turn
POLL_SECONDS = 0.1
LOG_TAIL_BYTES = 3000


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every contender of a round does."""

    knobs: Mapping[str, Any]  # of the point
    threads: int
    warmup_steps: int
    steps: int
    seconds: float  # of timed steps after which a slow contender stops


def run_round(contenders: Sequence[Contender], work: Work, *, seed: Sequence[int]) -> list[dict[str, Any]]:
    """Launch all contenders, let them take turns, and return what `benchmarks.contender.run_order` says of each.

    Args:
        contenders: of different names.
        work: the same for all.
        seed: of the order of their turns.

    Raises:
        LaunchError: one of them failed, with the end of its log; or they took no turns.
    """
    names = [contender.name for contender in contenders]
    limits = TurnLimits(give_up_seconds=PATIENCE_SECONDS)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hvbench-peers-")))
        server = stack.enter_context(TurnServer(names, seed=seed, limits=limits))
        stack.callback(lambda: end_all(running))
        running: dict[str, subprocess.Popen] = {}
        for contender in contenders:
            running[contender.name] = start(contender, work, folder=folder, turn=server.variable(contender.name))
        wait_for_all(running, server, folder=folder)
        return [json.loads(Path(folder, f"{name}.json").read_text(encoding="utf-8")) for name in names]


def import_path() -> str:
    """PYTHONPATH of a process that finds its neighbours and the hvbench beside them first."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def start(contender: Contender, work: Work, *, folder: Path, turn: str) -> subprocess.Popen:
    """Start the process of a contender; `turn` is its HVBENCH_TURNS."""
    order_path = folder / f"{contender.name}.order.json"
    order_path.write_text(json.dumps({"contender": contender.name, **vars(work)}), encoding="utf-8")
    environment = os.environ | {
        "OMP_NUM_THREADS": str(work.threads),
        "PYTHONPATH": import_path(),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # else processes that nobody suspends
        VARIABLE: turn,
        **contender.variant.variables,
    }
    command = [sys.executable, "-m", "benchmarks.contender", str(order_path), str(folder / f"{contender.name}.json")]
    with (folder / f"{contender.name}.log").open("wb") as log:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)


def wait_for_all(running: Mapping[str, subprocess.Popen], server: TurnServer, *, folder: Path) -> None:
    """Return when all have ended well; raise LaunchError as soon as one has not, or the turns have ended."""
    left = dict(running)
    while left:
        time.sleep(POLL_SECONDS)
        if server.given_up:
            raise LaunchError(f"the contenders take no turns: {server.given_up}")
        for name, process in list(left.items()):
            if process.poll() is None:
                continue
            del left[name]
            server.retire(name)
            if process.returncode:
                log = (folder / f"{name}.log").read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
                raise LaunchError(f"{name} ended with code {process.returncode}:\n{log}")


def end_all(running: Mapping[str, subprocess.Popen]) -> None:
    """End what still runs, suspended or not."""
    for process in running.values():
        process.kill()
        process.wait()

"""Horovod's environment variables: what each accepts, and why a value is none. Pure.

Horovod reads a number by its leading digits and takes 0 where there are none: `64MB` is 64 bytes, `true` is off. A value
that it would misread in this way is refused before anything starts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from hvbench.spec.messages import did_you_mean, shorten
from hvbench.spec.place import PLACE

# Those that only building, installing or launching reads.
ELSEWHERE = re.compile(
    r"HOROVOD_((WITH|WITHOUT|BUILD|CMAKE|CUDA|ROCM|NCCL|MPICXX|CCL|SPARK|GPU)(_\w+)?|LOCAL_VERSION|(START|ELASTIC)_TIMEOUT|DEBUG|SKIP_\w+)"
)

PREFIX = "HOROVOD_"
Check = Callable[[str], bool]
MAX_WHOLE = 2**63


@dataclass(frozen=True, kw_only=True)
class Variable:
    """What a variable accepts."""

    accepts: Check
    allowed: str  # in words
    instead: str | None = None  # a field of a point that says the same
    kind: str = ""  # "interface" or "file": looked up on this machine, too


def whole(low: int = 0) -> Variable:
    """A whole number from `low`."""
    return Variable(
        accepts=lambda text: bool(re.fullmatch(r"\d{1,19}", text, re.ASCII)) and low <= int(text) < MAX_WHOLE,
        allowed=f"a whole number from {low}, without a unit",
    )


def number(low: float, high: float, unit: str) -> Variable:
    """A number within bounds, both included."""

    def accepts(text: str) -> bool:
        try:
            value = float(text)
        except ValueError:
            return False
        return math.isfinite(value) and low <= value <= high and not set(text) & set("_nN")

    return Variable(accepts=accepts, allowed=f"a number from {low:g} to {high:g}{unit}")


def choice(*words: str) -> Variable:
    """One of a few words, in any case."""
    return Variable(accepts=lambda text: text.lower() in words, allowed=", ".join(words))


SWITCH = Variable(accepts=lambda text: text in ("0", "1"), allowed="1 or 0: Horovod reads any word as 0")
FILE = Variable(accepts=bool, allowed="the path of a file that can be written", kind="file")
OFF = Variable(accepts=lambda text: text == "0", allowed="0: hvbench restarts workers by itself")

VARIABLES: dict[str, Variable] = {
    "HOROVOD_FUSION_THRESHOLD": whole(),  # bytes
    "HOROVOD_CYCLE_TIME": number(0, 1e5, " (milliseconds)"),
    "HOROVOD_CACHE_CAPACITY": whole(),
    "HOROVOD_HIERARCHICAL_ALLREDUCE": SWITCH,
    "HOROVOD_HIERARCHICAL_ALLGATHER": SWITCH,
    "HOROVOD_TORUS_ALLREDUCE": SWITCH,
    "HOROVOD_BATCH_D2D_MEMCOPIES": SWITCH,
    "HOROVOD_DISABLE_GROUP_FUSION": SWITCH,
    "HOROVOD_ENABLE_ASYNC_COMPLETION": SWITCH,
    "HOROVOD_ENABLE_XLA_OPS": SWITCH,
    "HOROVOD_DYNAMIC_PROCESS_SETS": SWITCH,
    "HOROVOD_DISABLE_NVTX_RANGES": SWITCH,
    "HOROVOD_ADASUM_MPI_CHUNK_SIZE": whole(1),
    "HOROVOD_NUM_NCCL_STREAMS": whole(1),
    "HOROVOD_MPI_THREADS_DISABLE": SWITCH,
    "HOROVOD_THREAD_AFFINITY": Variable(
        accepts=lambda text: bool(re.fullmatch(r"\d{1,5}(,\d{1,5})*", text, re.ASCII)),
        allowed="a core for each local rank, separated by commas",
    ),
    "HOROVOD_CONTROLLER": Variable(
        accepts=lambda text: text in ("gloo", "mpi"), allowed="gloo or mpi", instead="controller"
    ),
    "HOROVOD_CPU_OPERATIONS": Variable(
        accepts=lambda text: text in ("gloo", "mpi"), allowed="gloo or mpi", instead="controller"
    ),
    "HOROVOD_GLOO_IFACE": Variable(accepts=bool, allowed="the name of a network interface", kind="interface"),
    "HOROVOD_GLOO_TIMEOUT_SECONDS": whole(1),
    "HOROVOD_ELASTIC": OFF,
    "HOROVOD_AUTOTUNE": SWITCH,
    "HOROVOD_AUTOTUNE_LOG": FILE,
    "HOROVOD_AUTOTUNE_WARMUP_SAMPLES": whole(),
    "HOROVOD_AUTOTUNE_STEPS_PER_SAMPLE": whole(1),
    "HOROVOD_AUTOTUNE_BAYES_OPT_MAX_SAMPLES": whole(1),
    "HOROVOD_AUTOTUNE_GAUSSIAN_PROCESS_NOISE": number(0, 1, ""),
    "HOROVOD_TIMELINE": FILE,
    "HOROVOD_TIMELINE_MARK_CYCLES": SWITCH,
    "HOROVOD_STALL_CHECK_DISABLE": SWITCH,
    "HOROVOD_STALL_CHECK_TIME_SECONDS": whole(),
    "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": whole(),
    "HOROVOD_LOG_LEVEL": choice("trace", "debug", "info", "warning", "error", "fatal"),
    "HOROVOD_LOG_HIDE_TIME": SWITCH,
}
DYNAMIC = ("HOROVOD_TIMELINE", "DYNAMIC")  # a timeline that a program begins later, into no file yet


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What this machine has for those variables that name something of it."""

    interfaces: Collection[str]
    why_not_writable: Callable[[str], str | None]  # path -> why no file can be written there
    is_launched: bool = False  # a launcher has set some of the variables


def find_mistake(environment: Mapping[str, str], surroundings: Surroundings) -> str | None:
    """One line about the first HOROVOD_* variable, by name, that Horovod would misread, ignore or die of; None: none is.

    An empty variable counts as not set, and is passed on to no worker.
    """
    given = {name: value for name, value in environment.items() if name.startswith(PREFIX) and value}
    for name in sorted(given):
        if PLACE.fullmatch(name):
            continue
        if name not in VARIABLES:
            hint = did_you_mean(name.removeprefix(PREFIX), [known.removeprefix(PREFIX) for known in VARIABLES])
            if hint and not ELSEWHERE.fullmatch(name):
                hint = hint.replace('"', f'"{PREFIX}', 1)
                return f"{shorten(name)[1:-1]}: Horovod reads no such variable{hint}"
            continue
        if reason := why_not(name, given[name], surroundings):
            return f"{name}={shorten(given[name])[1:-1]}: {reason}"
    return None


def why_not(name: str, value: str, surroundings: Surroundings) -> str | None:
    """Why a known variable cannot have that value; None: it can."""
    variable = VARIABLES[name]
    if not variable.accepts(value):
        return f"must be {variable.allowed}"
    if variable.kind == "interface" and value not in surroundings.interfaces:
        return f"no such network interface here; there are {', '.join(sorted(surroundings.interfaces))}"
    if variable.kind == "file" and (name, value) != DYNAMIC and (reason := surroundings.why_not_writable(value)):
        return f"cannot be written: {reason}"
    if variable.instead and not surroundings.is_launched and value != "gloo":
        return f"hvbench sets this for each point: unset it, and ask for {variable.instead}={value}"
    return None

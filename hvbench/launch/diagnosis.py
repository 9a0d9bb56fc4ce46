"""Why a worker ended or stalled, from the text that it leaves: messages of exhausted memory, and stacks at a timeout.

The stacks are `faulthandler`'s text. A rank whose main thread is inside a twin (`hvbench/frameworks/`) may be waiting in
an all-reduce for another rank; one that is in `hvbench/worker/turns.py` has done its steps of a turn and waits for the other ranks to do
theirs, or for other workers. A rank that is anywhere else waits for no other, and one that cannot report its stack has stopped altogether.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FRAME = re.compile(r'^  File "(?P<file>[^"\n]{1,4096})", line (?P<line>\d{1,9}) in (?P<function>.{1,200})$')
INSIDE_TWIN = "/hvbench/frameworks/"
AT_TURNS = "/hvbench/worker/turns.py"

# Substrings of messages by which frameworks, C++ and the system say that memory ran out.
OUT_OF_MEMORY = (
    "out of memory", "can't allocate memory", "OOM when allocating", "DefaultCPUAllocator: not enough memory",
    "bad_alloc", "Cannot allocate memory",
)  # fmt: skip

# Substrings of messages by which what joins ranks says that another one is gone, or has not come.
ANOTHER_RANK_IS_GONE = (
    "HorovodInternalError", "HorovodAllreduce", "Horovod has been shut down",
    "Connection closed by peer", "Connection reset by peer", "gloo/transport/tcp/", "gloo/transport/uv/",  # Gloo
    "ncclRemoteError", "Connection closed by remote peer", "Watchdog caught collective operation timeout",  # NCCL
    "Did the remote server shutdown or crash", "The client socket has failed to connect", "DistNetworkError",  # torch.distributed
    "PeerGone",  # parameter servers
    "Collective ops is aborted by", "stopped sending heartbeats", "coordination service agent is in error state",  # TensorFlow
)  # fmt: skip

TRACEBACK = "Traceback (most recent call last):"
MAX_WORDS = 300  # characters of a program's last words


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The main thread of one worker: its innermost function of hvbench, and whether that waits on behalf of a twin, or for a turn."""

    place: str | None
    is_inside_twin: bool
    is_at_turns: bool = False  # waits for its turn


def read_stack(text: str) -> Stack:
    """The last thread of a dump is the main thread; its innermost frame comes first."""
    main = re.split(r"^(?:Current thread|Thread) 0x", text, flags=re.MULTILINE)[-1]
    frames = [match for line in main.splitlines() if (match := FRAME.match(line))]
    own = [frame for frame in frames if "/hvbench/" in frame["file"]]
    innermost = own[0] if own else frames[0] if frames else None
    place = (
        f"{innermost['function']} ({innermost['file'].rpartition('/')[2]}:{innermost['line']})" if innermost else None
    )
    return Stack(
        place=place,
        is_inside_twin=any(INSIDE_TWIN in frame["file"] for frame in frames),
        is_at_turns=bool(own) and own[0]["file"].endswith(AT_TURNS),
    )


def suspect(waiting: Sequence[int], stacks: Mapping[int, Stack]) -> int:
    """The rank to blame among those that did not finish: a silent one, one outside its twin, or else the first that waits for no turn."""

    def weight(rank: int) -> int:
        stack = stacks.get(rank)
        if stack is None or stack.place is None:
            return 0
        if stack.is_at_turns:
            return 3
        return 2 if stack.is_inside_twin else 1

    return min(waiting, key=weight)


def describe_silence(rank: int, stacks: Mapping[int, Stack]) -> str:
    """Where the rank was found."""
    stack = stacks.get(rank)
    if stack is None or stack.place is None:
        return f"rank {rank} does not say where it is"
    return f"rank {rank} waited for its turn" if stack.is_at_turns else f"rank {rank} was in {stack.place}"


def is_echo(text: str) -> bool:
    """Whether a message only says that another rank is gone, whose own failure is the cause."""
    return any(part in text for part in ANOTHER_RANK_IS_GONE)


def last_words(log: str) -> str:
    """Why a program ended, as the end of its log has it: the exception of a Python program, or else the last line; printable."""
    _, mark, after = log.rpartition(TRACEBACK)
    lines = [line.rstrip() for line in log.splitlines() if line.strip()]
    if mark:  # indented lines are the stack; then comes the exception, whose message may have several lines
        exception = [line.rstrip() for line in after.splitlines() if line.strip() and not line.startswith(" ")]
        lines = [" … ".join(dict.fromkeys([exception[0], exception[-1]]))] if exception else lines
    words = lines[-1].strip()[:MAX_WORDS] if lines else ""
    return "".join(letter if letter.isprintable() else "?" for letter in words)

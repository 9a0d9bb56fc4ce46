"""Why a worker ended or stalled, from the text that it leaves: messages of exhausted memory, and stacks at a timeout.

The stacks are `faulthandler`'s text. A rank whose main thread is inside a twin (`hvbench/frameworks/`) may be waiting in
an all-reduce for another rank. A rank that is anywhere else waits for no other, and one that cannot report its stack has
stopped altogether.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FRAME = re.compile(r'^  File "(?P<file>[^"\n]{1,4096})", line (?P<line>\d{1,9}) in (?P<function>.{1,200})$')
INSIDE_TWIN = "/hvbench/frameworks/"

# Substrings of messages by which frameworks, C++ and the system say that memory ran out.
OUT_OF_MEMORY = (
    "out of memory", "can't allocate memory", "OOM when allocating", "DefaultCPUAllocator: not enough memory",
    "bad_alloc", "Cannot allocate memory",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The main thread of one worker: its innermost function of hvbench, and whether that waits on behalf of a twin."""

    place: str | None
    is_inside_twin: bool


def read_stack(text: str) -> Stack:
    """The last thread of a dump is the main thread; its innermost frame comes first."""
    main = re.split(r"^(?:Current thread|Thread) 0x", text, flags=re.MULTILINE)[-1]
    frames = [match for line in main.splitlines() if (match := FRAME.match(line))]
    own = [frame for frame in frames if "/hvbench/" in frame["file"]]
    innermost = own[0] if own else frames[0] if frames else None
    place = (
        f"{innermost['function']} ({innermost['file'].rpartition('/')[2]}:{innermost['line']})" if innermost else None
    )
    return Stack(place=place, is_inside_twin=any(INSIDE_TWIN in frame["file"] for frame in frames))


def suspect(waiting: Sequence[int], stacks: Mapping[int, Stack]) -> int:
    """The rank to blame among those that did not finish: a silent one, one outside its twin, or else the first."""

    def weight(rank: int) -> int:
        stack = stacks.get(rank)
        if stack is None or stack.place is None:
            return 0
        return 2 if stack.is_inside_twin else 1

    return min(waiting, key=weight)


def describe_silence(rank: int, stacks: Mapping[int, Stack]) -> str:
    """Where the rank was found."""
    stack = stacks.get(rank)
    return f"rank {rank} was in {stack.place}" if stack and stack.place else f"rank {rank} does not say where it is"

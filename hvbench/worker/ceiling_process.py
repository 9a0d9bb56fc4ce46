"""Ceilings measured in a process of its own, so that nothing they need is part of the memory of the worker that trains.

Some allocators keep what was once needed for as long as their process lives: TensorFlow's for oneDNN the arrays of a memory pass and the
operands of large products. So a worker forks this process after it has imported its framework and before it starts any of
it: no thread, no allocator and no device context of the framework is copied. The process does nothing unless it is asked. One JSON object a
line, over a pair of sockets:

    {"ask": "search", "about": {…}}       `local_ceiling.Found` of a point
    {"ask": "library_seconds", "about": {…}}   seconds of a point's products by each library
    {"ask": "take_up", "about": {…}}      prepare a `local_ceiling.Work`; answer: null
    {"ask": "read"}                       FLOP/s over a window of it
    {"ask": "put_down"}                   forget it; answer: null
    {"answer": …} or {"failure": {…}}     what `describe_failure` says
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from hvbench.launch.own_process import die_with_parent
from hvbench.launch.task import FailureStatus
from hvbench.spec.point import Point
from hvbench.worker.failure import describe_failure
from hvbench.worker.local_ceiling import Found, LocalCeilings, Work
from hvbench.worker.together import ReadWindow


class CeilingProcess:
    """A `LocalCeilings` in a process forked from this one. Asking raises RuntimeError where it failed or is gone, MemoryError where there was none."""

    def __init__(self, make: Callable[[], LocalCeilings]) -> None:
        """Fork; the new process calls `make`, which starts the framework, when it is first asked."""
        own, other = socket.socketpair()
        parent, self._exit_code = os.getpid(), None
        self._pid = os.fork()
        if not self._pid:
            own.close()
            serve(other, make, parent=parent)
        other.close()
        self._socket, self._stream = own, own.makefile("rwb")

    def search(self, point: Point) -> Found:
        """See `LocalCeilings.search`."""
        return Found(**self._ask("search", point.model_dump()))

    def library_seconds(self, point: Point) -> dict[str, float]:
        """See `LocalCeilings.library_seconds`."""
        return self._ask("library_seconds", point.model_dump())

    @contextlib.contextmanager
    def reading(self, work: Work) -> Iterator[ReadWindow]:
        """See `LocalCeilings.reading`; an error ends the worker, so nothing is put down then."""
        self._ask("take_up", work.model_dump())
        yield lambda: self._ask("read")
        self._ask("put_down")

    def close(self) -> None:
        """End the process and wait for it."""
        if self._exit_code is None:
            os.kill(self._pid, signal.SIGKILL)
            self._wait()
        with contextlib.suppress(OSError):
            self._stream.close()
        self._socket.close()

    def _ask(self, question: str, about: Any = None) -> Any:
        line = b""
        with contextlib.suppress(OSError):
            self._stream.write(json.dumps({"ask": question, "about": about}).encode() + b"\n")
            self._stream.flush()
            line = self._stream.readline()
        if not line:
            raise RuntimeError(f"the process that measures ceilings {describe_exit(self._wait())}")
        answer = json.loads(line)
        if failure := answer.get("failure"):
            raise (MemoryError if failure["status"] == FailureStatus.OOM else RuntimeError)(failure["message"])
        return answer["answer"]

    def _wait(self) -> int:
        """Its exit code, or the negative number of the signal that ended it."""
        if self._exit_code is None:
            self._exit_code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self._exit_code


class _Server:
    """Answers what is asked, in the process of its own."""

    def __init__(self, make: Callable[[], LocalCeilings]) -> None:
        self._make = make
        self._ceilings: LocalCeilings | None = None
        self._held = contextlib.ExitStack()
        self._read: ReadWindow | None = None

    def answer(self, question: str, about: Any) -> Any:
        """The answer as JSON can say it; raises what the framework does."""
        if self._ceilings is None:
            self._ceilings = self._make()
        match question:
            case "search":
                return self._ceilings.search(Point(**about)).model_dump()
            case "library_seconds":
                return self._ceilings.library_seconds(Point(**about))
            case "take_up":
                self._read = self._held.enter_context(self._ceilings.reading(Work(**about)))
                return None
            case "read":
                return self._read()
            case "put_down":
                self._held.close()
                return None
        raise ValueError(f"unknown question {question!r}")


def serve(connection: socket.socket, make: Callable[[], LocalCeilings], *, parent: int) -> None:
    """Answer until the worker is gone; never returns."""
    try:
        die_with_parent(parent)
        server = _Server(make)
        with connection.makefile("rwb") as stream:
            for line in stream:
                request = json.loads(line)
                try:
                    answer = {"answer": server.answer(request["ask"], request["about"])}
                except Exception as error:  # whatever it was, the worker has to learn of it
                    traceback.print_exc()
                    answer = {"failure": describe_failure(error)}
                stream.write(json.dumps(answer).encode() + b"\n")
                stream.flush()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def describe_exit(code: int) -> str:
    """How a process ended, from its exit code or the negative number of a signal."""
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"

"""Trackers beside a sweep, each a process of its own, as the process that runs the sweep sees them.

They read what the sweep writes; it asks of them no more than whether they are still there. One that is slow, hangs or dies costs a line.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from hvbench.errors import Interrupted
from hvbench.io.untrusted import make_printable
from hvbench.launch.script import find_processes
from hvbench.records.journal import NAME as JOURNAL
from hvbench.tracking.trackers import LIVE, STEPS_FOLDER, VARIABLE, failure_path

MODULE = "hvbench.tracking"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # of libraries that would start one a core
END_SECONDS = 10.0  # for trackers to take in the last steps, behind the end of the sweep
AFTER = "the sweep goes on, and writes it at its end"


class LiveTrackers:
    """Follow a sweep within `with`, in which the journal of its run is written from begin to end.

    Raises nothing: what goes wrong is a warning.
    """

    def __init__(
        self, run_dir: Path, names: Sequence[str], *, environment: Mapping[str, str], warn: Callable[[str], None]
    ) -> None:
        """Args: `names` of trackers, of which those of LIVE follow; `environment` of their processes; `warn` takes a line."""
        self.run_dir = run_dir.resolve()
        self.names = [name for name in names if name in LIVE]
        self.environment = {**environment, **dict.fromkeys(THREADS, "1"), VARIABLE: str(self.run_dir)}
        self.warn = warn
        self.steps_folder: Path | None = None  # where launches append their steps; None: nobody follows
        self._processes: dict[str, subprocess.Popen[bytes]] = {}  # by the names of those that nothing was said of yet

    def __enter__(self) -> LiveTrackers:
        if self.names:
            try:
                self._start()
            except OSError as error:
                self.warn(f"no tracking while the sweep runs: {error.filename or MODULE}: {error.strerror}; {AFTER}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let them come to their end, for a while, or no longer than now where the sweep was told to stop; nothing of them is left."""
        try:
            if not isinstance(error, (Interrupted, KeyboardInterrupt)):
                self._await_end()
        finally:
            self._kill()
            if self.steps_folder:
                shutil.rmtree(self.steps_folder, ignore_errors=True)

    def check(self) -> None:
        """Say which have ended since the last call; they had no reason to."""
        for name, process in list(self._processes.items()):
            if process.poll() is not None:
                del self._processes[name]
                self.warn(f"tracking by {name} has stopped: {self._describe_end(name, process.returncode)}; {AFTER}")

    def _start(self) -> None:
        """Raises OSError."""
        folder = self.run_dir / STEPS_FOLDER
        shutil.rmtree(folder, ignore_errors=True)  # of a session that was killed
        folder.mkdir(parents=True)
        self.steps_folder = folder
        journal = self.run_dir / JOURNAL
        place = journal.stat().st_size if journal.exists() else 0
        for name in self.names:
            words = [MODULE, str(self.run_dir), name, str(place), str(os.getpid())]
            with self._log(name).open("wb") as log:
                self._processes[name] = subprocess.Popen(
                    [sys.executable, "-P", "-m", *words],
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for the sweep, which ends it
                )

    def _await_end(self) -> None:
        deadline = time.monotonic() + END_SECONDS
        for name, process in list(self._processes.items()):
            with contextlib.suppress(subprocess.TimeoutExpired):
                if not process.wait(timeout=max(0.0, deadline - time.monotonic())):
                    del self._processes[name]
        self.check()
        for name in self._processes:
            self.warn(f"tracking by {name} did not come to its end within {END_SECONDS:.0f} s; it is written anew")

    def _kill(self) -> None:
        """End what is left of them, and of what they have started, in whatever session it is."""
        if not self.steps_folder:
            return
        for process in find_processes(self.run_dir, variable=VARIABLE):
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        for process in self._processes.values():
            process.kill()
            process.wait()
        for name in self.names:
            with contextlib.suppress(OSError):
                if not self._log(name).stat().st_size:
                    self._log(name).unlink()

    def _log(self, name: str) -> Path:
        return self.run_dir / "logs" / f"tracking-{name}.log"

    def _describe_end(self, name: str, returncode: int) -> str:
        """The line that it has left, or how it ended."""
        with contextlib.suppress(OSError, UnicodeError):
            return make_printable(failure_path(self.run_dir, name).read_text(encoding="utf-8")[:1000])
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-returncode).name}"
        return f"exited with code {returncode}; see {self._log(name)}"

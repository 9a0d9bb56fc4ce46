"""Workers that MPI has to start: all ranks of a host in one `mpirun`, watched by rank 0's agent on behalf of the others.

Horovod's MPI controller, its Adasum on processors and mpi4py need ranks that mpirun started. Such
workers do, write and report the same as any other; only their processes have another parent.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from hvbench.launch.messages import Exited, Message, Start, WorkerDescription
from hvbench.launch.process import UNEXPLAINED, WorkerProcess, log_path, order_environment

# More ranks than cores are allowed, as without MPI, and the ranks' threads move freely between the cores.
OPTIONS = ("--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--tag-output")
SIGNALLED = 128  # mpirun ends with this and the number of the signal that ended a rank


class RankOfMpirun(WorkerProcess):
    """One rank's files; its process is mpirun's."""

    def __init__(self, worker: WorkerDescription, *, folder: Path, log: Path, generation: int) -> None:
        self.rank = worker.rank
        self.generation = generation
        self.folder = folder
        self.log = log
        self._prepare(worker)

    def news_of(self, returncode: int | None) -> list[Message]:
        """As `news`, from mpirun's exit code: a rank that left a reason of its own was not the one that a signal ended."""
        if returncode is not None and returncode > SIGNALLED:
            returncode = 1 if (self.folder / "failure.json").exists() else SIGNALLED - returncode
        return self._news(returncode)


class MpirunWorkers:
    """All ranks of one generation in one mpirun; the interface of `WorkerProcess`."""

    def __init__(self, order: Start, *, scratch: Path) -> None:
        """Start the ranks that `order` describes. Raises OSError."""
        self.generation = order.generation
        self.is_reported = False
        folder = scratch / f"generation-{self.generation}"
        log = log_path(order, scratch)
        self.ranks = [
            RankOfMpirun(worker, folder=folder / f"rank{number}", log=log, generation=self.generation)
            for number, worker in enumerate(order.workers)
        ]
        python = order.workers[0].python or sys.executable
        mpirun = Path(python).with_name("mpirun")
        words = [str(mpirun) if mpirun.exists() else "mpirun", *OPTIONS, "-np", str(len(self.ranks))]
        words += [python, "-P", "-m", "hvbench.worker", str(folder)]
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                # The kernel ends mpirun with its agent, and the ranks with mpirun.
                [sys.executable, "-P", "-m", "hvbench.launch.tether", str(os.getpid()), *words],
                env=without_allocation(order_environment(order, scratch=scratch)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        for rank in self.ranks:
            rank.process = self.process

    def news(self) -> list[Message]:
        """What has happened on all ranks since the last call; an unexplained end beside an explained one is its echo."""
        returncode = self.process.poll()
        messages = [message for rank in self.ranks for message in rank.news_of(returncode)]
        self.is_reported = any(rank.is_reported for rank in self.ranks)
        ends = [message for message in messages if isinstance(message, Exited)]
        has_reason = not all(map(is_unexplained, ends))
        return [
            as_echo(message) if isinstance(message, Exited) and is_unexplained(message) and has_reason else message
            for message in messages
        ]

    def stack(self, rank: int) -> str:
        """What every thread of that rank is doing."""
        return self.ranks[rank].stack(rank)

    def end_early(self, index: int) -> None:
        """Let the ranks train job `index` no further: rank 0 tells the others."""
        self.ranks[0].end_early(index)

    def kill(self) -> None:
        """End mpirun, and with it all ranks."""
        for rank in self.ranks:
            rank.kill()


def without_allocation(environment: dict[str, str]) -> dict[str, str]:
    """`environment` as it is outside of an allocation of Slurm's, where mpirun starts its ranks on this host, by itself."""
    return {name: value for name, value in environment.items() if not name.startswith("SLURM_")}


def is_unexplained(end: Exited) -> bool:
    """Whether neither the worker nor a signal gave a reason."""
    return end.failure.message.endswith(UNEXPLAINED)


def as_echo(end: Exited) -> Exited:
    """The end, marked as one that another rank's end explains."""
    return replace(end, failure=replace(end.failure, is_echo=True))

"""Workers that MPI has to start: all ranks of a host in one `mpirun`, watched by rank 0's agent on behalf of the others.

Horovod's MPI controller, its Adasum on processors, mpi4py and the parameter server need ranks that mpirun started. Such
workers do, leave and say the same as any other; only their processes have another parent.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hvbench.launch.channel import Message
from hvbench.launch.process import WorkerProcess, log_path, worker_environment

# More ranks than cores are allowed, as without MPI, and the ranks' threads move freely between the cores.
OPTIONS = ("--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--tag-output")
SIGNALLED = 128  # mpirun ends with this and the number of the signal that ended a rank
UNEXPLAINED = "without a word"


class RankOfMpirun(WorkerProcess):
    """One rank's files; its process is mpirun's."""

    def __init__(self, description: dict[str, Any], *, folder: Path, log: Path, generation: int) -> None:
        self.rank: int = description["rank"]
        self.generation = generation
        self.folder = folder
        self.log = log
        self._prepare(description)

    def news_of(self, returncode: int | None) -> list[Message]:
        """As `news`, knowing how mpirun ended: who left a word of its own was not the one that a signal ended."""
        if returncode is not None and returncode > SIGNALLED:
            returncode = 1 if (self.folder / "failure.json").exists() else SIGNALLED - returncode
        return [{**message, "of_rank": self.rank} for message in self._news(returncode)]

    def _send_signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self.folder / "pid").read_text()), number)


class MpirunWorkers:
    """All ranks of one generation in one mpirun; the same interface as `WorkerProcess`.

    `message["ranks"]` describes each process: the ranks that train, and maybe a server after them.
    """

    def __init__(self, message: Message, *, scratch: Path) -> None:
        self.generation: int = message["generation"]
        self.is_reported = False
        self.world_size = sum(1 for each in message["ranks"] if "role" not in each)
        folder = scratch / f"generation-{self.generation}"
        log = log_path(message, scratch)
        self.ranks = [
            RankOfMpirun(each, folder=folder / f"rank{number}", log=log, generation=self.generation)
            for number, each in enumerate(message["ranks"])
        ]
        mpirun = Path(sys.executable).with_name("mpirun")
        words = [str(mpirun) if mpirun.exists() else "mpirun", *OPTIONS, "-np", str(len(self.ranks))]
        words += [sys.executable, "-P", "-m", "hvbench.worker", str(folder)]
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                # The kernel ends mpirun with its agent, and the ranks with mpirun.
                [sys.executable, "-P", "-m", "hvbench.launch.tether", str(os.getpid()), *words],
                env=worker_environment(message["environment"]),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        for rank in self.ranks:
            rank.process = self.process

    def news(self) -> list[Message]:
        """What all ranks have to say. Where a rank gave a reason, those that ended with it are its echo."""
        returncode = self.process.poll()
        messages = [message for rank in self.ranks for message in rank.news_of(returncode)]
        self.is_reported = any(rank.is_reported for rank in self.ranks)
        ends = [message for message in messages if message["type"] == "exited"]
        silent = [end for end in ends if end["failure"]["message"].endswith(UNEXPLAINED)]
        if len(silent) < len(ends):
            for end in silent:
                end["failure"]["is_echo"] = True
        heard = [message for message in messages if message["of_rank"] < self.world_size]
        return heard + [
            self._speak_for_server(end) for end in ends if end["of_rank"] >= self.world_size and end not in silent
        ]

    def _speak_for_server(self, end: Message) -> Message:
        """A server's end as the first rank's, for it is no rank of the launch."""
        failure = {**end["failure"], "message": f"parameter server: {end['failure']['message']}", "is_echo": False}
        return {**end, "of_rank": 0, "failure": failure}

    def stack(self, rank: int) -> str:
        """What every thread of that rank is doing."""
        return self.ranks[rank].stack(rank)

    def kill(self) -> None:
        """End mpirun, and with it all ranks."""
        for rank in self.ranks:
            rank.kill()


def join_ranks(messages: Sequence[Message], *, servers: int) -> Message:
    """The one message by which rank 0's agent starts all ranks, and servers after them, in one mpirun."""
    ranks = [message["description"] for message in messages]
    beside = [{**ranks[0], "role": "server", "rank": len(ranks) + number, "local_rank": 0} for number in range(servers)]
    return {**messages[0], "ranks": [*ranks, *beside]}

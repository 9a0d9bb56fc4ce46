"""The entrance: `python -m hvbench.worker DIRECTORY` runs the jobs that DIRECTORY/generation.json lists."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from pathlib import Path

from hvbench.frameworks.parameter_server.service import serve
from hvbench.launch.messages import Role
from hvbench.launch.own_process import die_with_parent
from hvbench.spec.point import Point
from hvbench.worker.failure import report_failure
from hvbench.worker.jobs import run_jobs
from hvbench.worker.memory import cap_memory
from hvbench.worker.worker import Worker


def main(directory: Path) -> None:
    """Run the jobs that `directory` describes; never returns.

    The process ends by `os._exit`: Horovod's own exit would wait for ranks that may be gone.
    """
    worker = None
    try:
        worker = Worker(directory)
        die_with_parent(worker.description.agent_pid)
        cap_memory(worker.description.memory_limit_bytes)
        (directory / "pid").write_text(str(os.getpid()), encoding="utf-8")
        with (directory / "stack.txt").open("w", encoding="utf-8") as stack:
            faulthandler.register(signal.SIGUSR1, file=stack)
            if worker.description.role == Role.SERVER:
                serve_points(worker)
            else:
                run_jobs(worker)
    except BaseException as error:  # the last line of defence: whatever it was, the agent has to learn of it
        try:
            report_failure(directory, error, progress=worker.progress if worker else None)
            sys.stderr.flush()
            if worker:
                worker.close()
        finally:
            os._exit(1)
    sys.stdout.flush()
    os._exit(0)


def serve_points(worker: Worker) -> None:
    """Be the parameter server that the description names."""
    about = worker.description

    def note(point: Point) -> None:
        worker.progress.enter("serve", point=point.point_id)

    serve(about.rank - about.world_size, world_size=about.world_size, on_point=note)


def find_directory(argument: str) -> Path:
    """The folder of this process; under mpirun, which gives all ranks the same words, that of its rank below it."""
    rank = os.environ.get("OMPI_COMM_WORLD_RANK")
    return Path(argument) if rank is None else Path(argument) / f"rank{rank}"


if __name__ == "__main__":
    main(find_directory(sys.argv[1]))

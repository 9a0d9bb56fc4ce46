"""What several ranks' matrix products reach together on this host: virtual cores may share what multiplies.

A process of its own asks numpy, with one thread of its library for each thread of a rank; that takes about half a second and
no framework. The workers of a sweep measure the same in their framework (`hvbench.worker.together`).
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hvbench.io.atomic import write_json
from hvbench.records.environment import usable_cores

SIZE = 512  # of square matrices: milliseconds a product, so that Python's lock does not matter
ROUNDS = 3
WINDOW_SECONDS = 0.06
MAX_THREADS = 1024
MUCH_LOAD = 0.5  # a core, by which such a short look may be far off
GIVE_UP_SECONDS = 10.0
ONE_THREAD = dict.fromkeys(
    ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


@dataclass(frozen=True, kw_only=True)
class Together:
    """Matrix products of `ranks` ranks at once over those of one alone, in each of some rounds."""

    ranks: int
    ratios: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Geometric mean over the rounds."""
        return math.exp(sum(map(math.log, self.ratios)) / len(self.ratios))


@cache
def measure_together(*, ranks: int, threads: int) -> Together | None:
    """Multiply with one rank's threads and with all ranks' in turn; None where that is not possible here."""
    if ranks < 2 or ranks * threads > MAX_THREADS:
        return None
    with tempfile.TemporaryDirectory(prefix="hvbench-") as folder:
        answer = Path(folder) / "together.json"
        command = [sys.executable, "-m", "hvbench.plan.together", str(answer), str(ranks), str(threads)]
        try:
            subprocess.run(
                command, env={**os.environ, **ONE_THREAD}, check=True, timeout=GIVE_UP_SECONDS,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            return Together(ranks=ranks, ratios=tuple(json.loads(answer.read_text(encoding="utf-8"))))
        except (OSError, subprocess.SubprocessError, ValueError):
            return None


def describe_together(*, ranks: int, threads: int) -> str | None:
    """`2 ranks together reach 1.2 times one rank's matrix products on the CPU (1.1 to 1.3 in 3 rounds, numpy, just now)`, or None."""
    load = os.getloadavg()[0]
    found = measure_together(ranks=ranks, threads=threads)
    if not found:
        return None
    rounds = f"{min(found.ratios):.1f} to {max(found.ratios):.1f} in {len(found.ratios)} rounds, numpy, just now"
    busy = f"; other work kept cores busy: load {load:.1f}" if load >= MUCH_LOAD * usable_cores() else ""
    return (
        f"{ranks} ranks together reach {found.ratio:.1f} times one rank's matrix products on the CPU ({rounds}{busy})"
    )


def time_rounds(*, ranks: int, threads: int) -> list[float]:
    """The ratio of every round, in a process whose numpy multiplies with one thread."""
    import numpy as np

    operand = np.random.default_rng(0).random((SIZE, SIZE), dtype=np.float32)
    results = np.empty((ranks * threads, SIZE, SIZE), dtype=np.float32)

    def multiply_until(deadline: float, number: int, rates: list[float]) -> None:
        np.matmul(operand, operand, out=results[number])  # not timed: it brings caches and threads to it
        begun, calls = time.perf_counter(), 0
        while not calls or time.perf_counter() < deadline:
            np.matmul(operand, operand, out=results[number])
            calls += 1
        rates.append(calls / (time.perf_counter() - begun))

    def read(count: int) -> float:
        """Products a second of so many threads at once."""
        deadline, rates = time.perf_counter() + WINDOW_SECONDS, []
        workers = [threading.Thread(target=multiply_until, args=(deadline, number, rates)) for number in range(count)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return sum(rates)

    read(ranks * threads)  # numpy's library makes its buffers
    rounds = [(read(threads), read(ranks * threads)) for _ in range(ROUNDS)]
    return [together / alone for alone, together in rounds]


if __name__ == "__main__":
    write_json(Path(sys.argv[1]), time_rounds(ranks=int(sys.argv[2]), threads=int(sys.argv[3])))

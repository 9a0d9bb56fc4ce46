"""Two ranks of the numpy implementation in one process: `python -m tests.parity.local_ranks FOLDER` traces each of LOCAL_SGD there.

Needs a package that has `frameworks/numpy`. The ranks are threads that wait for each other where they exchange something.
"""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from hvbench.frameworks.contract import Arrays
from hvbench.parity.trace import write_trace
from hvbench.spec.point import Point
from hvbench.training.packages import make_batches
from tests.parity.alone import Twin, read_text
from tests.parity.points import LOCAL_SGD, STEPS, local_point
from tests.parity.test_twins import round_to_bf16

RANKS = 2


class Board:
    """Where the ranks leave what each of them contributes."""

    def __init__(self) -> None:
        self.of_rank: list[Arrays] = [{} for _ in range(RANKS)]
        self.barrier = threading.Barrier(RANKS, timeout=60.0)


class BoardAllReduce:
    """The average over the ranks, which bf16 rounds before and behind it."""

    def __init__(self, board: Board, rank: int, *, compression: str) -> None:
        self.board = board
        self.rank = rank
        self.round = {"none": np.array, "bf16": round_to_bf16}[compression]
        self.pending: Arrays = {}

    def start(self, name: str, value: np.ndarray) -> None:
        """Keep this rank's own."""
        self.pending[name] = self.round(value)

    def finish(self) -> Arrays:
        """Canonical name -> average."""
        self.board.of_rank[self.rank] = self.pending
        self.board.barrier.wait()
        averages = {
            name: self.round(np.mean([each[name] for each in self.board.of_rank], axis=0)) for name in self.pending
        }
        self.board.barrier.wait()  # nobody leaves anything new before all have read
        self.pending = {}
        return averages


def trace_ranks(point: Point, path: Path) -> None:
    """Leave the trace of every rank, `PATH-rankRANK.npz`."""
    board, twin = Board(), Twin("numpy")

    def trace_rank(rank: int) -> None:
        trainer = twin.trainer(point)
        trainer.allreduce = BoardAllReduce(board, rank, compression=point.compression)
        trainer.average.differences = BoardAllReduce(board, rank, compression=point.compression)
        trainer.average.whole = BoardAllReduce(board, rank, compression="none")
        batches = make_batches(point, read_text(point.data, point.vocab_size), rank=rank)
        mine = path.with_name(f"{path.name}-rank{rank}.npz")
        write_trace(mine, point, trainer=trainer, batches=batches, steps=STEPS, is_first=rank == 0)

    with ThreadPoolExecutor(RANKS) as pool:
        list(pool.map(trace_rank, range(RANKS)))


if __name__ == "__main__":
    for number, choices in enumerate(LOCAL_SGD):
        trace_ranks(local_point("numpy", choices), Path(sys.argv[1]) / str(number))

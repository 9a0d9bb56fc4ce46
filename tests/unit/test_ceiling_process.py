"""The process beside a worker that measures its ceilings: what it answers, how it fails, and that it outlives nobody."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hvbench.records.reading import read_text
from hvbench.spec.point import Point
from hvbench.worker.ceiling_cache import KeptProduct
from hvbench.worker.ceiling_process import CeilingProcess
from hvbench.worker.local_ceiling import Found, Work
from hvbench.worker.together import ReadWindow
from hvbench.worker.worker import needs_ceiling_process
from tests import patience

PRODUCT = KeptProduct(rows=64, inner=32, columns=128, transposed="left")
FOUND = Found(
    product=PRODUCT, gemm_flops_per_second=1.1e11, fp32_gemm_flops_per_second=1e11, flops=123456789012,
    product_seconds=1.25, seconds=1.5, fp32_seconds=1.375, memory_bandwidth_bytes_per_second=1 / 3e-11,
)  # fmt: skip
TINY, SMALL = (Point(framework="pytorch", model=model).model_dump() for model in ("tiny", "small"))
WORK = Work(product=PRODUCT, expected_seconds=0.25, dtype="bfloat16", gemm="default")


class Local:
    """Finds FOUND for the smallest model, and reads the process's own number; others fail."""

    def search(self, point: Point) -> Found:
        if point.model != "tiny":
            raise MemoryError(f"cannot allocate for {point.model}\nand nobody could")
        return FOUND

    def library_seconds(self, point: Point) -> dict[str, float]:
        return {"default": 1 / 3, "onednn": 0.25} if point.model == "tiny" else {}

    @contextmanager
    def reading(self, work: Work) -> Iterator[ReadWindow]:
        assert work == WORK
        yield lambda: float(os.getpid())


@pytest.fixture
def process() -> Iterator[CeilingProcess]:
    made = CeilingProcess(Local)
    yield made
    made.close()


def test_it_answers_from_a_process_of_its_own(process: CeilingProcess) -> None:
    assert process.search(Point(framework="pytorch", model="tiny")) == FOUND
    assert process.library_seconds(Point(framework="pytorch", model="tiny")) == {"default": 1 / 3, "onednn": 0.25}
    for _ in range(2):
        with process.reading(WORK) as read:
            assert read() == read() == process._pid != os.getpid()


def test_what_fails_there_fails_here_and_the_process_goes_on(process: CeilingProcess) -> None:
    with pytest.raises(MemoryError, match="MemoryError: cannot allocate for small … and nobody could"):
        process.search(Point(framework="pytorch", model="small"))
    assert process.search(Point(framework="pytorch", model="tiny")) == FOUND


def test_a_framework_that_does_not_start_there_fails_here() -> None:
    def fail() -> Local:
        raise ImportError("no such library")

    process = CeilingProcess(fail)
    with pytest.raises(RuntimeError, match="ImportError: no such library"):
        process.search(Point(framework="pytorch"))
    process.close()


def test_a_process_that_is_gone_is_named_with_its_end(process: CeilingProcess) -> None:
    os.kill(process._pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="the process that measures ceilings was killed by SIGKILL"):
        process.search(Point(framework="pytorch", model="tiny"))


def test_closing_leaves_nothing() -> None:
    process = CeilingProcess(Local)
    process.close()
    process.close()
    assert not Path(f"/proc/{process._pid}").exists()


def test_it_ends_with_its_worker() -> None:
    """However the worker ends: it is not told."""
    reader, writer = os.pipe()
    worker = os.fork()
    if not worker:
        os.write(writer, str(CeilingProcess(Local)._pid).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    pid = int(os.read(reader, 20))
    os.waitpid(worker, 0)
    for end in (reader, writer):
        os.close(end)
    deadline = time.monotonic() + patience.SECONDS
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether there is such a process that has not ended: one that nobody has waited for is no more than an entry."""
    status = read_text(Path(f"/proc/{pid}/stat"))
    return status is not None and status.rpartition(")")[2].split()[0] not in "ZX"


@pytest.mark.parametrize(
    ("jobs", "asks"),
    [
        ([], False),
        ([{"kind": "measure", "measure": {}}], True),
        ([{"kind": "measure", "measure": {"ceilings": False}, "point": TINY}], False),
        ([{"kind": "trace", "measure": {}, "point": TINY}, {"kind": "allreduce"}], False),
        ([{"kind": "pretrain", "point": {**SMALL, "gemm": "default"}}], False),
        ([{"kind": "pretrain", "point": SMALL}], True),  # to choose a library
        ([{"kind": "trace", "measure": {}, "point": SMALL}], True),
        ([{"kind": "trace", "measure": {}, "point": TINY}, {"kind": "measure", "measure": {"ceilings": True}}], True),
    ],
)
def test_a_worker_has_one_where_a_job_measures_ceilings_or_chooses_a_library(jobs: list[dict], asks: bool) -> None:
    assert needs_ceiling_process(jobs) == asks

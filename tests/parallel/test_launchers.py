"""Real launches of the real thing: every way to start hvbench, two ranks and eight, both frameworks."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from hvbench.analysis.frame.frames import point_frame
from hvbench.analysis.topics.scaling.efficiency import scaling_efficiencies
from hvbench.plan.precision import half_widths_of_rates
from hvbench.records.record import Record
from hvbench.records.store import RunFolder
from hvbench.registry import FRAMEWORKS
from hvbench.worker.together import ROUNDS

SCRIPTS = Path(sys.executable).parent

SUITE = """
question = "Does this launcher work?"
[point]
model = "tiny"
num_layers = 1
micro_batch_size = 2
compression = "{compression}"
[axes]
framework = {frameworks}
[measure]
warmup_steps = 1
steps = 3
"""

# Steps long enough for one per cent of a launch to be more than the skew of its ranks.
WATCHED = """
question = "Do steps take as long as a clock on the wall says?"
[point]
model = "tiny"
micro_batch_size = 128
[axes]
framework = ["pytorch", "tensorflow"]
world_size = [1, 2]
[measure]
warmup_steps = 2
steps = 12
turns = false
"""

LAUNCHERS = {
    "horovodrun --gloo": ["horovodrun", "--gloo", "-np", "2", "hvbench"],
    "horovodrun --mpi": ["horovodrun", "--mpi", "-np", "2", "hvbench"],
    "mpirun": ["mpirun", "-np", "2", "hvbench"],
}
# Each launcher trains with one of them; over all, both frameworks do with either.
COMPRESSIONS = {"horovodrun --gloo": "none", "horovodrun --mpi": "fp16", "mpirun": "fp16"}
SAME = "horovodrun --mpi"  # what horovodrun picks by itself where Horovod was built with MPI: SMOKE
SMOKE = ["horovodrun", "-np", "2", "hvbench", "sweep", "smoke"]  # as the README has it, parity and ceilings included
BUDGET_SECONDS = 15  # for launches beyond the first
UNCHECKED = ["--no-parity", "-s", "ceilings=false"]  # saves the time for those


def launch(words: list[str], *, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command line as a user would, in `folder`, with the environment's scripts first on the path."""
    environment = os.environ | {
        "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        **variables,
    }
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=550)


def write_suite(folder: Path, *, compression: str, frameworks: Sequence[str] = FRAMEWORKS) -> Path:
    """A suite with a point of each framework."""
    path = folder / "launcher.toml"
    path.write_text(SUITE.format(compression=compression, frameworks=json.dumps(list(frameworks))))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", [name if name != SAME else pytest.param(name, marks=pytest.mark.long) for name in LAUNCHERS]
)
def test_every_launcher_trains_both_frameworks_on_two_ranks(launcher: str, tmp_path: Path) -> None:
    suite = write_suite(tmp_path, compression=COMPRESSIONS[launcher])
    words = [*LAUNCHERS[launcher], "sweep", str(suite), "--out", "run", *UNCHECKED]
    done = launch(words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    check_run(tmp_path / "run", ranks=2)
    assert done.stdout.count("report.html") == 1, "rank 0 alone prints"
    assert "cpu_feature_guard" not in done.stdout, "framework noise belongs in the workers' logs"
    if launcher == "mpirun":
        again = launch([*words, "--resume", "--no-report"], folder=tmp_path)
        assert again.returncode == 0, again.stderr  # nothing is left to do, and every rank is told so


@pytest.mark.slow
def test_hvbench_alone_trains_on_one_rank_and_on_two_for_as_long_as_a_clock_on_the_wall_says(tmp_path: Path) -> None:
    (tmp_path / "watched.toml").write_text(WATCHED)
    (tmp_path / "walls").mkdir()
    clock = [{"kind": "clock", "folder": str(tmp_path / "walls")}]
    words = ["hvbench", "sweep", "watched.toml", "--np", "2", "--out", "run", "--no-report", *UNCHECKED]
    done = launch(words, folder=tmp_path, HVBENCH_FAULTS=json.dumps(clock))
    assert done.returncode == 0, done.stderr
    check_run(tmp_path / "run", ranks=None, is_reported=False)
    records, _ = RunFolder(tmp_path / "run").read_records()
    wall_seconds = {}
    for record in records:
        wall, skew = read_wall(tmp_path / "walls", record)
        (row,) = point_frame([record]).to_dict("records")
        tokens, steps = record.model.tokens_per_step * record.measure.steps, record.measure.steps
        close = {"rel": 0.01 + skew / wall}
        assert row["elapsed_seconds"] == pytest.approx(wall, **close)
        assert row["tokens_per_second"] == pytest.approx(tokens / wall, **close)
        assert row["tokens_per_second_per_rank"] == pytest.approx(tokens / wall / len(record.ranks), **close)
        for rank in record.ranks:
            assert sum(rank.step_seconds[record.warmup_steps :]) / steps == pytest.approx(wall / steps, **close)
        wall_seconds[record.point.framework, len(record.ranks)] = wall, skew
    for one in scaling_efficiencies(point_frame(records)):  # of two ranks against one, with the same batch on each
        (wall, skew), (base, base_skew) = (wall_seconds[str(one.point["framework"]), ranks] for ranks in (2, 1))
        assert one.estimate.centre == pytest.approx(base / wall, rel=0.02 + skew / wall + base_skew / base)


def read_wall(folder: Path, record: Record) -> tuple[float, float]:
    """(seconds from the first rank's first timed step to the last rank's last one, without data; how far a worker's own clock may be off).

    Off by as much as ranks began and ended apart; by what passed between the warm-up's end and the step behind it, where a worker reads its
    clock; and, as waiting for one rank's data is another's step, by half of the most that a rank waited for data. All of them grow on a
    machine that is busy with other work, by the milliseconds for which it interrupts a worker there.
    """
    ends = [json.loads(path.read_text()) for path in folder.glob(f"{record.point_id}.*.json")]
    assert len(ends) == record.point.world_size
    first = record.warmup_steps
    begun, ended = ([each[step][1] for each in ends] for step in (first - 1, -1))
    interrupted = max(each[first][0] - each[first - 1][1] for each in ends)
    data = max(sum(rank.data_seconds[first:]) for rank in record.ranks)
    apart = max(begun) - min(begun) + max(ended) - min(ended)
    return max(ended) - min(begun) - data / 2, apart + interrupted + data / 2


@pytest.mark.slow
def test_the_readme_s_first_command_proves_the_twins_alike_and_measures_ceilings(tmp_path: Path) -> None:
    done = launch(SMOKE, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "results" / "smoke").iterdir()
    check_run(run, ranks=2, is_stamped=True)


@pytest.mark.slow
@pytest.mark.parametrize("frameworks", [("pytorch",), pytest.param(FRAMEWORKS, marks=pytest.mark.long)], ids="-".join)
def test_eight_ranks_on_whatever_cores_there_are(frameworks: Sequence[str], tmp_path: Path) -> None:
    """Four times as many ranks as cores, or more; what a framework does on several ranks the other tests say of both."""
    suite = write_suite(tmp_path, compression="fp16", frameworks=frameworks)
    words = ["horovodrun", "-np", "8", "hvbench", "sweep", str(suite), "--out", "run", "--no-report"]
    done = launch([*words, *UNCHECKED], folder=tmp_path)
    assert done.returncode == 0, done.stderr
    check_run(tmp_path / "run", ranks=8, frameworks=frameworks, is_reported=False)


@pytest.mark.slow
def test_one_rank_needs_no_launcher_and_no_all_reduce(tmp_path: Path) -> None:
    words = ["hvbench", "run", "framework=pytorch", "model=tiny", "steps=20", "warmup_steps=1", "--out", "run"]
    begun = time.monotonic()
    done = launch([*words, "--precision-target", "99%", "--budget", f"{BUDGET_SECONDS}s"], folder=tmp_path)
    seconds = time.monotonic() - begun
    assert done.returncode == 0, done.stderr
    records = RunFolder(tmp_path / "run").read_records()[0]
    assert [record.repeat for record in records] == list(range(len(records))) and records
    assert len({record.generation for record in records}) == len(records), "fresh workers each"
    asked = json.loads((tmp_path / "run" / "run.json").read_text())
    assert len(asked["jobs"]) == len(records) and asked["precision_aim"] == "rates", (
        "there is nothing to compare it with"
    )
    # Launches may scatter too much for any target, or be too few for one: then the budget is what ended it, but for one.
    (width,) = half_widths_of_rates(records).values()
    assert width <= 0.99 or seconds > BUDGET_SECONDS - max(record.duration_seconds for record in records)
    (reached,) = re.findall("([01]) of 1 points reached the precision target of ± 99 %", done.stdout)
    assert reached == "1" or width > 0.99
    for record in records:
        assert record.model.allreduce_bytes_per_step == 0
        assert record.environment["controller"] is None
        (rank,) = record.ranks
        assert (rank.ceiling.allreduce_busbw_bytes_per_second, rank.ceiling.allreduce_bytes) == (None, 0)


@pytest.mark.parametrize(
    "arguments",
    [
        ["sweep", "no-such-suite"],
        ["sweep", "smoke", "-s", "framework=jax"],
        ["sweep", "smoke", "--np", "3"],
        ["run", "data=/no/such/text"],
    ],
)
def test_a_mistake_under_a_launcher_is_one_line_from_rank_0(arguments: list[str], tmp_path: Path) -> None:
    done = launch(["mpirun", "-np", "2", "hvbench", *arguments], folder=tmp_path)
    assert done.returncode == 2
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("hvbench:")]
    assert len(lines) == 1
    assert "Traceback" not in done.stdout + done.stderr


def check_run(
    path: Path,
    *,
    ranks: int | None,
    is_stamped: bool = False,
    is_reported: bool = True,
    frameworks: Sequence[str] = FRAMEWORKS,
) -> None:
    """All planned launches ended in ok, with samples of every rank, and everything that follows from them was written, unless it was not asked for.

    `ranks`: of every point; None: as many as it asks for, in workers of its own.
    """
    folder = RunFolder(path)
    records, problems = folder.read_records()
    assert problems == []
    planned = json.loads((path / "run.json").read_text())["jobs"]
    assert sorted(f"{record.point_id}.r{record.repeat}" for record in records) == sorted(planned)
    assert {record.outcome.status for record in records} == {"ok"}
    assert {record.point.framework for record in records} == set(frameworks)
    for record in records:
        assert [rank.rank for rank in record.ranks] == list(range(ranks or record.point.world_size))
        assert all(
            len(rank.step_seconds) == record.measure.warmup_steps + record.measure.steps for rank in record.ranks
        )
        assert record.environment["controller"] == ("gloo" if len(record.ranks) > 1 else None)
        ceilings = [rank.ceiling for rank in record.ranks if rank.ceiling is not None]
        assert len(ceilings) == (len(record.ranks) if is_stamped else 0)
        assert all(0 < ceiling.model_gemm_flops_per_second <= ceiling.gemm_flops_per_second for ceiling in ceilings)
        assert {ceiling.allreduce_bytes for ceiling in ceilings} <= {record.model.allreduce_bytes_per_step}
        assert all(ceiling.allreduce_busbw_bytes_per_second > 0 for ceiling in ceilings)
        readings = [(len(one.together_flops_per_second), len(one.alone_flops_per_second)) for one in ceilings]
        assert readings == ([(ROUNDS, ROUNDS), *[(ROUNDS, 0)] * (ranks - 1)] if is_stamped else [])
        assert (record.parity is not None and record.parity.is_proven) == is_stamped, record.parity
    utilization = point_frame(records)["model_flops_utilization"]
    assert ((utilization > 0) & (utilization < 1)).eq(is_stamped).all()
    logs = {path.name for path in (path / "logs").glob("*.log")}
    workers = (
        ranks * len(frameworks) * (2 if is_stamped else 1) if ranks else sum(len(record.ranks) for record in records)
    )
    assert len(logs) == workers, "a log a worker: each generation of each rank"
    if not is_reported:
        assert not (path / "report.md").exists()
        return
    assert (path / "report.md").is_file()
    assert list((path / "plots").glob("*.png")) and (path / "tables" / "throughput.csv").is_file()
    assert (path / "tables" / "ceilings.csv").is_file() == is_stamped
    is_comparable = "do not compare their speed" not in (path / "report.md").read_text()
    assert is_comparable == (is_stamped or len(frameworks) == 1)  # of one framework there is nothing to compare

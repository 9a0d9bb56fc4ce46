"""Who launched this process and which rank it is, from the variables that each launcher really sets, and from what shells keep."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hvbench.cli import run
from hvbench.errors import UsageError
from hvbench.launch.context import Context, detect_context, host_name, without_launcher
from hvbench.launch.process import worker_environment
from hvbench.launch.session import MAX_RANKS_PER_CORE, resolve_context

LAUNCHER_VARIABLES = ("HVBENCH_", "HOROVOD_", "OMPI_", "PMI", "MPI_", "MV2_", "SLURM_")
ALONE = Context(launcher="none", rank=0, size=1, is_single_host=True)


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in os.environ:
        if key.startswith(LAUNCHER_VARIABLES):
            monkeypatch.delenv(key)


def parse(text: str) -> dict[str, str]:
    """`A=1 B=` -> variables, as a shell would set them."""
    return dict(word.partition("=")[::2] for word in text.split())


def launch(monkeypatch: pytest.MonkeyPatch, text: str) -> Context:
    for key, value in parse(text).items():
        monkeypatch.setenv(key, value)
    return detect_context()


# Launches, as each launcher tells of them

OWN = "HVBENCH_RANK=1 HVBENCH_SIZE=2 HVBENCH_COORDINATOR={}"
GLOO = "HOROVOD_GLOO_RENDEZVOUS_ADDR=10.0.0.1 HOROVOD_GLOO_RENDEZVOUS_PORT=80 HOROVOD_RANK=3 HOROVOD_SIZE=4 HOROVOD_LOCAL_SIZE=2"
OPEN_MPI = "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_SIZE=2 PMIX_RANK=0 PMIX_NAMESPACE=1"
PMIX = "PMIX_RANK=1 PMIX_NAMESPACE=slurm.pmix.1.0 SLURM_STEP_NUM_TASKS=4 SLURM_STEP_NUM_NODES="
SRUN = "SLURM_JOB_ID=7 SLURM_STEP_ID=0 SLURM_NTASKS=2 SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NUM_NODES=1 SLURM_PROCID="


@pytest.mark.parametrize(
    ("text", "launcher", "rank", "size", "is_single_host"),
    [
        (OWN, "hvbench", 1, 2, True),
        (GLOO, "horovodrun-gloo", 3, 4, False),
        (OPEN_MPI, "mpi", 0, 2, True),
        (f"{OPEN_MPI} OMPI_COMM_WORLD_LOCAL_SIZE=1", "mpi", 0, 2, False),
        ("MV2_COMM_WORLD_RANK=1 MV2_COMM_WORLD_SIZE=2 MV2_COMM_WORLD_LOCAL_SIZE=2", "mpi", 1, 2, True),
        ("PMI_RANK=1 PMI_SIZE=2", "mpi", 1, 2, False),  # it does not say where the others are
        ("PMI_RANK=1 PMI_SIZE=2 MPI_LOCALNRANKS=2", "mpi", 1, 2, True),
        (f"{PMIX}1", "mpi", 1, 4, True),
        (f"{PMIX}2", "mpi", 1, 4, False),
        (f"{SRUN}1", "srun", 1, 2, True),
        (f"{SRUN}0 SLURM_STEP_NUM_NODES=2", "srun", 0, 2, False),
        (f"{SRUN}1 PMI_RANK=1 PMI_SIZE=2", "mpi", 1, 2, False),  # srun --mpi=pmi2
        (f"{SRUN}0 {OPEN_MPI}", "mpi", 0, 2, True),  # mpirun in a step
        (f"{SRUN}0 {OWN}", "hvbench", 1, 2, True),
        (f"{OPEN_MPI} {OWN}", "hvbench", 1, 2, True),  # hvbench's own agents, started on another launcher's rank
        (f"{OPEN_MPI} {GLOO}", "horovodrun-gloo", 3, 4, False),
        (f"{OPEN_MPI} HVBENCH_RANK=1 HOROVOD_RANK=7", "mpi", 0, 2, True),  # halves beside a whole one
    ],
)
def test_a_whole_launch_is_believed(text: str, launcher: str, rank: int, size: int, is_single_host: bool) -> None:
    expected = Context(launcher=launcher, rank=rank, size=size, is_single_host=is_single_host)
    assert detect_context(parse(text)) == expected


# What shells keep

LEFT_OVERS = [
    "",
    "PMI_RANK= PMI_SIZE=",
    "PMI_RANK=0 PMI_SIZE=1",
    "PMI_RANK=0",
    "PMI_SIZE=4",
    "PMI_RANK=4 PMI_SIZE=4",
    "PMI_RANK=-1 PMI_SIZE=4",
    "PMI_RANK=x PMI_SIZE=2",
    "PMI_RANK=0 PMI_SIZE=2.0",
    "PMI_RANK=0 PMI_SIZE=99999999999999999999",
    "PMI_RANK=\u0661 PMI_SIZE=\u0662",
    "PMI_FD=7 PMI_PORT=host:1 PMI_ID=0",
    "PMI2_RANK=0",
    "OMPI_COMM_WORLD_RANK=0",
    "OMPI_COMM_WORLD_SIZE=2",
    "OMPI_COMM_WORLD_RANK= OMPI_COMM_WORLD_SIZE=",
    "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=1 OMPI_COMM_WORLD_LOCAL_SIZE=1",
    "OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_LOCAL_SIZE=2",
    "MV2_COMM_WORLD_RANK=0 MV2_COMM_WORLD_SIZE=1",
    "PMIX_RANK=0 PMIX_NAMESPACE=1",
    "PMIX_RANK=0 SLURM_STEP_NUM_TASKS=4",
    "PMIX_RANK=0 PMIX_NAMESPACE=1 SLURM_NTASKS=4",
    "HOROVOD_RANK=0",
    "HOROVOD_RANK=0 HOROVOD_SIZE=2 HOROVOD_LOCAL_RANK=0 HOROVOD_LOCAL_SIZE=2",
    "HOROVOD_GLOO_RENDEZVOUS_ADDR=10.0.0.1 HOROVOD_GLOO_RENDEZVOUS_PORT=80",
    "HOROVOD_GLOO_RENDEZVOUS_ADDR=10.0.0.1 HOROVOD_RANK=0 HOROVOD_SIZE=2",
    "HOROVOD_GLOO_RENDEZVOUS_ADDR= HOROVOD_GLOO_RENDEZVOUS_PORT= HOROVOD_RANK=0 HOROVOD_SIZE=2",
    f"{GLOO} HOROVOD_RANK=0 HOROVOD_SIZE=1",
    "HVBENCH_RANK=1 HVBENCH_SIZE=2",
    "HVBENCH_RANK=0 HVBENCH_SIZE=1 HVBENCH_COORDINATOR={}",
    "SLURM_JOB_ID=7 SLURM_NTASKS=4 SLURM_NNODES=2 SLURM_JOB_NODELIST=a,b",  # the shell of an salloc
    "SLURM_JOB_ID=7 SLURM_NTASKS=4 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_STEP_ID=4294967290 SLURM_STEP_NUM_TASKS=1",
    "SLURM_JOB_ID=7 SLURM_NTASKS=2 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0",  # the script of an sbatch
    f"{SRUN}0 SLURM_STEP_NUM_TASKS=1",
    f"{SRUN}2",
]


@pytest.mark.parametrize("text", LEFT_OVERS)
def test_a_launch_of_one_and_half_an_environment_are_none(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert launch(monkeypatch, text) == ALONE
    assert run(["--version"]) == 0
    assert resolve_context(2).size == 2, "it launches by itself"
    places = {name for name in parse(text) if not name.startswith("SLURM_")}
    assert not places & set(os.environ), "no child takes a place from it"
    assert host_name() == os.uname().nodename


@pytest.mark.parametrize("text", [*LEFT_OVERS, OWN, GLOO, OPEN_MPI])
def test_no_worker_sees_the_place_of_its_agent(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, text)
    places = {name for name in parse(text) if not name.startswith("SLURM_")}
    assert not places & set(worker_environment({}))
    assert worker_environment({"HOROVOD_RANK": "1"})["HOROVOD_RANK"] == "1"


def test_settings_are_no_places() -> None:
    settings = parse("HOROVOD_FUSION_THRESHOLD=1 HOROVOD_LOG_LEVEL=info HOROVOD_GLOO_IFACE=lo HVBENCH_CACHE=x MPICC=cc")
    assert without_launcher(settings) == settings


def test_only_rank_0_is_first() -> None:
    assert detect_context({}).is_first
    assert not detect_context(parse(OWN)).is_first


def test_a_host_has_the_name_that_the_launcher_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert host_name() == os.uname().nodename
    monkeypatch.setenv("HOROVOD_HOSTNAME", "node7")
    assert host_name() == "node7"


@pytest.mark.parametrize(("rank", "lines"), [(0, 1), (1, 0)])
def test_tasks_of_srun_that_cannot_find_each_other_are_told_so_once_and_sweep_nothing(
    rank: int, lines: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launch(monkeypatch, f"{SRUN}{rank}")
    monkeypatch.chdir(tmp_path)
    for words in (["sweep", "smoke"], ["sweep", "smoke", "--np", "2"], ["allreduce"], ["run", "model=tiny"]):
        assert run(words) == 2, words
        errors = capsys.readouterr().err.splitlines()
        assert len(errors) == lines, errors
        assert all("srun has started 2 tasks" in line and "--mpi=pmix" in line for line in errors)
    assert list(tmp_path.iterdir()) == []


# --np


def test_without_a_launcher_np_is_the_size() -> None:
    assert resolve_context(2).size == 2
    assert resolve_context(None).size == 1


@pytest.mark.parametrize("np", [0, -1, 10**6, 10**30])
def test_an_absurd_np_is_refused_with_the_range(np: int) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_context(np)
    assert str(caught.value).startswith(f"--np {np}: must be between 1 and ")
    assert str(caught.value).endswith(f"({MAX_RANKS_PER_CORE} ranks a core on this host)")


def test_under_a_launcher_np_may_only_repeat_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, OPEN_MPI)
    assert resolve_context(None).size == resolve_context(2).size == 2
    with pytest.raises(UsageError) as caught:
        resolve_context(4)
    assert str(caught.value) == "--np 4: the launcher has started 2 ranks; leave --np out"

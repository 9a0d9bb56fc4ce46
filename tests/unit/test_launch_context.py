"""Who launched this process and which rank it is, from the variables that each launcher really sets."""

from __future__ import annotations

import os

import pytest

from hvbench.errors import UsageError
from hvbench.launch.context import Context, detect_context, host_name
from hvbench.launch.session import MAX_RANKS_PER_CORE, resolve_context

LAUNCHER_VARIABLES = ("HVBENCH_", "HOROVOD_", "OMPI_", "PMI_", "PMIX_")


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in os.environ:
        if key.startswith(LAUNCHER_VARIABLES):
            monkeypatch.delenv(key)


def launch(monkeypatch: pytest.MonkeyPatch, **variables: object) -> Context:
    for key, value in variables.items():
        monkeypatch.setenv(key, str(value))
    return detect_context()


def test_without_a_launcher_a_process_is_alone() -> None:
    assert detect_context() == Context(launcher="none", rank=0, size=1, is_single_host=True)


def test_horovodrun_with_gloo(monkeypatch: pytest.MonkeyPatch) -> None:
    context = launch(
        monkeypatch, HOROVOD_GLOO_RENDEZVOUS_ADDR="10.0.0.1", HOROVOD_RANK=3, HOROVOD_SIZE=4, HOROVOD_LOCAL_SIZE=2
    )
    assert context == Context(launcher="horovodrun-gloo", rank=3, size=4, is_single_host=False)


def test_mpirun_and_horovodrun_with_mpi(monkeypatch: pytest.MonkeyPatch) -> None:
    context = launch(monkeypatch, OMPI_COMM_WORLD_RANK=0, OMPI_COMM_WORLD_SIZE=2, OMPI_COMM_WORLD_LOCAL_SIZE=2)
    assert context == Context(launcher="mpi", rank=0, size=2, is_single_host=True)


def test_mpich_does_not_tell_its_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    context = launch(monkeypatch, PMI_RANK=1, PMI_SIZE=2)
    assert context == Context(launcher="mpi", rank=1, size=2, is_single_host=False)


def test_hvbenchs_own_launch_wins_over_what_lies_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    context = launch(monkeypatch, HVBENCH_RANK=1, HVBENCH_SIZE=2, OMPI_COMM_WORLD_RANK=0, OMPI_COMM_WORLD_SIZE=1)
    assert context == Context(launcher="hvbench", rank=1, size=2, is_single_host=True)


def test_only_rank_0_is_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert detect_context().is_first
    assert not launch(monkeypatch, HVBENCH_RANK=1, HVBENCH_SIZE=2).is_first


def test_a_host_has_the_name_that_the_launcher_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert host_name() == os.uname().nodename
    monkeypatch.setenv("HOROVOD_HOSTNAME", "node7")
    assert host_name() == "node7"


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
    launch(monkeypatch, OMPI_COMM_WORLD_RANK=0, OMPI_COMM_WORLD_SIZE=2, OMPI_COMM_WORLD_LOCAL_SIZE=2)
    assert resolve_context(None).size == resolve_context(2).size == 2
    with pytest.raises(UsageError) as caught:
        resolve_context(4)
    assert str(caught.value) == "--np 4: the launcher has started 2 ranks; leave --np out"

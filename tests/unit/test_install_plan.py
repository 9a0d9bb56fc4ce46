"""What is built for what is installed, and a cache key that depends on all of it."""

import dataclasses
from pathlib import Path

import pytest

from hvbench.errors import InstallError
from hvbench.install import plan
from hvbench.install.plan import Build, decide
from hvbench.install.stack import Compiler, Cuda, Framework, Mpi, Nccl, Stack

PYTORCH = Framework(name="pytorch", title="PyTorch", version="2.13.0+cpu", cuda=False)
TENSORFLOW = Framework(name="tensorflow", title="TensorFlow", version="2.21.0", cuda=False)
PYTORCH_CUDA = dataclasses.replace(PYTORCH, version="2.13.0", cuda=True)
MPI = Mpi(name="Open MPI", version="4.1.8", compiler=Path("/env/bin/mpicxx"), bundled=True)
CUDA = Cuda(version="13.0", home=Path("/cuda"))
NCCL = Nccl(version="2.28.3", include=Path("/env/lib/nccl/include"), library=Path("/env/lib/nccl/lib"))
STACK = Stack(
    python="3.11.2",
    abi="cpython-311-linux-x86_64",
    prefix=Path("/env"),
    frameworks=(PYTORCH, TENSORFLOW),
    mpi=MPI,
    cuda=None,
    nccl=None,
    compiler=Compiler(command="g++", version="g++ 12.2.0"),
    cmake=None,
    cpu_features=("avx", "fma"),
    horovod=None,
)
GPU_STACK = dataclasses.replace(STACK, frameworks=(PYTORCH_CUDA,), cuda=CUDA, nccl=NCCL)


@pytest.fixture(autouse=True)
def no_flags_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CXXFLAGS", "LDFLAGS"):
        monkeypatch.delenv(name, raising=False)


def test_a_cpu_build_of_both_frameworks() -> None:
    build = decide(STACK)
    assert build.features == ("PyTorch", "TensorFlow", "MPI", "Gloo")
    assert build.version == f"0.28.1+hvbench{build.key}"
    assert build.variables["HOROVOD_WITH_PYTORCH"] == build.variables["HOROVOD_WITH_TENSORFLOW"] == "1"
    assert build.variables["HOROVOD_WITH_MPI"] == build.variables["HOROVOD_WITH_GLOO"] == "1"
    assert "HOROVOD_GPU_OPERATIONS" not in build.variables
    assert build.notes == ()
    assert build.bundled_libraries() == [Path("/env/lib")]


def test_what_is_absent_is_left_out() -> None:
    build = decide(dataclasses.replace(STACK, frameworks=(TENSORFLOW,), mpi=None))
    assert build.features == ("TensorFlow", "Gloo")
    assert build.variables["HOROVOD_WITHOUT_PYTORCH"] == build.variables["HOROVOD_WITHOUT_MPI"] == "1"
    assert "HOROVOD_WITH_MPI" not in build.variables
    assert "only Gloo" in build.notes[0]


def test_nccl_is_used_where_everything_for_it_is_there() -> None:
    build = decide(GPU_STACK)
    assert build.features == ("PyTorch", "MPI", "Gloo", "NCCL")
    assert build.variables["HOROVOD_GPU_OPERATIONS"] == "NCCL"
    assert build.variables["HOROVOD_CUDA_HOME"] == "/cuda"
    assert build.bundled_libraries() == [Path("/env/lib"), NCCL.library]
    assert "NCCL" not in decide(GPU_STACK, cuda=False).features


def test_a_cuda_toolkit_with_cpu_builds_of_the_frameworks_is_not_used() -> None:
    assert decide(dataclasses.replace(STACK, cuda=CUDA)).key == decide(STACK).key
    assert "HOROVOD_CUDA_HOME" not in decide(dataclasses.replace(STACK, cuda=CUDA)).variables


@pytest.mark.parametrize(
    ("lacking", "reason"),
    [
        ({"cuda": None}, "no nvcc"),
        ({"nccl": None}, "no nccl.h"),
        ({"frameworks": (PYTORCH_CUDA, TENSORFLOW)}, "TensorFlow is a CPU build"),
    ],
)
def test_gpus_asked_for_fail_and_unasked_are_noted(lacking: dict[str, object], reason: str) -> None:
    stack = dataclasses.replace(GPU_STACK, **lacking)
    with pytest.raises(InstallError, match=reason):
        decide(stack, cuda=True)
    assert any(reason in note for note in decide(stack).notes)
    assert not any(reason in note for note in decide(stack, cuda=False).notes)


def test_no_framework_is_an_error_with_the_next_step() -> None:
    with pytest.raises(InstallError, match=r"pip install 'hvbench\[pytorch\]'"):
        decide(dataclasses.replace(STACK, frameworks=()))


def test_open_mpi_5_is_noted() -> None:
    stack = dataclasses.replace(STACK, mpi=dataclasses.replace(MPI, version="5.0.8"))
    assert "horovodrun --gloo" in decide(stack).notes[0]


@pytest.mark.parametrize(
    "change",
    [
        {"abi": "cpython-312-linux-x86_64"},
        {"frameworks": (PYTORCH,)},
        {"frameworks": (dataclasses.replace(PYTORCH, version="2.12.0"), TENSORFLOW)},
        {"frameworks": (dataclasses.replace(PYTORCH, cuda=True), TENSORFLOW)},
        {"mpi": None},
        {"mpi": dataclasses.replace(MPI, version="4.1.7")},
        {"mpi": dataclasses.replace(MPI, bundled=False)},
        {"compiler": Compiler(command="g++", version="g++ 13.2.0")},
        {"cpu_features": ()},
    ],
    ids=str,
)
def test_the_key_changes_with_every_input(change: dict[str, object]) -> None:
    assert decide(dataclasses.replace(STACK, **change)).key != decide(STACK).key


@pytest.mark.parametrize("change", [{"cuda": dataclasses.replace(CUDA, version="12.9")}, {"nccl": None}], ids=str)
def test_the_key_of_a_gpu_build_changes_with_its_libraries(change: dict[str, object]) -> None:
    assert decide(dataclasses.replace(GPU_STACK, **change)).key != decide(GPU_STACK).key


def test_the_key_changes_with_the_edits_and_the_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    before = decide(STACK).key
    monkeypatch.setenv("CXXFLAGS", "-O1")
    flagged = decide(STACK).key
    monkeypatch.setattr(plan, "edits_digest", lambda: "other edits")
    assert len({before, flagged, decide(STACK).key}) == 3


def test_the_key_ignores_where_the_environment_is_and_what_is_installed() -> None:
    moved = dataclasses.replace(
        STACK,
        prefix=Path("/other"),
        mpi=dataclasses.replace(MPI, compiler=Path("/other/bin/mpicxx")),
        python="3.11.9",
        cmake="3.31.0",
    )
    assert decide(moved).key == decide(STACK).key
    assert isinstance(decide(moved), Build)

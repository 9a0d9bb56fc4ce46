"""A point that needs a GPU where there is none is skipped, for one reason that plan, doctor and sweep share."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvbench.cli import run
from hvbench.frameworks.devices import choose_device, missing_rows
from hvbench.install import detect
from hvbench.plan import skip
from hvbench.plan.doctor import examine_gpu
from hvbench.plan.jobs import make_plan
from hvbench.registry import FRAMEWORKS
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.suite import parse_suite

SUITE = """
question = "Which device?"
[point]
model = "tiny"
data = "synthetic"
[axes]
device = ["cuda", "cpu", "auto"]
framework = ["pytorch", "tensorflow"]
"""

pytestmark = pytest.mark.skipif(
    not all(map(skip.is_installed, FRAMEWORKS)), reason="points of a framework that is not installed are skipped"
)


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A /dev of this test's own, without a GPU."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidiactl").touch()  # the driver alone
    monkeypatch.setattr(skip, "DEVICES", tmp_path / "dev")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path / "dev"


@pytest.mark.parametrize(
    ("nodes", "visible", "expected"),
    [
        ((), None, False),
        (("nvidia0",), None, True),
        (("nvidia0", "nvidia12"), "1", True),
        (("nvidia0",), "", False),
        (("nvidia0",), "-1", False),
        (("nvhost-gpu",), None, True),
        (("dxg",), None, True),
        (("kfd",), None, True),
        (("nvidia-uvm",), None, False),
    ],
)
def test_a_gpu_is_seen_without_a_framework(
    devices: Path, monkeypatch: pytest.MonkeyPatch, nodes: tuple[str, ...], visible: str | None, expected: bool
) -> None:
    for name in nodes:
        (devices / name).touch()
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert skip.has_gpu() is expected


def test_plan_sweep_and_doctor_agree_without_a_gpu(
    devices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = parse_suite(SUITE, name="devices", where="devices.toml")
    plan = make_plan(suite.points(), suite.measure, world_size=2)
    reason = "device cuda: no GPU can be used on this host; see hvbench doctor"
    assert {(each.point.device, each.reason) for each in plan.skipped} == {("cuda", reason)}
    assert {job.point.device for job in plan.jobs} == {"cpu", "auto"}
    (tmp_path / "devices.toml").write_text(SUITE)
    assert run(["plan", str(tmp_path / "devices.toml"), "--np", "2"]) == 0
    shown = capsys.readouterr().out
    assert f"skipped: {reason}: 2 points (" in shown and "2 skipped" in shown
    finding = examine_gpu(detect())
    assert finding.fact == "none: points with device = cuda are skipped, those with auto train on the CPU"
    assert run(["run", "model=tiny", "data=synthetic", "device=cuda", "--np", "1", "--out", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"hvbench: hvbench run: none of its 1 points can run: {reason}"
    assert not (tmp_path / "x").exists()


def test_a_build_for_cpus_alone_is_named(devices: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (devices / "nvidia0").touch()
    monkeypatch.setattr(skip, "is_cpu_build", lambda framework: framework == "tensorflow")
    assert skip.why_no_cuda("pytorch") is None
    assert skip.why_no_cuda("tensorflow") == (
        "device cuda: the tensorflow that is installed here is a build for CPUs alone; see hvbench doctor"
    )
    suite = parse_suite(SUITE, name="devices", where="devices.toml")
    plan = make_plan(suite.points(), suite.measure, world_size=2)
    assert {(each.point.framework, each.point.device) for each in plan.skipped} == {("tensorflow", "cuda")}
    assert "tensorflow cannot use it" in examine_gpu(detect()).fact


@pytest.mark.parametrize(
    ("asked", "gpus", "local_rank", "expected"),
    [
        ("cpu", 0, 0, "cpu"),
        ("cpu", 8, 0, "cpu"),
        ("auto", 0, 3, "cpu"),
        ("auto", 4, 3, "cuda"),
        ("cuda", 4, 3, "cuda"),
        ("cuda", 0, 0, None),
        ("cuda", 1, 1, None),
        ("auto", 1, 1, None),
    ],
)
def test_every_rank_has_a_gpu_of_its_own_or_says_that_there_is_none(
    asked: str, gpus: int, local_rank: int, expected: str | None
) -> None:
    if expected:
        assert choose_device(asked, gpus=gpus, local_rank=local_rank) == expected
    else:
        with pytest.raises(RuntimeError, match=f"rank {local_rank} of this host .* the framework sees {gpus}"):
            choose_device(asked, gpus=gpus, local_rank=local_rank)


def test_a_folder_that_an_uninstalled_package_left_is_no_framework(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leftover" / "cache").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(skip, "describe_framework", lambda name: type("About", (), {"module": name}))
    skip.is_installed.cache_clear()
    try:
        assert not skip.is_installed("leftover")
    finally:
        skip.is_installed.cache_clear()


@pytest.mark.parametrize(
    ("rows", "precision", "device", "missing"),
    [
        (50257, "bf16", "cuda", 47),  # 50,304 are 786 times 64
        (50257, "fp16", "cuda", 47),
        (50257, "tf32", "cuda", 47),
        (50257, "fp32", "cuda", 0),  # no tensor cores
        (50257, "bf16", "cpu", 0),
        (4096, "bf16", "cuda", 0),
        (1, "bf16", "cuda", 63),
    ],
)
def test_matrices_for_tensor_cores_have_a_multiple_of_their_rows(
    rows: int, precision: str, device: str, missing: int
) -> None:
    dtype = PRECISIONS[precision].product_dtype
    assert missing_rows(rows, dtype=dtype, device=device) == missing

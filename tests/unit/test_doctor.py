"""The doctor says when the Horovod that is installed is not the mended one, and what to do."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import replace
from pathlib import Path

import pytest

from hvbench.install import decide, detect
from hvbench.install.stack import find_providers
from hvbench.plan.doctor import examine_framework, examine_horovod, examine_ranks
from hvbench.records.environment import usable_cores
from hvbench.registry import FRAMEWORKS

STACK = detect()


def test_what_hvbench_builds_here_is_good() -> None:
    for cuda in (None, False):
        installed = replace(STACK.horovod, version=decide(STACK, cuda=cuda).version)
        finding = examine_horovod(replace(STACK, horovod=installed))
        assert finding.is_good and finding.remedy is None


@pytest.mark.parametrize("version", ["0.28.1", "0.28.1+hvbench000000000000"])
def test_any_other_may_sum_wrongly(version: str) -> None:
    finding = examine_horovod(replace(STACK, horovod=replace(STACK.horovod, version=version)))
    assert not finding.is_good and not finding.is_required
    assert finding.fact.startswith(version) and "float16" in finding.fact
    assert finding.remedy == "hvbench install-horovod"


def install(folder: Path, distribution: str, version: str) -> None:
    """The metadata of a distribution, as pip leaves it."""
    (folder / f"{distribution}-{version}.dist-info").mkdir()
    (folder / f"{distribution}-{version}.dist-info/METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
    )


@pytest.mark.parametrize(
    ("installed", "remedy"),
    [
        (
            {"tensorflow": "2.21.0", "tensorflow-cpu": "2.21.3"},
            "pip uninstall -y tensorflow && pip install --force-reinstall --no-deps tensorflow-cpu==2.21.3",
        ),
        (
            {"tensorflow": "2.21.0", "tf-nightly": "3.0"},
            "pip uninstall -y tf-nightly && pip install --force-reinstall --no-deps tensorflow==2.21.0",
        ),
    ],
)
def test_two_packages_of_one_framework_are_named_with_their_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], remedy: str
) -> None:
    for distribution, version in installed.items():
        install(tmp_path, distribution.replace("-", "_"), version)
    monkeypatch.setattr(
        "hvbench.install.stack._installed_version",
        lambda name: next(
            (each.version for each in importlib.metadata.distributions(name=name, path=[str(tmp_path)])), None
        ),
    )
    assert find_providers("tensorflow") == installed
    (found,) = [check for check in (examine_framework(STACK, name) for name in FRAMEWORKS) if check.remedy == remedy]
    assert all(f"{name} {version}" in found.fact for name, version in installed.items()) and not found.is_good
    other = replace(STACK, horovod=replace(STACK.horovod, version="0.28.1+hvbench000000000000"))
    assert " and ".join(installed) + " lie over each other" in examine_horovod(other).fact


def test_the_version_that_horovod_was_built_for_is_named_where_another_is_installed() -> None:
    against = {**STACK.horovod.built_against, "tensorflow": "2.20.0"}
    other = replace(STACK.horovod, version="0.28.1+hvbench000000000000", built_against=against)
    installed = next(each.version for each in STACK.frameworks if each.name == "tensorflow")
    fact = examine_horovod(replace(STACK, horovod=other)).fact
    assert f"it was built for TensorFlow 2.20.0, and {installed} is installed" in fact


def test_no_extra_brings_a_second_tensorflow() -> None:
    """keras-hub requires tensorflow-text, and that `tensorflow`, which pip writes over tensorflow-cpu."""
    root = Path(__file__).parents[2]
    required = re.findall(r'"([a-z][a-z0-9-]*)\s*[=><~]', (root / "setup.py").read_text())
    assert "transformers" in required and not {"keras-hub", "tensorflow-text", "tensorflow"} & set(required)
    commands = (root / "benchmarks" / "README.md").read_text().split("```")[1]
    assert "pip install '.[peers]'\npip install --no-deps keras-hub==" in commands


def test_ranks_are_said_to_reach_what_they_reach_together() -> None:
    """On two cores and more, a number of ranks and a factor; cores may share what multiplies, whatever the kernel says."""
    checks = examine_ranks()
    assert len(checks) == (usable_cores() > 1)
    for check in checks:
        factor = rf"{usable_cores()} ranks together reach \d+\.\d times one rank's matrix products on the CPU "
        assert check.is_good and re.fullmatch(
            rf"{factor}\(\d+\.\d to \d+\.\d in 3 rounds, numpy, just now.*\)", check.fact
        )


def test_none_at_all_is_required() -> None:
    finding = examine_horovod(replace(STACK, horovod=None))
    assert finding.is_required and not finding.is_good and finding.remedy == "hvbench install-horovod"

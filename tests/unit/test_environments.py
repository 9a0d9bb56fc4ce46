"""An environment for each framework: what `--env` and the settings file may say, and what another interpreter must have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hvbench.cli import run
from hvbench.errors import UsageError
from hvbench.install.stack import detect
from hvbench.launch.environments import (
    VARIABLE,
    WITHOUT_HOROVOD,
    add_environment,
    chosen_folders,
    find_environment,
    link_source,
    variables_for,
)
from hvbench.plan.doctor import examine
from hvbench.plan.skip import is_installed
from tests.environments import make_environment


@pytest.fixture(autouse=True)
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the user's settings that holds none; nothing is named yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv(VARIABLE, "")
    return tmp_path / "config"


def write_settings(folder: Path, text: str) -> Path:
    path = folder / "hvbench" / "settings.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def test_the_command_line_comes_before_the_settings_file(no_settings: Path, tmp_path: Path) -> None:
    write_settings(no_settings, '[environments]\npytorch = "/a"\ntensorflow = "~/b"\n')
    assert chosen_folders() == {"pytorch": Path("/a"), "tensorflow": Path("~/b").expanduser()}
    add_environment("pytorch=c")
    add_environment("tensorflow=/d=e")
    assert chosen_folders() == {"pytorch": Path.cwd() / "c", "tensorflow": Path("/d=e")}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[environment]\n", "unknown key environment; allowed: [environments]"),
        ("[environments]\njax = '/x'\n", "[environments] has jax; must be one of pytorch, tensorflow"),
        ("environments = 3\n", '[environments] must hold FRAMEWORK = "FOLDER"'),
        ("[environments]\npytorch = 3\n", '[environments] must hold FRAMEWORK = "FOLDER"'),
        ("[environments\n", "cannot be read: "),
    ],
)
def test_a_mistake_in_the_settings_file_is_one_line_that_names_it(no_settings: Path, text: str, line: str) -> None:
    path = write_settings(no_settings, text)
    with pytest.raises(UsageError) as error:
        chosen_folders()
    assert str(error.value).startswith(f"{path}: {line}") and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["/opt/tf", "jax=/opt/jax", "tensorflow=", "="])
def test_env_names_a_framework_and_a_folder(text: str, capsys: pytest.CaptureFixture) -> None:
    assert run(["plan", "--env", text]) == 2
    assert f"--env {text}: must be pytorch=FOLDER or tensorflow=FOLDER" in capsys.readouterr().err


def refusal(folder: Path, framework: str = "pytorch") -> str:
    """Why an environment is refused, in one line."""
    add_environment(f"{framework}={folder}")
    with pytest.raises(UsageError) as error:
        find_environment(framework)
    assert str(error.value).startswith(f"the environment of {framework}, {folder}: ") and "\n" not in str(error.value)
    return str(error.value).partition(f"{folder}: ")[2]


def test_what_an_environment_lacks_is_said_with_what_to_do(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "no Python environment there (no bin/python that can be run)"
    python = make_environment(tmp_path / "bare", without=("torch",)) / "bin" / "python"
    assert refusal(tmp_path / "bare") == f"torch is not installed there: {python} -m pip install torch"
    python = make_environment(tmp_path / "poor", without=WITHOUT_HOROVOD) / "bin" / "python"
    assert refusal(tmp_path / "poor") == f"lacks numpy and pydantic: {python} -m pip install numpy pydantic"
    folder = make_environment(tmp_path / "unbuilt", without=("horovod",))
    assert refusal(folder) == f"lacks Horovod: hvbench install-horovod --env pytorch={folder}"
    assert find_environment("pytorch", needs=WITHOUT_HOROVOD).folder == folder  # where Horovod is about to be built
    (tmp_path / "fake" / "bin").mkdir(parents=True)
    (tmp_path / "fake" / "bin" / "python").symlink_to("/bin/false")
    assert refusal(tmp_path / "fake") == f"{tmp_path}/fake/bin/python is no Python that runs"


def test_another_version_of_python_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_environment(tmp_path / "env")
    monkeypatch.setattr(sys, "version_info", (3, 99, 0))
    there = ".".join(map(str, (sys.hexversion >> 24, sys.hexversion >> 16 & 255)))
    assert refusal(folder).startswith(f"Python {there}.") and refusal(folder).endswith(
        "make it with python3.99 -m venv"
    )


def test_another_interpreter_runs_this_hvbench_with_its_own_packages_alone(tmp_path: Path) -> None:
    folder = make_environment(tmp_path / "env", without=("click",))
    variables = variables_for(folder / "bin" / "python", source=link_source(tmp_path), environment=os.environ)
    code = "import hvbench.records.source as s, sys, json; from importlib.util import find_spec as f; "
    code += "print(json.dumps([sys.prefix, s.source_digest(), s.source_revision(), f('click') is None, f('tests') is None]))"
    done = subprocess.run(
        [folder / "bin" / "python", "-P", "-c", code], capture_output=True, text=True, check=True,
        env={**variables, "PYTHONPATH": variables["PYTHONPATH"].split(os.pathsep)[0]},
    )  # fmt: skip
    from hvbench.records.source import source_digest, source_revision

    assert json.loads(done.stdout) == [str(folder), source_digest(), source_revision(), True, True]


def test_doctor_and_the_plan_look_into_it(tmp_path: Path) -> None:
    folder = make_environment(tmp_path / "env")
    add_environment(f"tensorflow={folder}")
    is_installed.cache_clear()
    assert is_installed("tensorflow")
    there = find_environment("tensorflow").stack
    assert there.prefix == folder and (there.frameworks, there.horovod) == (detect().frameworks, detect().horovod)
    facts = {(check.subject, check.fact) for check in examine()}
    version = next(each.version for each in there.frameworks if each.name == "tensorflow")
    assert ("tensorflow", f"{version}, cpu build; in an environment of its own, {folder}") in facts
    assert any(subject == "horovod" and fact.startswith("of tensorflow: ") for subject, fact in facts)
    is_installed.cache_clear()

"""An environment for each framework: where its workers' interpreter is, which a user names by `--env` or in a settings file.

    hvbench sweep --env tensorflow=/opt/tf         or, in ~/.config/hvbench/settings.toml ($XDG_CONFIG_HOME):
    [environments]
    tensorflow = "/opt/tf"

GPU builds of both frameworks seldom fit into one environment. An environment needs the framework, Horovod, numpy and pydantic; hvbench itself is
that of this process, whatever is installed there. A framework that is not named trains in this process's own environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hvbench.errors import UsageError
from hvbench.install.stack import Stack, read_stack
from hvbench.io.untrusted import read_regular_file
from hvbench.records.environment import ENVIRONMENT_VARIABLE
from hvbench.registry import FRAMEWORKS, describe_framework

VARIABLE = "HVBENCH_ENVIRONMENTS"  # what `--env` named, a JSON object: every launch of this process finds it there
WITHOUT_HOROVOD = ("numpy", "pydantic")  # of hvbench's workers, beside the framework
NEEDS = (*WITHOUT_HOROVOD, "horovod")
PACKAGE = Path(__file__).resolve().parents[1]
MAX_BYTES = 2**16
SECONDS = 60.0

LOOK = """
import importlib.util, json, sys
missing = [name for name in sys.argv[1:] if importlib.util.find_spec(name) is None]
print(json.dumps({"version": sys.version.split()[0], "missing": missing}))
"""
LOOK_CLOSER = """
import dataclasses, json
from hvbench.install.stack import detect
print(json.dumps(dataclasses.asdict(detect()), default=str))
"""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """A folder that is known to have an interpreter in which the framework can train."""

    framework: str
    folder: Path
    python: Path
    missing: frozenset[str] = frozenset()  # of what was asked for: not needed by every point

    @property
    def stack(self) -> Stack:
        """What Horovod's build depends on there."""
        return read_stack(json.loads(_ask(self.python, LOOK_CLOSER)))


def add_environment(text: str) -> None:
    """Keep what one `--env FRAMEWORK=FOLDER` says for all launches of this process; raises UsageError."""
    framework, equals, folder = text.partition("=")
    if not equals or not folder or framework not in FRAMEWORKS:
        known = " or ".join(f"{name}=FOLDER" for name in FRAMEWORKS)
        raise UsageError(f"--env {text}: must be {known}")
    os.environ[VARIABLE] = json.dumps({**_from_variable(), framework: os.path.abspath(os.path.expanduser(folder))})


def chosen_folders() -> dict[str, Path]:
    """Framework -> folder of its environment, of those that have one; the command line's comes before the settings file's. Raises UsageError."""
    return {name: Path(folder) for name, folder in {**_from_settings(), **_from_variable()}.items()}


def find_environment(framework: str, *, needs: tuple[str, ...] = NEEDS) -> Environment | None:
    """The environment that a framework's workers start in; None: this process's own. Raises UsageError where it cannot train."""
    folder = chosen_folders().get(framework)
    return _look_into(framework, folder, needs) if folder else None


def list_environments() -> tuple[list[Environment], list[Environment]]:
    """Those that the command line names, and all; with or without Horovod. Raises UsageError."""
    found = [find_environment(name, needs=WITHOUT_HOROVOD) for name in chosen_folders()]
    known = [each for each in found if each]
    return [each for each in known if each.framework in _from_variable()], known


def install_there(environment: Environment, arguments: Sequence[str]) -> int:
    """Build Horovod for an environment, in it (`python -m hvbench.install`); the exit code."""
    with tempfile.TemporaryDirectory(prefix="hvbench-") as folder:
        variables = variables_for(environment.python, source=link_source(Path(folder)), environment=os.environ)
        words = [str(environment.python), "-P", "-m", "hvbench.install", *arguments]
        return subprocess.run(words, env=variables, check=False).returncode


@cache
def _look_into(framework: str, folder: Path, needs: tuple[str, ...]) -> Environment:
    where = f"the environment of {framework}, {folder}"
    python = find_python(folder, where=where)
    module = describe_framework(framework).module
    try:
        found = json.loads(_ask(python, LOOK, module, *needs, "triton", option="-I"))
        version, missing = str(found["version"]), [str(name) for name in found["missing"]]
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{where}: {python} is no Python that runs") from None
    own = ".".join(map(str, sys.version_info[:2]))
    if version.split(".")[:2] != own.split("."):
        raise UsageError(
            f"{where}: Python {version}, but {own} is what it is called from: make it with python{own} -m venv"
        )
    if module in missing:
        raise UsageError(f"{where}: {module} is not installed there: {python} -m pip install {module}")
    if lacking := [name for name in needs if name in missing and name != "horovod"]:
        raise UsageError(f"{where}: lacks {' and '.join(lacking)}: {python} -m pip install {' '.join(lacking)}")
    if "horovod" in needs and "horovod" in missing:
        raise UsageError(f"{where}: lacks Horovod: hvbench install-horovod --env {framework}={folder}")
    return Environment(framework=framework, folder=folder, python=python, missing=frozenset(missing))


def find_python(path: Path, *, where: str) -> Path:
    """The interpreter of an environment, its links kept: they say which environment it is. Raises UsageError."""
    for candidate in (path / "bin" / "python", path):
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate.absolute()
    raise UsageError(f"{where}: no Python environment there (no bin/python that can be run)")


def variables_for(python: Path, *, source: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` for a process of another interpreter: its programs come first, and `source` is where it finds hvbench.

    `source` is a folder that holds hvbench and nothing else: beside an installed hvbench lie the packages of its environment.
    """
    paths = [str(source), *filter(None, [environment.get("PYTHONPATH")])]
    programs = [str(python.parent), environment.get("PATH", os.defpath)]
    found = {**environment, "PYTHONPATH": os.pathsep.join(paths), "PATH": os.pathsep.join(programs)}
    found.pop("PYTHONHOME", None)
    return found


def variables_of_worker(framework: str) -> dict[str, str]:
    """What tells a worker, and so its record, of which environment it is; nothing in this process's own."""
    environment = find_environment(framework)
    return {ENVIRONMENT_VARIABLE: str(environment.folder)} if environment else {}


def link_source(folder: Path) -> Path:
    """Make `folder`/source, in which hvbench lies and nothing else; it may be there already."""
    source = folder / "source"
    source.mkdir(exist_ok=True)
    if not (source / PACKAGE.name).exists():
        (source / PACKAGE.name).symlink_to(PACKAGE)
    return source


def settings_path() -> Path:
    """The user's settings: $XDG_CONFIG_HOME/hvbench/settings.toml, else ~/.config/hvbench/settings.toml."""
    xdg = os.environ.get("XDG_CONFIG_HOME", "")  # the XDG standard says to ignore a relative path
    root = Path(xdg) if os.path.isabs(xdg) else Path(os.path.expanduser("~/.config"))
    return root / "hvbench" / "settings.toml"


def _from_settings() -> dict[str, str]:
    """`[environments]` of the settings file; empty where there is none. Raises UsageError."""
    path = settings_path()
    if not path.is_file():
        return {}
    try:
        values = tomllib.loads(read_regular_file(path.resolve(), max_bytes=MAX_BYTES).decode())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None
    if unknown := sorted(values.keys() - {"environments"}):
        raise UsageError(f"{path}: unknown key {unknown[0]}; allowed: [environments]")
    folders = values.get("environments", {})
    if not isinstance(folders, dict) or not all(isinstance(value, str) for value in folders.values()):
        raise UsageError(f'{path}: [environments] must hold FRAMEWORK = "FOLDER"')
    if unknown := sorted(folders.keys() - set(FRAMEWORKS)):
        raise UsageError(f"{path}: [environments] has {unknown[0]}; must be one of {', '.join(FRAMEWORKS)}")
    return {name: os.path.abspath(path.parent / os.path.expanduser(value)) for name, value in folders.items()}


def _from_variable() -> dict[str, Any]:
    try:
        found = json.loads(os.environ.get(VARIABLE) or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise UsageError(f"{VARIABLE}: must be a JSON object of folders by framework, as --env writes it")
    return found


def _ask(python: Path, program: str, *words: str, option: str = "-P") -> str:
    """What a program prints in another interpreter; with the option -I it sees its own packages alone. Empty where it fails."""
    with tempfile.TemporaryDirectory(prefix="hvbench-") as folder:
        environment = variables_for(python, source=link_source(Path(folder)), environment=os.environ)
        command = [str(python), option, "-c", program, *words]
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
    return done.stdout if done.returncode == 0 else ""

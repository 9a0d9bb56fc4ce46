"""The two arms of an A/B comparison: what is different in each, and how it is started.

env=PATH           another Python environment (its folder, or its interpreter)
rev=GIT            another revision of hvbench, in a git worktree that is made for it
env:NAME=VALUE     an environment variable
set=KEY=VALUE      a field of the point
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hvbench.errors import LaunchError, UsageError
from hvbench.spec.choices import split_choices
from hvbench.spec.fields import PointFields
from hvbench.spec.messages import did_you_mean, shorten
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.spec.suite import check_axes
from hvbench.worker.turns import PROTOCOL

START = "from hvbench.cli import main; main()"
VARIABLE = re.compile(r"env:(?P<name>[A-Za-z_]\w*)=(?P<value>.*)", re.ASCII | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What one side of the comparison changes; nothing changed is the environment that runs this."""

    name: str
    python: Path | None = None
    revision: str | None = None
    variables: tuple[tuple[str, str], ...] = ()
    overrides: tuple[str, ...] = ()

    def describe(self) -> str:
        """One line: what is different."""
        words = [f"env={self.python}"] if self.python else []
        words += [f"rev={self.revision}"] if self.revision else []
        words += [f"{name}={value}" for name, value in self.variables] + list(self.overrides)
        return " ".join(words) or "as it is"

    @property
    def changed_fields(self) -> frozenset[str]:
        """Fields of the point that this arm sets."""
        return frozenset(text.partition("=")[0] for text in self.overrides)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An arm that can be started: interpreter, and environment of its processes."""

    arm: Arm
    python: Path
    environment: dict[str, str]
    knows_turns: bool = False

    def command(self, arguments: Sequence[str]) -> list[str]:
        """`hvbench ARGUMENTS` in this arm; -P: files in the current folder must not become modules of it."""
        return [str(self.python), "-P", "-c", START, *arguments]


def parse_arm(name: str, texts: Sequence[str]) -> Arm:
    """What `--a` or `--b` say, one change each; raises UsageError."""
    changes: dict[str, Any] = {"variables": (), "overrides": ()}
    for text in texts:
        where = f"--{name} {shorten(text)}"
        if match := VARIABLE.fullmatch(text):
            if "\0" in text:
                raise UsageError(f"{where}: no variable holds a zero byte")
            changes["variables"] += ((match["name"], match["value"]),)
        elif text.startswith("env=") and text != "env=":
            changes["python"] = find_python(Path(text.removeprefix("env=")), where=where)
        elif text.startswith("rev=") and text != "rev=":
            changes["revision"] = text.removeprefix("rev=")
            if changes["revision"].startswith("-"):
                raise UsageError(f"{where}: not a revision")
        elif text.startswith("set="):
            changes["overrides"] += (require_field(text.removeprefix("set="), where=where),)
        else:
            raise UsageError(f"{where}: must be env=PATH, rev=GIT, env:NAME=VALUE or set=KEY=VALUE")
    return Arm(name=name, **changes)


def require_field(text: str, *, where: str) -> str:
    """`key=value` of one field of the point with one valid value; raises UsageError."""
    key, equals, value = text.partition("=")
    if key in MeasureSettings.model_fields:
        raise UsageError(f"{where}: {key} is how both arms are measured; set it for both with -s {shorten(text)}")
    if key not in Point.model_fields:
        raise UsageError(f"{where}: unknown key {shorten(key)}{did_you_mean(key, list(Point.model_fields))}")
    words = split_choices(value, where=where)
    if not equals or not value or len(words) > 1:
        raise UsageError(f"{where}: must be set=key=value, one value (with a comma in it: between quotes)")
    fields = PointFields()
    check_axes({key: [fields.parse(key, value, where=where)]}, fields, where=where)
    return text


def find_python(path: Path, *, where: str) -> Path:
    """The interpreter of an environment, its links kept: they say which environment it is. Raises UsageError."""
    for candidate in (path / "bin" / "python", path):
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate.absolute()
    raise UsageError(f"{where}: no Python environment there (no bin/python that can be run)")


def prepare_arm(arm: Arm, *, worktrees: Path) -> Prepared:
    """Make the worktree of a revision, and see that hvbench starts in the arm; raises UsageError or LaunchError."""
    environment = {**os.environ, **dict(arm.variables), "HVBENCH_REPORT": "0"}
    if arm.revision:
        source = add_worktree(arm.revision, worktrees / arm.name)
        environment["PYTHONPATH"] = os.pathsep.join([str(source), *filter(None, [environment.get("PYTHONPATH")])])
    if arm.python:
        environment["PATH"] = os.pathsep.join([str(arm.python.parent), environment.get("PATH", os.defpath)])
    prepared = Prepared(arm=arm, python=arm.python or Path(sys.executable), environment=environment)
    try:
        answer = subprocess.run(
            prepared.command(["--version"]),
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError(f"arm {arm.name} ({arm.describe()}): hvbench does not start: {error}") from None
    if answer.returncode:
        last = (answer.stderr.strip().splitlines() or ["no message"])[-1]
        raise LaunchError(f"arm {arm.name} ({arm.describe()}): hvbench does not start: {last}")
    return replace(prepared, knows_turns=ask_for_turns(prepared))


def ask_for_turns(prepared: Prepared) -> bool:
    """Whether the arm's hvbench takes turns as this one does: a revision from before turns has no such module."""
    command = [
        str(prepared.python),
        "-P",
        "-c",
        f"import hvbench.worker.turns as t; raise SystemExit(t.PROTOCOL != {PROTOCOL})",
    ]
    try:
        answer = subprocess.run(
            command, env=prepared.environment, capture_output=True, timeout=120, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0


def add_worktree(revision: str, path: Path) -> Path:
    """A worktree of the repository here at `revision`, at `path`, made absolute; raises UsageError."""
    answer = run_git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if answer.returncode:
        raise UsageError(f"rev={shorten(revision)}: no such revision in the git repository here")
    made = run_git("worktree", "add", "--force", "--detach", str(path.absolute()), answer.stdout.strip())
    if made.returncode:
        raise UsageError(
            f"rev={shorten(revision)}: no worktree: {(made.stderr.strip().splitlines() or ['git failed'])[-1]}"
        )
    if not (path / "hvbench" / "__init__.py").is_file():
        raise UsageError(
            f"rev={shorten(revision)}: holds no hvbench; for another revision of something else, build an environment: env=PATH"
        )
    return path.absolute()


def remove_worktrees(path: Path) -> None:
    """Remove the worktrees below `path`, and what git remembers of them."""
    for folder in sorted(path.glob("*")) if path.is_dir() else []:
        run_git("worktree", "remove", "--force", str(folder.absolute()))
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()


def run_git(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run git here; raises UsageError when there is none."""
    try:
        return subprocess.run(
            ["git", *arguments], capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise UsageError("rev=: git is not installed") from None

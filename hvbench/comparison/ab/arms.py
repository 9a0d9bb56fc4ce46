"""The two arms of an A/B comparison: what is different in each, and how it is started.

env=PATH           another Python environment (its folder, or its interpreter)
rev=GIT            another revision, in a git worktree that is made for it: of a suite's own script, else of hvbench
env:NAME=VALUE     an environment variable
set=KEY=VALUE      a field of the point, or an axis of the script
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

from hvbench.comparison.ab.worktrees import add_worktree, ask
from hvbench.errors import LaunchError, UsageError
from hvbench.launch.environments import find_python
from hvbench.spec.axes import check_axes
from hvbench.spec.choices import split_choices
from hvbench.spec.fields import Fields, PointFields
from hvbench.spec.messages import did_you_mean, shorten
from hvbench.spec.settings import MeasureSettings
from hvbench.spec.suite import Suite
from hvbench.worker.turns import PROTOCOL

START = "from hvbench.cli import main; main()"
VARIABLE = re.compile(r"env:(?P<name>[A-Za-z_]\w*)=(?P<value>.*)", re.ASCII | re.DOTALL)
TWINS = PointFields()


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
    """An arm that can be started: interpreter, environment of its processes, and what its sweeps are called with."""

    arm: Arm
    python: Path
    environment: dict[str, str]
    arguments: tuple[str, ...] = ()  # of `hvbench sweep`
    profile_rounds: int = 0  # pairs, the first, in which a script is profiled
    knows_turns: bool = False

    def command(self, arguments: Sequence[str]) -> list[str]:
        """`hvbench ARGUMENTS` in this arm; -P: files in the current folder must not become modules of it."""
        return [str(self.python), "-P", "-c", START, *arguments]


def parse_arm(name: str, texts: Sequence[str], *, fields: Fields | None = TWINS) -> Arm:
    """What `--a` or `--b` say, one change each; raises UsageError.

    `fields`: what set= may name; None: that is not known before the arm's own suite is read (`require_fields`).
    """
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
            changes["overrides"] += (text.removeprefix("set="),)
        else:
            raise UsageError(f"{where}: must be env=PATH, rev=GIT, env:NAME=VALUE or set=KEY=VALUE")
    arm = Arm(name=name, **changes)
    if fields:
        require_fields(arm, fields)
    return arm


def require_fields(arm: Arm, fields: Fields) -> None:
    """Raise UsageError unless every `set=` of the arm gives a field one valid value."""
    for text in arm.overrides:
        where = f"--{arm.name} {shorten(f'set={text}')}"
        key, equals, value = text.partition("=")
        if key not in fields.names and key in MeasureSettings.model_fields:
            raise UsageError(f"{where}: {key} is how both arms are measured; set it for both with -s {shorten(text)}")
        if key not in fields.names:
            raise UsageError(f"{where}: unknown key {shorten(key)}{did_you_mean(key, fields.names)}")
        words = split_choices(value, where=where)
        if not equals or not value or len(words) > 1:
            raise UsageError(f"{where}: must be set=key=value, one value (with a comma in it: between quotes)")
        check_axes({key: [fields.parse(key, value, where=where)]}, fields, where=where)


def require_fixed_fields(arms: Sequence[Arm], suite: Suite) -> None:
    """Raise UsageError where an arm sets a field that the suite sweeps over."""
    changed = set().union(*(arm.changed_fields for arm in arms))
    if swept := sorted(changed & set(suite.all_axes)):
        raise UsageError(
            f"set={swept[0]}=…: {swept[0]} is an axis of {suite.name}; fix it for both arms with -s {swept[0]}=VALUE first"
        )


def prepare_arm(arm: Arm, *, worktrees: Path) -> Prepared:
    """Make the worktree of a revision of hvbench, and see that it starts in the arm; raises UsageError or LaunchError."""
    if not arm.revision:
        return start_arm(arm)
    if ask("rev-parse", "--git-dir", at=Path()).returncode:
        raise UsageError(
            f"rev={shorten(arm.revision)}: this folder lies in no git repository: start in a checkout of hvbench, build an environment with "
            "that revision and give env=PATH, or write a suite with a [script]"
        )
    source = add_worktree(arm.revision, worktrees / arm.name, repository=Path())
    if not (source / "hvbench" / "__init__.py").is_file():
        raise UsageError(
            f"rev={shorten(arm.revision)}: holds no hvbench; for another revision of something else, build an environment: "
            "env=PATH, or write a suite with a [script]"
        )
    return start_arm(arm, python_path=[source])


def start_arm(arm: Arm, *, python_path: Sequence[Path] = ()) -> Prepared:
    """See that hvbench starts in the arm, with these folders first in its PYTHONPATH; raises LaunchError."""
    environment = environment_of(arm)
    if python_path:
        paths = [*map(str, python_path), *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
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


def environment_of(arm: Arm) -> dict[str, str]:
    """The environment variables of an arm's processes."""
    environment = {**os.environ, **dict(arm.variables), "HVBENCH_REPORT": "0"}
    if arm.python:
        environment["PATH"] = os.pathsep.join([str(arm.python.parent), environment.get("PATH", os.defpath)])
    return environment


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

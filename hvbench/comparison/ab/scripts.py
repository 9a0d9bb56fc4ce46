"""What the arms of a script run: each its own revision's suite and script, at the points that both have.

A revision's suite may have other axes, another command, other settings. Both arms are given suites that hold the common points
alone, in the same order, so that their launches meet at the same places; settings are those of the suite that was named.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hvbench.comparison.ab.arms import Arm, environment_of, require_fields, require_fixed_fields
from hvbench.comparison.ab.imports import find_python_paths
from hvbench.comparison.ab.worktrees import add_worktree, find_repository
from hvbench.errors import UsageError
from hvbench.spec.messages import shorten
from hvbench.spec.script import OWN_FIELDS, Script, ScriptPoint, names_in, show_value
from hvbench.spec.suite import Suite, apply_overrides, load_suite

MOST = 6  # points that are named one by one
DEFAULTS = {name: ScriptPoint.model_fields[name].default for name in OWN_FIELDS}

Values = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Named:
    """The suite that was named: its file, what is set for both arms (`key=value`), and what both make of it."""

    file: Path
    overrides: Sequence[str]
    suite: Suite


@dataclass(frozen=True, kw_only=True)
class ArmSuites:
    """The suite of each arm, of the same points, and a line for everything that is not the same in both files."""

    suites: Mapping[str, Suite]
    python_paths: Mapping[str, Sequence[Path]]  # by arm: what its Python imports from first
    notes: tuple[str, ...]


def make_arm_suites(named: Named, arms: Sequence[Arm], *, worktrees: Path) -> ArmSuites:
    """Make the worktrees of revisions, and find what both arms have in common; raises UsageError."""
    notes: list[str] = []
    suites: dict[str, Suite] = {}
    paths: dict[str, list[Path]] = {}
    for arm in arms:
        try:
            suite, note = choose_suite_of(arm, named, worktrees=worktrees)
            require_fields(arm, suite.fields)
            require_fixed_fields(arms, suite)
            suites[arm.name] = apply_overrides(suite, arm.overrides, option=f"--{arm.name} set=")
            paths[arm.name] = find_own_packages(arm, suite, named, worktree=worktrees / arm.name)
        except UsageError as error:
            raise UsageError(f"arm {arm.name} ({arm.describe()}): {error}") from None
        notes += note
    changed = set().union(*(arm.changed_fields for arm in arms))
    common, rest = find_common(suites, changed=changed)
    return ArmSuites(suites=common, python_paths=paths, notes=(*notes, *rest))


def choose_suite_of(arm: Arm, named: Named, *, worktrees: Path) -> tuple[Suite, list[str]]:
    """The suite of one arm with what is set for both, measured as the named one, and lines on where it comes from."""
    folder = named.suite.folder
    if not arm.revision:
        return replace(named.suite, script=choose_script(named.suite, folder, arm)), []
    repository = find_repository(folder)
    worktree = add_worktree(arm.revision, worktrees / arm.name, repository=repository).resolve()
    file, notes = named.file.resolve(), []
    own = worktree / file.relative_to(repository) if file.is_relative_to(repository) else None
    if own and own.is_file():
        suite = load_suite(own)
        if suite.script is None:
            raise UsageError(f"{own.relative_to(worktree)} has no [script] in that revision")
        suite = apply_overrides(suite, named.overrides)
        folder = suite.folder.resolve()
        if not folder.is_relative_to(worktree):
            raise UsageError(
                f"{own.relative_to(worktree)}: [script] repository = {shorten(suite.script.repository)} leads out of the "
                "repository, so that it is no other in another revision"
            )
        if suite.measure != named.suite.measure:
            notes = [f"arm {arm.name}: its own [measure] differs; both are measured as {named.file} says"]
    else:
        suite, folder = named.suite, worktree / folder.resolve().relative_to(repository)
        if own:
            notes = [
                f"arm {arm.name}: rev={arm.revision} has no {own.relative_to(worktree)}: it runs what this one says"
            ]
    require_script(suite, folder, worktree=worktree)
    return replace(suite, measure=named.suite.measure, script=choose_script(suite, folder, arm)), notes


def find_own_packages(arm: Arm, suite: Suite, named: Named, *, worktree: Path) -> list[Path]:
    """Folders of the arm's worktree that its script imports from, instead of those of the repository as it is now."""
    if not arm.revision:
        return []
    places = {"repository": find_repository(named.suite.folder), "worktree": worktree.absolute()}
    return find_python_paths(suite.script.command, environment_of(arm), **places)


def choose_script(suite: Suite, folder: Path, arm: Arm) -> Script:
    """The [script] of a suite, to run in a folder whatever file it stands in, without variables that the arm sets itself."""
    of_arm = dict(arm.variables)
    environment = {name: value for name, value in suite.script.environment.items() if name not in of_arm}
    return suite.script.model_copy(update={"repository": str(folder.absolute()), "environment": environment})


def require_script(suite: Suite, folder: Path, *, worktree: Path) -> None:
    """Raise UsageError where a revision has no such folder, or not the program that the command names."""
    if not folder.is_dir():
        raise UsageError(f"that revision has no folder {folder.relative_to(worktree)}")
    program = None if suite.script.shell else find_program(suite.script.command)
    if program and not (folder / program).is_file():
        raise UsageError(f"that revision has no {(folder / program).relative_to(worktree)}")


def find_program(command: str) -> str | None:
    """The first word of a command that names a Python file below its folder; None where no word does."""
    words = [word for word in shlex.split(command) if word.endswith(".py")][:1]
    return next((word for word in words if not names_in(word) and not word.startswith(("/", "~", ".."))), None)


# The points


def find_common(suites: Mapping[str, Suite], *, changed: Collection[str]) -> tuple[dict[str, Suite], list[str]]:
    """The suites of two arms with the points that both have, in the same order, and a line for each arm that has more.

    Points are the same if their values are, but for names in `changed`, which an arm sets for itself. What is left of two
    products is a product: every name has the values that both arms have. Raises UsageError where nothing is left.
    """
    (name_a, a), (name_b, b) = suites.items()
    choices = {name: choices_of(suite, changed=changed) for name, suite in suites.items()}
    values = {
        name: [value for value in found if is_in(value, choices[name_b].get(name, []))]
        for name, found in choices[name_a].items()
    }
    for name in {**choices[name_a], **choices[name_b]}:
        if not values.get(name):
            raise UsageError(describe_nothing_in_common(name, choices))
    exclude = [*effective_excludes(a, changed=changed), *effective_excludes(b, changed=changed)]
    exclude = [each for number, each in enumerate(exclude) if each not in exclude[:number]]
    common = {name: narrow(suite, values, exclude, changed=changed) for name, suite in suites.items()}
    for suite in common.values():
        suite.points()  # one may be left out in either arm
    kept = [joined_values(point, changed=changed) for point in common[name_a].points()]
    rest = []
    for name, suite in suites.items():
        more = [joined for point in suite.points() if not is_in(joined := joined_values(point, changed=changed), kept)]
        other = name_b if name == name_a else name_a
        if more:
            more_of_it = describe_more(more, choices[name], choices[other])
            rest.append(f"only in arm {name}, so not compared: {more_of_it}")
    return common, rest


def choices_of(suite: Suite, *, changed: Collection[str]) -> dict[str, list[Any]]:
    """Name -> the values that the points of a suite have of it, without names in `changed`."""
    given = {**{name: [value] for name, value in {**DEFAULTS, **suite.base}.items()}, **suite.all_axes}
    return {name: choices for name, choices in given.items() if name not in changed}


def joined_values(point: ScriptPoint, *, changed: Collection[str]) -> Values:
    """By what a point is found in the other arm."""
    values = {**point.values, **{name: getattr(point, name) for name in OWN_FIELDS}}
    return {name: value for name, value in values.items() if name not in changed}


def is_in(value: Any, others: Collection[Any]) -> bool:
    """Whether one of `others` is the same to a command line: 8 is not 8.0, and not true."""
    return describe_exactly(value) in map(describe_exactly, others)


def describe_exactly(value: Any) -> Any:
    """A value with its type."""
    if isinstance(value, Mapping):
        return sorted((name, describe_exactly(each)) for name, each in value.items())
    return type(value).__name__, value


def effective_excludes(suite: Suite, *, changed: Collection[str]) -> list[Values]:
    """The exclusions of a suite as they are where names in `changed` have the suite's one value."""
    found = []
    for excluded in suite.exclude:
        if all(suite.base.get(name) == value for name, value in excluded.items() if name in changed):
            found.append({name: value for name, value in excluded.items() if name not in changed})
    return found


def narrow(
    suite: Suite, values: Mapping[str, list[Any]], exclude: Sequence[Values], *, changed: Collection[str]
) -> Suite:
    """The suite with these values of its names, in this order."""
    base = {name: value for name, value in suite.base.items() if name in changed}
    base |= {name: choices[0] for name, choices in values.items() if len(choices) == 1 and choices[0] is not None}
    axes = {name: list(choices) for name, choices in values.items() if len(choices) > 1}
    return replace(
        suite,
        base=base,
        axes=axes,
        compares=[name for name in suite.compares if name in axes],
        exclude=list(exclude),
        scales={},
    )


def describe_nothing_in_common(name: str, choices: Mapping[str, Mapping[str, list[Any]]]) -> str:
    """Why no point of two arms is the same, because of one name."""
    for arm, other in (("a", "b"), ("b", "a")):
        if name not in choices[other]:
            return (
                f"nothing to compare: only arm {arm} has {{{name}}}; fix it there, for example --{arm} "
                f"set={describe_values({name: choices[arm][name][0]})}"
            )
    shown = "; ".join(f"arm {arm}: {', '.join(map(show_value, found[name]))}" for arm, found in choices.items())
    return f"nothing to compare: the arms have no value of {name} in common; {shown}"


def describe_more(
    more: Sequence[Values], own: Mapping[str, Collection[Any]], other: Mapping[str, Collection[Any]]
) -> str:
    """`batch=32`, for all points with a value that the other arm has not; what is left, point by point.

    `own`, `other`: the values of every name in the arm of these points, and in the other one.
    """
    words: list[str] = []
    left = list(more)
    for name, known in other.items():
        words += dict.fromkeys(describe_values({name: point[name]}) for point in more if not is_in(point[name], known))
        left = [point for point in left if is_in(point[name], known)]
    names = [name for name, choices in own.items() if len(choices) > 1]
    words += [describe_values({name: point[name] for name in names}) for point in left[:MOST]]
    words += [f"{len(left) - MOST} more"] if len(left) > MOST else []
    return ", ".join(words)


def describe_values(values: Values) -> str:
    """`batch=8 dtype=bf16`, as a command line has the values."""
    return " ".join(f"{name}={show_value(value)}" for name, value in values.items())

"""A space file and the words of a command line -> the suite of the default, and what of it is searched.

A space file is a suite of one point, or of one a framework, with a table [search] of ranges and lists (`hvbench.sweep.search.space`). Spaces are
looked up by name in `suites/spaces`, here and beside the suites shipped with hvbench.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hvbench.errors import UsageError
from hvbench.plan.estimates import LAUNCH_SECONDS, estimate_seconds
from hvbench.plan.jobs import Job
from hvbench.spec.effect import require_effect
from hvbench.spec.messages import did_you_mean, shorten
from hvbench.spec.search import Search
from hvbench.spec.settings import MeasureSettings
from hvbench.spec.suite import Suite, apply_overrides, find_suite, list_suites, parse_suite, read_text, suite_folders
from hvbench.sweep.resume import require_unchanged
from hvbench.sweep.run import Sweep
from hvbench.sweep.search.goals import Goal, require_measured
from hvbench.sweep.search.question import Question
from hvbench.sweep.search.space import GLOBAL_BATCH, MICRO_BATCH, Choices, Dimension, Space, read_space, split_words
from hvbench.training.packages import make_batches, prepare_text

TABLE = "search"
FIELD = "searched"  # of run.json: what is searched, and what for
COMMAND = "hvbench search"
# What every search measures: losses, and nothing beside a launch's own steps.
SETTINGS = {"seed_per_repeat": True, "ceilings": False, "repeats": 1, "precision_target": None, "patience": 0, "keep_best": False}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The default, as the suite of one point a framework, and the table [search], not read yet."""

    suite: Suite
    searched: Mapping[str, Any]


def read_asked(name: str | None, words: Sequence[str], *, goals: Sequence[Goal]) -> Asked:
    """What is searched of what; raises UsageError, one line.

    Args:
        name: of a space or a suite, or a file; None: the default of every field.
        words: `-s`: ranges and lists are searched, single values fix fields and settings.
        goals: what is looked for: what they need has to be measured.
    """
    suite, table = read_file(name)
    searched, fixed, names = split_words(words)
    kept = {key: value for key, value in table.items() if key not in names}
    suite = apply_overrides(suite, fixed)
    if axes := [axis for axis in suite.all_axes if axis != "framework"]:
        raise UsageError(
            f"{suite.where}: {axes[0]} is an axis: a search begins from one point; give -s {axes[0]}=A,B to search it"
        )
    to_target = all(goal.is_to_target for goal in goals)
    changes = {**SETTINGS, "stop_at_target": to_target and suite.measure.target_loss is not None}
    measure = suite.measure.model_copy(update=changes)
    require_measured(goals, measure, where=suite.where)
    return Asked(suite=replace(suite, measure=measure, exclude=[], compares=[]), searched={**kept, **searched})


def read_file(name: str | None) -> tuple[Suite, dict[str, Any]]:
    """The suite of a space file without its table [search], and that table; raises UsageError."""
    if name is None:
        return parse_suite("", name=TABLE, where=COMMAND), {}
    path = find_space(name)
    text = read_text(path)
    suite = parse_suite(text, name=path.stem, where=str(path), leave=(TABLE,))
    table = tomllib.loads(text).get(TABLE, {})
    if not isinstance(table, dict):
        raise UsageError(f"{path}: {TABLE} = {shorten(table)}: must be a table, [{TABLE}]")
    if "largest" in table and set(table) <= set(Search.model_fields):
        raise UsageError(f"{path}: searches the largest {shorten(table['largest'])} that fits: hvbench sweep runs it")
    if suite.script:
        raise UsageError(f"{path}: {COMMAND} is for hvbench's own training, not for a [script]")
    return suite, table


def find_space(name: str) -> Path:
    """The file that a name means: a path that ends in .toml, a space, or a suite; raises UsageError."""
    if name.endswith(".toml"):
        return Path(name)
    spaces = list_spaces()
    if name in spaces:
        return spaces[name]
    suites = [path.stem for path in list_suites()]
    if name in suites:
        return find_suite(name)
    hint = did_you_mean(name, [*spaces, *suites])
    raise UsageError(
        f"no space named {shorten(name)}{hint}; known: {', '.join(spaces)}, any suite, or a path ending in .toml"
    )


def list_spaces() -> dict[str, Path]:
    """Name -> file of the spaces here and of those that are shipped."""
    found: dict[str, Path] = {}
    for folder in suite_folders():
        for path in sorted((folder / "spaces").glob("*.toml")):
            found.setdefault(path.stem, path)
    return found


def read_dimensions(asked: Asked, *, world_size: int) -> Space:
    """The space of what is asked on so many ranks; raises UsageError, for a field that has no effect with anything that is tried, too."""
    where = asked.suite.where
    space = read_space(asked.searched, world_size=world_size, where=f"{where}: [{TABLE}]")
    axes = {
        MICRO_BATCH if name == GLOBAL_BATCH else name: list_ends(dimension)
        for name, dimension in space.dimensions.items()
    }
    base = {name: value for name, value in asked.suite.base.items() if name not in axes}
    require_effect(base, axes, asked.suite.measure, where=f"{where}: [{TABLE}]", fields=list(axes))
    return space


def list_ends(dimension: Dimension) -> list[Any]:
    """Some values of a dimension, the least and the largest among them."""
    return list(dimension.values) if isinstance(dimension, Choices) else [dimension.low, dimension.high]


def make_question(asked: Asked, *, goals: Sequence[Goal], world_size: int, **choices: Any) -> Question:
    """What is asked on so many ranks, of points that may not run here; raises UsageError where the budget, or the text, is too short.

    `choices`: further fields of Question.
    """
    points = [point.model_copy(update={"world_size": point.world_size or world_size}) for point in asked.suite.points()]
    question = Question(
        defaults=points,
        given=dict(asked.suite.base),
        space=read_dimensions(asked, world_size=world_size),
        goals=goals,
        settings=asked.suite.measure,
        **choices,
    )
    require_budget(question)
    require_text(question)
    return question


def keep_to_plan(question: Question, sweep: Sweep) -> Question:
    """The same of the points that can run here, as they are measured."""
    runnable = {job.point for job in [*sweep.plan.done, *sweep.plan.jobs]}
    return replace(
        question, defaults=[point for point in question.defaults if point in runnable], settings=sweep.settings
    )


def require_budget(question: Question) -> None:
    """Raise UsageError for a budget in which not one launch fits, by the estimate."""
    seconds = LAUNCH_SECONDS + estimate_seconds(Job(point=question.defaults[0], repeat=0), question.settings)
    if seconds > question.budget_seconds:
        raise UsageError(
            f"--budget of {question.budget_seconds:g} s is shorter than one launch of the default, about {seconds:.0f} s "
            f"({describe_settings(question.settings)})"
        )


def require_text(question: Question) -> None:
    """Raise DataError where the text is too short for the largest batch that is searched."""
    for name in (GLOBAL_BATCH, MICRO_BATCH, "gradient_accumulation_steps"):
        if dimension := question.space.dimensions.get(name):
            largest = {name: max(list_ends(dimension))}
            point = question.make_point(largest, framework=question.defaults[0].framework)
            if point is not None:
                make_batches(point, prepare_text(point), rank=0)


def keep_question(sweep: Sweep, question: Question) -> None:
    """Write into run.json what is searched; raises UsageError where a continued run has searched something else, unless forced."""
    run = sweep.folder.read_run()
    now = {"goal": ",".join(goal.name for goal in question.goals), "fields": question.space.describe()}
    before = run.get(FIELD)
    was = before if isinstance(before, dict) else now
    changes = [
        f"{name} was {shorten(was.get(name))}, is {shorten(now[name])}" for name in now if was.get(name) != now[name]
    ]
    require_unchanged(changes, "what is searched ", path=sweep.folder.path, force=sweep.options.force)
    sweep.folder.write_run({**run, FIELD: now})


def describe_settings(settings: MeasureSettings) -> str:
    """`3 + 197 steps, to loss 3.2`."""
    target = "" if settings.target_loss is None else f", to loss {settings.target_loss:g}"
    return f"up to {settings.warmup_steps + settings.steps} steps{target}"

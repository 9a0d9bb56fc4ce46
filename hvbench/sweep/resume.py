"""Continuing a run: what has changed since it was begun, field by field. Pure: two descriptions in, lines out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hvbench.errors import UsageError
from hvbench.records.fingerprint import MACHINE, strip_settings
from hvbench.spec.knob import knobs_of
from hvbench.spec.messages import shorten
from hvbench.spec.settings import MeasureSettings

# What of an environment changes a measurement: neither the names of hosts nor the load of other processes.
# Which hvbench it is counts: launches of one point by two of them are no repeats.
ENVIRONMENT_FIELDS = (*MACHINE, "hvbench_version", "hvbench_source_digest")
ASKED = ("base", "axes", "together", "exclude")  # which points a suite means
MAX_SHOWN = 8


def lasting_environment(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The part of an environment that has to stay the same within a run."""
    kept = {field: environment.get(field) for field in ENVIRONMENT_FIELDS}
    return kept | {"horovod_settings": strip_settings(environment.get("horovod_settings") or {})}


def find_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`name was OLD, is NEW` for everything that makes the new launches of a run differ from its old ones.

    Both arguments are the content of a run.json. A field that the older one lacks was not known then, and is not
    compared.
    """
    changes = list(_compare("world_size", before.get("world_size"), now.get("world_size")))
    if "measure" in before:
        harmless = {name for name, knob in knobs_of(MeasureSettings).items() if not knob.changes_samples}
        if all(isinstance(run["measure"], Mapping) and run["measure"].get("epochs") for run in (before, now)):
            harmless.add("steps")  # they follow from the epochs and what else is compared here, the text first of all
        measured = [_without(run["measure"], harmless) for run in (before, now)]
        changes += _compare("measure", *measured)
    if before.get("search") or now.get("search"):  # its points follow from what was found so far
        for key in (*ASKED, "search"):
            changes += _compare(key, before.get(key), now.get(key))
        limits = [
            run["measure"].get("memory_limit_bytes") if isinstance(run.get("measure"), Mapping) else None
            for run in (before, now)
        ]
        changes += _compare("measure.memory_limit_bytes", *limits)
    elif _points(before) != _points(now):
        named = [line for key in ASKED for line in _compare(key, before.get(key), now.get(key))]
        changes += named
        if not changes:
            new, gone = (len(_points(a) - _points(b)) for a, b in ((now, before), (before, now)))
            changes.append(f"points: {new} new, {gone} gone")
    for key in ("environment", "data", "initial_weights", "pretraining", "script"):
        if isinstance(before.get(key), Mapping):
            common = {field: value for field, value in (now.get(key) or {}).items() if field in before[key]}
            changes += _compare(key, {field: before[key][field] for field in common}, common)
    return changes


def describe_changes(changes: list[str]) -> str:
    """All changes in one line, or as many as a line can hold."""
    more = f"; and {len(changes) - MAX_SHOWN} more" if len(changes) > MAX_SHOWN else ""
    return "; ".join(changes[:MAX_SHOWN]) + more


def require_unchanged(changes: Sequence[str], what: str, *, path: Path, force: bool) -> None:
    """Raise UsageError when there are `changes` to a run, unless forced: its launches would not be comparable."""
    if changes and not force:
        raise UsageError(
            f"{path}: {what}has changed since it was begun: {describe_changes(changes)}; "
            "start a new run, or go on all the same with --force"
        )


def _points(run: Mapping[str, Any]) -> set[str]:
    """Every point that the suite means, skipped ones included; more or fewer launches of them are no change."""
    jobs, skipped = run.get("jobs"), run.get("skipped")
    names = [str(job).rpartition(".r")[0] for job in jobs] if isinstance(jobs, list) else []
    names += (
        [str(one.get("point_id")) for one in skipped if isinstance(one, Mapping)] if isinstance(skipped, list) else []
    )
    return set(names)


def _without(values: Any, fields: set[str]) -> Any:
    return {key: value for key, value in values.items() if key not in fields} if isinstance(values, Mapping) else values


def _compare(name: str, before: Any, now: Any) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            label = f"{name}.{key}" if str(key).isidentifier() else f"{name}.{shorten(str(key))}"
            yield from _compare(label, before.get(key), now.get(key))
    elif before != now:
        yield f"{name} was {shorten(before)}, is {shorten(now)}"

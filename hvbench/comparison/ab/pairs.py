"""Pairs of launches of two arms: plan the order, keep what they left, read it back (`hvbench.comparison.ab.launches` launches).

A folder of an `hvbench ab`:

    ab.json            the arms, the order, and for each launch its control and how it ended
    arms/a/SUITE.toml  what arm a of a script runs: its own axes and command, where both arms have them
    pairs/03-a/        run folder of arm a's launch of pair 3 (see hvbench.records.store); 03-a.log: what it printed
    pairs/03-turns.json  whose turn it was, how many steps, for how long; in-turns-03-a: a pair that failed in turns
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hvbench.analysis.frame.axes import is_own, own_axis
from hvbench.comparison.ab.arms import Arm
from hvbench.comparison.ab.control import stolen_share
from hvbench.comparison.gate.rule import LOOKS
from hvbench.comparison.result import LaunchSet
from hvbench.errors import StorageError, UsageError
from hvbench.io.atomic import write_json
from hvbench.records.record import Record
from hvbench.records.store import RunFolder, read_regular_file
from hvbench.spec.point import Point
from hvbench.spec.script import OWN_FIELDS

ARMS = ("a", "b")
MAX_BYTES = 16_000_000
# 2: in_turns, apart_because; 3: in turns, control_seconds are of the arm's own turns; 4: is_script, notes
SCHEMA_VERSION = 4


@dataclass(kw_only=True)
class Launched:
    """One launch of one arm."""

    pair: int
    arm: str
    control_seconds: list[
        float
    ]  # before and after it; in turns: of the first and second half of its turns; empty: none
    seconds: float
    exit_code: int
    in_turns: bool = False  # both launches of the pair lived at the same time


@dataclass(kw_only=True)
class AbRun:
    """An A/B comparison that is going on, or was kept."""

    path: Path
    suite: str
    arms: Mapping[str, Mapping[str, Any]]
    orders: list[str]  # "ab" or "ba", pair by pair
    seed: int
    command: str
    created_at: str
    launches: list[Launched] = field(default_factory=list)
    apart_because: str | None = None  # why pairs were launched one after the other, from the first or later on
    is_script: bool = False  # people's own training was launched
    notes: list[str] = field(default_factory=list)  # what the arms do not have in common

    def write(self) -> None:
        """Keep the state; raises StorageError."""
        content = {**vars(self), "launches": [vars(each) for each in self.launches], "schema_version": SCHEMA_VERSION}
        del content["path"]
        try:
            write_json(self.path / "ab.json", content)
        except OSError as error:
            raise StorageError(f"{self.path}: cannot be written: {error.strerror}") from None

    @property
    def pairs(self) -> int:
        """Complete pairs."""
        done = {(each.pair, each.arm) for each in self.launches}
        return next(pair for pair in range(len(self.orders) + 1) if not {(pair, arm) for arm in ARMS} <= done)

    def folder(self, pair: int, arm: str) -> Path:
        """Run folder of one launch."""
        return self.path / "pairs" / f"{pair:02}-{arm}"

    @property
    def changed_fields(self) -> frozenset[str]:
        """Fields of the point in which the arms differ; of a script, axes of its own, in braces."""
        names = {text.partition("=")[0] for arm in self.arms.values() for text in arm.get("overrides", ())}
        return frozenset(own_axis(name) if self.is_script and name not in OWN_FIELDS else name for name in names)


def plan_orders(seed: int, *, looks: Sequence[int] = LOOKS) -> list[str]:
    """Which arm goes first in each pair, drawn at random: between two looks, both arms go first equally often."""
    random = np.random.default_rng(seed)
    orders: list[str] = []
    for before, look in zip([0, *looks], looks, strict=False):
        block = ["ab", "ba"] * math.ceil((look - before) / 2)
        orders += [block[i] for i in random.permutation(len(block))][: look - before]
    return orders


def describe_launching(run: AbRun) -> str:
    """How the pairs were launched, in one line."""
    pairs = {True: 0, False: 0}
    for each in run.launches:
        pairs[each.in_turns] += each.arm == "b"
    if not pairs[False]:
        return "the two launches of each pair took turns, a few steps each"
    apart = f"{pairs[False]} pairs were launched one after the other"
    return f"{apart}: {run.apart_because}" if run.apart_because else apart


def read_ab(path: Path) -> AbRun:
    """The A/B comparison kept at `path`; raises UsageError."""
    where = path / "ab.json"
    try:
        values = json.loads(read_regular_file(where, max_bytes=MAX_BYTES))
    except OSError as error:
        raise UsageError(f"{path}: not the folder of an hvbench ab (ab.json: {error.strerror})") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{where}: not JSON; was it written by hvbench?") from None
    try:
        if values.pop("schema_version") not in range(1, SCHEMA_VERSION + 1):
            raise UsageError(f"{where}: written by another version of hvbench")
        launches = [Launched(**each) for each in values.pop("launches")]
        run = AbRun(path=path, launches=launches, **values)
        require_plausible(run)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UsageError(f"{where}: not what hvbench ab writes") from None
    return run


def require_plausible(run: AbRun) -> None:
    """Raise ValueError unless the parts that are used have their types: the file may come from anybody."""
    kinds = [isinstance(run.suite, str), isinstance(run.seed, int), set(run.arms) == set(ARMS), len(run.orders) <= 1000]
    kinds += [order in ("ab", "ba") for order in run.orders]
    kinds += [set(arm.get("overrides", ())) <= set(map(str, arm.get("overrides", ()))) for arm in run.arms.values()]
    kinds += [is_own(name) or name in Point.model_fields for name in run.changed_fields]
    kinds += [type(run.is_script) is bool, *(isinstance(note, str) for note in run.notes)]
    kinds += [run.apart_because is None or isinstance(run.apart_because, str)]
    for each in run.launches:
        kinds += [
            type(each.in_turns) is bool,
            each.arm in ARMS,
            type(each.pair) is int and 0 <= each.pair < 1000,
            len(each.control_seconds) in (0, 2),
        ]
        kinds += [isinstance(value, float) and 0 < value < math.inf for value in each.control_seconds]
    if not all(kinds):
        raise ValueError


def load_pairs(run: AbRun) -> tuple[list[LaunchSet], list[str]]:
    """Both arms' records with the pair as their repeat, and a line for each unreadable file."""
    sets, problems = [], []
    for arm in ARMS:
        records: list[Record] = []
        for pair in range(run.pairs):
            found, unreadable = RunFolder(run.folder(pair, arm)).read_records()
            records += [record.model_copy(update={"repeat": pair}) for record in found]
            problems += unreadable
        sets.append(LaunchSet(name=arm, records=records, job=str(run.path)))
    return sets, problems


def read_controls(run: AbRun, sets: Sequence[LaunchSet]) -> dict[str, list[float]]:
    """ln(B/A) pair by pair of what no program moves: the fixed kernel, and the slow-down that stolen time explains.

    What both arms share can say nothing and is left out: one kernel for both (ab.json of schema 2, in turns), and the time stolen
    from two launches that span the same seconds.
    """
    seconds = {(each.pair, each.arm): each.control_seconds for each in run.launches}
    in_turns = {each.pair for each in run.launches if each.in_turns}
    controls: dict[str, list[float]] = {}
    if all(
        seconds[pair, "a"] and seconds[pair, "b"] and (pair not in in_turns or seconds[pair, "a"] != seconds[pair, "b"])
        for pair in range(run.pairs)
    ):
        controls["a fixed numpy kernel"] = [
            (math.log(math.prod(seconds[pair, "b"])) - math.log(math.prod(seconds[pair, "a"]))) / 2
            for pair in range(run.pairs)
        ]
    if in_turns:
        return controls
    stolen: dict[tuple[int, str], list[float]] = {}
    for side in sets:
        for record in side.records:
            share = stolen_share(record.environment.get("load_before"), record.environment.get("load_after"))
            if share is not None and share < 1:
                stolen.setdefault((record.repeat, side.name), []).append(-math.log1p(-share))
    if all((pair, arm) in stolen for pair in range(run.pairs) for arm in ARMS):
        mean = {key: sum(values) / len(values) for key, values in stolen.items()}
        controls["the processor, by the time stolen from it,"] = [
            mean[pair, "b"] - mean[pair, "a"] for pair in range(run.pairs)
        ]
    return controls


def describe_arm(arm: Arm) -> dict[str, Any]:
    """What ab.json keeps of an arm. Values of variables whose names sound secret are left out."""
    secret = ("TOKEN", "SECRET", "PASSWORD", "KEY", "CREDENTIAL")
    variables = {name: "…" if any(word in name.upper() for word in secret) else value for name, value in arm.variables}
    return {
        "description": Arm(**{**vars(arm), "variables": tuple(variables.items())}).describe(),
        "python": str(arm.python) if arm.python else None,
        "revision": arm.revision,
        "variables": variables,
        "overrides": list(arm.overrides),
    }

"""What can be said of large batches in words: up to which global batch each optimizer and rule still reaches the target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from hvbench.analysis.frame.axes import GLOBAL_BATCH, varying_axes
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.panels import choose_rows, combine_axes, describe_value
from hvbench.analysis.show.sentences import Draft, Sentence
from hvbench.analysis.stats.survival import all_reached
from hvbench.analysis.topics.targets import observe

NAME = "batches"
MIN_BATCHES = 3  # a curve has two parameters, and a bend has to be told from a line


def sum_batches(points: pd.DataFrame) -> pd.Series:
    """The global batch of each launch of `point_frame`, in samples."""
    return points["micro_batch_size"] * points["gradient_accumulation_steps"] * points["world_size"].fillna(1)


def curve_axes(points: pd.DataFrame) -> list[str]:
    """The axes that vary beside framework and batch: a curve over the batch has one value of each."""
    return [axis for axis in varying_axes(points) if axis not in (*GLOBAL_BATCH, "framework")]


def name_axes(points: pd.DataFrame) -> list[str]:
    """Of `curve_axes` those that distinguish the curves: none that follows from the others."""
    axes = curve_axes(points)
    wanted = len(points[axes].drop_duplicates()) if axes else 0
    for axis in sorted(
        axes, key=lambda axis: not pd.api.types.is_numeric_dtype(points[axis])
    ):  # words say more than numbers
        fewer = [each for each in axes if each != axis]
        if fewer and len(points[fewer].drop_duplicates()) == wanted:
            axes = fewer
    return axes


def last_batch(launches: pd.DataFrame) -> tuple[list[int], int | None]:
    """(the global batches in order, the largest up to which every launch of every smaller one reached the target too)."""
    batches = sum_batches(launches)
    seen = {int(size): observe(launches[batches == size], "steps") for size in sorted(batches.unique())}
    last = None
    for size, each in seen.items():
        if not each or not all_reached(each):
            break
        last = size
    return list(seen), last


def describe_batches(run: Run) -> list[Sentence]:
    """Which choices reach the target with every global batch, and where the others end, over all frameworks together."""
    asked = run.points[run.points["target_loss"].notna() & run.points["world_size"].notna()]
    if asked.empty or sum_batches(asked).nunique() < MIN_BATCHES:
        return []
    draft = Draft()
    whole: list[str] = []  # the choices that reach the target with every batch
    partly: list[tuple[int, str]] = []  # the others: the last batch with which all launches did
    sizes: set[int] = set()
    launches = 0  # of the choices in `whole`
    for name, mine in list_choices(run):
        batches, last = last_batch(mine)
        if len(batches) < MIN_BATCHES:
            continue
        sizes |= set(batches)
        draft.label(name)
        if last == batches[-1]:
            whole.append(name)
            launches += len(observe(mine, "steps"))
        else:
            reach = f"up to {draft.label(f'{last:,}')}" if last else "with none"
            partly.append((last or 0, f"{name} {reach}".strip()))
    if not sizes:
        return []
    ends = [draft.label(f"{size:,}") for size in (min(sizes), max(sizes))]
    every = f"every global batch from {ends[0]} to {ends[1]} samples"
    rest = [text for _, text in sorted(partly, key=lambda reach: -reach[0])]
    if not whole:
        reached = "; ".join(rest) or "none did"
        return [draft.finish(NAME, f"No choice reached the target with {every} in all of its launches: {reached}.")]
    names = f": {' and '.join(whole)}" if any(whole) else ""
    parts = [f"The target was reached with {every} in {draft.all_of(launches, 'launches')}{names}", *rest]
    return [draft.finish(NAME, f"{'; '.join(parts)}.")]


def list_choices(run: Run) -> list[tuple[str, pd.DataFrame]]:
    """Every choice beside framework and batch in words, and its launches that were to reach a target."""
    asked = run.points[run.points["target_loss"].notna() & run.points["world_size"].notna()]
    return [(name_choice(chosen), choose_rows(asked, chosen)) for chosen in combine_axes(asked, name_axes(asked))]


def name_choice(chosen: Mapping[str, Any]) -> str:
    """`(AdamW, square-root rate scaling)`."""
    text = ", ".join(describe_value(axis, value, emulated=frozenset()) for axis, value in chosen.items())
    return f"({text})" if ", " in text else text

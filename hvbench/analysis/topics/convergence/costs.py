"""What the update rule that gets furthest costs: time of a step, by the one rule, and memory for its state, in one sentence."""

from __future__ import annotations

import pandas as pd

from hvbench.analysis.contrasts.learning import AxisGaps, Learned, compared_axes, contrast_axis
from hvbench.analysis.contrasts.points import PointContrast, contrast_points
from hvbench.analysis.contrasts.price import price_of
from hvbench.analysis.frame.metrics import STEP
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL, Row
from hvbench.analysis.show.panels import STYLES, describe_value
from hvbench.analysis.show.sentences import Draft, Sentence
from hvbench.analysis.show.text import join_names
from hvbench.analysis.stats.contrasts import Contrast
from hvbench.analysis.stats.estimates import summary_rows
from hvbench.analysis.topics.convergence.words import NAME, describe_rounds, show_percent

AXIS = "optimizer"
STATE = "optimizer_state_bytes"
MIB = 2**20


def describe_costs(run: Run) -> list[Sentence]:
    """`A step with LAMB takes 12 % longer than with SGD in PyTorch (...); ... its state takes 1.1 MiB a rank, that of SGD 0.6`."""
    gaps = contrast_axis(run, AXIS) if AXIS in compared_axes(run) else None
    if gaps is None:
        return []
    values = [gaps.base, *(gap.one for gap in gaps.gaps)]
    rows = {one.value: rows_of(run, one) for one in values}
    pairs = [
        (mine, rows[other.value][framework])
        for other in values[1:]
        for framework, mine in rows[gaps.base.value].items()
        if framework in rows[other.value]
    ]
    if not pairs:
        return []
    draft = Draft()
    name = draft.label(_name(gaps.base.value))
    family = contrast_points(run, pairs, metric=STEP)
    longer = [each for each in family.contrasts if each.is_faster]  # of seconds the longer one
    shorter = [each for each in family.contrasts if each.is_slower]
    parts = []
    for group, word in ((longer, "longer"), (shorter, "shorter")):
        if group:
            parts.append(_compare(draft, name, group, word))
    if rest := len(family.contrasts) - len(longer) - len(shorter):
        price = describe_rounds(draft, price_of(run, family), "rounds")
        where = f" in {draft.count(rest)} of {draft.count(len(pairs))} comparisons with the others" if parts else ""
        parts.append(f"whether a step with {name} takes longer{where}, the launches cannot say{price}")
    parts.append(describe_state(draft, gaps, rows, name=name))
    return [draft.finish(NAME, f"{'; '.join(part for part in parts if part)}.")]


def rows_of(run: Run, one: Learned) -> dict[str, Row]:
    """Framework -> its row of the setting by which a value speaks, or of the first other one: what a step costs is the rule's."""
    ids = {point_id for learner in one.learners for point_id in learner.point_ids}
    mine = [row for row in summary_rows(run) if row[AXIS] == one.value and not pd.isna(row[STEP])]
    mine.sort(key=lambda row: row["point_id"] not in ids)
    found: dict[str, Row] = {}
    for row in mine:
        found.setdefault(row["framework"], row)
    return found


def describe_state(draft: Draft, gaps: AxisGaps, rows: dict[object, dict[str, Row]], *, name: str) -> str:
    """`the state of AdamW takes 1.1 MiB a rank, that of SGD 0.6`, as computed from what each keeps."""
    sizes = {}
    for value, by_framework in rows.items():
        known = [row[STATE] for row in by_framework.values() if not pd.isna(row[STATE])]
        if known:
            sizes[value] = max(known) / MIB
    if gaps.base.value not in sizes or len(sizes) < 2:
        return ""
    texts = {value: draft.quote(f"{size:.2f}", size, "state", metric=STATE) for value, size in sizes.items()}
    others = [f"{draft.label(_name(value))} {text}" for value, text in texts.items() if value != gaps.base.value]
    return f"{name} keeps {texts[gaps.base.value]} MiB of state a rank, {join_names(others)}"


def _compare(draft: Draft, name: str, group: list[PointContrast], word: str) -> str:
    """`a step with LAMB takes longer than with SGD (PyTorch 12 %, 95 % interval 8 to 16 %, 3 rounds; TensorFlow ...)`."""
    by_value: dict[object, list[str]] = {}
    for each in group:
        by_value.setdefault(each.other[AXIS], []).append(
            f"{STYLES[each.one['framework']].label} {_show(draft, each.contrast)}"
        )
    parts = [f"with {draft.label(_name(value))} ({'; '.join(texts)})" for value, texts in by_value.items()]
    return f"a step with {name} takes {word} than {join_names(parts)}"


def _show(draft: Draft, contrast: Contrast) -> str:
    ratios = (
        (contrast.ratio, contrast.low, contrast.high)
        if contrast.ratio > 1
        else (contrast.ratio, contrast.high, contrast.low)
    )
    size, low, high = (show_percent(draft, abs(ratio - 1), STEP) for ratio in ratios)
    return f"{size} %, {INTERVAL} {low} to {high} %, {draft.count(contrast.rounds)} rounds"


def _name(value: object) -> str:
    return describe_value(AXIS, value, emulated=frozenset())

"""Where the time of a step goes, in a sentence: the share of every part, and what the other choices change."""

from __future__ import annotations

import pandas as pd

from hvbench.analysis.contrasts.points import contrast_points
from hvbench.analysis.frame.breakdown import PARTS
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import Row
from hvbench.analysis.show.effects import PAIRS, Sides, describe_family, describe_price
from hvbench.analysis.show.panels import describe_value, emulated_precisions
from hvbench.analysis.show.sentences import Draft, Sentence
from hvbench.analysis.stats.estimates import read_estimate
from hvbench.analysis.topics.choices import list_choices
from hvbench.analysis.topics.throughput.pairs import by_framework, describe_point, label_of, measured_rows

NAME = "breakdown"
LEAST_SHARE = 0.005  # of a step: a smaller part is not worth a word


def describe_breakdown(run: Run) -> list[Sentence]:
    """The parts of a step of each framework's first configuration, and what each compared axis makes of the step."""
    draft, parts = Draft(), []
    for rows in by_framework([row for row in measured_rows(run) if not pd.isna(row["parts_seconds"])]).values():
        parts.append(_describe_step(draft, rows[0], run.other_axes))
    if not parts:
        return []
    price = None
    for choice in list_choices(run, run.compared_axes):
        emulated = emulated_precisions(run.points)
        one, other = (
            draft.label(describe_value(choice.axis, value, emulated=emulated)) for value in (choice.one, choice.other)
        )
        sides = Sides(one=one, other=other, things=PAIRS)
        family = contrast_points(run, choice.pairs)
        if max(each.contrast.rounds for each in family.contrasts) > 1:
            clause = describe_family(draft, family, sides, unmeasured=choice.unmeasured)
            parts.append(clause.text)
            price = price or (describe_price(run, family) if clause.is_open else None)
    return [draft.finish(NAME, f"{'; '.join(parts)}.", price=price)]


def _describe_step(draft: Draft, row: Row, axes: list[str]) -> str:
    """`of a step with uncompressed PyTorch spends 31 % in forward, ... (n = 4, each ± 2 % of the step)`."""
    whole = float(row["parts_seconds"])
    shares = {name: float(row[name]) / whole for name in PARTS}
    shown = [
        f"{draft.quote(f'{100 * share:.0f}', 100 * share, 'share', row)} % in {PARTS[name]}"
        for name, share in sorted(shares.items(), key=lambda pair: -pair[1])
        if share >= LEAST_SHARE
    ]
    estimates = [estimate for name in PARTS if (estimate := read_estimate(row, name))]
    widths = [(each.high - each.low) / 2 for each in estimates if each.high is not None and each.low is not None]
    n = draft.quote(str(row["launches_ok"]), row["launches_ok"], "count", row)
    known = f"n = {n}"
    if widths:
        widest = 100 * max(widths) / whole
        known += f", each ± {draft.quote(f'{widest:.0f}', widest, 'share', row)} % of the step or less"
    where = describe_point(row, axes)
    step = f"of a step of {draft.quote(f'{1e3 * whole:,.0f}', 1e3 * whole, 'milliseconds', row)} ms"
    subject = f"{label_of(row)} with {draft.label(where)}" if where else label_of(row)
    return f"{step} {subject} spends {', '.join(shown)} ({known})"

"""The topic "Local SGD": how much faster a token is the less often the ranks exchange anything, and how much further from the target that ends.

Every point with rounds of local updates is compared with the one that exchanges at every step, all else equal: tokens a second round by round,
validation losses at the end, after equal tokens, seed by seed, and after as many seconds as the quicker one took, round by round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hvbench.analysis.contrasts.equal_seconds import LOSS_AFTER_EQUAL_SECONDS
from hvbench.analysis.contrasts.points import PointFamily, contrast_points
from hvbench.analysis.frame.axes import axes_of
from hvbench.analysis.frame.run import Run
from hvbench.analysis.frame.samples import make_samples
from hvbench.analysis.show.cells import INTERVAL, NOT_AVAILABLE, Row, format_spread, show_spread
from hvbench.analysis.show.effects import Sides, Words, describe_family, describe_price
from hvbench.analysis.show.panels import describe_value
from hvbench.analysis.show.sentences import Draft, Sentence
from hvbench.analysis.show.tables import Layout, Shown, Table, build_table
from hvbench.analysis.stats.estimates import Estimate, estimate_rate, summary_of
from hvbench.analysis.topics.paired_steps import show_ratio
from hvbench.analysis.topics.questions import was_launched_once
from hvbench.analysis.topics.throughput.pairs import by_link, measured_rows
from hvbench.analysis.topics.topic import Need, Topic
from hvbench.spec.local_sgd import LocalSgdPart

NAME = "local_sgd"
OF_ROUNDS = tuple(LocalSgdPart.model_fields)
LOSS, RATE = "final_validation_loss", "tokens_per_second"
AFTER = {"tokens": LOSS, "seconds": LOSS_AFTER_EQUAL_SECONDS}  # of training: what is equal -> the metric
LOSSES = Words(verb="has", more="more validation loss", less="less validation loss", times="times the loss of", of_what=" in validation loss")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LessOften:
    """Points that make rounds in one way, each with the one that exchanges at every step."""

    words: str  # such as `an exchange every 4 steps, outer Nesterov`
    base: str
    link: str  # ` over 200 Mbit/s`; nothing where links do not vary
    pairs: tuple[tuple[Row, Row], ...]


def compares_rounds(run: Run) -> bool:
    """Whether launches with rounds of local updates were measured beside others."""
    points = run.points
    if "sync_every" not in points:
        return False
    good = points[points["status"] == "ok"]
    return good["sync_every"].nunique() > 1


def asks_about_rounds(run: Run) -> bool:
    """Whether the question is what exchanging less often gains and costs."""
    return "sync_every" in run.compared_axes


def find_less_often(run: Run) -> list[LessOften]:
    """In table order, every way to make rounds that has a counterpart without them, link by link."""
    return [
        found for link, rows in by_link(run, measured_rows(run)).items() for found in _find_over_link(run, link, rows)
    ]


def _find_over_link(run: Run, link: str, rows: Sequence[Row]) -> list[LessOften]:
    names = [name for name in axes_of(rows[0]) if name not in OF_ROUNDS] if rows else []

    def key(row: Row) -> tuple[object, ...]:
        return tuple(None if pd.isna(row[name]) else row[name] for name in names)

    bases = {key(row): row for row in rows if row["sync_every"] == 1}
    found: dict[str, list[tuple[Row, Row]]] = {}
    for row in rows:
        if row["sync_every"] > 1 and key(row) in bases:
            axes = [axis for axis in run.other_axes if axis in OF_ROUNDS]
            found.setdefault(_describe(row, axes), []).append((row, bases[key(row)]))
    base = describe_value("sync_every", 1, emulated=frozenset())
    return [LessOften(words=words, base=base, link=link, pairs=tuple(pairs)) for words, pairs in found.items()]


def _describe(row: Row, axes: Sequence[str]) -> str:
    names = ["sync_every", *(axis for axis in axes if axis != "sync_every" and row[axis] != "none")]
    return ", ".join(describe_value(axis, row[axis], emulated=frozenset()) for axis in names)


def describe_rounds(run: Run) -> list[Sentence]:
    """`An exchange every 4 steps is 2.1 times as fast as an exchange at every step …; it has 1.2 % more validation loss …`, one sentence a way; what changes most comes first."""
    sentences = [] if was_launched_once(run) else [_describe_one(run, each) for each in find_less_often(run)]
    return sorted(sentences, key=lambda sentence: -sentence.strength)


def _describe_one(run: Run, each: LessOften) -> Sentence:
    draft = Draft()
    where = draft.label(each.link) if each.link else ""
    sides = Sides(one=draft.label(each.words), other=draft.label(each.base), where=where)
    speed = contrast_points(run, each.pairs)
    continued = Sides(one=sides.one, other=sides.other, words=LOSSES, is_continued=True)
    clauses, families, text = [describe_family(draft, speed, sides)], [speed], ""
    for after, metric in AFTER.items():
        loss = _contrast_losses(run, each.pairs, metric)
        if loss:
            clauses.append(describe_family(draft, loss, continued))
            families.append(loss)
            text += f"; after as many {after} {clauses[-1].text}"
    opened = next((family for clause, family in zip(clauses, families, strict=True) if clause.is_open), None)
    price = describe_price(run, opened) if opened else None
    text = f"{clauses[0].text}{text}."
    return draft.finish(NAME, text, strength=clauses[0].strength, is_open=clauses[0].is_open, price=price)


def _contrast_losses(run: Run, pairs: Sequence[tuple[Row, Row]], metric: str) -> PointFamily | None:
    """Losses of all pairs; None where some launch has none to compare."""
    if not pairs or not run.was_evaluated or any(pd.isna(row[LOSS]) for pair in pairs for row in pair):
        return None
    family = contrast_points(run, pairs, metric=metric)
    return family if all(each.contrast.rounds for each in family.contrasts) else None


def step_kinds(run: Run) -> dict[str, tuple[Estimate | None, Estimate | None]]:
    """Point -> seconds of its steps without an exchange, and of those that end a round: medians of the slowest rank's; None where there are none."""
    found: dict[str, list[tuple[float, float]]] = {}
    for record in run.records:
        if record.is_measured and not record.is_script and record.ranks[0].averaging_steps:
            samples = make_samples(record)
            is_last = np.zeros(samples.step_seconds.shape[1], dtype=bool)
            is_last[[step for step in record.ranks[0].averaging_steps if step < len(is_last)]] = True
            timed, slowest = is_last[record.warmup_steps :], samples.slowest
            kinds = (slowest[~timed], slowest[timed])
            found.setdefault(record.point_id, []).append(
                tuple(float(np.median(kind)) if kind.size else float("nan") for kind in kinds)
            )
    return {point_id: tuple(map(_estimate, zip(*medians, strict=True))) for point_id, medians in found.items()}


def _estimate(medians: Sequence[float]) -> Estimate | None:
    known = [median for median in medians if median == median]
    return estimate_rate(known) if known else None


def rounds_table(run: Run) -> Table:
    """One row a point: its steps by kind, their mean, bytes, rate, and both beside an exchange at every step."""
    kinds = step_kinds(run)
    pairs = [pair for each in find_less_often(run) for pair in each.pairs]
    speed = _by_point(contrast_points(run, pairs)) if pairs else {}
    losses = {after: _contrast_losses(run, pairs, metric) for after, metric in AFTER.items()}

    def show_kind(place: int):
        def text(row: Row) -> str:
            estimate = kinds.get(str(row["point_id"]), (None, None))[place]
            return NOT_AVAILABLE if estimate is None else format_spread(estimate, scale=1e3, decimals=1)

        return text

    def show(contrasts):
        return lambda row: show_ratio(contrasts.get(str(row["point_id"])))

    def show_sent(row: Row) -> str:
        return f"{row['allreduce_bytes_per_step'] / 2**10:,.1f}"

    columns = [
        Shown("local step (ms)", show_kind(0), is_brief=True),
        Shown("step with an average (ms)", show_kind(1), is_brief=True),
        Shown("step (ms)", show_spread("step_seconds_median", scale=1e3, decimals=1), is_brief=True),
        Shown("sent per step and rank (KiB)", show_sent, is_brief=True),
        Shown("tokens/s against an exchange at every step", show(speed), is_brief=True),
        *(
            Shown(
                f"loss after equal {after}",
                show(_by_point(family) if family else {}),
                is_brief=True,
            )
            for after, family in losses.items()
        ),
    ]
    notes = (
        f"Local steps exchange nothing; a step with an average ends a round. Step: the mean of a round, median over the rounds. ± is half a {INTERVAL} over launches. Sent: a step's share. "
        f"Ratios: round by round (of losses after equal tokens seed by seed), {INTERVAL} in brackets, corrected for all rows; above 1 is faster, or a higher loss. "
        "After equal seconds: when the quicker of the two has made all its steps, on the line between two evaluations.",
    )
    metrics = ["step_seconds_median", "allreduce_bytes_per_step", RATE, LOSS]
    layout = Layout(name="local_sgd", title="Exchanging less often", columns=columns, metrics=metrics, notes=notes)
    return build_table(layout, run.points, summary=summary_of(run))


def _by_point(family: PointFamily) -> dict[str, object]:
    return {str(each.one["point_id"]): each.contrast for each in family.contrasts if each.contrast.rounds}


def rounds_tables(run: Run) -> list[Table]:
    """The one table."""
    return [rounds_table(run)]


TOPIC = Topic(
    name="Local SGD",
    question="How much faster is a token where ranks exchange less often, and how much worse is what they learn?",
    needs=Need(words="launches of more than one sync_every", is_met=compares_rounds),
    tables=rounds_tables,
    sentences=describe_rounds,
    precedence=8,
    answers=asks_about_rounds,
    is_in_terminal=asks_about_rounds,
)

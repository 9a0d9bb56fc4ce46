"""Which ways nothing beats (to adapt a model, to exchange gradients), how far those get, and how much less is sent than where everything is."""

from __future__ import annotations

from collections.abc import Sequence

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import Row
from hvbench.analysis.show.panels import STYLES
from hvbench.analysis.show.sentences import Draft, Sentence
from hvbench.analysis.show.text import join_names
from hvbench.analysis.topics.adaptation.front import LOSS, WIRE, Front, Ways, find_fronts, measures_of, name_way
from hvbench.analysis.topics.questions import was_launched_once


def describe_ways(run: Run, ways: Ways) -> list[Sentence]:
    """The Pareto front, then what is sent."""
    fronts = [front for front in find_fronts(run) if len(front.rows) + len(front.beaten) > 1]
    if not fronts or was_launched_once(run):
        return []
    return [_describe_fronts(run, fronts, ways), *_describe_wire(run, fronts, ways)]


def _describe_fronts(run: Run, fronts: Sequence[Front], kind: Ways) -> Sentence:
    """`No other way beats LoRA (validation loss 1.52, 25.0 KiB sent) and the head alone (...) in validation loss, step time ... in both frameworks`."""
    draft = Draft()
    measures = join_names([measure.words for measure in measures_of(fronts[0].rows)])
    same: dict[tuple[str, ...], list[Front]] = {}
    for front in fronts:
        same.setdefault(tuple(name_way(run, row) for row in front.rows), []).append(front)
    parts = []
    for mine in same.values():
        ways = [_name_with_figures(draft, run, rows) for rows in zip(*(front.rows for front in mine), strict=True)]
        count = len(mine[0].rows) + len(mine[0].beaten)
        where = _say_where(mine, fronts)
        of = f"{draft.count(len(ways))} of {draft.count(count)} {kind.words}" if not parts else draft.count(len(ways))
        verb = "is" if len(ways) == 1 else "are"
        on = f"on the Pareto front of {measures}" if not parts else "on it"
        parts.append(f"in {where} {of} {verb} {on}: {join_names(ways)}")
        if beaten := _describe_beaten(draft, run, mine):
            parts[-1] += f"; {beaten}"
    return draft.finish(kind.topic, f"{'; '.join(parts)}.")


def _say_where(mine: Sequence[Front], fronts: Sequence[Front]) -> str:
    """`both frameworks over 200 Mbit/s and PyTorch over 1 Gbit/s`, of some of all fronts."""
    by_link: dict[str, list[str]] = {}
    for front in mine:
        by_link.setdefault(front.link, []).append(STYLES[front.framework].label)
    both = len({front.framework for front in fronts}) == 2
    return join_names(
        [
            f"{'both frameworks' if both and len(names) == 2 else join_names(names)}{link}"
            for link, names in by_link.items()
        ]
    )


def _name_with_figures(draft: Draft, run: Run, rows: Sequence[Row]) -> str:
    """`LoRA (1.52, 25.0 KiB)`, of one way in one framework or in several."""
    name = draft.label(name_way(run, rows[0]))
    loss = draft.span([(float(row[LOSS]), (row,)) for row in rows], "loss", metric=LOSS)
    sent = f", {_show_sent(draft, rows[0])} KiB sent a step" if rows[0][WIRE] > 0 else ""
    return f"{name} (loss {loss}{sent})"


def _describe_beaten(draft: Draft, run: Run, fronts: Sequence[Front]) -> str:
    """`beaten: adapters (by LoRA) and prefixes`, of those with the same front; by what is said where it is the same in all of them."""
    pairs = [{name_way(run, row): name_way(run, by) for row, by in front.beaten} for front in fronts]
    names = []
    for name in pairs[0]:
        by = {each[name] for each in pairs}
        names.append(draft.label(name) + (f" (by {draft.label(by.pop())})" if len(by) == 1 else ""))
    return f"beaten: {join_names(names)}" if names else ""


def _describe_wire(run: Run, fronts: Sequence[Front], kind: Ways) -> list[Sentence]:
    """`Of the 417 KiB that a rank sends a step with all parameters, 6.0 % are left with LoRA, ...`, where a point sends all of them and others do not."""
    rows = [*fronts[0].rows, *(row for row, _ in fronts[0].beaten)]
    whole = [row for row in rows if row[kind.axis] == kind.whole]
    if len(whole) != 1 or not whole[0][WIRE] or kind.axis not in run.other_axes:
        return []
    draft = Draft()
    name, sent = draft.label(name_way(run, whole[0])), _show_sent(draft, whole[0])
    rest = sorted((row for row in rows if row[kind.axis] != kind.whole), key=lambda row: -row[WIRE])
    parts = []
    for row in rest:
        percent = 100 * row[WIRE] / whole[0][WIRE]
        share = draft.quote(f"{percent:.2g}", percent, "sent_share", row, whole[0], metric=WIRE)
        parts.append(f"{share} % {'' if parts else 'are left '}with {draft.label(name_way(run, row))}")
    return [draft.finish(kind.topic, f"of the {sent} KiB that a rank sends a step with {name}, {join_names(parts)}.")]


def _show_sent(draft: Draft, row: Row) -> str:
    kib = row[WIRE] / 2**10
    return draft.quote(f"{kib:,.1f}", kib, "sent", row, metric=WIRE)

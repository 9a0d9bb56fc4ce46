"""A machine -> its pages: its hardware, its sets of software and what changed between them, all of its runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hvbench.analysis.show.text import clean_text
from hvbench.comparison.baseline import show_differences
from hvbench.records.fingerprint import HARDWARE, find_differences
from hvbench.site.cells import Cell, Column, align
from hvbench.site.frame import ROWS, Frame, Page, count, name_machine_page, name_run_page, paginate
from hvbench.site.listing import RUNS, show_run
from hvbench.site.summary import RunSummary

MOST_SETUPS = 100
SETUPS = [
    Column(header="machine and software"),
    Column(header="runs", is_number=True),
    Column(header="from"),
    Column(header="to"),
    Column(header="software"),
    Column(header="what differs from the one before"),
]
WITHOUT_MACHINE = [column for column in RUNS if column.header != "machine"]


def machine_pages(frame: Frame) -> Iterator[Page]:
    """The pages of all machines: the first has everything but older runs."""
    for machine, runs in frame.atlas.machines.items():
        newest = list(reversed(runs))
        starts = range(0, len(newest), ROWS)
        paths = [name_machine_page(machine, number + 1) for number, _ in enumerate(starts)]
        for number, start in enumerate(starts):
            rows = [show_run(frame, run) for run in newest[start : start + ROWS]]
            yield frame.render(
                paths[number],
                "machine",
                title=machine,
                lede=f"{count(len(runs), 'run')} of {count(len({run.suite for run in runs}), 'suite')}",
                facts_=[("hosts", ", ".join(sorted({host for run in runs for host in run.hosts})[:20]))],
                setup_columns=SETUPS,
                setups=align(list_setups(runs), SETUPS) if not number else [],
                run_columns=WITHOUT_MACHINE,
                runs=[[*row[:2], *row[3:]] for row in rows],
                environment=list_facts(runs[-1].facts) if not number else [],
                pages=paginate(number, paths, size=ROWS, total=len(newest)),
            )


def list_setups(runs: Sequence[RunSummary]) -> list[list[Cell]]:
    """A row a set of software, the newest first: when it ran, and what differs from the one before."""
    found: dict[str, list[RunSummary]] = {}
    for run in runs:
        found.setdefault(run.fingerprint, []).append(run)
    rows, before = [], None
    for fingerprint, same in found.items():
        facts = same[-1].facts
        changes = show_differences(find_differences(before, facts), "then", "now") if before is not None else ""
        rows.append(
            [
                Cell(text=fingerprint, style="revision"),
                Cell(text=f"{len(same):,}", value=len(same), style="number"),
                Cell(text=same[0].began, href=name_run_page(same[0])),
                Cell(text=same[-1].began, href=name_run_page(same[-1])),
                Cell(text=same[-1].software, style="long"),
                Cell(text=clean_text(changes, limit=600), style="long"),
            ]
        )
        before = facts
    return rows[::-1][:MOST_SETUPS]


def list_facts(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Hardware first, then software; what is empty is left out."""
    ordered = sorted(facts, key=lambda name: (name not in HARDWARE, name))
    return [(name, show_fact(facts[name])) for name in ordered if facts[name] not in (None, {}, [], "")]


def show_fact(value: Any) -> str:
    """A fact as text; of several, `name value` each."""
    pairs = value.items() if isinstance(value, dict) else ()
    return clean_text("; ".join(f"{name} {inner}" for name, inner in pairs) or str(value), limit=2000)

"""Runs, comparisons and troubles -> rows of tables that several pages have, and the newest answer of a run."""

from __future__ import annotations

from typing import Any

from hvbench.site.atlas import Trouble
from hvbench.site.cells import Cell, Column
from hvbench.site.collect import name_file
from hvbench.site.frame import Frame, count, name_machine_page, name_run_page, name_suite_page
from hvbench.site.rows import name_pair_page
from hvbench.site.summary import AbSummary, PairSummary, RunSummary

LETTERS = 160  # of an answer in a table
TROUBLES = [Column(header="what"), Column(header="where"), Column(header="machine"), Column(header="why")]
RUNS = [
    Column(header="began"),
    Column(header="suite"),
    Column(header="machine"),
    Column(header="launches"),
    Column(header="revision"),
    Column(header="answer"),
]
PAIRS = [
    Column(header="B"),
    Column(header="A"),
    Column(header="machine"),
    Column(header="worse", is_number=True),
    Column(header="better", is_number=True),
    Column(header="same", is_number=True),
    Column(header="unclear", is_number=True),
    Column(header="comparison"),
]
ABS = [Column(header="began"), Column(header="verdict"), Column(header="arm a"), Column(header="arm b"), Column(header="pairs", is_number=True), Column(header="machine")]  # fmt: skip


def show_answer(frame: Frame, run: RunSummary) -> dict[str, Any]:
    """The first sentence of a run's answer."""
    first = run.answer[0] if run.answer else None
    return {
        "claim": first.claim if first else "Nothing can be said of it.",
        "figures": first.figures if first else "",
        "href": name_run_page(run),
        "name": run.name,
        "began": run.began,
        "machine": run.machine,
        "machine_href": name_machine_page(run.machine),
        "launches": count(run.launches, "launch"),
        "is_running": run.id in frame.atlas.running,
    }


def show_ab(ab: AbSummary) -> dict[str, str]:
    """The verdict of an A/B comparison."""
    return {"began": ab.began or ab.name, "href": name_run_page(ab), "verdict": ab.verdict, "headline": ab.headline}


def show_trouble(trouble: Trouble) -> list[Cell]:
    """A row of what is stale or failed."""
    run = trouble.run
    where = Cell(text=trouble.suite or trouble.place, href=name_suite_page(trouble.suite) if trouble.suite else "")
    machine = Cell(text=trouble.machine, href=name_machine_page(trouble.machine) if trouble.machine else "")
    why = Cell(text=trouble.what, href=name_run_page(run) if run else "", style="long")
    return [Cell(text=trouble.kind, style=f"kind {trouble.kind}"), where, machine, why]


def show_run(frame: Frame, run: RunSummary) -> list[Cell]:
    """A row of a table of runs."""
    done, first = run.statuses.get("ok", 0), run.answer[0].claim if run.answer else ""
    lost = run.launches - done
    running = " running" if run.id in frame.atlas.running else ""
    return [
        Cell(text=run.began or run.name, href=name_run_page(run), more=running),
        Cell(text=run.suite, href=name_suite_page(run.suite)),
        Cell(text=run.machine, href=name_machine_page(run.machine)),
        Cell(text=f"{done:,} ok{f', {lost:,} not' if lost else ''}", value=done, style="bad" if lost else ""),
        Cell(text=run.revision[:26], style="revision"),
        Cell(text=first if len(first) <= LETTERS else f"{first[: LETTERS - 1]}…", style="long"),
    ]


def show_pair(pair: PairSummary, a: RunSummary, b: RunSummary) -> list[Cell]:
    """A row of a table of comparisons."""
    counts = pair.counts.model_dump()
    known = pair.is_comparable and any(counts.values())
    looks = {"worse": "number worse", "better": "number better"}
    cells = [
        Cell(text=str(number), value=number, style=looks.get(word, "number") if number else "number quiet")
        if known
        else Cell(text="–", style="number quiet")
        for word, number in counts.items()
    ]
    words = "what changed" if known else "nothing in common" if pair.is_comparable else "not comparable"
    where = b.machine if a.machine == b.machine else f"{a.machine}; {b.machine}"
    runs = [Cell(text=run.began or run.name, href=name_run_page(run)) for run in (b, a)]
    return [*runs, Cell(text=where), *cells, Cell(text=words, href=name_pair_page(a.id, b.id))]


def ab_row(frame: Frame, ab: AbSummary) -> list[Cell]:
    """A row of a table of A/B comparisons."""
    return [
        Cell(text=ab.began or ab.name, href=name_run_page(ab)),
        Cell(text=ab.verdict, style=f"kind {name_file(ab.verdict).rpartition('-')[0]}"),
        Cell(text=ab.arms["a"], more=ab.revisions.get("a", "")[:13], style="long"),
        Cell(text=ab.arms["b"], more=ab.revisions.get("b", "")[:13], style="long"),
        Cell(text=str(ab.pairs), value=ab.pairs, style="number"),
        Cell(text=ab.machine, href=name_machine_page(ab.machine) if ab.machine in frame.atlas.machines else ""),
    ]

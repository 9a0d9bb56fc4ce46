"""A suite -> its pages: the newest answers, every configuration over its runs, comparisons, A/B comparisons, runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hvbench.analysis.show.cells import head_axis, show_axis
from hvbench.analysis.show.text import clean_text
from hvbench.site.atlas import Setup, SuiteRuns
from hvbench.site.cells import align
from hvbench.site.frame import Frame, Page, count, name_suite_page
from hvbench.site.listing import ABS, PAIRS, RUNS, ab_row, show_answer, show_pair, show_run
from hvbench.site.pairs import FOLLOWING, MACHINES, NEWEST
from hvbench.site.parts import list_metrics, parts_of
from hvbench.site.rows import ROWS, Block, list_columns, make_blocks

MOST_SETUPS = 12  # that have a table on the first page
MOST_RUNS = 100  # in the list of a suite's runs; the machines' pages have all
MOST_PAIRS = 200
WITHOUT_SUITE = [column for column in RUNS if column.header != "suite"]
ABOUT_PAIRS = (
    f"On each machine the newest {NEWEST} runs are compared with each other, and each of the newest {FOLLOWING} with the one before; "
    f"so are the newest runs of {MACHINES} machines. hvbench compare takes any two."
)


def suite_pages(frame: Frame, suite: SuiteRuns) -> Iterator[Page]:
    """The parts of its data, then its pages, the first one last."""
    groups = group_blocks(make_blocks(suite, frame.atlas.pairs))
    yield from parts_of(suite, groups)
    names = name_groups(groups)
    for number in reversed(range(1, len(groups))):
        yield further_page(frame, suite, groups[number], number=number, names=names)
    yield first_page(frame, suite, groups[0] if groups else [], names=names)


def group_blocks(blocks: Sequence[Block]) -> list[list[Block]]:
    """Blocks that share a page, whose rows are few enough."""
    groups: list[list[Block]] = []
    rows = 0
    for block in blocks:
        if not groups or rows + len(block.rows) > ROWS:
            groups.append([])
            rows = 0
        groups[-1].append(block)
        rows += len(block.rows)
    return groups


def name_groups(groups: Sequence[Sequence[Block]]) -> list[str]:
    """`1–200`, `201–400`: the pages of a suite by their rows."""
    names, before = [], 0
    for group in groups:
        rows = sum(len(block.rows) for block in group)
        names.append(f"{before + 1:,}–{before + rows:,}")
        before += rows
    return names


def link_pages(suite: SuiteRuns, number: int, names: Sequence[str]) -> list[tuple[str, str]]:
    """Links to the pages of a suite, none to the one that they stand on; nothing where there is one page."""
    links = [(name, "" if place == number else name_suite_page(suite, place + 1)) for place, name in enumerate(names)]
    return links if len(links) > 1 else []


def further_page(frame: Frame, suite: SuiteRuns, blocks: Sequence[Block], *, number: int, names: Sequence[str]) -> Page:
    """More rows of configurations, for who has no scripts: with them the first page loads all."""
    return frame.render(
        name_suite_page(suite, number + 1),
        "suite_rows",
        title=f"{suite.name}, configurations {names[number]}",
        trail=[(suite.name, name_suite_page(suite))],
        setups=show_setups(suite, blocks, with_empty=False),
        pages=link_pages(suite, number, names),
    )


def first_page(frame: Frame, suite: SuiteRuns, blocks: Sequence[Block], *, names: Sequence[str]) -> Page:
    """A suite's own page."""
    known = {run.id: run for run in suite.runs}
    pairs = [(pair, known[a], known[b]) for (a, b), pair in frame.atlas.pairs.items() if a in known and b in known]
    pairs.sort(key=lambda each: (each[2].began, each[1].began), reverse=True)
    newest = list(reversed(suite.runs))[:MOST_RUNS]
    runs = list(suite.newest.values())
    left_out = len(suite.runs) - len(newest)
    return frame.render(
        name_suite_page(suite),
        "suite",
        title=suite.name,
        id=suite.id,
        question=runs[0].question if runs else "",
        answers=[show_answer(frame, run) for run in runs],
        filters=[show_filter(axis, values) for axis, values in suite.choices.items()],
        metrics=list_metrics(suite),
        setups=show_setups(suite, blocks, with_empty=True),
        pages=link_pages(suite, 0, names),
        choices=[
            {"id": run.id, "name": f"{frame.results}/{run.name}", "words": f"{run.began or run.name}, {run.machine}"}
            for run in newest
        ],
        pair_columns=PAIRS,
        pairs=align([show_pair(*each) for each in pairs[:MOST_PAIRS]], PAIRS),
        pairs_note=f"{f'The newest {MOST_PAIRS} of {len(pairs):,}. ' if len(pairs) > MOST_PAIRS else ''}{ABOUT_PAIRS}",
        ab_columns=ABS,
        abs=align([ab_row(frame, ab) for ab in reversed(suite.abs)], ABS),
        run_columns=WITHOUT_SUITE,
        runs=[[*row[:1], *row[2:]] for row in (show_run(frame, run) for run in newest)],
        more_runs=f"{count(left_out, 'older run')}: the machines' pages have all." if left_out else "",
    )


def show_setups(suite: SuiteRuns, blocks: Sequence[Block], *, with_empty: bool) -> list[dict[str, Any]]:
    """A table a machine and set of software, with the rows of these blocks; `with_empty`: also where rows are loaded later."""
    shown = []
    for number, setup in enumerate(suite.setups):
        rows = [row for block in blocks if block.setup == number for row in block.rows]
        if rows or (with_empty and number < MOST_SETUPS):
            shown.append(
                {
                    "name": name_setup(setup),
                    "number": number,
                    "note": describe_setup(setup),
                    "columns": list_columns(suite, setup),
                    "rows": rows,
                }
            )
    return shown


def name_setup(setup: Setup) -> str:
    """`AMD EPYC, 2 cores, 24 GiB · 4f2c93ab0011`."""
    return f"{setup.machine} · {setup.fingerprint}"


def describe_setup(setup: Setup) -> str:
    """From when to when which software ran."""
    first, last = setup.runs[0], setup.runs[-1]
    since = f"{first.began[:10]} to {last.began[:10]}" if first.began[:10] != last.began[:10] else last.began[:10]
    return ", ".join(filter(None, [count(len(setup.runs), "run"), since, last.software]))


def show_filter(axis: str, values: Sequence[object]) -> dict[str, Any]:
    """An axis and its values, to choose from."""
    texts = [clean_text(show_axis(axis, value, is_emulated=False), limit=60) for value in values]
    return {"name": clean_text(axis, limit=60), "header": head_axis(axis), "choices": texts}

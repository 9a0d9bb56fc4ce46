"""A run, an A/B comparison, and a pair of runs -> their pages."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from hvbench.analysis.frame.metrics import RATE, STEP
from hvbench.analysis.show.text import clean_text
from hvbench.analysis.stats.estimates import estimate_rate
from hvbench.site.atlas import SuiteRuns
from hvbench.site.cells import Cell, Column, align, show_centre, show_interval
from hvbench.site.frame import Frame, Page, name_run_page, name_suite_page
from hvbench.site.listing import PAIRS, show_pair
from hvbench.site.rows import BY_NAME, MEMORY, count_statuses, name_metric, name_pair_page, name_point_page
from hvbench.site.summary import AbSummary, PairSummary, RunSummary

MOST_FIGURES = 300  # rows
SHOWN = (STEP, RATE, MEMORY)
FIGURES = [
    Column(header="configuration"),
    Column(header="launches"),
    *(
        Column(header=header, is_number=True)
        for name in SHOWN
        for header in (name_metric(BY_NAME[name]), "95 % interval")
    ),
]
Compared = tuple[PairSummary, RunSummary, RunSummary]  # with its runs, a and b


def run_page(frame: Frame, suite: SuiteRuns, run: RunSummary, pairs: Sequence[Compared]) -> Page:  # fmt: skip
    """A run: its answer, its tables, with what it is compared, what failed, how to repeat it."""
    done = run.statuses.get("ok", 0)
    failed = [[Cell(text=one.point_id), Cell(text="" if one.launch is None else str(one.launch)), Cell(text=one.status, style="bad"),
               Cell(text=one.reason, style="long")] for one in run.failures]  # fmt: skip
    return frame.render(
        name_run_page(run),
        "run",
        title=f"{run.suite}, {run.began}" if run.began else f"{run.suite}, {run.name}",
        trail=[(suite.name, name_suite_page(suite))],
        question=run.question,
        missing=(run.missing or "") if run.id not in frame.atlas.running else "It is running: what it has so far.",
        problems=run.problems,
        answer=run.answer,
        facts_=[
            ("launches", f"{run.launches:,}, {'all' if done == run.launches else f'{done:,}'} ok"),
            ("points", f"{len(run.points):,}"),
            ("machine", run.machine),
            ("software", run.software),
            ("revision", run.revision),
            ("hosts", ", ".join(run.hosts)),
            ("machine and software", ", ".join(run.fingerprints[:8])),
        ],
        pair_columns=PAIRS,
        pairs=align([show_pair(*each) for each in pairs], PAIRS),
        body=Markup(tables.body) if (tables := frame.atlas.tables.get(run.id)) else "",
        figure_columns=FIGURES,
        figures=[] if tables else align(list_figures(suite, run), FIGURES),
        failure_columns=[Column(header="point"), Column(header="launch"), Column(header="outcome"), Column(header="why")],
        failures=failed,
        more_failures=f"and {run.more_failures:,} more" if run.more_failures else "",
        command=run.command,
        name=f"{frame.results}/{run.name}",
    )  # fmt: skip


def list_figures(suite: SuiteRuns, run: RunSummary) -> list[list[Cell]]:
    """A row a point of an older run: what `hvbench history` has of it."""
    rows = []
    for key, point in list(run.points.items())[:MOST_FIGURES]:
        found = {name: estimate_rate(point.values[name]) if name in point.values else None for name in SHOWN}
        cells = [
            cell
            for name in SHOWN
            for cell in (show_centre(found[name], BY_NAME[name]), show_interval(found[name], BY_NAME[name]))
        ]
        label = Cell(text=clean_text(suite.labels[key], limit=160), href=name_point_page(suite.name, key))
        rows.append([label, Cell(text=count_statuses(run, key)), *cells])
    return rows


def ab_page(frame: Frame, suite: SuiteRuns, ab: AbSummary) -> Page:
    """An A/B comparison: the gate's verdict, then everything that it rests on."""
    arms = [
        (f"arm {arm}", f"{ab.arms[arm] or 'as it is'}{f', at {known}' if (known := ab.revisions.get(arm)) else ''}", "")
        for arm in ab.arms
    ]
    return frame.render(
        name_run_page(ab), "pair", title=f"{ab.suite}, A/B of {ab.began}", trail=[(suite.name, name_suite_page(suite))],
        lede=f"{ab.verdict}: {ab.headline}", sides=arms, problems=ab.problems, body=Markup(ab.body), command=ab.command,
        facts_=[("pairs", str(ab.pairs)), ("machine", ab.machine), ("machine and software", ", ".join(ab.fingerprints[:8]))],
    )  # fmt: skip


def pair_page(frame: Frame, suite: SuiteRuns, pair: PairSummary, a: RunSummary, b: RunSummary) -> Page:
    """Two runs, B against A."""
    sides = [
        (side, f"{run.began or run.name} on {run.machine}{f', at {run.revision}' if run.revision else ''}", name_run_page(run))
        for side, run in (("A", a), ("B", b))
    ]  # fmt: skip
    return frame.render(
        name_pair_page(a.id, b.id), "pair", title=f"{suite.name}: {b.began or b.name} against {a.began or a.name}",
        trail=[(suite.name, name_suite_page(suite))], lede="Two runs, point by point, as hvbench compare compares them",
        sides=sides, problems=(), body=Markup(pair.body), facts_=(),
        command=f"hvbench compare {frame.results}/{a.name} {frame.results}/{b.name}",
    )  # fmt: skip

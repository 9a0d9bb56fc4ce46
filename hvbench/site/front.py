"""The front page: the newest answer of every suite, machine by machine; and the page of all that is stale or failed."""

from __future__ import annotations

from typing import Any

from hvbench.site.atlas import Atlas, SuiteRuns
from hvbench.site.cells import Cell, Column, align
from hvbench.site.frame import HOME, Frame, Page, count, name_machine_page, name_run_page, name_suite_page
from hvbench.site.listing import TROUBLES, show_ab, show_answer, show_trouble

FEW_MACHINES = 5  # of a suite on the front page
FEW_TROUBLES = 40  # on the front page
MOST_TROUBLES = 4000  # on their own page


def front_page(frame: Frame) -> Page:
    """The newest answer of every suite, machine by machine; what is stale or failed; the machines."""
    atlas = frame.atlas
    suites = sorted(atlas.suites, key=lambda suite: max([run.began for run in suite.newest.values()], default=""))
    machines = [
        [
            Cell(text=machine, href=name_machine_page(machine)),
            Cell(text=f"{len(runs):,}", value=len(runs), style="number"),
            Cell(text=runs[-1].began, href=name_run_page(runs[-1])),
            Cell(text=runs[-1].software),
        ]
        for machine, runs in atlas.machines.items()
    ]
    columns = [Column(header="machine"), Column(header="runs", is_number=True), Column(header="newest run"), Column(header="software")]  # fmt: skip
    more = len(atlas.troubles) - FEW_TROUBLES
    return frame.render(
        HOME[1],
        "front",
        title="What the runs say",
        lede=describe_all(atlas),
        suites=[show_suite(frame, suite) for suite in reversed(suites)],
        trouble_columns=TROUBLES,
        troubles=[show_trouble(one) for one in atlas.troubles[:FEW_TROUBLES]],
        more_troubles=f"All {len(atlas.troubles):,}" if more > 0 else "",
        stale_days=frame.stale_days,
        machine_columns=columns,
        machines=align(machines, columns),
    )


def describe_all(atlas: Atlas) -> str:
    """How much there is, in a line."""
    launches = sum(run.launches for run in atlas.runs)
    newest = max((run.began for run in atlas.runs), default="")
    parts = {"suite": len(atlas.suites), "run": len(atlas.runs), "launch": launches, "machine": len(atlas.machines)}
    words = [count(number, word) for word, number in parts.items()]
    return ", ".join([*words, f"the newest run began {newest} UTC"] if newest else words)


def show_suite(frame: Frame, suite: SuiteRuns) -> dict[str, Any]:
    """A suite on the front page."""
    runs = list(suite.newest.values())
    more = len(runs) - FEW_MACHINES
    return {
        "id": suite.id,
        "name": suite.name,
        "href": name_suite_page(suite),
        "question": runs[0].question if runs else "",
        "answers": [show_answer(frame, run) for run in runs[:FEW_MACHINES]],
        "more": f"and on {count(more, 'more machine')}" if more > 0 else "",
        "abs": [show_ab(ab) for ab in suite.abs[-1:]],
    }


def problem_page(frame: Frame) -> Page:
    """Everything that is stale, failed or cannot be read, as far as a page holds it."""
    troubles, most = frame.atlas.troubles, MOST_TROUBLES
    more = f", of which the first {most:,} are listed" if len(troubles) > most else ""
    return frame.render(
        "problems.html", "list", title="Stale or failed", lede=f"{count(len(troubles), 'line')}{more}", columns=TROUBLES,
        rows=[show_trouble(one) for one in troubles[:most]],
    )  # fmt: skip

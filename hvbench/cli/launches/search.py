"""`hvbench search` between the command line and the output: launch what the search proposes, confirm it, show what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from hvbench.cli.display.lines import Display
from hvbench.errors import HvbenchError, MissingData, UsageError
from hvbench.io.folders import RESULTS
from hvbench.launch.placement import Member
from hvbench.launch.session import Launch, join_launch
from hvbench.plan.jobs import Job, Plan
from hvbench.plan.turns import describe_site
from hvbench.records.journal import JournalWriter
from hvbench.records.record import Record
from hvbench.sweep.options import SweepOptions
from hvbench.sweep.prepare import prepare_sweep
from hvbench.sweep.run import Sweep
from hvbench.sweep.search.ask import COMMAND, keep_question, keep_to_plan, make_question, read_asked
from hvbench.sweep.search.found import Found
from hvbench.sweep.search.goals import read_goals
from hvbench.sweep.search.question import Question
from hvbench.sweep.search.report import describe_found
from hvbench.sweep.search.session import Listener, Session


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """What `hvbench search` is asked."""

    space: str | None  # a space, a suite, a file
    words: Sequence[str]  # -s
    goal: str
    choices: Mapping[str, Any]  # further fields of `hvbench.sweep.search.question.Question`


class SearchDisplay(Display):
    """Shows a line a trial, which the search itself says."""

    def start(self, plan: Plan, members: Sequence[Member]) -> None:
        self.ledger.start(plan, members)

    def finish_job(self, job: Job, record: Record) -> None:
        self.ledger.finish(job, record)

    def extend(self, jobs: Sequence[Job], reason: str) -> None:
        self.ledger.extend(jobs)


def run_search(options: SearchOptions, sweep_options: SweepOptions, *, np: int | None) -> int:
    """Take part in a launch, or make one; on rank 0 search, confirm and print what was found.

    Args:
        options: the space, the goal, the budget.
        sweep_options: where the records go, and whether a run is resumed.
        np: ranks to launch on this host; None under a launcher.

    Returns:
        The exit code 0.

    Raises:
        HvbenchError: the search could not begin, or was ended before it found anything.
        MissingData: no launch reached the goal.
    """
    with join_launch(np) as launch:
        if launch is None:
            return 0
        if find_spec("optuna") is None:
            raise UsageError(f"{COMMAND} needs optuna: pip install 'hvbench[tune]'")
        display = SearchDisplay()
        goals = read_goals(options.goal)
        asked = read_asked(options.space, options.words, goals=goals)
        question = make_question(asked, goals=goals, world_size=launch.world_size, **options.choices)
        folder = sweep_options.run_folder(RESULTS, asked.suite.name)
        sweep = prepare_sweep(
            asked.suite,
            folder,
            sweep_options,
            world_size=launch.world_size,
            observer=display,
            is_single_host=launch.context.is_single_host,
        )
        question = keep_to_plan(question, sweep)
        keep_question(sweep, question)
        found = search_and_confirm(sweep, launch, display, question)
    if found.missing:
        raise MissingData(f"{found.missing}; records: {folder.path}")
    display.show(f"{describe_found(found, question)}\nrecords: {folder.path}", path=folder.path)
    return 0


def search_and_confirm(sweep: Sweep, launch: Launch, display: SearchDisplay, question: Question) -> Found:
    """Search, and compare the best with the default; raises HvbenchError."""
    path = sweep.folder.path
    try:
        with launch.open(run_path=path) as coordinator, display, JournalWriter(path) as journal:
            listener = Listener(display, journal)
            listener.start(sweep.plan, list(coordinator.members.values()))
            session = Session(
                sweep=sweep,
                question=question,
                coordinator=coordinator,
                listener=listener,
                say=display.say,
                site=describe_site(is_single_host=launch.context.is_single_host),
            )
            return session.run()
    except HvbenchError:
        display.show(f"records: {path}", path=path)
        raise

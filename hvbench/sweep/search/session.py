"""One session of a search on rank 0: trials, then pairs of the best and the default, launched as a sweep launches its jobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from hvbench.launch.coordinator import Coordinator
from hvbench.plan.jobs import Job
from hvbench.plan.turns import Site, Turns
from hvbench.records.journal import JournalWriter
from hvbench.records.record import Record
from hvbench.sweep.journal import Journalled
from hvbench.sweep.observer import Observer
from hvbench.sweep.run import Sweep
from hvbench.sweep.search.confirm import choose_turns, judge, launch_pairs, list_pairs
from hvbench.sweep.search.found import Confirmed, Found
from hvbench.sweep.search.goals import reach, read_looks
from hvbench.sweep.search.question import Question
from hvbench.sweep.search.report import describe_pair
from hvbench.sweep.search.trials import OnRecord, Trials

FIELD = "found"  # of run.json: what was found, and the pairs that say what it gains


class Listener(Journalled):
    """Passes records on to whoever asked for their launch."""

    def __init__(self, observer: Observer, journal: JournalWriter) -> None:
        super().__init__(observer, journal)
        self.on_record: OnRecord = lambda job, record: None

    def finish_job(self, job: Job, record: Record) -> None:
        """A record was written."""
        super().finish_job(job, record)
        self.on_record(job, record)


@dataclass(kw_only=True)
class Session:
    """What a search needs of the launch that it has."""

    sweep: Sweep
    question: Question
    coordinator: Coordinator
    listener: Listener
    say: Callable[[str], None]
    site: Site

    def run(self) -> Found:
        """Search, and confirm what was found. Raises HvbenchError."""
        folder, question = self.sweep.folder, self.question
        recorded = {record.key: record for record in folder.read_records()[0] if record.outcome.status != "interrupted"}
        if recorded:
            self.say(f"{len(recorded)} launches are recorded in {folder.path}")
        trials = Trials(question, self.launch, say=self.say, recorded=recorded)
        self.sweep.turns, self.sweep.ends_early = Turns(), trials.ends_early
        try:
            trials.search()
        finally:
            self.sweep.ends_early = None
        found = summarize(trials)
        if found.best is not None and found.best.point != found.default:
            found = replace(
                found, confirmed=self.confirm(found, recorded, rest_seconds=question.budget_seconds - trials.seconds)
            )
        folder.write_run({**folder.read_run(), FIELD: found.describe()})
        return found

    def confirm(self, found: Found, recorded: Mapping[str, Record], *, rest_seconds: float) -> Confirmed:
        """Pairs of launches of what was found and of the default."""
        question = self.question
        self.sweep.turns = choose_turns(question.goal, found.default, found.best.point, self.site)
        pairs = launch_pairs(
            list_pairs(found.default, found.best.point),
            self.launch,
            value_of=lambda record: reach(record, question.goal),
            recorded=recorded,
            pairs=question.pairs,
            rest_seconds=rest_seconds,
            seed=question.seed,
            on_pair=lambda pair: self.say(describe_pair(pair, question.goal)),
        )
        return Confirmed(goal=question.goal, pairs=pairs, contrast=judge(pairs, question.goal))

    def launch(self, jobs: Sequence[Job], on_record: OnRecord) -> None:
        """Run `jobs`, and pass on the record of each."""
        self.listener.extend(jobs, "to search")
        self.listener.on_record = on_record
        self.sweep.run_jobs(jobs, self.coordinator, self.listener)


def summarize(trials: Trials) -> Found:
    """What the trials have found."""
    best, goal = trials.best, trials.question.goal
    missing = None
    if best is None:
        losses = [look.loss for record in trials.records.values() for look in read_looks(record)]
        lowest = f", the lowest loss was {min(losses):.3f}" if losses else ""
        missing = f"none of {len(trials.records)} launches reached {goal.in_words}{lowest}"
    return Found(
        default=trials.default,
        best=best,
        front=trials.front if len(trials.question.goals) > 1 else [],
        trials=len(trials.records),
        ended_early=sum(record.outcome.status == "stopped" for record in trials.records.values()),
        missing=missing,
    )

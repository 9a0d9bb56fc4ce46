"""The trials of a search: ask what to try, launch it, end what is of no interest any more, tell what it was worth.

Every trial trains from the same seed, so that trials differ by what was chosen alone, and leaves a record. A session that continues tells the
sampler what the records of the one before say, and launches none of it again. Trials that can share workers do, a few at a time.

Where the goal does not depend on the machine (steps, tokens, losses), the frameworks are one question, for their losses are equal: the quickest
one tries everything. Where it does (seconds, joules), the framework is searched, too, and what one has learned the others know: what did not
reach the target in one does not in another, and what did takes as many steps, whose time is known from any launch with steps of the same work.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from hvbench.errors import MissingData, UsageError
from hvbench.launch.messages import Progress
from hvbench.plan.jobs import Job
from hvbench.plan.skip import reason_not_to_measure, reason_to_skip
from hvbench.records.record import Record
from hvbench.spec.point import Point
from hvbench.spec.schedule import SchedulePart
from hvbench.sweep.search.goals import (
    GOALS,
    NOT_REACHED,
    Look,
    find_front,
    joules,
    look_of,
    median_step_seconds,
    reach,
    read_looks,
    worth,
)
from hvbench.sweep.search.proposals import Proposal, Proposals, make_sampler
from hvbench.sweep.search.pruning import PATIENT_EVERY, Halving, find_hopeless
from hvbench.sweep.search.question import Question
from hvbench.sweep.search.report import describe_trial

BATCH = 5  # trials that are asked for at once, and share workers
LEAST_TRIALS = 4  # whatever they take
LEAST_SHARE = 0.4  # of the budget, for the trials; the pairs that confirm what was found have the rest, if they need it
START_SECONDS = 4.0  # of a set of workers: a framework is imported
LEAST_SECONDS = 0.1  # of a trial
MOST_KNOWN = 50  # proposals in a row that bring nothing new: the space is exhausted
# Fields that do not change what a step computes.
TIMELESS = {
    *(set(SchedulePart.model_fields) - {"batch_warmup_steps", "length_warmup_steps"}),
    *("momentum", "trust_coefficient", "beta1", "beta2", "epsilon", "weight_decay", "seed"),
}

OnRecord = Callable[[Job, Record], None]
Launch = Callable[[Sequence[Job], OnRecord], None]  # runs jobs and passes on the record of each; raises HvbenchError


@dataclass(kw_only=True)
class Running:
    """A launch that has not ended: its evaluations so far, and why it was ended early."""

    looks: list[Look] = field(default_factory=list)
    is_patient: bool = False
    reason: str | None = None


class Trials:
    """The launches of one search, of this session and of those before."""

    def __init__(
        self,
        question: Question,
        launch: Launch,
        *,
        say: Callable[[str], None],
        recorded: Mapping[str, Record] = MappingProxyType({}),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: `recorded` holds the records of earlier sessions by the keys of their jobs, `say` takes a line a trial."""
        self.question = question
        self.records: dict[str, Record] = {}
        self._defaults = [question.make_point({}, framework=point.framework) for point in question.defaults]
        self._looks: dict[str, list[Look]] = {}
        self._reached: dict[str, float] = {}  # of those that did
        for key, record in recorded.items():
            if record.repeat == 0 and self._is_asked(record.point):
                self._keep(key, record)
        self.count = 0  # of this session's launches
        self.framework = question.defaults[0].framework  # of trials that may be of any
        self._starts = 0  # of workers, about
        self._launch = launch
        self._say = say
        self._clock = clock
        self._begun = clock()
        self._running: dict[str, Running] = {}
        self._halving: Halving | None = None
        self._proposals: Proposals | None = None

    @property
    def seconds(self) -> float:
        """Time since the session began."""
        return self._clock() - self._begun

    @property
    def default(self) -> Point:
        """The point that what is found is compared with: of the same framework, where no goal depends on it."""
        if self.question.is_of_machine or self.best is None:
            return self._defaults[0]
        return self.question.make_point({}, framework=self.best.point.framework)

    @property
    def best(self) -> Record | None:
        """The launch that got to the first goal soonest; None where none did."""
        return self.records[min(self._reached, key=self._reached.get)] if self._reached else None

    @property
    def front(self) -> list[Record]:
        """The launches that no other beats in one goal without losing in another."""
        found = {
            key: values
            for key, record in self.records.items()
            if None not in (values := [reach(record, goal) for goal in self.question.goals])
        }
        keys = list(found)
        return [self.records[keys[index]] for index in find_front(list(found.values()))]

    def reach(self, record: Record) -> float | None:
        """What a launch took to the first goal, or how far it got; None where it did not get there."""
        return self._reached.get(record.key)

    def search(self) -> None:
        """Launch the default, then what the sampler proposes, until the trials' share of the budget is spent or the space is exhausted.

        Raises:
            UsageError: the budget ended before anything was tried, or nothing measures what is asked for.
            MissingData: the default itself does not end in `ok`.
            HvbenchError: a launch could not be made.
        """
        self._run_defaults()
        goals, seed = len(self.question.goals), self.question.seed + len(self.records)
        sampler = make_sampler(self.question.sampler, goals=goals, seed=seed)
        self._proposals = Proposals(self.question.tried_space, goals=goals, sampler=sampler)
        for record in list(self.records.values()):
            self._learn(record)
        while (size := self._next_size()) and (proposed := self._propose(size)):
            jobs = list({job.key: job for job, _ in proposed}.values())
            self._run(jobs)
            for job, proposal in proposed:
                if job.key in self.records:
                    record = self.records[job.key]
                    self._proposals.tell(proposal, self._worth(record))
                    self._carry_over(record)

    def ends_early(self, job: Job, message: Progress) -> bool:
        """Whether a running trial is trained no further, by what rank 0's worker reports."""
        running = self._running.setdefault(job.key, Running())
        look = look_of(message)
        if look and (not running.looks or look.steps > running.looks[-1].steps):
            running.looks.append(look)
            running.reason = running.reason or self._find_end(job, running)
        return running.reason is not None

    def _find_end(self, job: Job, running: Running) -> str | None:
        if job.point in self._only_timed:
            return "only its steps were to be timed"
        if job.point in self._defaults:
            return None
        question, target = self.question, self.question.settings.target_loss
        if question.goal.is_to_target and target is not None and running.looks[-1].loss <= target:
            return None
        best = self.best if question.ends_early and len(question.goals) == 1 and question.goal.is_to_target else None
        limit = None if best is None else reach(best, GOALS[question.goal.progress])
        if hopeless := find_hopeless(running.looks, progress=question.goal.progress, best=limit):
            return hopeless
        if self._halving is None:
            return None
        others = [looks for key, looks in self._looks.items() if key != job.key]
        return self._halving.find_end(running.looks, others, is_patient=running.is_patient)

    # The default

    def _run_defaults(self) -> None:
        """The default of every framework; where the goal does not depend on the machine, of one whole and of the others a few steps."""
        jobs = [Job(point=point, repeat=0) for point in self._defaults]
        missing = [job for job in jobs if job.key not in self.records]
        self._run(missing)
        whole = self.records[jobs[0].key]
        if whole.outcome.status != "ok":
            raise MissingData(f"the default ended in {whole.outcome.status}: {whole.outcome.reason}")
        if any(goal.name == "joules" for goal in self.question.goals) and joules(whole) is None:
            raise UsageError("goal joules: nothing measures energy here")
        paces = {job.point.framework: median_step_seconds(self.records[job.key]) for job in jobs}
        if not self.question.is_of_machine:
            self.framework = min(paces, key=paces.get)
        looks = self._looks[whole.key]
        progress = self.question.goal.progress
        places = [getattr(look, progress) for look in looks] if self.question.goal.needs_evaluations else []
        # Of a default that stopped at the target the whole way is not known: rungs are of what it took.
        self._halving = self.question.make_halving(whole=places[-1], first=places[0]) if places else None
        if missing and self.seconds >= self.question.budget_seconds:
            raise UsageError(
                f"the budget of {self.question.budget_seconds:g} s ended with the default, which took {self.seconds:.0f} s: give more"
            )

    @property
    def _only_timed(self) -> list[Point]:
        return [] if self.question.is_of_machine else self._defaults[1:]

    # A batch of trials

    def _next_size(self) -> int:
        """How many trials to launch now: those for which there is time, and which may share workers, or that are too few so far; 0: none."""
        rest = self._until - self.seconds - START_SECONDS
        missing = LEAST_TRIALS - (len(self.records) - len(self._defaults))
        return max(0, missing, min(BATCH, int(rest / self._trial_seconds)))

    def _propose(self, size: int) -> list[tuple[Job, Proposal]]:
        """Jobs that have no record yet, with their proposals; empty where the space has nothing new."""
        found: list[tuple[Job, Proposal]] = []
        known = 0
        while len(found) < size and known < MOST_KNOWN:
            proposal = self._proposals.ask()
            point = self.question.make_point(proposal.values, framework=self.framework)
            if point is None or not self._can_run(point):
                self._proposals.tell(proposal, None)
                known += 1
                continue
            job = Job(point=point, repeat=0)
            if job.key in self.records:
                self._proposals.tell(proposal, self._worth(self.records[job.key]))
                known += 1
                continue
            found.append((job, proposal))
        return found

    def _can_run(self, point: Point) -> bool:
        is_out = reason_to_skip(point, world_size=point.world_size or 1)
        return not (is_out or reason_not_to_measure(point, self.question.settings))

    def _run(self, jobs: Sequence[Job]) -> None:
        for number, job in enumerate(jobs, start=self.count):
            self._running[job.key] = Running(is_patient=number % PATIENT_EVERY == PATIENT_EVERY - 1)
        if jobs:
            self._starts += 1
            self._launch(jobs, self._take)

    def _take(self, job: Job, record: Record) -> None:
        before = self.best
        self._keep(job.key, record)
        self.count += 1
        running = self._running.pop(job.key, None)
        values = self.question.values_of(job.point) if job.point not in self._defaults else None
        reached = self.reach(record)
        is_best = reached is not None and (before is None or reached < self.reach(before))
        line = describe_trial(
            values, record, self.question.goals, reason=running.reason if running else None, is_best=is_best
        )
        self._say(f"[{len(self.records)}] {line}")

    # What is known

    def _is_asked(self, point: Any) -> bool:
        """Whether a recorded point is a trial of this search: it differs from the default in what is searched alone."""
        if not isinstance(point, Point) or point.framework not in [each.framework for each in self.question.defaults]:
            return False
        values = self.question.values_of(point)
        own = None if values is None else self.question.make_point(values, framework=point.framework)
        return point == own or point in self._defaults

    def _keep(self, key: str, record: Record) -> None:
        self.records[key] = record
        self._looks[key] = read_looks(record)
        if (value := reach(record, self.question.goal)) is not None:
            self._reached[key] = value

    def _worth(self, record: Record) -> list[float]:
        return [worth(record, goal) for goal in self.question.goals]

    def _learn(self, record: Record) -> None:
        """Tell the sampler of a launch that it did not propose."""
        if record.point in self._only_timed:
            return
        values = self.question.values_of(record.point)
        if values is not None:
            self._proposals.learn(values, self._worth(record))
        self._carry_over(record)

    def _carry_over(self, record: Record) -> None:
        """Tell the sampler what a launch says of the same training in the other frameworks, where that is known."""
        if len(self.question.tried_space.dimensions) == len(self.question.space.dimensions):
            return
        for framework in (
            point.framework for point in self.question.defaults if point.framework != record.point.framework
        ):
            point = record.point.model_copy(update={"framework": framework})
            values = self.question.values_of(point)
            known = [self._worth_elsewhere(record, point, goal.name) for goal in self.question.goals]
            if values is not None and None not in known and Job(point=point, repeat=0).key not in self.records:
                self._proposals.learn(values, known)

    def _worth_elsewhere(self, record: Record, point: Point, goal: str) -> float | None:
        """What the same losses would be worth in another framework; None where the time of its steps is not known."""
        own = worth(record, GOALS[goal])
        if not GOALS[goal].is_of_machine or own >= NOT_REACHED:
            return own
        steps, pace = reach(record, GOALS["steps"]), find_pace(point, self.records.values())
        return None if steps is None or pace is None or goal != "seconds" else steps * pace

    # Time

    @property
    def _trial_seconds(self) -> float:
        """What a trial should take once its workers have started, by those of this session, or else of the sessions before."""
        if self.count:
            return max(LEAST_SECONDS, (self.seconds - START_SECONDS * self._starts) / self.count)
        known = [record.duration_seconds for record in self.records.values()]
        return max(LEAST_SECONDS, math.fsum(known) / max(1, len(known)))

    @property
    def _until(self) -> float:
        """The end of the trials, in seconds of the session: the pairs need the rest of the budget."""
        whole = self.records.get(Job(point=self._defaults[0], repeat=0).key)
        longest = whole.duration_seconds if whole else 0.0
        reserve = self.question.pairs * (START_SECONDS + 2 * longest)
        budget = self.question.budget_seconds
        return max(budget - reserve, LEAST_SHARE * budget)


def find_pace(point: Point, records: Iterable[Record]) -> float | None:
    """Median seconds of a step that does the same work in the same framework, of any launch that says it."""
    wanted = point.model_dump(exclude=TIMELESS)
    paces = [median_step_seconds(each) for each in records if each.point.model_dump(exclude=TIMELESS) == wanted]
    known = [pace for pace in paces if math.isfinite(pace)]
    return min(known, default=None)

"""The turns of a pair of launches, decided without a socket, a process or a clock: events in, decisions out."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvbench.launch.turns.scheduler import (
    LEAST_TURNS,
    Answer,
    Decision,
    Leave,
    Meet,
    Request,
    Resume,
    State,
    Steps,
    Suspend,
    TurnLimits,
    TurnScheduler,
)

Points = list[tuple[int, int]]  # places and their steps


@dataclass
class Simulation:
    """Arms that run their points as `hvbench.worker.turns` does, by a clock that only their steps move."""

    scheduler: TurnScheduler
    points: dict[str, Points]
    step_seconds: dict[str, float] = field(default_factory=dict)
    ranks: int = 2
    now: float = 0.0
    steps: dict[str, list[int]] = field(default_factory=dict)  # steps of each arm's points that were run
    suspended: set[str] = field(default_factory=set)
    requests: dict[str, Iterator[Request]] = field(default_factory=dict)
    granted: dict[str, int | None] = field(default_factory=dict)
    running: str | None = None

    def run(self) -> None:
        """Until no arm has anything to ask."""
        for arm in self.points:
            self.steps[arm] = [0 for _ in self.points[arm]]
            self.requests[arm] = self.ask_for_steps(arm)
            for rank in range(self.ranks):
                self.scheduler.join(arm, rank, world_size=self.ranks)
        ready = list(self.points)
        while ready:
            arm = ready.pop(0)
            request = next(self.requests[arm], None)
            decisions: list[Decision] = []
            if request is None:
                decisions = self.scheduler.retire(arm, at=self.now)
            else:
                for rank in range(self.ranks):
                    assert not decisions, "answered before all ranks have asked"
                    decisions = self.scheduler.ask(arm, rank, request, at=self.now)
            ready += self.take(decisions)

    def take(self, decisions: list[Decision]) -> list[str]:
        """Do what was decided; the arms that continue."""
        answered = []
        for decision in decisions:
            if isinstance(decision, Answer):
                assert decision.ranks == tuple(range(self.ranks)) and decision.arm not in self.suspended
                self.granted[decision.arm] = decision.steps
                answered.append(decision.arm)
            elif isinstance(decision, Suspend):
                self.suspended.add(decision.arm)
            else:
                self.suspended.discard(decision.arm)
        return answered

    def ask_for_steps(self, arm: str) -> Iterator[Request]:
        """What the ranks of an arm ask, one answer after the other."""
        for index, (place, steps) in enumerate(self.points[arm]):
            yield Meet(place, steps)
            for _ in range(steps):
                if self.granted[arm] == 0:
                    yield Steps()
                inside = [name for name in self.points if self.scheduler.state_of(name) is State.RUNNING]
                assert inside == [arm], "one arm at a time"
                self.granted[arm] -= 1
                self.now += self.step_seconds.get(arm, 0.004)
                self.steps[arm][index] += 1
            yield Leave()


def make_scheduler(names: Sequence[str], *, seed: int = 0, limits: TurnLimits | None = None) -> TurnScheduler:
    return TurnScheduler(names, shuffle=random.Random(seed).shuffle, limits=limits)


def simulate(points: dict[str, Points], **settings: object) -> Simulation:
    limits = TurnLimits(block_seconds=0.05)
    simulation = Simulation(scheduler=make_scheduler(list(points), limits=limits), points=points, **settings)
    simulation.run()
    return simulation


def ask_all(scheduler: TurnScheduler, arm: str, request: Request, *, at: float, ranks: int = 1) -> list[Decision]:
    for rank in range(ranks - 1):
        assert scheduler.ask(arm, rank, request, at=at) == []
    return scheduler.ask(arm, ranks - 1, request, at=at)


def make_pair(*, seed: int = 0, **limits: float) -> TurnScheduler:
    """Two arms of one rank."""
    scheduler = make_scheduler("ab", seed=seed, limits=TurnLimits(**limits))
    for arm in "ab":
        scheduler.join(arm, 0, world_size=1)
    return scheduler


def test_both_arms_run_all_steps_in_alternating_rounds_of_equal_turns() -> None:
    simulation = simulate({"a": [(0, 30), (1, 17)], "b": [(0, 30), (1, 17)]})
    assert simulation.steps == {"a": [30, 17], "b": [30, 17]}
    turns = [turn for turn in simulation.scheduler.turns if turn.place == 0]
    assert {turn.steps for turn in turns} == {1, 30 // LEAST_TURNS}
    order = [turn.arm for turn in turns]
    rounds = [order[n : n + 4] for n in range(0, len(order) - 4, 4)]
    assert all(each in (list("abba"), list("baab")) for each in rounds)
    assert turns[0].seconds == pytest.approx(0.004 * turns[0].steps)


def test_which_arm_goes_first_is_drawn() -> None:
    first = set()
    for seed in range(20):
        scheduler = make_pair(seed=seed)
        ask_all(scheduler, "a", Meet(0, 5), at=0.0)
        (answer,) = (each for each in ask_all(scheduler, "b", Meet(0, 5), at=0.0) if isinstance(each, Answer))
        first.add(answer.arm)
    assert first == {"a", "b"}


def test_turns_are_as_long_as_the_slower_arm_allows() -> None:
    simulation = simulate({"a": [(0, 400)], "b": [(0, 400)]}, step_seconds={"a": 0.001, "b": 0.01})
    assert max(turn.steps for turn in simulation.scheduler.turns) == 5  # 0.05 s of the slower one


def test_a_turn_begins_by_suspending_the_other_arm_and_resuming_its_own() -> None:
    scheduler = make_pair()
    assert ask_all(scheduler, "a", Meet(0, 5), at=0.0) == []
    first = ask_all(scheduler, "b", Meet(0, 5), at=0.0)
    (answer,) = (each for each in first if isinstance(each, Answer))
    other = "b" if answer.arm == "a" else "a"
    assert first == [Suspend(other), Resume(answer.arm), Answer(answer.arm, (0,), 1)]
    assert scheduler.state_of(other) is State.WAITING
    second = ask_all(scheduler, answer.arm, Steps(), at=1.0)
    assert second == [Suspend(answer.arm), Resume(other), Answer(other, (0,), 1)]


def test_points_of_one_arm_alone_are_run_by_it_alone() -> None:
    simulation = simulate({"a": [(0, 2), (1, 4), (3, 9)], "b": [(0, 2), (2, 4), (3, 2)]})
    assert simulation.steps == {"a": [2, 4, 9], "b": [2, 4, 2]}
    turns = simulation.scheduler.turns
    assert {place: {turn.arm for turn in turns if turn.place == place} for place in range(4)} == {
        0: {"a", "b"}, 1: {"a"}, 2: {"b"}, 3: {"a", "b"},
    }  # fmt: skip


def test_an_arm_that_has_ended_is_not_waited_for() -> None:
    scheduler = make_pair()
    assert ask_all(scheduler, "a", Meet(0, 5), at=0.0) == []
    assert Answer("a", (0,), 1) in scheduler.retire("b", at=0.0)


def test_a_lost_rank_ends_its_arms_point_and_resumes_its_other_ranks() -> None:
    scheduler = make_scheduler("ab")
    for arm in "ab":
        for rank in range(2):
            scheduler.join(arm, rank, world_size=2)
        decisions = ask_all(scheduler, arm, Meet(0, 5), at=0.0, ranks=2)
    (answer,) = (each for each in decisions if isinstance(each, Answer))
    other = "b" if answer.arm == "a" else "a"
    expected = [Resume(answer.arm), Resume(other), Answer(other, (0, 1), 1)]
    assert scheduler.lose(answer.arm, 1, at=1.0) == expected
    assert scheduler.state_of(answer.arm) is State.AWAY
    # Fresh ranks of it come to the next point; the other arm is let out of the first, and comes there too.
    scheduler.join(answer.arm, 1, world_size=2)
    assert ask_all(scheduler, answer.arm, Meet(1, 5), at=2.0, ranks=2) == []
    assert Answer(other, (0, 1), None) in ask_all(scheduler, other, Leave(), at=3.0, ranks=2)
    both = ask_all(scheduler, other, Meet(1, 5), at=3.0, ranks=2)
    assert len([each for each in both if isinstance(each, Answer)]) == 1


def tick(scheduler: TurnScheduler, *, begin: float, seconds: float) -> list[Decision]:
    """Half-second ticks."""
    decisions = []
    for step in range(int(2 * seconds) + 1):
        decisions += scheduler.tick(at=begin + step / 2)
    return decisions


def test_an_arm_that_never_comes_ends_the_turns_after_a_while() -> None:
    scheduler = make_pair(give_up_seconds=10.0)
    ask_all(scheduler, "a", Meet(0, 5), at=0.0)
    assert tick(scheduler, begin=0.0, seconds=10) == [] and scheduler.given_up is None
    decisions = tick(scheduler, begin=10.5, seconds=0)
    assert scheduler.given_up == "arm a waited for the other arm for 10 s"
    assert Answer("a", (0,), None) in decisions
    assert scheduler.ask("b", 0, Meet(0, 5), at=11.0) == [Answer("b", (0,), None)]
    assert tick(scheduler, begin=11.0, seconds=30) == []


def test_an_arm_that_holds_its_turn_ends_the_turns_after_a_while() -> None:
    scheduler = make_pair(give_up_seconds=10.0, suspend_seconds=3.0)
    ask_all(scheduler, "a", Meet(0, 5), at=0.0)
    (holder,) = (each.arm for each in ask_all(scheduler, "b", Meet(0, 5), at=0.0) if isinstance(each, Answer))
    assert tick(scheduler, begin=0.0, seconds=3) == []
    assert tick(scheduler, begin=3.5, seconds=0) == [Resume("a"), Resume("b")]  # connections have time limits
    decisions = tick(scheduler, begin=4.0, seconds=7)
    assert scheduler.given_up == f"arm {holder} held its turn for 10 s"
    assert {each.arm for each in decisions if isinstance(each, Answer) and each.steps is None} == {"a", "b"}


def test_time_in_which_the_scheduler_itself_was_suspended_costs_no_patience() -> None:
    scheduler = make_pair(give_up_seconds=10.0)
    ask_all(scheduler, "a", Meet(0, 5), at=0.0)
    scheduler.tick(at=0.0)
    assert scheduler.tick(at=3600.0) == [] and scheduler.given_up is None


def test_waiting_for_a_point_that_the_other_arm_runs_alone_costs_no_patience() -> None:
    scheduler = make_pair(give_up_seconds=10.0)
    ask_all(scheduler, "b", Meet(9, 5), at=0.0)
    ask_all(scheduler, "a", Meet(0, 5), at=0.0)
    assert scheduler.state_of("a") is State.RUNNING
    for second in range(0, 40, 5):
        tick(scheduler, begin=float(second), seconds=4.5)
        ask_all(scheduler, "a", Steps(), at=second + 5.0)
    assert scheduler.given_up is None


def test_three_arms_take_turns_each_round_and_its_reverse() -> None:
    simulation = simulate({name: [(0, 30), (1, 17)] for name in "abc"})
    assert simulation.steps == {name: [30, 17] for name in "abc"}
    order = [turn.arm for turn in simulation.scheduler.turns if turn.place == 0]
    rounds = [order[n : n + 3] for n in range(0, len(order), 3)]
    assert all(sorted(each) == list("abc") for each in rounds)
    assert all(second == first[::-1] for first, second in zip(rounds[::2], rounds[1::2], strict=False))


def test_a_point_of_three_arms_begins_when_all_are_there_and_goes_on_without_those_that_are_lost() -> None:
    scheduler = make_scheduler("abc")
    for arm in "abc":
        scheduler.join(arm, 0, world_size=1)
    assert ask_all(scheduler, "a", Meet(0, 5), at=0.0) == ask_all(scheduler, "b", Meet(0, 5), at=0.0) == []
    first = ask_all(scheduler, "c", Meet(0, 5), at=2.0)
    (running,) = (each.arm for each in first if isinstance(each, Answer))
    assert {each.arm for each in first if isinstance(each, Suspend)} == set("abc") - {running}
    lost = scheduler.lose(running, 0, at=3.0)
    (second,) = (each.arm for each in lost if isinstance(each, Answer))
    third = next(iter(set("abc") - {running, second}))
    assert scheduler.retire(third, at=4.0) == [Resume(third)] and scheduler.state_of(second) is State.RUNNING
    # The lost arm's fresh ranks are waited for at the next point, the retired arm is not.
    assert Answer(second, (0,), None) in ask_all(scheduler, second, Leave(), at=5.0)
    assert ask_all(scheduler, second, Meet(1, 5), at=5.0) == [] and not scheduler.is_busy
    scheduler.join(running, 0, world_size=1)
    assert any(isinstance(each, Answer) for each in ask_all(scheduler, running, Meet(1, 5), at=9.0))
    assert scheduler.is_busy


def test_three_arms_of_which_one_never_comes_say_whom_they_waited_for() -> None:
    scheduler = make_scheduler("abc", limits=TurnLimits(give_up_seconds=10.0))
    scheduler.join("a", 0, world_size=1)
    ask_all(scheduler, "a", Meet(0, 5), at=0.0)
    tick(scheduler, begin=0.0, seconds=11)
    assert scheduler.given_up == "arm a waited for the other arms for 10 s"


def test_without_a_limit_nobody_is_given_up_and_what_was_waited_is_known() -> None:
    """a waits 100 s for b to come, then each has one turn of 4 s."""
    scheduler = make_pair(give_up_seconds=math.inf)
    ask_all(scheduler, "a", Meet(0, 1), at=0.0)
    tick(scheduler, begin=0.0, seconds=100)
    (first,) = (each.arm for each in ask_all(scheduler, "b", Meet(0, 1), at=100.0) if isinstance(each, Answer))
    second = "b" if first == "a" else "a"
    assert scheduler.waited_seconds(second, at=102.0) - scheduler.waited_seconds(first, at=102.0) == pytest.approx(
        102.0 if second == "a" else 2.0 - 100.0
    )
    ask_all(scheduler, first, Leave(), at=104.0)
    ask_all(scheduler, second, Leave(), at=108.0)
    assert {arm: scheduler.waited_seconds(arm, at=200.0) for arm in "ab"} == {"a": 104.0, "b": 4.0}
    assert scheduler.given_up is None


def test_what_an_arm_waits_for_is_said_with_the_name_of_the_other() -> None:
    scheduler = make_pair(give_up_seconds=math.inf)
    assert scheduler.describe_wait("a") is None, "it is at no point"
    ask_all(scheduler, "a", Meet(0, 2), at=0.0)
    assert scheduler.describe_wait("a") == "it waited for b to come to the same point"
    (first,) = (each.arm for each in ask_all(scheduler, "b", Meet(0, 2), at=1.0) if isinstance(each, Answer))
    second = "b" if first == "a" else "a"
    assert scheduler.describe_wait(second) == f"it waited for its turn, which {first} had"
    assert scheduler.describe_wait(first) is None, "it has the turn"
    ask_all(scheduler, first, Leave(), at=2.0)
    assert scheduler.describe_wait(first) == f"it had done its steps and waited for {second} to do theirs"
    scheduler.lose(second, 0, at=3.0)
    assert scheduler.describe_wait(first) is None


def test_of_three_arms_all_that_are_missing_are_named() -> None:
    scheduler = make_scheduler("abc", limits=TurnLimits(give_up_seconds=math.inf))
    for arm in "abc":
        scheduler.join(arm, 0, world_size=1)
    ask_all(scheduler, "a", Meet(0, 2), at=0.0)
    assert scheduler.describe_wait("a") == "it waited for b and c to come to the same point"
    scheduler.retire("b", at=1.0)
    assert scheduler.describe_wait("a") == "it waited for c to come to the same point"


def test_an_unknown_arm_is_no_rank() -> None:
    with pytest.raises(KeyError):
        make_scheduler("ab").join("c", 0, world_size=1)


POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 40)), unique_by=lambda point: point[0], max_size=5)


@settings(max_examples=200, deadline=None)
@given(plans=st.lists(POINTS.map(sorted), min_size=2, max_size=4), slower=st.floats(0.1, 10), seed=st.integers(0, 9))
def test_any_arms_get_to_their_end(plans: list[Points], slower: float, seed: int) -> None:
    points = {f"arm{number}": plan for number, plan in enumerate(plans)}
    step_seconds = {name: 0.001 * slower**number for number, name in enumerate(points)}
    scheduler = make_scheduler(list(points), seed=seed)
    simulation = Simulation(scheduler=scheduler, points=points, step_seconds=step_seconds)
    simulation.run()
    assert simulation.steps == {name: [steps for _, steps in plan] for name, plan in points.items()}
    assert scheduler.given_up is None and all(scheduler.state_of(arm) is State.AWAY for arm in points)

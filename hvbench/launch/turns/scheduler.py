"""Whose turn it is among launches that live at the same time, the arms: events in, decisions out. Pure.

The ranks of all arms ask before each block of steps (`hvbench.worker.turns` has the protocol). The arms begin a point
together. A turn is a few steps, the same number for every arm; each round's order is followed by its reverse, and drawn at
random (AB BA, or ABC CBA). While one arm runs, the ranks of the others are suspended: Horovod's background thread and the
spinning threads of a BLAS would take time from the arm that runs. They are resumed after a few seconds in any case, because
the connections between them have time limits.

No arm waits without end: a rank whose connection closes ends its arm's point; an arm that has ended is not waited for;
a turn, or a wait for other arms, that takes too long ends turn-taking for all, and `given_up` says why. Who ends slow ranks
itself sets no such limit, and asks how long an arm has waited.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hvbench.launch.turns import GIVE_UP_SECONDS

BLOCK_SECONDS = 0.02  # of a turn, and never less than one step: what disturbs a step often disturbs the next, too
LEAST_TURNS = 8  # of a point, for each arm
SUSPEND_SECONDS = 5.0  # for which ranks are suspended at most; Gloo takes a peer for lost after 30
MOST_TICK_SECONDS = 1.0  # between two ticks; more says that this process was itself suspended


class State(enum.Enum):
    """Where an arm is."""

    AWAY = "at no point"
    MEETING = "at a point that has not begun: it waits for the other arms"
    WAITING = "at a point: it waits for its turn"
    RUNNING = "it has the turn"
    DONE = "it has done its steps: it waits until the other arms have, too"


WAITS = (State.MEETING, State.WAITING, State.DONE)


# What ranks ask. All ranks of an arm ask the same.


@dataclass(frozen=True)
class Meet:
    """Wait for the other arms at the point number `place`, of so many steps, then for a turn."""

    place: int
    steps: int


@dataclass(frozen=True)
class Steps:
    """The turn is over: wait for the next one."""


@dataclass(frozen=True)
class Leave:
    """The point is done."""


Request = Meet | Steps | Leave


# What the server has to do, in the order given.


@dataclass(frozen=True)
class Answer:
    """Let these ranks of the arm run `steps` steps; None: without further turns."""

    arm: str
    ranks: tuple[int, ...]
    steps: int | None


@dataclass(frozen=True)
class Suspend:
    """Suspend the processes of the arm's ranks."""

    arm: str


@dataclass(frozen=True)
class Resume:
    """Resume the processes of the arm's ranks, where they are suspended."""

    arm: str


Decision = Answer | Suspend | Resume


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A turn that is over: which arm ran how many steps of which point, and how long it held the turn."""

    place: int
    arm: str
    steps: int
    seconds: float
    control_seconds: float | None = None  # of the fixed kernel at its beginning


@dataclass(frozen=True, kw_only=True)
class TurnLimits:
    """How long turns and waits are."""

    block_seconds: float = BLOCK_SECONDS
    give_up_seconds: float = GIVE_UP_SECONDS  # infinite: somebody else ends an arm that takes too long
    suspend_seconds: float = SUSPEND_SECONDS  # 0: nothing is ever suspended


@dataclass(eq=False, kw_only=True)
class _Arm:
    """What is known of one arm."""

    name: str
    state: State = State.AWAY
    place: int = -1
    steps: int = 1
    world_size: int = 0
    ranks: set[int] = field(default_factory=set)
    asked: set[int] = field(default_factory=set)
    passed: set[int] = field(default_factory=set)  # places that it will not come to again
    has_ended: bool = False
    since: float = 0.0  # when its state changed; of a turn, when its ranks were let go
    waited_seconds: float = 0.0  # in states of WAITS, but for the present one
    control_seconds: float | None = None  # at the beginning of its turn
    patience_seconds: float = 0.0  # in its state, of those in which this process was not suspended itself

    @property
    def is_inside(self) -> bool:
        """Whether it is at a point that has begun."""
        return self.state in (State.WAITING, State.RUNNING, State.DONE)

    def enter(self, state: State, *, at: float) -> None:
        """Change its state."""
        self.waited_seconds = self.waited(at)
        self.state, self.since, self.patience_seconds = state, at, 0.0

    def waited(self, at: float) -> float:
        """Seconds that it has waited for others, all together."""
        return self.waited_seconds + (max(0.0, at - self.since) if self.state in WAITS else 0.0)

    def answer(self, steps: int | None) -> Answer:
        """The same answer for all its ranks."""
        self.asked.clear()
        return Answer(self.name, tuple(sorted(self.ranks)), steps)


class TurnScheduler:
    """Decides whose turn it is. Each method is an event at the time `at` (seconds of any steady clock)."""

    def __init__(
        self, names: Sequence[str], *, shuffle: Callable[[list[Any]], None], limits: TurnLimits | None = None
    ) -> None:
        """Args: `shuffle` puts a list into random order, in place."""
        self.given_up: str | None = None  # why turn-taking has ended for all arms
        self.turns: list[Turn] = []
        self._arms = {name: _Arm(name=name) for name in names}
        self._limits = limits or TurnLimits()
        self._shuffle = shuffle
        self._queue: list[_Arm] = []  # whose turn comes next, in this round and the next
        self._turn_steps = 1
        self._step_seconds: dict[str, float] = {}  # of each arm's last turn at this point
        self._ticked_at: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The arms."""
        return tuple(self._arms)

    def state_of(self, arm: str) -> State:
        """Where an arm is."""
        return self._arms[arm].state

    @property
    def is_busy(self) -> bool:
        """Whether any arm is at a point that has begun."""
        return any(arm.is_inside for arm in self._arms.values())

    def waited_seconds(self, arm: str, *, at: float) -> float:
        """For how long an arm has waited for others so far: to come to its point, for its turn, to leave."""
        return self._arms[arm].waited(at)

    def describe_wait(self, name: str) -> str | None:
        """For what, and for whom, an arm waits, as the end of a sentence; None: it does not."""
        arm = self._arms[name]
        others = [other for other in self._arms.values() if other is not arm and not other.has_ended]
        match arm.state:
            case State.MEETING:
                missing = [other for other in others if (other.state, other.place) != (arm.state, arm.place)]
                return f"it waited for {_name(missing)} to come to the same point"
            case State.WAITING:
                return f"it waited for its turn, which {_name([o for o in others if o.state is State.RUNNING])} had"
            case State.DONE:
                left = [other for other in others if other.state in (State.WAITING, State.RUNNING)]
                return f"it had done its steps and waited for {_name(left)} to do theirs"
            case _:
                return None

    def join(self, arm: str, rank: int, *, world_size: int) -> None:
        """A rank has connected; raises KeyError for an unknown arm."""
        self._arms[arm].ranks.add(rank)
        self._arms[arm].world_size = world_size

    def ask(self, name: str, rank: int, request: Request, *, at: float) -> list[Decision]:
        """A rank asks, and waits for the answer. When all ranks of its arm have asked, the arm's turn is over."""
        if self.given_up is not None:
            return [Answer(name, (rank,), None)]
        arm = self._arms[name]
        arm.asked.add(rank)
        if len(arm.asked) < arm.world_size:
            return []
        if arm.state is State.RUNNING:
            self._end_turn(arm, seconds=at - arm.since)
        match request:
            case Meet(place, steps):
                arm.place, arm.steps = place, max(1, steps)
                arm.enter(State.MEETING, at=at)
            case Leave():
                arm.enter(State.DONE, at=at)
            case Steps():
                arm.enter(State.WAITING, at=at)
        return self._settle(at)

    def begin_turn(self, name: str, *, control_seconds: float | None, at: float) -> None:
        """The ranks of the arm that has the turn are let go now: its turn is timed from here."""
        arm = self._arms[name]
        arm.since, arm.control_seconds = at, control_seconds

    def lose(self, name: str, rank: int, *, at: float) -> list[Decision]:
        """The connection of a rank is closed: the point at which its arm was has ended for the arm."""
        arm = self._arms[name]
        arm.ranks.discard(rank)
        return [*self._abandon_point(arm, at=at), *self._settle(at)]

    def retire(self, name: str, *, at: float) -> list[Decision]:
        """The launch of an arm has ended: it is not waited for any more."""
        arm = self._arms[name]
        arm.has_ended = True
        return [*self._abandon_point(arm, at=at), *self._settle(at)]

    def tick(self, *, at: float) -> list[Decision]:
        """Time has passed: resume ranks that were suspended for long, and give up where an arm takes too long."""
        # This process may have been suspended for minutes (Ctrl-Z, a sleeping machine): no arm's patience pays for that.
        seconds = min(at - (at if self._ticked_at is None else self._ticked_at), MOST_TICK_SECONDS)
        self._ticked_at = at
        is_begun = self.is_busy
        decisions: list[Decision] = []
        for arm in self._arms.values():
            arm.patience_seconds += seconds
            if arm.state is State.MEETING and is_begun:  # it waits for a point that others have for themselves
                arm.patience_seconds = 0.0
            if arm.state is State.RUNNING and arm.patience_seconds > self._limits.suspend_seconds:
                decisions += self._resume_all()
            is_late = arm.patience_seconds > self._limits.give_up_seconds
            if is_late and arm.state in (State.RUNNING, State.MEETING) and self.given_up is None:
                others = "the other arm" if len(self._arms) == 2 else "the other arms"
                did = "held its turn" if arm.state is State.RUNNING else f"waited for {others}"
                self.given_up = f"arm {arm.name} {did} for {self._limits.give_up_seconds:g} s"
                decisions += [*self._resume_all(), *(each.answer(None) for each in self._arms.values())]
        return decisions

    def _end_turn(self, arm: _Arm, *, seconds: float) -> None:
        values = {"steps": self._turn_steps, "seconds": seconds, "control_seconds": arm.control_seconds}
        self.turns.append(Turn(place=arm.place, arm=arm.name, **values))
        self._step_seconds[arm.name] = seconds / self._turn_steps

    def _abandon_point(self, arm: _Arm, *, at: float) -> list[Decision]:
        if arm.state is not State.AWAY:
            arm.passed.add(arm.place)
        arm.asked.clear()
        arm.enter(State.AWAY, at=at)
        return [Resume(arm.name)]  # its other ranks have to notice

    def _settle(self, at: float) -> list[Decision]:
        """Begin or end a point, or give the next turn, if no arm has it."""
        inside = [arm for arm in self._arms.values() if arm.is_inside]
        if self.given_up is not None or any(arm.state is State.RUNNING for arm in inside):
            return []
        decisions: list[Decision] = []
        if inside and all(arm.state is State.DONE for arm in inside):
            for arm in inside:
                decisions += [*self._abandon_point(arm, at=at), arm.answer(None)]
            inside = []
        inside = inside or self._begin_point(at)
        while waiting := [arm for arm in inside if arm.state is State.WAITING]:
            if not self._queue:
                self._plan_rounds(inside)
            if (arm := self._queue.pop(0)) in waiting:
                return [*decisions, *self._give_turn(arm, at=at)]
        return decisions

    def _begin_point(self, at: float) -> list[_Arm]:
        """The arms that begin a point now: all at the same one, or those alone to which the others will not come."""
        meeting = [arm for arm in self._arms.values() if arm.state is State.MEETING]
        coming = [arm for arm in self._arms.values() if arm.state is not State.MEETING and not arm.has_ended]
        place = min((arm.place for arm in meeting), default=-1)
        ready = [arm for arm in meeting if arm.place == place]
        if not ready or any(place not in arm.passed for arm in coming):
            return []
        for arm in ready:
            arm.enter(State.WAITING, at=at)
        self._queue, self._step_seconds, self._turn_steps = [], {}, 1
        return ready

    def _plan_rounds(self, inside: Sequence[_Arm]) -> None:
        """The next two rounds, one the reverse of the other, and how many steps a turn has in them."""
        order = list(inside)
        self._shuffle(order)
        self._queue = [*order, *reversed(order)]
        slowest, steps = max(self._step_seconds.values(), default=0.0), min(arm.steps for arm in inside)
        if slowest:
            self._turn_steps = max(1, min(int(self._limits.block_seconds / slowest), steps // LEAST_TURNS))

    def _give_turn(self, arm: _Arm, *, at: float) -> list[Decision]:
        others = [other for other in self._arms.values() if other is not arm and other.state in WAITS]
        arm.enter(State.RUNNING, at=at)
        return [*(Suspend(other.name) for other in others), Resume(arm.name), arm.answer(self._turn_steps)]

    def _resume_all(self) -> list[Decision]:
        return [Resume(name) for name in self._arms]


def _name(arms: Sequence[_Arm]) -> str:
    """`tensorflow`, or `b and c`."""
    return " and ".join(arm.name for arm in arms) or "nobody"

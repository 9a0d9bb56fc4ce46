"""Turns with real processes: one arm runs at a time, and no arm waits without end for another that is gone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hvbench.comparison.ab.control import make_turn_control, summarize_turns
from hvbench.comparison.ab.pairs import AbRun, Launched, describe_launching, read_controls
from hvbench.comparison.gate.rule import LEVELS, find_moved
from hvbench.launch.turns import VARIABLE
from hvbench.launch.turns.scheduler import LEAST_TURNS, State, TurnLimits
from hvbench.launch.turns.server import TurnServer
from hvbench.plan.turns import find_obstacle
from hvbench.spec.point import Point
from hvbench.worker.turns import Turns, join_turns, stretch_timeout
from tests import patience
from tests.unit.sample_probe import make_supervised

# One rank: at each place it takes its steps, writes when each began and ended, and does what it is told at one of them.
RANK = """
import json, os, sys, time
from hvbench.worker.turns import join_turns
rank, size, places, mishap = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]), json.loads(sys.argv[4])
turns = join_turns(rank=rank, world_size=size)
for place, steps in places:
    with turns.at(place, steps=steps):
        for step in range(steps):
            turns.step()
            begun = time.monotonic()
            if mishap.get("at") == [rank, place, step]:
                if mishap["kind"] == "die": os._exit(9)
                while mishap["kind"] == "hang": time.sleep(60)
            time.sleep(0.004)
            print(json.dumps([place, step, begun, time.monotonic(), time.process_time()]), flush=True)
"""

Start = Callable[..., list[subprocess.Popen]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts the ranks of one arm; none of them outlives the test."""
    started: list[subprocess.Popen] = []

    def begin(
        server: TurnServer, arm: str, places: list[list[int]], *, size: int = 2, **mishap: object
    ) -> list[subprocess.Popen]:
        environment = os.environ | {VARIABLE: server.variable(arm)}
        ranks = [
            subprocess.Popen(
                [sys.executable, "-c", RANK, str(rank), str(size), json.dumps(places), json.dumps(mishap)],
                env=environment, stdout=subprocess.PIPE, text=True,
            )
            for rank in range(size)
        ]  # fmt: skip
        started.extend(ranks)
        return ranks

    yield begin
    for each in started:
        each.kill()
        each.communicate()


def finish(ranks: list[subprocess.Popen]) -> list[list[list[float]]]:
    """What each rank wrote once it ended."""
    told = [each.communicate(timeout=patience.SECONDS)[0] for each in ranks]
    return [[json.loads(line) for line in text.splitlines()] for text in told]


def test_one_arm_runs_at_a_time_both_at_the_same_point(start: Start) -> None:
    places = [[0, 30], [1, 17]]
    beside = []  # which arm has the turn when the control is measured: the machine is 10 % slower beside b's

    def measure() -> float:
        running = [name for name in "ab" if server._scheduler.state_of(name) is State.RUNNING]
        beside.append("".join(running))
        return 1.1e-3 if running == ["b"] else 1e-3

    with TurnServer("ab", limits=TurnLimits(block_seconds=1.0), measure_control=measure) as server:
        arms = {name: start(server, name, places) for name in "ab"}
        told = {name: finish(ranks) for name, ranks in arms.items()}
        assert server.given_up is None
    assert all([each.returncode for each in ranks] == [0, 0] for ranks in arms.values())
    for ranks in told.values():
        assert [[place, step] for place, step, *_ in ranks[0]] == [[p, s] for p, steps in places for s in range(steps)]
    steps = sorted(
        (begun, ended, name) for name, ranks in told.items() for rank in ranks for _, _, begun, ended, _ in rank
    )
    overlaps = [
        one for one, next_one in zip(steps, steps[1:], strict=False) if one[1] > next_one[0] and one[2] != next_one[2]
    ]
    assert not overlaps
    last_of_first = max(each[3] for ranks in told.values() for rank in ranks for each in rank if each[0] == 0)
    assert last_of_first < min(each[2] for ranks in told.values() for rank in ranks for each in rank if each[0] == 1)
    # The control is measured once a turn, for the arm whose turn begins, and is no part of the turn's time.
    assert beside == [turn.arm for turn in server.turns]
    own = {name: summarize_turns([turn.control_seconds for turn in server.turns if turn.arm == name]) for name in "ab"}
    assert own == {"a": [1e-3, 1e-3], "b": [1.1e-3, 1.1e-3]}
    # Blocks of several steps, as many for one arm as for the other, and each goes first in half of the rounds.
    turns = [turn for turn in server.turns if turn.place == 0]
    assert {turn.steps for turn in turns} >= {1, 3} and max(turn.steps for turn in turns) == 30 // LEAST_TURNS
    order = [turn.arm for turn in turns]
    assert all(set(order[n : n + 2]) == {"a", "b"} for n in range(0, len(order) - 2, 2))
    assert all(order[n : n + 4] in (list("abba"), list("baab")) for n in range(0, len(order) - 4, 4))


def test_a_waiting_rank_is_suspended_with_all_its_threads_and_processes(start: Start) -> None:
    """A rank that spins in another thread, and in a process that it forked, takes no processor time in the other arm's turn."""
    spinning = (
        "import os, threading\nparent, child = os.getpid(), os.fork()\n"
        "if not child:\n while os.getppid() == parent: pass\n os._exit(0)\n"
        "print(child, flush=True)\n"
        "def spin():\n while True: pass\nthreading.Thread(target=spin, daemon=True).start()\n"
    )
    with TurnServer("ab", limits=TurnLimits(suspend_seconds=600.0)) as server:
        environment = os.environ | {VARIABLE: server.variable("a")}
        words = ["0", "1", "[[0, 2]]", "{}"]
        with subprocess.Popen(
            [sys.executable, "-c", spinning + RANK, *words],
            env=environment,
            stdout=subprocess.PIPE,
            start_new_session=True,  # as every worker and script is started
        ) as rank:
            processes = [rank.pid, int(rank.stdout.readline())]
            with connect(server, "b") as other, other.at(0, steps=2):
                other.step()
                for process in processes:
                    wait_until_stopped(process)
                used = [[used_ticks(process) for process in processes]]
                time.sleep(0.5)
                used.append([used_ticks(process) for process in processes])
                other.step()
            rank.communicate(timeout=patience.SECONDS)
    assert used[1] == used[0]


# What a script's rank starts: a process of its own group, a session of its own, and a daemon that nobody waits for; each
# tells its number, and spins for as long as it is not told to end.
STARTING = """
import os
def spin(name):
    with open(f"{folder}/{name}.part", "w") as file:
        file.write(str(os.getpid()))
    os.rename(f"{folder}/{name}.part", f"{folder}/{name}")
    while not os.path.exists(f"{folder}/end"): pass
    os._exit(0)
folder = sys.argv.pop(1)
if not os.fork():
    os.setpgid(0, 0)
    spin("group")
if not os.fork():
    os.setsid()
    spin("session")
if not os.fork():
    if not os.fork():
        os.setsid()
        spin("daemon")
    os._exit(0)
still = os.fork()
if not still:
    spin("still")
while not all(os.path.exists(f"{folder}/{name}") for name in ("group", "session", "daemon", "still")): time.sleep(0.01)
os.kill(still, 19)
"""


HANG = json.dumps({"kind": "hang", "at": [0, 0, 1]})  # so that the script does not end while it is looked at


def test_whatever_a_script_has_started_rests_with_it(tmp_path: Path) -> None:
    """In a group, a session or a family of its own; what the script itself has stopped stays stopped in its turn."""
    folder = tmp_path / "rank"
    program = f"import sys, time\nsys.argv[2:] = ['0', '1', '[[0, 2]]', '{HANG}']\n{STARTING}{RANK}"
    with TurnServer("ab", limits=TurnLimits(suspend_seconds=600.0)) as server:
        environment = os.environ | {VARIABLE: server.variable("a")}
        with subprocess.Popen(
            make_supervised(folder, program), env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        ) as supervisor:
            try:
                with connect(server, "b") as other:
                    inside = other.at(0, steps=2)
                    inside.__enter__()  # and never left: the script ends no point
                    other.step()
                    names = ("group", "session", "daemon", "still")
                    while not all((folder / name).exists() for name in names):
                        time.sleep(0.01)
                    started = [int((folder / name).read_text()) for name in names]
                    for process in started:
                        wait_until_stopped(process)
                    used = [used_ticks(process) for process in started]
                    time.sleep(0.2)
                    assert [used_ticks(process) for process in started] == used
                told = supervisor.stdout.readline()  # of a step in its own turn
                assert json.loads(told)[:2] == [0, 0]
                *others, still = started
                while any(used_ticks(process) <= before for process, before in zip(others, used, strict=False)):
                    time.sleep(0.01)  # or the test's own time limit ends it
                assert used_ticks(still) == used[-1]
            finally:
                supervisor.terminate()
            supervisor.communicate(timeout=patience.SECONDS)


@contextlib.contextmanager
def connect(server: TurnServer, arm: str) -> Iterator[Turns]:
    """This process as the one rank of an arm: it holds the turn server, which therefore does not suspend it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, server.variable(arm))
        with join_turns(rank=0, world_size=1) as turns:
            yield turns


def wait_until_stopped(pid: int) -> None:
    deadline = time.monotonic() + patience.SECONDS
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def used_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@pytest.mark.parametrize("at", [[0, 0, 1], [1, 0, 9]], ids=["rank 0, early", "rank 1, late"])
def test_a_rank_that_dies_ends_its_arms_point_alone(start: Start, at: list[int]) -> None:
    with TurnServer("ab") as server:
        dying = start(server, "b", [[0, 12]], kind="die", at=at)
        healthy = start(server, "a", [[0, 12]])
        assert [len(rank) for rank in finish(healthy)] == [12, 12]
        # What its agent does next: end the rest, and start fresh ranks at the next point.
        for each in dying:
            each.kill()
            each.wait()
        again = start(server, "b", [[1, 5]])
        other = start(server, "a", [[1, 5]])
        assert [len(rank) for rank in finish(again) + finish(other)] == [5] * 4
        assert server.given_up is None


def test_a_rank_that_hangs_frees_the_other_arm_after_a_while(start: Start) -> None:
    with TurnServer("ab", limits=TurnLimits(give_up_seconds=1.0)) as server:
        start(server, "b", [[0, 12]], kind="hang", at=[0, 0, 5])
        assert [len(rank) for rank in finish(start(server, "a", [[0, 12], [1, 3]]))] == [15, 15]
        assert server.given_up == "arm b held its turn for 1 s"


def test_an_arm_that_never_comes_frees_the_other_after_a_while(start: Start) -> None:
    with TurnServer("ab", limits=TurnLimits(give_up_seconds=0.5)) as server:
        assert [len(rank) for rank in finish(start(server, "a", [[0, 3]]))] == [3, 3]
        assert server.given_up == "arm a waited for the other arm for 0.5 s"


def test_an_arm_that_has_ended_is_not_waited_for(start: Start) -> None:
    with TurnServer("ab") as server:
        ranks = start(server, "a", [[0, 3], [1, 3]])
        assert [len(rank) for rank in finish(start(server, "b", [[0, 3]]))] == [3, 3]
        server.retire("b")
        assert [len(rank) for rank in finish(ranks)] == [6, 6]


def test_an_arm_with_fewer_steps_or_points_leaves_earlier(start: Start) -> None:
    """Point 1 is only in one arm, point 2 in the other, and point 3 has fewer steps in one."""
    with TurnServer("ab") as server:
        arms = [start(server, "a", [[0, 2], [1, 4], [3, 9]]), start(server, "b", [[0, 2], [2, 4], [3, 2]])]
        assert [len(rank) for ranks in arms for rank in finish(ranks)] == [15, 15, 8, 8]
        assert server.given_up is None
    assert {turn.arm for turn in server.turns if turn.place == 1} == {"a"}
    assert {turn.arm for turn in server.turns if turn.place == 2} == {"b"}
    assert {turn.arm for turn in server.turns if turn.place == 3} == {"a", "b"}


def test_the_end_of_the_server_resumes_suspended_ranks(start: Start) -> None:
    with TurnServer("ab") as server:
        (rank,) = start(server, "a", [[0, 2]], size=1)
        with connect(server, "b") as other, pytest.raises(ConnectionError, match="is gone"), other.at(0, steps=2):
            wait_until_stopped(rank.pid)
            server.__exit__()
            assert rank.wait(timeout=patience.SECONDS) == 1  # "the turn server is gone"
            while True:
                other.step()
    assert not server.path.exists()


def test_without_a_turn_server_no_rank_waits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    turns = join_turns(rank=0, world_size=1)
    with turns.at(0, steps=1):
        turns.step()
        turns.step()
    assert stretch_timeout(300.0) == 300.0
    monkeypatch.setenv(VARIABLE, f"a:{tmp_path / 'nowhere'}")
    assert stretch_timeout(300.0) > 600.0
    with pytest.raises(ConnectionError, match="no turn server there: No such file"):
        join_turns(rank=0, world_size=1)


def test_ranks_in_turns_share_out_the_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    all_cores = os.sched_getaffinity(0)
    code = "import sys, os; from hvbench.launch.own_process import keep_to_own_cores as k; k(local_rank=int(sys.argv[1]), local_size=int(sys.argv[2]))"

    def cores(rank: int, size: int) -> set[int]:
        told = subprocess.run(
            [sys.executable, "-c", f"{code}; print(*os.sched_getaffinity(0))", str(rank), str(size)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return {int(word) for word in told.stdout.split()}

    monkeypatch.delenv(VARIABLE, raising=False)
    assert cores(0, 2) == all_cores
    monkeypatch.setenv(VARIABLE, "a:nowhere")
    assert cores(0, 1) == all_cores
    shares = [cores(rank, len(all_cores)) for rank in range(len(all_cores))]
    assert all(len(share) == 1 for share in shares) and set().union(*shares) == all_cores
    assert len(cores(len(all_cores), 2 * len(all_cores))) == 1  # more ranks than cores


@pytest.mark.parametrize("words", [b"\n", b"[]\n", b'"x"\n', b'{"arm": "c", "rank": 0, "ranks": 1}\n', b"x" * 5000])
def test_a_stranger_is_disconnected(words: bytes, start: Start) -> None:
    import socket

    with TurnServer("ab") as server:
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(str(server.path))
            stranger.sendall(words)
            stranger.settimeout(30)
            assert stranger.recv(1) == b""
        (rank,) = start(server, "a", [[0, 1]], size=1)
        server.retire("b")
        assert len(finish([rank])[0]) == 1


@pytest.mark.parametrize(
    ("fields", "place", "reason"),
    [
        ({}, {}, None),
        ({}, {"is_single_host": False}, "their ranks are on several hosts"),
        ({"strategy": "parameter_server"}, {}, "a parameter server takes no turns"),
        ({}, {"has_gpu": True}, "both would need the GPU's memory at the same time"),
        ({"device": "cpu"}, {"has_gpu": True}, None),
    ],
)
def test_where_turns_cannot_be_taken_the_reason_is_said(fields: dict, place: dict, reason: str | None) -> None:
    assert find_obstacle([Point(**fields)], **{"is_single_host": True, "has_gpu": False} | place) == reason


def test_the_verdict_says_how_the_pairs_were_launched() -> None:
    launches = [
        Launched(pair=pair, arm=arm, control_seconds=[1.0, 1.0], seconds=1.0, exit_code=0, in_turns=pair < 2)
        for pair in range(3)
        for arm in "ab"
    ]
    run = AbRun(path=Path(), suite="x", arms={}, orders=[], seed=0, command="", created_at="", launches=launches[:4])
    assert describe_launching(run) == "the two launches of each pair took turns, a few steps each"
    run.launches, run.apart_because = launches, "arm b did not get to its end in pair 3"
    assert (
        describe_launching(run) == "1 pairs were launched one after the other: arm b did not get to its end in pair 3"
    )


def launched_in_turns(controls: dict[str, list[list[float]]]) -> AbRun:
    """A run whose pairs took turns; arm -> the control of each of its launches."""
    launches = [
        Launched(pair=pair, arm=arm, control_seconds=seconds, seconds=1.0, exit_code=0, in_turns=True)
        for arm, rows in controls.items()
        for pair, seconds in enumerate(rows)
    ]
    arms, orders = {"a": {}, "b": {}}, ["ab"] * 18
    return AbRun(path=Path(), suite="x", arms=arms, orders=orders, seed=0, command="", created_at="", launches=launches)


def test_in_turns_each_arm_has_a_control_of_its_own_that_can_speak() -> None:
    quiet = [[1e-3 * (1 + 0.001 * pair), 1e-3] for pair in range(6)]
    slower = [[a * 1.05, b * 1.05] for a, b in quiet]
    for rows, says in ((quiet[::-1], None), (slower, "a fixed numpy kernel was 5.0 % slower beside B's launches")):
        controls = read_controls(launched_in_turns({"a": quiet, "b": rows}), [])
        moved = find_moved(controls, look=6, level=LEVELS[0])
        assert (
            controls.keys() == {"a fixed numpy kernel"}
            and (moved or "").startswith(says or "")
            and bool(moved) == bool(says)
        )


@pytest.mark.parametrize("rows", [[[1e-3, 1.1e-3]] * 6, [[]] * 6])
def test_a_control_that_both_arms_share_or_none_has_is_no_control(rows: list[list[float]]) -> None:
    assert read_controls(launched_in_turns({"a": rows, "b": rows}), []) == {}


def test_the_control_of_a_turn_is_measured_and_short() -> None:
    measure = make_turn_control()
    assert all(0 < measure() < 1 for _ in range(3))
    assert summarize_turns([1.0]) == [] and summarize_turns([1.0, 9.0, 1.0, 2.0, 2.0, 8.0]) == [1.0, 2.0]


def test_a_stop_signal_is_no_end(start: Start) -> None:
    """A rank that somebody else stops and continues goes on where it was."""
    with TurnServer("ab") as server:
        arms = [start(server, name, [[0, 20]], size=1) for name in "ab"]
        arms[0][0].send_signal(signal.SIGSTOP)
        time.sleep(0.1)
        arms[0][0].send_signal(signal.SIGCONT)
        assert [len(rank) for ranks in arms for rank in finish(ranks)] == [20, 20]


def test_a_thread_that_sees_the_end_before_it_is_told_costs_nothing() -> None:
    """Busy with connections that close, it looks at the flag on its own, and is gone when the word reaches it."""
    with TurnServer(["a", "b"]) as server:
        server._is_closing = True
        server._thread.join(timeout=patience.SECONDS)
        assert not server._thread.is_alive()
        server._is_closing = False
    assert not server.path.exists()

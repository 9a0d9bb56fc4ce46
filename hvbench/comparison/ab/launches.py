"""The two launches of a pair: in turns, both alive and one running at any moment, or one after the other.

Machines drift within seconds, and launches that follow each other see two machines. In turns (`hvbench.launch.turns.server`)
both see the same one, and the ratio of their median steps says what the program does.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from hvbench.comparison.ab.arms import Prepared
from hvbench.comparison.ab.control import make_turn_control, measure_control_seconds, summarize_turns
from hvbench.comparison.ab.pairs import AbRun, Launched
from hvbench.errors import LaunchError, StorageError
from hvbench.io.atomic import write_text
from hvbench.launch.turns import VARIABLE
from hvbench.launch.turns.server import TurnServer

END_SECONDS = 30.0  # for a sweep that is asked to stop
POLL_SECONDS = 0.05
OnLaunched = Callable[[Launched], None]


def launch_pair(run: AbRun, pair: int, arms: Mapping[str, Prepared], *, report: OnLaunched) -> None:
    """Launch both arms of a pair one after the other, in its order; raises LaunchError, StorageError."""
    for arm in run.orders[pair]:
        control = measure_control_seconds()
        begun = time.monotonic()
        # No turns of its own either: an arm of another revision may know none.
        variables = {VARIABLE: ""}
        process = begin(arms[arm], run, pair, variables=variables)
        (exit_code,) = wait_for({arm: process}).values()
        seconds = time.monotonic() - begun
        if exit_code not in (0, 1) or not has_records(run.folder(pair, arm)):
            log = log_of(run.folder(pair, arm))
            last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no message"])[-1]
            raise LaunchError(f"arm {arm}: its launch left no record: {last} (see {log})")
        launched = Launched(
            pair=pair,
            arm=arm,
            control_seconds=[control, measure_control_seconds()],
            seconds=seconds,
            exit_code=exit_code,
        )
        run.launches.append(launched)
        run.write()
        report(launched)


def launch_in_turns(run: AbRun, pair: int, arms: Mapping[str, Prepared], *, report: OnLaunched) -> str | None:
    """Launch both arms of a pair at the same time, taking turns; why it failed, or None. Raises LaunchError, StorageError.

    A pair that failed is kept beside the others and not counted: alone, an arm may do what it could not do here.
    """
    begun = time.monotonic()
    seconds: dict[str, float] = {}
    with TurnServer(run.orders[pair], seed=(run.seed, pair), measure_control=make_turn_control()) as server:

        def end(arm: str) -> None:
            seconds[arm] = time.monotonic() - begun
            server.retire(arm)

        processes: dict[str, subprocess.Popen] = {}
        try:
            for arm in run.orders[pair]:
                variables = {VARIABLE: server.variable(arm)}
                processes[arm] = begin(arms[arm], run, pair, variables=variables)
        except BaseException:
            stop(processes)
            raise
        exit_codes = wait_for(processes, on_end=end, stops_at_failure=True)
    failed = [
        arm for arm, code in exit_codes.items() if code or not has_records(run.folder(pair, arm))
    ]  # the first to end first
    reason = server.given_up or (f"arm {failed[0]} did not get to its end" if failed else None)
    keep_turns(run, pair, server, has_failed=reason is not None)
    if reason:
        return f"{reason} in pair {pair + 1}"
    for arm, exit_code in exit_codes.items():
        controls = summarize_turns([turn.control_seconds for turn in server.turns if turn.arm == arm])
        launched = Launched(
            pair=pair, arm=arm, control_seconds=controls, seconds=seconds[arm], exit_code=exit_code, in_turns=True
        )
        run.launches.append(launched)
        report(launched)
    run.write()
    return None


def keep_turns(run: AbRun, pair: int, server: TurnServer, *, has_failed: bool) -> None:
    """Write every turn to a file, and rename what a failed pair has left; raises StorageError."""
    rows = [
        [turn.place, turn.arm, turn.steps, round(turn.seconds, 6), round(turn.control_seconds, 7)]
        for turn in server.turns
    ]
    columns = ["place", "arm", "steps", "seconds", "control_seconds"]
    turns = {"columns": columns, "turns": rows, "given_up": server.given_up}
    folder = run.folder(pair, "turns")
    try:
        write_text(
            folder.with_name(f"{folder.name}.json"), json.dumps(turns, separators=(",", ":")) + "\n", durable=False
        )
        for launch in (run.folder(pair, arm) for arm in server.names) if has_failed else ():
            for path in (launch, log_of(launch)):
                if path.exists():
                    path.rename(path.with_name(f"in-turns-{path.name}"))
    except OSError as error:
        raise StorageError(f"{folder.parent}: cannot be written: {error.strerror}") from None


def begin(prepared: Prepared, run: AbRun, pair: int, *, variables: Mapping[str, str]) -> subprocess.Popen:
    """Start the sweep of one arm of a pair; raises LaunchError, StorageError."""
    folder = run.folder(pair, prepared.arm.name)
    # Every pair is a run of one repeat: how many are profiled is counted here.
    unprofiled = ["-s", "profile_rounds=0"] if pair >= prepared.profile_rounds > 0 else []
    words = ["sweep", *prepared.arguments, "--out", str(folder), "-s", "repeats=1", *unprofiled]
    command = prepared.command(words)
    environment = {**prepared.environment, **variables}
    log = log_of(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        output = log.open("wb")
    except OSError as error:
        raise StorageError(f"{log}: cannot be written: {error.strerror}") from None
    try:
        with output:
            return subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
    except OSError as error:
        raise LaunchError(f"arm {prepared.arm.name}: cannot be launched: {error}") from None


def wait_for(
    processes: Mapping[str, subprocess.Popen],
    *,
    on_end: Callable[[str], None] = lambda arm: None,
    stops_at_failure: bool = False,
) -> dict[str, int]:
    """Exit codes of sweeps: 0, or 1 with points that failed. When this process is stopped they end their workers first."""
    codes: dict[str, int] = {}
    try:
        while len(codes) < len(processes):
            time.sleep(POLL_SECONDS)
            for arm in processes.keys() - codes.keys():
                if (code := processes[arm].poll()) is None:
                    continue
                codes[arm] = code
                on_end(arm)
                if code and stops_at_failure:
                    stop(processes)
    except BaseException:
        stop(processes)
        raise
    return codes


def stop(processes: Mapping[str, subprocess.Popen]) -> None:
    """Ask the sweeps to end with their workers, and wait until they have."""
    for process in processes.values():
        process.terminate()
    for process in processes.values():
        try:
            process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def log_of(folder: Path) -> Path:
    """What the launch into `folder` printed."""
    return folder.with_name(f"{folder.name}.log")


def has_records(folder: Path) -> bool:
    """Whether a launch has left any."""
    return any((folder / "records").glob("*.json"))

"""An A/B comparison from its arguments to its verdict: launch pairs, look at 6, 12 and 18, stop when it is clear."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from hvbench.comparison.ab.arms import Arm, Prepared, prepare_arm, remove_worktrees
from hvbench.comparison.ab.launches import find_obstacle, launch_in_turns, launch_pair
from hvbench.comparison.ab.pairs import (
    AbRun,
    Launched,
    describe_arm,
    describe_launching,
    load_pairs,
    plan_orders,
    read_ab,
    read_controls,
)
from hvbench.comparison.compare import Comparison, compare
from hvbench.comparison.gate.judge import Judgement, judge_pairs
from hvbench.comparison.gate.policy import Policy
from hvbench.comparison.gate.rule import LOOKS
from hvbench.errors import Interrupted, StorageError, UsageError
from hvbench.records.fingerprint import SOFTWARE
from hvbench.spec.suite import Suite, apply_overrides

TREATMENT = (*SOFTWARE, "threads", "memory_limit_bytes")  # what arms may differ in; the machine they may not


def run_ab(
    suite: Suite,
    arms: Sequence[Arm],
    *,
    path: Path,
    policy: Policy,
    arguments: Sequence[str],
    seed: int,
    command: str,
    budget_seconds: float,
    report: Callable[[str], None],
    stops_early: bool = True,
    turns: bool | None = None,
) -> Judgement:
    """Launch pairs of `hvbench sweep ARGUMENTS` until the verdict is clear, 18 pairs are done or the budget is spent.

    The launches of a pair take turns where they can (`turns` None: not on a GPU that both would need), else one follows the other.
    Raises UsageError, StorageError and LaunchError.
    """
    changed = set().union(*(arm.changed_fields for arm in arms))
    if swept := sorted(changed & set(suite.axes)):
        raise UsageError(
            f"set={swept[0]}=…: {swept[0]} is an axis of {suite.name}; fix it for both arms with -s {swept[0]}=VALUE first"
        )
    now = datetime.now(UTC)
    run = AbRun(
        path=path, suite=suite.name, arms={arm.name: describe_arm(arm) for arm in arms}, orders=plan_orders(seed), seed=seed,
        command=command, created_at=now.isoformat(timespec="seconds"),
    )  # fmt: skip
    try:
        path.mkdir(parents=True, exist_ok=True)
        if (path / "ab.json").exists():
            raise StorageError(f"{path}: holds an A/B comparison already; choose another folder with --out")
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}; choose another folder with --out") from None
    run.write()
    try:
        with stoppable():
            prepared = {arm.name: prepare_arm(arm, worktrees=path / "worktrees") for arm in arms}
            run.apart_because = find_reason(suite, prepared, turns=turns)
            if run.apart_because:
                report(f"the launches of a pair follow each other: {run.apart_because}")
            return _launch_pairs(
                run, prepared, policy=policy, arguments=arguments, budget_seconds=budget_seconds, report=report,
                stops_early=stops_early,
            )  # fmt: skip
    except Interrupted as reason:
        raise Interrupted(f"{reason}; {run.pairs} complete pairs are kept, hvbench gate {path} judges them") from None
    finally:
        remove_worktrees(path / "worktrees")


def find_reason(suite: Suite, arms: Mapping[str, Prepared], *, turns: bool | None) -> str | None:
    """Why the launches of a pair cannot take turns, or should not; None when they do."""
    if turns is False:
        return "asked for by --no-turns"
    if unable := [arm.arm.name for arm in arms.values() if not arm.knows_turns]:
        return f"the hvbench of arm {' and '.join(unable)} knows no turns"
    points = [point for arm in arms.values() for point in apply_overrides(suite, arm.arm.overrides).points()]
    has_gpu = turns is None and any(Path("/dev").glob("nvidia[0-9]*"))
    return find_obstacle(points, is_single_host="HVBENCH_HOSTS" not in os.environ, has_gpu=has_gpu)


def _launch_pairs(
    run: AbRun, arms: Mapping[str, Prepared], *,
    policy: Policy, arguments: Sequence[str], budget_seconds: float, report: Callable[[str], None], stops_early: bool,
) -> Judgement:  # fmt: skip
    """Pair after pair, with a look where one is due; the last verdict."""
    begun = time.monotonic()
    launch = {"arguments": arguments, "report": lambda one: report(describe_launched(one))}
    for pair in range(LOOKS[-1]):
        if not run.apart_because and (reason := launch_in_turns(run, pair, arms, **launch)):
            run.apart_because = reason
            report(f"from here on the launches of a pair follow each other: {reason}")
        if run.apart_because:
            launch_pair(run, pair, arms, **launch)
        spent = time.monotonic() - begun
        is_spent = spent + spent / (pair + 1) > budget_seconds
        failed = any(each.exit_code for each in run.launches[-2:])
        if not (pair + 1 in LOOKS or is_spent or failed):
            continue
        judgement, problems = judge_run(run, policy=policy, today=run.created_at[:10])
        report(f"after {pair + 1} pairs: {judgement.headline()}")
        for problem in problems:
            report(f"not a readable record: {problem}")
        if judgement.is_final and (stops_early or failed):
            break
        if is_spent:
            report(f"the budget of {budget_seconds:g} s is spent")
            break
    return judgement


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into Interrupted, so that the launch that is running is ended with its workers."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted(f"stopped by {signal.Signals(number).name}")

    before = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def judge_run(run: AbRun, *, policy: Policy, today: str) -> tuple[Judgement, list[str]]:
    """The verdict over the complete pairs of a run, and a line for each unreadable record."""
    comparison, sets, problems = compare_pairs(run, margin=policy.margin)
    judgement = judge_pairs(
        comparison, policy=policy, suite=run.suite, against=f"arm a ({run.arms['a'].get('description', '')})", today=today,
        pairs=run.pairs, controls=read_controls(run, sets), notes=[describe_launching(run)],
    )  # fmt: skip
    return judgement, problems


def compare_pairs(run: AbRun, *, margin: float) -> tuple[Comparison, list, list[str]]:
    """Both arms of a run compared, their records, and a line for each unreadable one."""
    sets, problems = load_pairs(run)
    comparison = compare(sets, ignore=run.changed_fields, treatment=TREATMENT, margin=margin, by_steps=True)
    return comparison, sets, problems


def is_ab(path: Path) -> bool:
    """Whether `path` is the folder of an A/B comparison."""
    return (path / "ab.json").is_file()


def judge_folder(path: Path, *, policy: Policy, today: str) -> tuple[Judgement, list[str]]:
    """The verdict over the pairs kept at `path`; raises UsageError."""
    return judge_run(read_ab(path), policy=policy, today=today)


def describe_launched(one: Launched) -> str:
    """One calm line a launch."""
    control = sum(one.control_seconds) / 2 * 1e3
    ended = "ok" if one.exit_code == 0 else "some points failed"
    ended += " in turns" if one.in_turns else ""
    return f"[pair {one.pair + 1}/{LOOKS[-1]}] {one.arm}  {ended}  {one.seconds:.1f} s, control {control:.1f} ms"

"""An A/B comparison from its arguments to its verdict: launch pairs, look at 6, 12 and 18, stop when it is clear."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from hvbench.comparison.ab.arms import (
    Arm,
    Prepared,
    parse_arm,
    prepare_arm,
    require_fields,
    require_fixed_fields,
    start_arm,
)
from hvbench.comparison.ab.judge import judge_run
from hvbench.comparison.ab.launches import launch_in_turns, launch_pair
from hvbench.comparison.ab.options import AbOptions
from hvbench.comparison.ab.pairs import AbRun, Launched, describe_arm, plan_orders
from hvbench.comparison.ab.scripts import Named, make_arm_suites
from hvbench.comparison.ab.worktrees import remove_worktrees
from hvbench.comparison.gate.judgement import Judgement
from hvbench.comparison.gate.policy import Policy
from hvbench.comparison.gate.rule import LOOKS
from hvbench.errors import Interrupted, StorageError
from hvbench.io.atomic import explaining_write_errors, write_text
from hvbench.io.folders import OTHER_FOLDER, lock_folder, require_own_folder
from hvbench.io.signals import handling
from hvbench.plan.skip import has_gpu
from hvbench.plan.turns import find_obstacle
from hvbench.spec.suite import Suite, apply_overrides, find_suite, load_suite, parse_suite
from hvbench.spec.suite_text import write_suite
from hvbench.sweep.prepare import require_script_folder

PrintLine = Callable[[str], None]


def run_ab(options: AbOptions, policy: Policy, *, root: Path, report: PrintLine) -> Judgement:
    """Launch pairs of `hvbench sweep SUITE` until the verdict is clear, 18 pairs are done or the budget is spent.

    The launches of a pair take turns where they can (`options.turns` None: not on a GPU that both would need), else one
    follows the other.

    Args:
        options: the suite, the two arms, and how pairs are launched.
        policy: margins, metrics and accepted regressions.
        root: the folder of all results; the pairs go into one below it unless `options.out` names another.
        report: takes a line of progress at a time.

    Returns:
        The verdict at the last look.

    Raises:
        UsageError: the suite or an arm is not what it has to be.
        LaunchError: an arm cannot be started, or its launch left no record.
        StorageError: the folder cannot be written.
        Interrupted: by Ctrl-C or SIGTERM; complete pairs are kept.
    """
    file = find_suite(options.suite)
    suite = apply_overrides(load_suite(file), options.overrides)
    suite.points()
    require_script_folder(suite)
    arms = [parse_own_arm(name, texts, suite) for name, texts in (("a", options.a), ("b", options.b))]
    run = open_run(options, suite, arms, root=root)
    try:
        with stoppable():
            prepared, suites = prepare_arms(
                run, options, Named(file=file, overrides=options.overrides, suite=suite), arms
            )
            for note in run.notes:
                report(note)
            run.apart_because = find_reason(suites, prepared, turns=options.turns)
            if run.apart_because:
                report(f"the launches of a pair follow each other: {run.apart_because}")
            run.write()
            launcher = PairLauncher(run=run, arms=prepared, report=report)
            judgement = launcher.launch(
                policy, budget_seconds=options.budget_seconds or policy.budget_seconds, all_pairs=options.all_pairs
            )
    except Interrupted as reason:
        kept = f"{run.pairs} complete pairs are kept, hvbench gate {run.path} judges them"
        raise Interrupted(f"{reason}; {kept if run.pairs else 'no pair was complete'}") from None
    finally:
        remove_worktrees(run.path / "worktrees")
    report(f"pairs: {run.path}")
    return judgement


def parse_own_arm(name: str, texts: Sequence[str], suite: Suite) -> Arm:
    """An arm of a suite; what `set=` names in another revision of a script, that revision has to say. Raises UsageError."""
    arm = parse_arm(name, texts, fields=None)
    if not (suite.script and arm.revision):
        require_fields(arm, suite.fields)
        require_fixed_fields([arm], suite)
    return arm


def prepare_arms(
    run: AbRun, options: AbOptions, named: Named, arms: Sequence[Arm]
) -> tuple[dict[str, Prepared], list[Suite]]:
    """Both arms, ready to be launched, and the suite of each; raises UsageError, LaunchError, StorageError."""
    worktrees = run.path / "worktrees"
    if named.suite.script is None:
        prepared = [prepare_arm(arm, worktrees=worktrees) for arm in arms]
        overrides = {arm.name: (*options.overrides, *arm.overrides) for arm in arms}
        arguments = {arm.name: options.arguments(named.file, overrides[arm.name]) for arm in arms}
        suites = [apply_overrides(named.suite, arm.overrides) for arm in arms]
    else:
        made = make_arm_suites(named, arms, worktrees=worktrees)
        run.notes = list(made.notes)
        prepared = [start_arm(arm, python_path=made.python_paths[arm.name]) for arm in arms]
        arguments = {name: options.arguments(keep_suite(suite, run, name), ()) for name, suite in made.suites.items()}
        suites = list(made.suites.values())
    rounds = named.suite.measure.profile_rounds
    ready = [replace(one, arguments=arguments[one.arm.name], profile_rounds=rounds) for one in prepared]
    return {one.arm.name: one for one in ready}, suites


def keep_suite(suite: Suite, run: AbRun, arm: str) -> Path:
    """Write the suite that an arm runs beside its launches; raises UsageError, StorageError."""
    path = run.path / "arms" / arm / f"{suite.name}.toml"
    text = write_suite(suite)
    parse_suite(text, name=suite.name, where=f"arm {arm}: {path}")  # together they may be too much for one file
    with explaining_write_errors(path, hint=OTHER_FOLDER):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    return path


def open_run(options: AbOptions, suite: Suite, arms: Sequence[Arm], *, root: Path) -> AbRun:
    """Make the folder of the comparison, and write down what was asked; raises StorageError."""
    path = options.run_path(root, suite.name)
    seed = options.seed if options.seed is not None else int.from_bytes(os.urandom(3), "big")
    run = AbRun(
        path=path,
        suite=suite.name,
        arms={arm.name: describe_arm(arm) for arm in arms},
        is_script=suite.script is not None,
        orders=plan_orders(seed),
        seed=seed,
        command=options.command,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    require_own_folder(path, marker="ab.json")
    with explaining_write_errors(path, hint=OTHER_FOLDER):
        path.mkdir(parents=True, exist_ok=True)
    with lock_folder(path):
        if (path / "ab.json").exists():
            raise StorageError(f"{path}: holds an A/B comparison already; {OTHER_FOLDER}")
        run.write()
    return run


def find_reason(suites: Sequence[Suite], arms: Mapping[str, Prepared], *, turns: bool | None) -> str | None:
    """Why the launches of a pair cannot take turns, or should not; None when they do. `suites`: of the arms."""
    if turns is False:
        return "asked for by --no-turns"
    if unable := [arm.arm.name for arm in arms.values() if not arm.knows_turns]:
        return f"the hvbench of arm {' and '.join(unable)} does not support turns"
    points = [point for suite in suites for point in suite.points()]
    shares_gpu = turns is None and has_gpu()
    is_single_host = not os.environ.get("HVBENCH_HOSTS")
    if reason := find_obstacle(points, is_single_host=is_single_host, has_gpu=False):
        return reason
    reason = find_obstacle(points, is_single_host=is_single_host, has_gpu=shares_gpu)
    return f"{reason} (--turns asks for it)" if reason else None


@dataclass(frozen=True, kw_only=True)
class PairLauncher:
    """Launches pair after pair, in turns while that works, and looks at the verdict where a look is due."""

    run: AbRun
    arms: Mapping[str, Prepared]
    report: PrintLine

    def launch(self, policy: Policy, *, budget_seconds: float, all_pairs: bool) -> Judgement:
        """Launch pairs until the verdict is final (unless `all_pairs`) or the budget is spent; the last verdict."""
        begun = time.monotonic()
        for pair in range(LOOKS[-1]):
            self.launch_pair(pair)
            spent = time.monotonic() - begun
            is_spent = spent + spent / (pair + 1) > budget_seconds
            failed = any(launched.exit_code for launched in self.run.launches[-2:])
            if not (pair + 1 in LOOKS or is_spent or failed):
                continue
            judgement = self.look(policy)
            if judgement.is_final and (failed or not all_pairs):
                break
            if is_spent:
                self.report(f"the budget of {budget_seconds:g} s is spent")
                break
        return judgement

    def launch_pair(self, pair: int) -> None:
        """Launch both arms in turns; one after the other once turns have failed, or where they cannot be taken."""
        options = {"report": lambda launched: self.report(describe_launched(launched))}
        if not self.run.apart_because and (reason := launch_in_turns(self.run, pair, self.arms, **options)):
            self.run.apart_because = reason
            self.report(f"from here on the launches of a pair follow each other: {reason}")
        if self.run.apart_because:
            launch_pair(self.run, pair, self.arms, **options)

    def look(self, policy: Policy) -> Judgement:
        """The verdict over the pairs so far."""
        judgement, problems = judge_run(self.run, policy=policy, today=self.run.created_at[:10])
        self.report(f"after {self.run.pairs} pairs: {judgement.headline()}")
        for problem in problems:
            self.report(f"not a readable record: {problem}")
        return judgement


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into Interrupted, so that the launch that is running is ended with its workers."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted(f"stopped by {signal.Signals(number).name}")

    with handling(dict.fromkeys((signal.SIGINT, signal.SIGTERM), stop)):
        yield


def describe_launched(launched: Launched) -> str:
    """A launch in one line: its arm, how it ended, how long it took, and the control beside it."""
    control = f", control {sum(launched.control_seconds) / 2 * 1e3:.2f} ms" if launched.control_seconds else ""
    ended = "ok" if launched.exit_code == 0 else "some points failed"
    ended += " in turns" if launched.in_turns else ""
    return f"[pair {launched.pair + 1}/{LOOKS[-1]}] {launched.arm}  {ended}  {launched.seconds:.1f} s{control}"

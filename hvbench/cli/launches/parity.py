"""`hvbench parity`: the frameworks train the same few updates of each configuration, and every tensor is compared."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hvbench.analysis.show.text import join_names
from hvbench.cli.display.lines import Display
from hvbench.cli.display.parity import describe_parity, render_table
from hvbench.errors import Interrupted, LaunchError, MissingData, NotProven, StorageError, UsageError
from hvbench.io.atomic import explaining_write_errors, json_text, write_named_file
from hvbench.launch.session import join_launch
from hvbench.launch.task import without_advice
from hvbench.parity.horizon import prove_pairs
from hvbench.parity.pairs import Parity, PointPair, pair_up
from hvbench.parity.stamp import count
from hvbench.plan.jobs import make_plan
from hvbench.plan.skip import is_installed, reason_to_skip
from hvbench.registry import FRAMEWORKS
from hvbench.spec.labels import configuration_name
from hvbench.spec.settings import MeasureSettings
from hvbench.spec.suite import Suite, apply_overrides, find_suite, load_suite, parse_suite
from hvbench.sweep.prepare import check_data

DEFAULT = """
question = "Do both frameworks do the same work?"
[point]
model = "tiny"
micro_batch_size = 4
lr_warmup_steps = 5
schedule_steps = 25
[axes]
gradient_accumulation_steps = [1, 2]
precision = ["fp32", "bf16", "fp16"]
compression = ["none", "fp16", "bf16"]
"""


@dataclass(frozen=True, kw_only=True)
class ParityOptions:
    """What `hvbench parity` is asked: which configurations, over how many updates, and how to show the answer."""

    words: Sequence[str]  # a suite, and fields as key=value
    overrides: Sequence[str]
    steps: int
    is_full: bool = False
    json_path: Path | None = None


def run_parity(options: ParityOptions, *, np: int | None) -> int:
    """Take part in a launch, or make one; on rank 0 compare the frameworks and print the table.

    Args:
        options: the question.
        np: ranks to launch on this host; None under a launcher.

    Returns:
        The exit code 0.

    Raises:
        HvbenchError: the check could not run to its end, or some configurations are not proven to be the same work.
    """
    logs = None
    try:
        with join_launch(np) as launch:
            if launch is None:
                return 0
            display = Display()
            require_writable(options.json_path)
            suite = parse_words(options.words, options.overrides)
            pairs = plan_pairs(suite, world_size=launch.world_size, display=display)
            logs = Path(tempfile.mkdtemp(prefix="hvbench-parity-"))
            (logs / "logs").mkdir()
            with launch.open(run_path=logs) as coordinator:
                parities = list(prove_pairs(coordinator, pairs, steps=options.steps, report=display.prepare))
    except BaseException as error:
        if logs:
            shutil.rmtree(logs, ignore_errors=True)
        if isinstance(error, Interrupted | LaunchError):  # there is nothing to continue
            raise_as = Interrupted if isinstance(error, Interrupted) else LaunchError
            raise raise_as(without_advice(str(error))) from None
        raise
    if options.json_path:
        with explaining_write_errors(options.json_path):
            described = [describe_parity(parity, steps=options.steps) for parity in parities]
            write_named_file(options.json_path, json_text(described))
    display.show(render_table(parities, steps=options.steps, is_full=options.is_full), path=logs)
    require_proven(parities, logs=logs)
    return 0


def require_proven(parities: Sequence[Parity], *, logs: Path) -> None:
    """Say what is not proven, if anything; logs are kept where a worker failed.

    Raises:
        NotProven: in some configuration the frameworks did not do the same work.
        MissingData: none differs, but some could not be compared.
    """
    if not any(parity.problem for parity in parities):
        shutil.rmtree(logs, ignore_errors=True)
    missing = [parity for parity in parities if not parity.is_compared]
    different = sum(parity.is_compared and not parity.is_proven for parity in parities)
    left = f"{len(missing)} of {count(parities)} could not be compared; logs of the workers: {logs / 'logs'}"
    if different:
        more = f"; {left}" if missing else ""
        raise NotProven(f"{different} of {count(parities)} are not proven to be the same work{more}")
    if missing:
        raise MissingData(left)


def parse_words(words: Sequence[str], overrides: Sequence[str]) -> Suite:
    """A suite's name or file, fields as key=value, or both; raises UsageError."""
    names = [word for word in words if not word.partition("=")[0].isidentifier() or "=" not in word]
    if len(names) > 1:
        raise UsageError(f"hvbench parity: {' and '.join(names)}: give one suite, and fields as key=value")
    values = [word for word in words if word not in names]
    for text in [*values, *overrides]:
        key = text.partition("=")[0]
        if key in MeasureSettings.model_fields:
            raise UsageError(f"hvbench parity: {key} is a setting of measurements; updates to compare are --steps N")
    suite = load_suite(find_suite(names[0])) if names else parse_suite(DEFAULT, name="parity", where="hvbench parity")
    return apply_overrides(apply_overrides(suite, values, option=""), overrides)


def plan_pairs(suite: Suite, *, world_size: int, display: Display) -> list[PointPair]:
    """Every configuration of the suite that can run here, in every framework that is installed; raises UsageError or DataError."""
    if suite.script:
        raise UsageError(f"{suite.where}: parity compares hvbench's own trainings, and this suite launches a [script]")
    installed = [name for name in FRAMEWORKS if is_installed(name)]
    missing = [name for name in FRAMEWORKS if name not in installed]
    if len(installed) < 2:
        raise UsageError(
            f"parity needs two of {join_names(FRAMEWORKS)}: not installed here: {', '.join(missing)}; see hvbench doctor"
        )
    for name in missing:
        display.prepare(f"left out: {name} is not installed here; see hvbench doctor")
    firsts = list(dict.fromkeys(pair[0] for pair in pair_up(suite.points(), frameworks=installed)))
    plan = make_plan(firsts, None, world_size=world_size)
    if not plan.jobs:
        reasons = "; ".join(sorted({skipped.reason for skipped in plan.skipped}))
        raise UsageError(f"{suite.where}: none of its {len(firsts)} configurations can run: {reasons}")
    check_data(plan, display, is_open=False)
    for skipped in plan.skipped:
        display.prepare(f"skipped {configuration_name(skipped.point)}: {skipped.reason}")
    points = [job.point for job in plan.jobs]
    for point in (point for point in points if not point.is_repeatable):
        display.prepare(
            f"skipped {configuration_name(point)}: an asynchronous server's updates depend on which rank comes first"
        )
    pairs = pair_up((point for point in points if point.is_repeatable), frameworks=installed)
    if not pairs:
        raise UsageError(f"{suite.where}: nothing to compare: two runs with an asynchronous server never agree")
    reasons = {pair: reason_to_skip(pair[1], world_size=world_size) for pair in pairs}
    for pair, reason in reasons.items():
        if reason:
            display.prepare(f"skipped {configuration_name(pair[1])}: {reason}")
    if all(reasons.values()):
        raise UsageError(f"{suite.where}: nothing to compare: {'; '.join(sorted(set(reasons.values())))}")
    return [pair for pair, reason in reasons.items() if not reason]


def require_writable(path: Path | None) -> None:
    """Raise StorageError for a file that cannot be written: now, and not after minutes."""
    if path and (path.is_dir() or not os.access(path.parent, os.W_OK)):
        raise StorageError(f"{path}: cannot be written; --json names a file in a folder that exists")

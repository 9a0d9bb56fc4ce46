"""`hvbench parity`: the frameworks train the same few updates of each configuration, and every tensor is compared."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from hvbench.cli.display.lines import Display
from hvbench.errors import Interrupted, NotProven, StorageError, UsageError
from hvbench.io.atomic import write_json
from hvbench.launch.session import dismiss, open_launch, resolve_context, serve_if_not_first
from hvbench.parity.horizon import prove_pairs
from hvbench.parity.run import Pair, Parity, pair_up
from hvbench.parity.stamp import count
from hvbench.parity.trace import Deviation, worst, worst_by_kind
from hvbench.plan.jobs import make_plan
from hvbench.plan.skip import is_installed
from hvbench.registry import FRAMEWORKS
from hvbench.spec.labels import configuration_name
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.spec.suite import Suite, apply_overrides, find_suite, load_suite, parse_suite
from hvbench.sweep.run import check_data

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
COLUMNS = {"logits": "logits", "loss": "loss", "gradient": "gradients", "update": "updates"}
GREEN, RED = "same work", "NOT the same"


def run_parity(
    words: Sequence[str],
    overrides: Sequence[str],
    *,
    np: int | None,
    steps: int,
    is_full: bool,
    json_path: Path | None,
) -> int:
    """Take part in a launch, or make one; on rank 0 compare and print. Returns 0, or raises HvbenchError."""
    context = resolve_context(np)
    if serve_if_not_first(context):
        return 0
    display = Display()
    logs = Path(tempfile.mkdtemp(prefix="hvbench-parity-"))
    try:
        try:
            require_writable(json_path)
            pairs = plan_pairs(parse_words(words, overrides), world_size=context.size, display=display)
            (logs / "logs").mkdir()
        except BaseException:
            dismiss(context)
            raise
        with open_launch(context, run_path=logs) as coordinator:
            parities = list(prove_pairs(coordinator, pairs, steps=steps, report=display.prepare))
    except BaseException as error:
        shutil.rmtree(logs, ignore_errors=True)
        if isinstance(error, Interrupted):
            raise Interrupted(str(error).partition(";")[0]) from None  # there is nothing to go on with
        raise
    if json_path:
        write_file(json_path, [describe(parity, steps=steps) for parity in parities])
    display.show(render(parities, steps=steps, is_full=is_full), path=logs)
    if not any(parity.problem for parity in parities):
        shutil.rmtree(logs, ignore_errors=True)
    red = [parity for parity in parities if not parity.is_proven]
    if red:
        kept = f"; logs of the workers: {logs / 'logs'}" if any(parity.problem for parity in red) else ""
        raise NotProven(f"{len(red)} of {count(parities)} are not proven to be the same work{kept}")
    return 0


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


def plan_pairs(suite: Suite, *, world_size: int, display: Display) -> list[Pair]:
    """Every configuration of the suite that can run here, in every framework that is installed; raises UsageError or DataError."""
    installed = [name for name in FRAMEWORKS if is_installed(name)]
    missing = [name for name in FRAMEWORKS if name not in installed]
    if len(installed) < 2:
        raise UsageError(
            f"parity needs two of {join_names(FRAMEWORKS)}: not installed here: {', '.join(missing)}; see hvbench doctor"
        )
    for name in missing:
        display.prepare(f"left out: {name} is not installed here; see hvbench doctor")
    firsts = list(dict.fromkeys(pair[0] for pair in pair_up(suite.points(), frameworks=installed)))
    plan = make_plan(firsts, MeasureSettings(repeats=1), world_size=world_size)
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
        raise UsageError(f"{suite.where}: nothing to compare: no two runs with an asynchronous server are alike")
    return pairs


def render(parities: Sequence[Parity], *, steps: int, is_full: bool) -> str:
    """The table of all configurations; before it, if asked for, every quantity of each."""
    points = [parity.points[0] for parity in parities]
    varying = [name for name in Point.model_fields if len({getattr(point, name) for point in points}) > 1]
    blocks = []
    for parity in parities if is_full else []:
        rows = [
            [each.name, f"{each.relative_error:.2e}", f"{each.tolerance:.0e}", "" if each.is_within else "OUTSIDE"]
            for each in parity.deviations
        ]
        body = tabulate(rows, headers=["quantity", "relative error", "allowed", ""], disable_numparse=True)
        blocks.append(f"{configuration_name(parity.points[0])}: {parity.problem or ''}\n\n{body}")
    rows = []
    frameworks = list(dict.fromkeys(point.framework for parity in parities for point in parity.points))
    names_pairs = len(frameworks) > 2
    for parity in parities:
        kinds = worst_by_kind(parity.deviations)
        rows.append(
            [
                *(str(getattr(parity.points[0], name)) for name in varying),
                *([join_names([point.framework for point in parity.points])] if names_pairs else []),
                *(show(kinds.get(kind)) for kind in COLUMNS),
                "–" if parity.problem else " / ".join(map(str, dict.fromkeys(parity.overflows))),
                (GREEN if parity.is_proven else f"{RED}: {why(parity)}")
                + (f", over {parity.horizon} updates" if parity.horizon else ""),
            ]
        )
    header = [*varying, *(["frameworks"] if names_pairs else []), *COLUMNS.values(), "overflows", "verdict"]
    blocks.append(tabulate(rows, headers=header, disable_numparse=True))
    blocks.append(
        f"{join_names(frameworks)} over {steps} updates: largest relative error of any tensor, update and rank, and what is "
        "allowed; gradients after the all-reduce, compressed where the configuration compresses."
    )
    return "\n\n".join(blocks)


def show(deviation: Deviation | None) -> str:
    """`1.2e-07 ≤ 5e-07`."""
    if deviation is None:
        return "–"
    return f"{deviation.relative_error:.1e} {'≤' if deviation.is_within else '>'} {deviation.tolerance:.0e}"


def why(parity: Parity) -> str:
    """What is outside its tolerance by most, or why nothing was compared."""
    if parity.problem or not parity.deviations:
        return parity.problem or "nothing was compared"
    deviation = worst(parity.deviations)
    return f"{deviation.name} {show(deviation)}"


def join_names(names: Sequence[str]) -> str:
    """`a and b`, `a, b and c`."""
    return f"{', '.join(names[:-1])} and {names[-1]}"


def describe(parity: Parity, *, steps: int) -> dict[str, Any]:
    """One configuration for the JSON file: every quantity; an error that is not finite is null."""
    return {
        "configuration": parity.points[0].model_dump(exclude={"framework"}),
        "frameworks": [point.framework for point in parity.points],
        "updates": parity.updates or steps,
        "horizon": parity.horizon,
        "is_proven": parity.is_proven,
        "problem": parity.problem,
        "overflows": list(parity.overflows),
        "deviations": [
            {
                "name": each.name,
                "relative_error": each.relative_error if math.isfinite(each.relative_error) else None,
                "tolerance": each.tolerance,
                "is_within": each.is_within,
            }
            for each in parity.deviations
        ],
    }


def require_writable(path: Path | None) -> None:
    """Raise StorageError for a file that cannot be written: now, and not after minutes."""
    if path and (path.is_dir() or not os.access(path.parent, os.W_OK)):
        raise StorageError(f"{path}: cannot be written; --json names a file in a folder that exists")


def write_file(path: Path, value: Any) -> None:
    """Store JSON; raises StorageError."""
    try:
        write_json(path, value)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}") from None

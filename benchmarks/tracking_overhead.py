"""What a tracker that follows a sweep costs the steps of its launches.

    python benchmarks/tracking_overhead.py                                 about 3 minutes on 2 cores
    python benchmarks/tracking_overhead.py --framework tensorflow --tracker wandb --blocks 40

One launch with as many ranks as cores, followed by one tracker, whose process is stopped (SIGSTOP) and let go on (SIGCONT) in turns of
`--block-seconds`, each pair in a random order. A pair of blocks gives one ratio of rank 0's mean step seconds, beside the tracker over
without it; the interval is over the pairs, on the log scale. A tracker that goes on takes in what it has missed as well, so that the
ratio is rather too large. Rank 0 writes its steps to the file that the tracker reads in both; what that takes is timed by itself, and is
a pause between two steps (`hvbench.records.steps`). Goal: at most 0.5 % above.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run as a script, it finds the hvbench beside it

from hvbench.analysis.stats.estimates import estimate_rate  # noqa: E402
from hvbench.launch.script import find_processes  # noqa: E402
from hvbench.records.environment import usable_cores  # noqa: E402
from hvbench.records.steps import COLUMNS, INTERVAL_SECONDS, StepWriter  # noqa: E402
from hvbench.registry import FRAMEWORKS  # noqa: E402
from hvbench.tracking.steps import StepReader  # noqa: E402
from hvbench.tracking.trackers import LIVE, STEPS_FOLDER, VARIABLE  # noqa: E402

GOAL = 1.005
GUARD_SECONDS = 0.1  # behind a switch, in which a step belongs to no block
SUITE = """
question = "What does a tracker cost?"
[point]
framework = "{framework}"
model = "{model}"
[measure]
warmup_steps = 20
steps = {steps}
ceilings = false
"""


@dataclass(frozen=True)
class Block:
    """A stretch of time in which the tracker ran, or did not."""

    is_on: bool
    begin: float  # seconds since 1970
    end: float


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--framework", choices=FRAMEWORKS, default="pytorch", help="(default: %(default)s)")
    parser.add_argument("--model", default="tiny", help="(default: %(default)s)")
    parser.add_argument("--tracker", choices=LIVE, default="tensorboard", help="(default: %(default)s)")
    parser.add_argument("--ranks", type=int, default=usable_cores(), help="(default: %(default)s, one a core)")
    parser.add_argument("--blocks", type=int, default=30, help="pairs of blocks (default: %(default)s)")
    parser.add_argument("--block-seconds", type=float, default=2.0, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the order (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="JSON file for the raw seconds (default: none is written)")
    return parser.parse_args(arguments)


def run_launch(options: argparse.Namespace, folder: Path) -> tuple[list[Block], list[tuple[float, float]]]:
    """The blocks, and (end, seconds) of every step that rank 0 took while they went on; the launch is ended then."""
    steps = 10**6  # more than there is time for
    (folder / "suite.toml").write_text(SUITE.format(framework=options.framework, model=options.model, steps=steps))
    run = folder / "run"
    words = [sys.executable, "-m", "hvbench", "sweep", str(folder / "suite.toml"), "--np", str(options.ranks)]
    words += [
        "--out",
        str(run),
        "--no-parity",
        "--no-report",
        "--quiet",
        "--timeout",
        "100000",
        "--track",
        options.tracker,
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    sweep = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)
    try:
        path = await_steps(run, sweep)
        time.sleep(5.0)  # the tracker has its libraries, and the steps are warm
        (tracker, *_) = find_processes(run.resolve(), variable=VARIABLE)
        blocks = take_turns(tracker, options)
        taken = [
            (one.seconds, one.value)
            for batch in StepReader(path).read()
            for one in batch.curves().get("step_seconds", [])
        ]
    finally:
        sweep.send_signal(signal.SIGINT)
        sweep.wait()
    return blocks, taken


def await_steps(run: Path, sweep: subprocess.Popen[bytes]) -> Path:
    """The file of the launch's steps, once it is there."""
    while sweep.poll() is None:
        if paths := list((run / STEPS_FOLDER).glob("*.jsonl")):
            return paths[0]
        time.sleep(0.2)
    raise SystemExit("the sweep ended before its first step")


def take_turns(tracker: int, options: argparse.Namespace) -> list[Block]:
    """Stop the tracker and let it go on, in pairs of a random order."""
    order, blocks = random.Random(options.seed), []
    for _ in range(options.blocks):
        for is_on in order.sample([True, False], 2):
            os.kill(tracker, signal.SIGCONT if is_on else signal.SIGSTOP)
            begun = time.time()
            time.sleep(options.block_seconds)
            blocks.append(Block(is_on, begun + GUARD_SECONDS, time.time()))
    os.kill(tracker, signal.SIGCONT)
    return blocks


def compare(blocks: Sequence[Block], steps: Sequence[tuple[float, float]]) -> list[float]:
    """The ratio of the mean step beside the tracker over that without it, of every pair of blocks in which steps lie."""
    means = []
    for block in blocks:
        seconds = [taken for end, taken in steps if block.begin <= end - taken and end <= block.end]
        means.append(sum(seconds) / len(seconds) if seconds else None)
    ratios = []
    for place in range(0, len(blocks), 2):
        beside = {blocks[each].is_on: means[each] for each in (place, place + 1)}
        if None not in beside.values():
            ratios.append(beside[True] / beside[False])
    return ratios


def time_writes(folder: Path, *, step_seconds: float) -> float:
    """Seconds that a line of so many steps as rank 0 takes between two lines costs it."""
    steps = max(1, round(INTERVAL_SECONDS / step_seconds))
    writer, columns = StepWriter(str(folder / "steps.jsonl")), dict.fromkeys(COLUMNS, [0.123456789012345] * steps)
    begun = time.perf_counter()
    for _ in range(1000):
        writer.write(columns)
    return (time.perf_counter() - begun) / 1000


def main() -> None:
    """Measure, print the ratio and keep the samples."""
    options = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="hvbench-tracking-") as folder:
        blocks, steps = run_launch(options, Path(folder))
        step_seconds = sum(seconds for _, seconds in steps) / len(steps)
        write_seconds = time_writes(Path(folder), step_seconds=step_seconds)
    ratio = estimate_rate(compare(blocks, steps))
    interval = "n=1" if ratio.low is None else f"95 % interval {ratio.low:.4f} … {ratio.high:.4f}"
    print(
        f"{options.framework}, {options.model}, {options.ranks} ranks, steps of {1e3 * step_seconds:.1f} ms, {options.tracker}: "
        f"beside/without {ratio.centre:.4f}, {interval}, n={ratio.n}, goal {GOAL}; a line of steps takes "
        f"{1e6 * write_seconds:.0f} us, {100 * write_seconds / INTERVAL_SECONDS:.3f} % of the time between two"
    )
    if options.out:
        content = {"blocks": [vars(block) for block in blocks], "steps": steps}
        options.out.write_text(json.dumps(content) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Time of hvbench's sampled loop over a bare loop of the same training steps: what measuring costs.

    python benchmarks/overhead.py                                          about 1 minute on 2 cores
    python benchmarks/overhead.py --framework tensorflow --blocks 60

One trainer in one process; blocks of a few steps alternate between both loops in random order within each pair. A pair
gives one ratio of wall seconds, from before the batch is fetched to after the step is sampled; the interval is over the
pairs, on the log scale. Goal: at most 1 % above.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run as a script, it finds the hvbench beside it

from hvbench.analysis.stats.estimates import estimate_rate  # noqa: E402
from hvbench.frameworks import load_framework  # noqa: E402
from hvbench.records.environment import describe_environment  # noqa: E402
from hvbench.registry import FRAMEWORKS  # noqa: E402
from hvbench.spec.model import MODEL_PRESETS  # noqa: E402
from hvbench.spec.numerics import PRECISIONS  # noqa: E402
from hvbench.spec.point import Point  # noqa: E402
from hvbench.spec.settings import MeasureSettings  # noqa: E402
from hvbench.training import corpus  # noqa: E402
from hvbench.training.batches import Batches  # noqa: E402
from hvbench.training.schedule import point_learning_rate  # noqa: E402
from hvbench.training.weights import initial_weights  # noqa: E402
from hvbench.worker.loop import Loop  # noqa: E402

GOAL = 1.01


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--framework", choices=FRAMEWORKS, default="pytorch", help="(default: %(default)s)")
    parser.add_argument("--model", choices=sorted(MODEL_PRESETS), default="tiny", help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--blocks", type=int, default=30, help="pairs of blocks (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="steps of a block (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the order (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="JSON file for the raw seconds (default: none is written)")
    return parser.parse_args(arguments)


def time_blocks(options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of every block of both loops, pair by pair."""
    point = Point(framework=options.framework, model=options.model, world_size=1)
    runtime = load_framework(point.framework, "runtime").Runtime(
        rank=0, world_size=1, local_rank=0, threads=options.threads, device="cpu"
    )
    trainer = load_framework(point.framework, "trainer").Trainer(
        point, initial_weights(point), precision=PRECISIONS[point.precision], runtime=runtime
    )
    batches = Batches(point, corpus.prepare(point.data, vocab_size=point.vocab_size), rank=0)
    loop = Loop(point, MeasureSettings(), trainer=trainer, batches=batches, runtime=runtime)
    loop.start()
    bare_step = 0

    def measured() -> None:
        for _ in range(options.steps):
            loop.advance()

    def bare() -> None:
        nonlocal bare_step
        for _ in range(options.steps):
            inputs, targets = batches.train_batch(bare_step)
            rate = point_learning_rate(point, bare_step)
            trainer.train_step(inputs, targets, learning_rate=rate, loss_scale=1.0)
            bare_step += 1

    arms = {"measured": measured, "bare": bare}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    order = random.Random(options.seed)
    measured()  # tracing, allocation
    bare()
    for _ in range(options.blocks):
        for name in order.sample(list(arms), len(arms)):
            begun = time.perf_counter()
            arms[name]()
            seconds[name].append(time.perf_counter() - begun)
    return seconds


def main() -> None:
    """Measure, print the ratio and keep the samples."""
    options = parse_arguments()
    seconds = time_blocks(options)
    pairs = zip(seconds["measured"], seconds["bare"], strict=True)
    ratio = estimate_rate([measured / bare for measured, bare in pairs])
    interval = "n=1" if ratio.low is None else f"95 % interval {ratio.low:.4f} … {ratio.high:.4f}"
    print(
        f"{options.framework}, {options.model}: measured/bare {ratio.centre:.4f}, {interval}, n={ratio.n}, goal {GOAL}"
    )
    if options.out:
        asked = {key: value for key, value in vars(options).items() if key != "out"}
        content = {"asked": asked, "environment": describe_environment(), "block_seconds": seconds}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""What `hvbench.probe` costs a step of 10 ms, and what importing it costs.

    python benchmarks/probe_overhead.py                     about 1 minute on one core, with nothing beside it
    python benchmarks/probe_overhead.py --blocks 100

One process, one loop of matrix products of the given length. A block takes a few steps of each kind, the kinds in random order: bare; with the
probe where hvbench launched nothing; and with the probe in a launch, which notes step, loss, tokens and progress. A kind's seconds are those of
its whole loop; the interval is over the blocks' ratios, on the log scale. The calls by themselves are timed around steps of nothing, where
the processor's caches hold all of the probe and nothing else. Goal: at most 0.5 % above.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run as a script, it finds the hvbench beside it

import numpy as np  # noqa: E402

from hvbench import probe  # noqa: E402
from hvbench.analysis.stats.estimates import estimate_rate  # noqa: E402
from hvbench.probe.launched import LaunchedTraining  # noqa: E402
from hvbench.spec.settings import MeasureSettings  # noqa: E402

GOAL = 1.005
EMPTY_STEPS = 20_000
IMPORT = "import time; begun = time.perf_counter(); from hvbench import probe; print(time.perf_counter() - begun)"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step-ms", type=float, default=10.0, help="of a bare step (default: %(default)s)")
    parser.add_argument("--blocks", type=int, default=80, help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=40, help="steps of each kind in a block (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the order (default: %(default)s)")
    return parser.parse_args(arguments)


def launch(folder: Path) -> probe.Training:
    """A training as a process that hvbench launched has it, which never comes to its end."""
    measure = MeasureSettings(warmup_steps=1, steps=1_000_000).model_dump(mode="json")
    about = {"rank": 0, "world_size": 1, "local_rank": 0, "host": "here", "threads": 1, "jobs": [{"measure": measure}]}
    (folder / "generation.json").write_text(json.dumps(about), encoding="utf-8")
    return LaunchedTraining(str(folder), variable=probe.VARIABLE, tokens_per_step=4096)


def make_work(step_seconds: float) -> Callable[[], None]:
    """A function that multiplies matrices for about so long."""
    matrix = np.ones((192, 192))

    def work(products: int) -> None:
        for _ in range(products):
            np.matmul(matrix, matrix)

    work(100)
    begun = time.perf_counter()
    work(1000)
    products = max(1, round(1000 * step_seconds / (time.perf_counter() - begun)))
    return lambda: work(products)


def take_steps(training: probe.Training, work: Callable[[], None], *, steps: int) -> float:
    """Seconds of steps with the probe."""
    begun = time.perf_counter()
    for _ in range(steps):
        with training.step():
            work()
        training.log(loss=1.0)
    return time.perf_counter() - begun


def take_bare_steps(work: Callable[[], None], *, steps: int) -> float:
    """Seconds of the same steps without it."""
    begun = time.perf_counter()
    for _ in range(steps):
        work()
    return time.perf_counter() - begun


def time_blocks(kinds: dict[str, Callable[[], float]], options: argparse.Namespace) -> dict[str, list[float]]:
    """Kind of step -> its seconds in every block; within a block the steps of one kind follow each other, the kinds in random order."""
    order = random.Random(options.seed)
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(options.blocks):
        for name in order.sample(list(kinds), len(kinds)):
            seconds[name].append(kinds[name]())
    return seconds


def time_import() -> list[float]:
    """Seconds of the import in fresh interpreters."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    told = [
        subprocess.run([sys.executable, "-c", IMPORT], env=environment, capture_output=True, text=True, check=True)
        for _ in range(11)
    ]
    return [float(each.stdout) for each in told]


def main() -> None:
    """Time everything and print it."""
    options = parse_arguments()
    work = make_work(options.step_ms / 1e3)
    with tempfile.TemporaryDirectory(prefix="hvbench-probe-") as folder, launch(Path(folder)) as launched:
        trainings = {"outside a launch": probe.Training(), "in a launch": launched}
        kinds: dict[str, Callable[[], float]] = {"bare": lambda: take_bare_steps(work, steps=options.steps)}
        for name, training in trainings.items():
            kinds[name] = lambda training=training: take_steps(training, work, steps=options.steps)
        for kind in kinds.values():
            kind()
        seconds = time_blocks(kinds, options)
        nothing = take_bare_steps(lambda: None, steps=EMPTY_STEPS)
        calls = {
            name: (take_steps(training, lambda: None, steps=EMPTY_STEPS) - nothing) / EMPTY_STEPS
            for name, training in trainings.items()
        }
    bare = statistics.median(seconds["bare"]) / options.steps
    print(f"{options.blocks} blocks of {options.steps} steps of each kind; a bare step took {bare * 1e3:.2f} ms")
    for name in trainings:
        ratio = estimate_rate([probed / bare for probed, bare in zip(seconds[name], seconds["bare"], strict=True)])
        goal = "reached" if ratio.high <= GOAL else "missed" if ratio.low > GOAL else "undecided"
        print(
            f"{name}: {ratio.centre:.4f} times as long (95 % interval {ratio.low:.4f} to {ratio.high:.4f}; goal {GOAL}: {goal}); "
            f"the calls by themselves {calls[name] * 1e6:.1f} µs a step, {100 * calls[name] / bare:.3f} %"
        )
    imports = time_import()
    print(
        f"import: {statistics.median(imports) * 1e3:.0f} ms (median of {len(imports)}, {max(imports) * 1e3:.0f} at most)"
    )


if __name__ == "__main__":
    main()

"""What `hvbench.probe` costs a step of 10 ms, and what importing it costs.

    python benchmarks/probe_overhead.py                     about 4 minutes on one core, with nothing beside it
    python benchmarks/probe_overhead.py --rounds 6000

One process, one loop of matrix products of the given length, of three kinds of step: bare; with the probe where hvbench launched
nothing; and with the probe in a launch, which notes step, loss, tokens and progress. A round is one step of each kind in a random
order, then the same in the reverse order, so each kind also follows each; a round gives one ratio of the seconds of its two steps
of a kind over those of its two bare ones, and the interval is over the rounds, on the log scale. The time of a step is all that
passes until the next one. Progress is written every so many steps in which a loop of that kind alone would write it. The calls
by themselves are timed around steps of nothing, where the processor's caches hold all of the probe and nothing else.
Goal: at most 0.5 % above.
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
    parser.add_argument("--rounds", type=int, default=3000, help="of two steps of each kind (default: %(default)s)")
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


def take_bare_step(work: Callable[[], None]) -> None:
    """A step without it."""
    work()


def take_step(training: probe.Training, work: Callable[[], None]) -> None:
    """A step with the probe."""
    with training.step():
        work()
    training.log(loss=1.0)


def time_rounds(kinds: dict[str, Callable[[], None]], options: argparse.Namespace) -> dict[str, list[float]]:
    """Kind of step -> the seconds of its two steps in every round."""
    order = random.Random(options.seed)
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(options.rounds):
        there = order.sample(list(kinds), len(kinds))
        taken = dict.fromkeys(kinds, 0.0)
        for name in (*there, *reversed(there)):
            begun = time.perf_counter()
            kinds[name]()
            taken[name] += time.perf_counter() - begun
        for name in kinds:
            seconds[name].append(taken[name])
    return seconds


def time_calls(training: probe.Training) -> float:
    """Seconds of the probe's calls around a step of nothing."""
    times = []
    for take in (lambda: take_step(training, idle), lambda: take_bare_step(idle)):
        begun = time.perf_counter()
        for _ in range(EMPTY_STEPS):
            take()
        times.append(time.perf_counter() - begun)
    return (times[0] - times[1]) / EMPTY_STEPS


def idle() -> None:
    """A step's work that is none."""


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
        kinds: dict[str, Callable[[], None]] = {"bare": lambda: take_bare_step(work)}
        for name, training in trainings.items():
            kinds[name] = lambda training=training: take_step(training, work)
        launched.report_seconds *= len(kinds)  # the steps of the others take time, too
        seconds = time_rounds(kinds, options)
        calls = {name: time_calls(training) for name, training in trainings.items()}
    bare = statistics.median(seconds["bare"]) / 2
    print(f"{options.rounds} rounds of two steps of each kind; a bare step took {bare * 1e3:.2f} ms")
    for name in trainings:
        pairs = zip(seconds[name], seconds["bare"], strict=True)
        ratio = estimate_rate([probed / without for probed, without in pairs])
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

"""What does one GPU make of hvbench's PyTorch GPT, beside GPT-2s that others wrote? One prepared run of at most 8 minutes.

    python benchmarks/gpu.py                                     on a machine with a GPU; needs no network
    python benchmarks/gpu.py --model gpt2 --precision bf16 --minutes 3
    python benchmarks/gpu.py --device cpu --model tiny --contenders pytorch,plain-torch --minutes 1     tries the program out

First everything that is compiled is, several at once, into the compilers' caches; meanwhile the same training on the processor
and on the device is compared tensor by tensor. Then for each model and precision, in the order asked for, one process holds all contenders in the device's memory;
they take turns of half a second, in rounds. What no time is left for is said in the last table.
The table has tokens/s, model FLOPs utilization (of the fastest matrix product measured in the same process), peak memory, and
the energy that the card drew. After the rounds the device's kernels are recorded: for how much of a step it computes, and what it waits for.

Intervals are over rounds within one process; another process may choose other kernels. NAME+SETTING is a contender with
`torch.compile` as it is (+compile) or tuned (+max), or with its blocks recomputed in the backward pass (+recompute; hvbench's own only).
OUT receives `MODEL-PRECISION.json` (raw samples), `checks.json`, `machine.json` and `table.md`, each as soon as there is any.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run as a script, it finds its neighbours and the hvbench beside it

from benchmarks.gpu_race import Order, knobs_of, parse_name  # noqa: E402
from benchmarks.gpu_tables import to_markdown  # noqa: E402
from benchmarks.peers import at_least, say  # noqa: E402
from benchmarks.ratios import format_table  # noqa: E402
from benchmarks.side_by_side import import_path  # noqa: E402
from hvbench.comparison.ab.run import stoppable  # noqa: E402
from hvbench.errors import HvbenchError, Interrupted, UsageError  # noqa: E402
from hvbench.io.atomic import write_json, write_text  # noqa: E402
from hvbench.launch.session import open_launch, resolve_context  # noqa: E402
from hvbench.parity import CHECKED_UPDATES  # noqa: E402
from hvbench.parity.compare import worst  # noqa: E402
from hvbench.parity.pairs import Parity, check_pairs  # noqa: E402
from hvbench.plan.skip import why_no_cuda  # noqa: E402
from hvbench.records.environment import describe_environment, usable_cores  # noqa: E402
from hvbench.records.gpu import describe_gpu  # noqa: E402
from hvbench.spec.messages import validate  # noqa: E402
from hvbench.spec.model import GPT2_PRESETS, MODEL_PRESETS  # noqa: E402
from hvbench.spec.numerics import PRECISIONS  # noqa: E402
from hvbench.spec.point import Point  # noqa: E402
from hvbench.training import corpus  # noqa: E402

DEFAULT_OUT = ROOT / "results" / "gpu"
PEERS = ("huggingface", "plain-torch")
CONTENDERS = (
    "pytorch", "pytorch+compile", *PEERS, *(f"{peer}+compile" for peer in PEERS),
    "pytorch+recompute", "pytorch+compile+recompute",
)  # fmt: skip
IN_EVERY_PRECISION = ("pytorch", "pytorch+recompute")
MICRO_BATCH_SIZES = {"gpt2": 32, "gpt2-medium": 16}  # eager, 34 and 27 GiB
COMPILE_SHARE = 0.4  # of the time, at most; processor and device are compared meanwhile
MOST_COMPILERS = 8  # processes at once
COMPILER_BYTES = (
    12 * 2**30
)  # of the device's memory that each may need: up to 16 GiB, for the second in which it takes its few steps
PREPARE_SHARE = 0.75  # of a case's time, at most: the rest is for rounds
LEAST_SECONDS = 25.0  # of a case: to load everything, and for a round
POLL_SECONDS = 0.2
NOT_COMPILED = "left out: no time was left to compile it, or that failed"
NO_TIME = "left out: no time was left"
GRACE_SECONDS = 20.0  # to end by itself
CHECKED_VOCABULARY = 300
CHECKED = ({}, {"recompute": "block"}, {"compile": "default"})


@dataclass(frozen=True, kw_only=True)
class Case:
    """What one process measures."""

    model: str
    precision: str
    contenders: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.model}-{self.precision}"

    @property
    def compiled(self) -> tuple[str, ...]:
        """Its contenders that are."""
        return tuple(name for name in self.contenders if "compile" in knobs_of(name))


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gpt2,gpt2-medium", help="by commas (default: %(default)s)")
    parser.add_argument("--precision", default="bf16,tf32,fp16,fp32", help="by commas (default: %(default)s)")
    parser.add_argument(
        "--contenders",
        help=f"by commas (default: {','.join(CONTENDERS)} in the first precision, {','.join(IN_EVERY_PRECISION)} in others)",
    )
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="(default: %(default)s)")
    parser.add_argument(
        "--micro-batch-size", type=at_least(1), help="samples a step (default: 32 of gpt2, 16 of gpt2-medium, else 8)"
    )
    parser.add_argument("--sequence-length", type=at_least(1), help="tokens a sample (default: the model's own)")
    parser.add_argument("--rounds", type=at_least(1), default=6, help="at most (default: %(default)s)")
    parser.add_argument("--turn-seconds", type=float, default=0.5, help="of one contender (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=8.0, help="the whole run ends by then (default: %(default)s)")
    parser.add_argument("--threads", type=at_least(1), default=1, help="of each process (default: %(default)s)")
    parser.add_argument("--data", default="stdlib", help="as a point's `data` (default: %(default)s)")
    parser.add_argument("--seed", type=at_least(0), default=0, help="of weights, batches, order (default: %(default)s)")
    parser.add_argument("--no-parity", action="store_true", help="leave out the comparison of processor and GPU")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder (default: results/gpu)")
    return parser.parse_args(arguments)


def plan_cases(options: argparse.Namespace) -> list[Case]:
    """Model by model, precision by precision, in the order asked for; UsageError for what there is not.

    Peers have no loss scaling: there are none in fp16. Unless `--contenders` names them, all are raced in the first precision
    and IN_EVERY_PRECISION in the others: what is compiled takes most of the time.
    """
    names = list(dict.fromkeys(options.contenders.split(","))) if options.contenders else None
    for name in names or ():
        parse_name(name)
    cases = []
    for number, precision in enumerate(dict.fromkeys(options.precision.split(","))):
        if precision not in PRECISIONS:
            raise UsageError(f"--precision {precision}: must be one of {', '.join(PRECISIONS)}")
        for model in dict.fromkeys(options.model.split(",")):
            if model not in GPT2_PRESETS:
                raise UsageError(f"--model {model}: must be one of {', '.join(GPT2_PRESETS)}")
            asked = names or (IN_EVERY_PRECISION if number else CONTENDERS)
            with_peers = not PRECISIONS[precision].loss_scaling
            chosen = tuple(name for name in asked if with_peers or name.startswith("pytorch"))
            cases.append(Case(model=model, precision=precision, contenders=chosen))
    return cases


def describe_point(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """The knobs of the point that all contenders of a case train; UsageError for a value that there is not."""
    batch = options.micro_batch_size or MICRO_BATCH_SIZES.get(case.model, 8)
    knobs = {"model": case.model, "precision": case.precision, "micro_batch_size": batch, "device": options.device}
    knobs |= {"data": options.data, "seed": options.seed, "schedule": "constant"}
    if options.sequence_length:
        knobs["sequence_length"] = options.sequence_length
    validate(Point, knobs, where="gpu.py")
    return knobs


def check_processor(options: argparse.Namespace, *, until: float) -> Iterator[dict[str, Any]]:
    """The same training of `tiny` on the processor and on the device, in each precision and with each setting: one row each."""
    common = {
        "model": "tiny",
        "vocab_size": CHECKED_VOCABULARY,
        "micro_batch_size": 4,
    }  # no multiple of what tensor cores read
    common |= {"data": options.data, "framework": "pytorch", "world_size": 1}
    precisions = [name for name in PRECISIONS if not PRECISIONS[name].uses_tf32]  # a processor has none
    pairs = []
    for precision in precisions:
        for setting in CHECKED if options.device == "cuda" else CHECKED[:2]:
            point = Point(**common, precision=precision, device="cpu")
            pairs.append((point, point.model_copy(update={"device": options.device, **setting})))
    with tempfile.TemporaryDirectory(prefix="hvbench-gpu-") as folder:
        (Path(folder) / "logs").mkdir()
        with open_launch(resolve_context(1), run_path=Path(folder)) as coordinator:
            for parity in check_pairs(coordinator, pairs, steps=CHECKED_UPDATES):  # what tolerances are measured over
                yield describe_parity(parity)
                if time.time() > until:
                    break


def describe_parity(parity: Parity) -> dict[str, Any]:
    """One row: what was compared and how far apart it was, in parts of what two implementations may differ by."""
    point = parity.points[1]
    row = {"precision": point.precision, "recompute": point.recompute, "compile": point.compile}
    if not parity.is_compared:
        return {**row, "GPU against processor": parity.problem or "nothing was compared", "": "not proven"}
    most = worst(each for each in parity.deviations if each.tolerance)
    text = f"{most.relative_error:.1e} of {most.tolerance:.0e} ({most.name})"
    return {**row, "GPU against processor": text, "": "same work" if parity.is_proven else "DIFFERS"}


def order_race(case: Case, options: argparse.Namespace, *, seconds: float, rounds: int) -> Order:
    """What a process is to do that may take so long."""
    begun = time.time()
    return Order(
        knobs=describe_point(case, options),
        contenders=list(case.contenders),
        rounds=rounds,
        turn_seconds=options.turn_seconds,
        threads=options.threads,
        seed=options.seed,
        prepare_until=begun + (PREPARE_SHARE if rounds else 1.0) * seconds,
        race_until=begun + seconds,
    )


@contextlib.contextmanager
def start(order: Order, out: Path) -> Iterator[subprocess.Popen]:
    """A process that follows `order`; ended, wherever it is, with the block."""
    with tempfile.TemporaryDirectory(prefix="hvbench-gpu-") as folder:
        order_path = Path(folder) / "order.json"
        order_path.write_text(json.dumps(asdict(order)), encoding="utf-8")
        environment = os.environ | {
            "PYTHONPATH": import_path(),
            "TORCHINDUCTOR_COMPILE_THREADS": str(max(1, usable_cores() // count_compilers())),
        }
        process = subprocess.Popen([sys.executable, "-m", "benchmarks.gpu_race", order_path, out], env=environment)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def count_compilers() -> int:
    """How many processes may compile at once."""
    memory = describe_gpu().get("memory_bytes") or MOST_COMPILERS * COMPILER_BYTES
    return max(1, min(MOST_COMPILERS, usable_cores() // 2, memory // COMPILER_BYTES))


def compile_all(
    cases: Sequence[Case], options: argparse.Namespace, *, until: float, stop: threading.Event
) -> dict[str, dict[str, float]]:
    """Compile every contender that is, a few processes at a time; seconds of its first step by case and contender.

    Afterwards the compilers' caches on disk hold what the races need.
    """
    left = [replace(case, contenders=(name,)) for case in cases for name in case.compiled]
    found: dict[str, dict[str, float]] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hvbench-gpu-")))
        running: dict[Case, tuple[subprocess.Popen, Path]] = {}
        while (left or running) and time.time() < until and not stop.is_set():
            while left and len(running) < count_compilers():
                case = left.pop(0)
                out = folder / f"{case.name}-{case.contenders[0]}.json"
                order = order_race(case, options, seconds=until - time.time(), rounds=0)
                running[case] = stack.enter_context(start(order, out)), out
            time.sleep(POLL_SECONDS)
            for case in [each for each, (process, _) in running.items() if process.poll() is not None]:
                _, out = running.pop(case)
                facts = json.loads(out.read_text(encoding="utf-8"))["contenders"] if out.exists() else {}
                for name, each in facts.items():
                    found.setdefault(case.name, {})[name] = each["first_step_seconds"]
    for case in (*running, *left):
        say(f"{case.name}: no time was left to compile {case.contenders[0]}")
    return found


def race(case: Case, options: argparse.Namespace, *, seconds: float) -> dict[str, Any] | None:
    """Run one case in a process of its own for at most so long; what it wrote, or None."""
    out = options.out / f"{case.name}.json"
    say(f"{case.name}: {len(case.contenders)} contenders, at most {seconds:.0f} s")
    with start(order_race(case, options, seconds=seconds, rounds=options.rounds), out) as process:
        try:
            code = process.wait(timeout=seconds + GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
    if code != 0:
        say(f"{case.name}: {'its time was over' if code is None else f'ended with code {code}'}")
    return json.loads(out.read_text(encoding="utf-8")) if out.exists() else None


def describe_left_out(case: Case) -> dict[str, Any]:
    """What `benchmarks.gpu_race` would write of a case for which no time was left."""
    failed = dict.fromkeys(case.contenders, NO_TIME)
    return {
        "case": {"model": case.model, "precision": case.precision},
        "contenders": {},
        "failed": failed,
        "launches": [],
    }


def run(options: argparse.Namespace, *, ends: float) -> None:
    """Everything that there is time for, the tables written anew after each part."""
    cases = plan_cases(options)
    for case in cases:
        describe_point(case, options)
    if options.device == "cuda" and (why := why_no_cuda("pytorch")):
        raise UsageError(f"{why}; --device cpu tries the program out")
    options.out.mkdir(parents=True, exist_ok=True)
    for case in cases:  # of an earlier run
        (options.out / f"{case.name}.json").unlink(missing_ok=True)
    write_json(options.out / "machine.json", describe_environment())
    for vocab_size in {CHECKED_VOCABULARY, *(MODEL_PRESETS[case.model]["vocab_size"] for case in cases)}:
        corpus.prepare(options.data, vocab_size=vocab_size)  # once, not by every process
    checks: list[dict[str, Any]] = []
    races: list[dict[str, Any]] = []
    until, stop = time.time() + COMPILE_SHARE * 60 * options.minutes, threading.Event()
    with ThreadPoolExecutor(max_workers=1) as pool:
        compiling = pool.submit(compile_all, cases, options, until=until, stop=stop)
        try:
            for row in [] if options.no_parity else check_processor(options, until=until):
                checks.append(row)
                write_json(options.out / "checks.json", checks)
            first_steps = compiling.result()
        except BaseException:
            stop.set()
            raise
    if checks:
        say(format_table(checks))
    for case in cases:
        compiled = first_steps.get(case.name, {})
        missing = [name for name in case.compiled if name not in compiled]
        ready = replace(case, contenders=tuple(name for name in case.contenders if name not in missing))
        seconds = ends - time.time()
        if seconds < LEAST_SECONDS:
            found = describe_left_out(case)
        elif not (found := race(ready, options, seconds=seconds)):
            continue
        found["compiling_seconds"] = compiled
        found["failed"] |= {name: NOT_COMPILED for name in missing}
        write_json(options.out / f"{case.name}.json", found)
        races.append(found)
        write_text(options.out / "table.md", to_markdown(races, checks))
    print(to_markdown(races, checks))
    say(f"records: {options.out}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; the exit code."""
    begun = time.time()
    options = parse_arguments(arguments)
    try:
        with stoppable():
            run(options, ends=begun + 60 * options.minutes - GRACE_SECONDS)
    except Interrupted as reason:
        say(f"{reason}; what was measured is in {options.out}")
        return reason.exit_code
    except HvbenchError as error:
        say(f"Error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

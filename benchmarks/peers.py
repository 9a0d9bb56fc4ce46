"""Tokens/s of hvbench's GPT beside Hugging Face's GPT-2, a plain torch loop and keras-hub's GPT-2: is it slow?

    python benchmarks/peers.py                                            about 6 minutes on 2 cores
    python benchmarks/peers.py --contenders pytorch,plain-torch --rounds 12 --precision fp32
    python benchmarks/peers.py --sequence-length 64 --out peers64

All train the same shape from the same weights on the same tokens, with AdamW and clipping, on as many threads. Each
launch is a fresh process; a round launches every contender once, in random order, the next round in reverse. The
peers need `pip install '.[peers]'`. OUT receives `launches.json` (raw samples) and `table.md`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run as a script, it finds its neighbours and the hvbench beside it

from benchmarks.contender import CONTENDERS  # noqa: E402
from benchmarks.ratios import check_equal_work, plan_rounds, to_markdown  # noqa: E402
from hvbench.records.environment import describe_environment, package_version  # noqa: E402
from hvbench.spec.model import MODEL_PRESETS  # noqa: E402
from hvbench.spec.point import Point  # noqa: E402

NEEDS = {
    "pytorch": ["torch"],
    "plain-torch": ["torch"],
    "huggingface": ["torch", "transformers"],
    "tensorflow": ["tensorflow"],
    "keras-hub": ["tensorflow", "keras_hub"],
}
PEER_PACKAGES = ("torch", "tensorflow-cpu", "tensorflow", "keras", "transformers", "keras-hub", "numpy")
LAUNCH_TIMEOUT_SECONDS = 600


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contenders", default=",".join(CONTENDERS), help="which, by commas (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=6, help="launches of each contender (default: %(default)s)")
    parser.add_argument("--precision", default="fp32,bf16", help="by commas (default: %(default)s)")
    parser.add_argument("--model", default="small", choices=sorted(MODEL_PRESETS), help="sizes (default: %(default)s)")
    parser.add_argument("--sequence-length", type=int, help="tokens a sample (default: the model's own)")
    parser.add_argument("--micro-batch-size", type=int, default=8, help="samples a step (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of each process (default: %(default)s)")
    parser.add_argument("--warmup-steps", type=int, default=2, help="left out of each launch (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=6, help="timed steps a launch, at most (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.5, help="stop timing steps after (default: %(default)s)")
    parser.add_argument("--data", default="stdlib", help="as a point's `data` (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, batches and order (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="folder for raw samples and tables (default: none is written)")
    options = parser.parse_args(arguments)
    options.contenders = options.contenders.split(",")
    unknown = [name for name in options.contenders if name not in CONTENDERS]
    if unknown:
        parser.error(f"unknown contender {unknown[0]}; allowed: {', '.join(CONTENDERS)}")
    for name in options.contenders:
        missing = [module for module in NEEDS[name] if importlib.util.find_spec(module) is None]
        if missing:
            parser.error(f"{name} needs {missing[0]}: pip install '.[peers]', or leave it out with --contenders")
    return options


def describe_cases(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One point's knobs per precision."""
    knobs = {"model": options.model, "micro_batch_size": options.micro_batch_size, "data": options.data}
    knobs |= {"seed": options.seed, "schedule": "constant"}
    if options.sequence_length:
        knobs["sequence_length"] = options.sequence_length
    cases = [knobs | {"precision": precision} for precision in options.precision.split(",")]
    for case in cases:
        Point(**case)  # a wrong value is found before anything is started
    return cases


def launch(name: str, cases: list[dict[str, Any]], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Train the cases of one contender in a fresh process. RuntimeError with the end of its log if it fails."""
    order = {"contender": name, "cases": cases}
    order |= {key: getattr(options, key) for key in ("threads", "warmup_steps", "steps", "seconds")}
    environment = os.environ | {
        "OMP_NUM_THREADS": str(options.threads),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    with tempfile.TemporaryDirectory() as folder:
        order_path, out_path = Path(folder, "order.json"), Path(folder, "samples.json")
        order_path.write_text(json.dumps(order), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.contender", str(order_path), str(out_path)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LAUNCH_TIMEOUT_SECONDS,
        )
        if done.returncode:
            raise RuntimeError(f"{name} failed:\n{done.stdout[-3000:]}")
        return json.loads(out_path.read_text(encoding="utf-8"))


def run_rounds(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every launch of every round; the precisions change their order with the contenders."""
    launches = []
    for number, names in enumerate(plan_rounds(options.contenders, rounds=options.rounds, seed=options.seed)):
        cases = describe_cases(options)
        for name in names:
            begun = time.monotonic()
            found = launch(name, cases[::-1] if number % 2 else cases, options)
            launches += [each | {"round": number} for each in found]
            seconds = time.monotonic() - begun
            print(f"round {number + 1}/{options.rounds}  {name:12s} {seconds:5.1f} s", file=sys.stderr, flush=True)
    return launches


def main() -> None:
    """Run, check that the work was equal, print the tables and keep the samples."""
    options = parse_arguments()
    describe_cases(options)
    launches = run_rounds(options)
    check_equal_work(launches)
    tables = to_markdown(launches, options.contenders)
    print(tables)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        packages = {name: version for name in PEER_PACKAGES if (version := package_version(name))}
        asked = {key: value for key, value in vars(options).items() if key != "out"}
        content = {"asked": asked, "environment": describe_environment(), "packages": packages, "launches": launches}
        (options.out / "launches.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        (options.out / "table.md").write_text(tables, encoding="utf-8")


if __name__ == "__main__":
    main()

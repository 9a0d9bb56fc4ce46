"""Tokens/s of hvbench's GPT beside Hugging Face's GPT-2, a plain torch loop and keras-hub's GPT-2: is it slow?

    python benchmarks/peers.py                                            about 30 minutes on 2 idle cores
    python benchmarks/peers.py --contenders pytorch,huggingface,huggingface+compile --precision fp32 --shapes 128x8
    python benchmarks/peers.py --rounds 12                                goes on where the first one ended

All train the same shape from the same weights on the same tokens, with AdamW and clipping, on as many threads. A round
launches every contender once, each as a fresh process; all of them live at the same time and take turns, step by step.
The rule by which hvbench calls anything faster judges the rounds. Beside speed stand memory, and the floor of each
implementation here: its own matrix products and attention alone.

NAME+SETTING is a contender with one setting that it has not as it is:

{variants}

The peers need `pip install '.[peers]'` (benchmarks/README.md has how, and a trap). OUT/PRECISION receives `launches.json`
(raw samples) after every round, and `table.md`. Ctrl-C keeps the rounds that are complete.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # run as a script, it finds its neighbours and the hvbench beside it

from benchmarks.contenders import VARIANTS, Contender, all_names, parse_contender  # noqa: E402
from benchmarks.ratios import describe_price  # noqa: E402
from benchmarks.rounds import Rounds  # noqa: E402
from benchmarks.side_by_side import Work, run_round  # noqa: E402
from hvbench.comparison.ab.run import stoppable  # noqa: E402
from hvbench.errors import HvbenchError, Interrupted, UsageError  # noqa: E402
from hvbench.spec.messages import validate  # noqa: E402
from hvbench.spec.model import GPT2_PRESETS  # noqa: E402
from hvbench.spec.point import Point  # noqa: E402
from hvbench.training import corpus  # noqa: E402

DEFAULT_OUT = ROOT / "results" / "peers"
USUAL = [name for name in all_names() if not name.endswith(("+again", "+xla", "+onednn", "+malloc"))]
PRECISIONS = ("fp32", "bf16")
PARTS = ("threads", "warmup_steps", "steps", "seconds")  # of the work, as they are asked for


@dataclass(frozen=True, kw_only=True)
class Race:
    """What is run in one precision at one length."""

    contenders: list[Contender]
    work: Work
    length: int
    rounds: Rounds


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """What the command line asks for."""
    variants = "\n".join(f"    {name:8s} {each.meaning} ({', '.join(each.of)})" for name, each in VARIANTS.items())
    parser = argparse.ArgumentParser(
        description=__doc__.format(variants=variants), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--contenders", default=",".join(USUAL), help="which, by commas (default: %(default)s)")
    parser.add_argument("--rounds", type=at_least(1), default=4, help="of fresh processes (default: %(default)s)")
    parser.add_argument("--precision", default="fp32,bf16", help="by commas (default: %(default)s)")
    parser.add_argument("--model", default="small", choices=GPT2_PRESETS, help="sizes (default: %(default)s)")
    parser.add_argument(
        "--shapes", type=shapes, default=shapes("128x8,2048x1"),
        help="TOKENSxSAMPLES of a step, by commas, each length once (default: 128x8,2048x1)",
    )  # fmt: skip
    parser.add_argument("--threads", type=at_least(1), default=1, help="of each process (default: %(default)s)")
    parser.add_argument(
        "--warmup-steps", type=at_least(1), default=2, help="left out of each launch (default: %(default)s)"
    )
    parser.add_argument(
        "--steps", type=at_least(1), default=8, help="timed steps a launch, at most (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="stop timing steps after (default: %(default)s)")
    parser.add_argument("--data", default="stdlib", help="as a point's `data` (default: %(default)s)")
    parser.add_argument(
        "--seed", type=at_least(0), default=0, help="of weights, batches and order (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="folder of the records (default: results/peers)")
    parser.add_argument("--anew", action="store_true", help="replace the rounds that OUT holds")
    return parser.parse_args(arguments)


def at_least(least: int) -> Callable[[str], int]:
    """A whole number of at least `least`, for argparse."""

    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value}: must be at least {least}")
        return value

    return number


def shapes(text: str) -> dict[int, int]:
    """`128x8,2048x1` -> sequence length -> samples a step, for argparse."""
    found = {}
    for part in text.split(","):
        length, times, samples = part.partition("x")
        if not (times and length.isdecimal() and samples.isdecimal() and int(length) and int(samples)):
            raise argparse.ArgumentTypeError(f"{part}: must be TOKENSxSAMPLES, such as 128x8")
        if int(length) in found:
            raise argparse.ArgumentTypeError(f"{text}: the length {length} comes up twice")
        found[int(length)] = int(samples)
    return found


def choose_contenders(names: Sequence[str], *, precision: str) -> list[Contender]:
    """Those of `names` that there are in this precision; a line for each that there is not. UsageError: one cannot run here."""
    chosen = []
    for contender in map(parse_contender, dict.fromkeys(names)):
        if missing := contender.why_missing():
            raise UsageError(f"{contender.name} {missing}; or leave it out with --contenders")
        if why := contender.variant.impossible(contender.base, precision):
            say(f"{precision}: without {contender.name}: {why}")
        else:
            chosen.append(contender)
    return chosen


def describe_point(options: argparse.Namespace, *, precision: str, length: int) -> dict[str, Any]:
    """The knobs of the point that all train; UsageError for a value that there is not."""
    knobs = {"model": options.model, "sequence_length": length, "micro_batch_size": options.shapes[length]}
    knobs |= {"data": options.data, "seed": options.seed, "schedule": "constant", "precision": precision}
    validate(Point, knobs, where="peers.py")  # a wrong value is found before anything is started
    return knobs


def plan_races(options: argparse.Namespace) -> list[Race]:
    """One race a precision and length, with the rounds that it has already. UsageError for what cannot be run."""
    races = []
    for precision in dict.fromkeys(options.precision.split(",")):
        if precision not in PRECISIONS:
            raise UsageError(f"--precision {precision}: must be {' or '.join(PRECISIONS)}, which the peers have, too")
        knobs = {length: describe_point(options, precision=precision, length=length) for length in options.shapes}
        contenders = choose_contenders(options.contenders.split(","), precision=precision)
        parts = {name: getattr(options, name) for name in PARTS}
        shared = {name: getattr(options, name) for name in ("model", "data", "seed")}
        shapes = [f"{length}x{samples}" for length, samples in options.shapes.items()]
        asked = {**shared, **parts, "shapes": shapes, "contenders": [contender.name for contender in contenders]}
        rounds = Rounds(options.out / precision, asked, anew=options.anew)
        races += [
            Race(contenders=contenders, work=Work(knobs=knobs[length], **parts), rounds=rounds, length=length)
            for length in options.shapes
        ]
    return races


def run_races(races: Sequence[Race], *, rounds: int, seed: int) -> None:
    """Run the rounds that are missing, the first of every race, then the second, …; each is kept when it is complete."""
    missing = [(number, race) for number in range(rounds) for race in races if race.rounds.count(race.length) <= number]
    begun = time.monotonic()
    for done, (number, race) in enumerate(missing, start=1):
        race.rounds.add(run_round(race.contenders, race.work, seed=(seed, number)))
        seconds = (time.monotonic() - begun) / done
        left = f"about {math.ceil(seconds * (len(missing) - done) / 60)} min left" if done < len(missing) else "done"
        what = f"{race.work.knobs['precision']}, {race.length} tokens, {len(race.contenders)} contenders in turns"
        say(f"round {number + 1}/{rounds}  {what}  {seconds:.0f} s a round, {left}")


def say(line: str) -> None:
    """A line of progress."""
    print(line, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, keep the samples, print the tables; the exit code."""
    options = parse_arguments(arguments)
    code = 0
    races: list[Race] = []
    try:
        races = plan_races(options)
        point = Point(**races[0].work.knobs)
        corpus.prepare(point.data, vocab_size=point.vocab_size)  # once, not by every process of the first round
        with stoppable():
            run_races(races, rounds=options.rounds, seed=options.seed)
    except Interrupted as reason:
        say(f"{reason}; complete rounds are kept, and the same command goes on with the next")
        code = reason.exit_code
    except HvbenchError as error:
        say(f"Error: {error}")
        code = error.exit_code
    for rounds in {id(race.rounds): race.rounds for race in races}.values():
        if rounds.launches:
            print(rounds.table)
            for line in describe_price(rounds.launches):
                print(f"{line}\n")
            say(f"records: {rounds.folder}")
    return code


if __name__ == "__main__":
    sys.exit(main())

"""Hostile suites, records and run descriptions: each ends in a value or in one printable line, soon, and runs nothing.

    python -m tests.faults.fuzz --inputs 100000

Hypothesis draws the first inputs; the others are these, mutated: cut, spliced, their words replaced, repeated, dropped.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
import random
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.markdown import render_report
from hvbench.analysis.report.page.render import render_page
from hvbench.analysis.show.render import frame_to_csv, render_csv, render_markdown, render_text
from hvbench.analysis.topics.convergence.table import convergence_table
from hvbench.analysis.topics.throughput.table import throughput_table
from hvbench.errors import UsageError
from hvbench.plan.estimates import estimate_sweep_seconds
from hvbench.plan.jobs import make_plan
from hvbench.records.environment import describe_environment
from hvbench.records.record import Evaluation, ModelFacts, Outcome, RankSamples, Record
from hvbench.records.store import parse_record, parse_run
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.spec.suite import list_suites, parse_suite
from hvbench.sweep.resume import describe_changes, find_changes
from hvbench.training.flops import model_facts

# fmt: off
HOSTILE_TEXTS = [
    "../../etc/passwd", "/etc/passwd", "a/b", "..", ".", "", " ", "\x00", "\x1b[31mred\x1b[0m", "\r\n", "a\nb", "\u202egnp.exe",
    "\ud800", "\U0010ffff", "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "|x|y|", "`x`", "[a](javascript:b)",
    "=cmd()", "{{7*7}}", "${HOME}", "%s%n", "__import__('os')", "!!python/object", "nan", "inf", "1e999", "-0", "null", "x" * 5000,
]
HOSTILE_NUMBERS = [
    0, -1, 1, 2**22 - 1, 2**31, 2**40 - 1, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30, 10**400, 0.0, -0.0, 1e99, -1e99, 1e308, -1e308,
    5e-324, 1e999, float("nan"), True,
]
# fmt: on
HOSTILE_TEXT, HOSTILE_NUMBER = st.sampled_from(HOSTILE_TEXTS), st.sampled_from(HOSTILE_NUMBERS)
SCALAR = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), HOSTILE_TEXT, HOSTILE_NUMBER,
    st.sampled_from(["pytorch", "tensorflow", "tiny", "small", "fp32", "bf16", "cosine", "ok", "failed", "cpu"]),
)  # fmt: skip
FACTS = sorted(
    {*describe_environment(), "peak_flops_per_second_per_rank", "framework_versions", "load_before", "tokens_digest"}
)
RUN_KEYS = (
    "suite", "question", "command", "hvbench_version", "created_at", "world_size", "base", "axes", "exclude", "measure", "jobs",
    "skipped", "environment", "data", "sessions",
)  # fmt: skip
KEYS = st.one_of(
    st.text(max_size=8),
    HOSTILE_TEXT,
    st.sampled_from(FACTS),
    st.sampled_from(
        sorted(
            {
                *Point.model_fields,
                *MeasureSettings.model_fields,
                *Record.model_fields,
                *RankSamples.model_fields,
                "schema_version",
            }
        )
    ),
)
TREE = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


@functools.cache
def sample_record() -> str:
    """A valid record, as JSON."""
    point = Point(model="tiny", world_size=2)
    ranks = [
        RankSamples(
            rank=rank, host="host", local_rank=rank, threads=1, device="cpu", step_seconds=[0.1] * 3, data_seconds=[0.0] * 3,
            loss=[5.0, 4.0, None], gradient_norm=[1.0] * 3, learning_rate=[1e-3] * 3, loss_scale=[1.0] * 3, skipped_steps=[],
            evaluations=[Evaluation(step=0, loss=5.0, samples=4, seconds=0.1, training_seconds=0.0)], data_prepare_seconds=0.1,
            build_seconds=0.1, peak_rss_bytes=1, start_rss_bytes=1, peak_device_memory_bytes=None,
        )
        for rank in range(2)
    ]  # fmt: skip
    record = Record(
        suite="fuzz", point_id=point.point_id, point=point, repeat=0, measure=MeasureSettings(), outcome=Outcome(status="ok"),
        model=ModelFacts(**model_facts(point).model_dump()), environment={"cpu": {"cores": 2}}, ranks=ranks,
        started_at="2024-05-06T07:00:00+00:00", duration_seconds=1.0,
    )  # fmt: skip
    return json.dumps(record.model_dump())


def replace_somewhere(tree: Any, path: list[int], value: Any, *, key: str | None = None) -> Any:
    """`tree` with the node at `path` (numbers that choose a child, modulo) replaced, or joined by a new key."""
    if isinstance(tree, dict) and tree and path:
        name = list(tree)[path[0] % len(tree)]
        return {**tree, name: replace_somewhere(tree[name], path[1:], value, key=key)}
    if isinstance(tree, list) and tree and path:
        index = path[0] % len(tree)
        return [*tree[:index], replace_somewhere(tree[index], path[1:], value, key=key), *tree[index + 1 :]]
    return {**tree, key: value} if key is not None and isinstance(tree, dict) else value


@st.composite
def mutated_records(draw: st.DrawFn) -> bytes:
    """A valid record with a few nodes replaced, keys added, or bytes cut and flipped."""
    tree = json.loads(sample_record())
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.lists(st.integers(0, 40), max_size=5))
        tree = replace_somewhere(tree, path, draw(TREE), key=draw(st.none() | KEYS))
    return draw(damaged(json.dumps(tree).encode()))


@st.composite
def plausible_records(draw: st.DrawFn) -> bytes:
    """A valid record whose texts and numbers are others of their kind: most are accepted, and must be harmless."""
    tree = json.loads(sample_record())
    for key in ("suite", "started_at"):
        tree[key] = draw(st.text(max_size=40) | HOSTILE_TEXT)
    tree["outcome"] = {
        "status": draw(st.sampled_from(["ok", "failed", "oom", "diverged"])),
        "message": draw(st.none() | st.text(max_size=40) | HOSTILE_TEXT),
        "log": draw(st.none() | HOSTILE_TEXT),
        "phase": draw(st.none() | HOSTILE_TEXT),
    }
    tree["point"]["data"] = draw(st.just("stdlib") | st.text(max_size=40) | HOSTILE_TEXT)
    tree["environment"] = draw(st.dictionaries(KEYS, TREE, max_size=3))
    tree["duration_seconds"] = draw(st.just(1.0) | st.floats(min_value=0, max_value=1e15) | HOSTILE_NUMBER)
    for rank in tree["ranks"]:
        rank["host"] = draw(st.text(max_size=40) | HOSTILE_TEXT)
        seconds = st.floats(min_value=0, max_value=1e15, exclude_max=True)
        rank["step_seconds"] = draw(st.lists(seconds, min_size=3, max_size=3))
        rank["loss"] = draw(st.lists(st.none() | st.floats(min_value=-1e99, max_value=1e99), min_size=3, max_size=3))
        rank[draw(st.sampled_from(["data_seconds", "learning_rate"]))] = draw(st.lists(seconds, max_size=5))
        rank["peak_rss_bytes"] = draw(st.just(1) | HOSTILE_NUMBER)
        rank["evaluations"] = [
            {
                "step": draw(st.integers(0, 3) | HOSTILE_NUMBER), "loss": draw(st.none() | st.floats(-1e99, 1e99)),
                "samples": draw(st.just(4) | HOSTILE_NUMBER), "seconds": draw(seconds), "training_seconds": draw(seconds),
            }
            for _ in range(draw(st.integers(0, 2)))
        ]  # fmt: skip
    tree["measure"] |= {
        "warmup_steps": 1,
        "steps": 2,
        "target_loss": draw(st.none() | st.floats(min_value=1e-9, max_value=1e99)),
    }
    return json.dumps(tree).encode()


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """Mostly `content` itself; sometimes cut short, with bytes put in, or nested deeply."""

    def cut(place: int) -> bytes:
        return content[: place % (len(content) + 1)]

    def put(pair: tuple[int, bytes]) -> bytes:
        place = pair[0] % (len(content) + 1)
        return content[:place] + pair[1] + content[place:]

    whole = st.just(content)
    places = st.integers(0, 1 << 16)
    return st.one_of(
        whole, whole, whole, places.map(cut), st.tuples(places, st.binary(min_size=1, max_size=8)).map(put)
    )


# fmt: off
EXTREME_RECORDS = [
    b"[" * 100_000, b'{"a":' * 50_000, b"9" * 5000, b'{"schema_version":' + b"9" * 4000 + b"}", b"\xff\xfe\x00", b"",
    b'{"schema_version": 1e999}', b'{"schema_version": NaN}', b'"' + b"x" * 10_000_000 + b'"', b"-" * 100_000,
    b'{"schema_version": 1, "suite": "' + b"y" * 10_000_000 + b'"}', b"[1," * 30_000 + b"1" + b"]" * 30_000,
]
# fmt: on
RECORDS = st.one_of(
    mutated_records(), plausible_records(), TREE.map(lambda tree: json.dumps(tree).encode()), st.binary(max_size=200)
)
RUNS = st.one_of(
    st.dictionaries(st.sampled_from(RUN_KEYS) | KEYS, TREE, max_size=6).map(
        lambda tree: json.dumps({**tree, "schema_version": 4}).encode()
    ),
    RECORDS,
)
REPORTS = st.tuples(st.lists(plausible_records(), min_size=1, max_size=3), RUNS)


def toml_value(value: Any) -> str:
    """`value` as TOML, as far as TOML has it; otherwise something that is not TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value)


@st.composite
def structured_suites(draw: st.DrawFn) -> str:
    """Tables and keys of a suite with any values."""
    lines = []
    for table in draw(st.lists(st.sampled_from(["point", "axes", "measure", "[exclude]", "other"]), max_size=4)):
        lines.append(f"[{table}]")
        for key, value in draw(st.lists(st.tuples(KEYS, TREE), max_size=4)):
            listed = [value] if table == "axes" and draw(st.booleans()) else value
            lines.append(f"{json.dumps(key)} = {toml_value(listed)}")
    return "\n".join(lines)


VALUES = {
    "framework": ["pytorch", "tensorflow", "jax"], "model": ["tiny", "small", "huge"], "micro_batch_size": [1, 2, 0, 10**7],
    "sequence_length": [8, 2**40], "precision": ["fp32", "bf16", "int8"], "seed": [0, 1, -1], "data": ["stdlib", "synthetic", "/dev/zero"],
    "learning_rate": [1e-3, 0.0, float("nan"), float("inf")], "hidden_size": [32, 10**6], "num_layers": [2, 10**6], "world_size": [1, 2],
}  # fmt: skip


@st.composite
def nearly_right_suites(draw: st.DrawFn) -> str:
    """Mostly valid: the checks behind the first one are reached too."""
    keys = list(VALUES)
    lines = ["[point]"]
    lines += [
        f"{key} = {toml_value(draw(st.sampled_from(VALUES[key])))}"
        for key in draw(st.lists(st.sampled_from(keys), max_size=3))
    ]
    lines.append("[axes]")
    for key in draw(st.lists(st.sampled_from(keys), max_size=3)):
        lines.append(f"{key} = {toml_value(draw(st.lists(st.sampled_from(VALUES[key]), max_size=3)))}")
    if draw(st.booleans()):
        lines += ["[[exclude]]", f"seed = {draw(st.integers(-1, 2))}"]
    if draw(st.booleans()):
        lines += ["[measure]", f"steps = {draw(st.integers(-1, 3))}"]
    return "\n".join(lines)


# fmt: off
EXTREME_SUITES = [
    "[point]\n" + "seed." * 190 + "a = 1", "[" + "a." * 190 + "b]\n" + "".join("a." * 190 + f"b{number} = 1\n" for number in range(160)),
    "\n".join(["[[exclude]]\nseed = 200"] * 100) + "\n[axes]\nseed = " + str(list(range(100))) + "\nmicro_batch_size = " + str(list(range(1, 101))),
    'question = "\\u001b[2J"', "[measure]\nrepeats = 100\n[axes]\nseed = " + str(list(range(2000))),
    "[" * 50_000, "x = " + "[" * 50_000, "a." * 30_000 + "b = 1", "[" + "a." * 30_000 + "b]", 'question = "' + "x" * 900_000 + '"',
    "seed = " + "9" * 5000, "[axes]\nseed = [" + ",".join(map(str, range(100_000))) + "]", "[point]\nmodel." + "a." * 5_000 + "b = 1",
    "[axes]\n" + "\n".join(f"{key} = {list(range(1, 60))}" for key in ("seed", "micro_batch_size", "sequence_length")),
    "\n".join(["[[exclude]]\nseed = 1"] * 20_000), "[point]\ndata = '''" + "\n" * 100_000 + "'''", "x = " + "{a = " * 20_000,
]
# fmt: on
SUITES = st.one_of(structured_suites(), nearly_right_suites(), nearly_right_suites(), st.text(max_size=200))


@dataclass
class Tally:
    """How inputs of one loader ended, and how long the slowest took."""

    endings: Counter = field(default_factory=Counter)
    slowest_seconds: float = 0.0
    slowest: str = ""

    def load(self, loader: Callable[[Any], Any], content: Any) -> bool:
        """Load one input: a value (True) or one short line; anything else is the defect that this program looks for."""
        begun = time.perf_counter()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # a user would see it
                loader(content)
            ending = "accepted"
        except UsageError as error:
            message = str(error)
            assert len(message) < 2000 and len(message.splitlines()) == 1, message[:500]
            ending = "refused"
        seconds = time.perf_counter() - begun
        self.endings[ending] += 1
        if seconds > self.slowest_seconds:
            self.slowest_seconds, self.slowest = seconds, repr(content)[:80]
        return ending == "accepted"


def load_suite_text(text: str) -> None:
    """A suite all the way to its points, and some of them to the plan."""
    suite = parse_suite(text, name="fuzz", where="fuzz.toml")
    points = suite.points()
    assert all(re.fullmatch(r"[\w.-]{1,200}", point.point_id, re.ASCII) for point in points)
    plan = make_plan(points[:20], suite.measure, world_size=2)
    assert math.isfinite(estimate_sweep_seconds(plan.jobs, suite.measure))
    assert all(skipped.reason.isprintable() for skipped in plan.skipped)


def load_run(content: bytes) -> dict[str, Any]:
    """A run's description all the way to what `--resume` says of it."""
    run = parse_run(content, where="run.json")
    line = describe_changes(find_changes(run, json.loads(sample_run())))
    assert len(line.splitlines()) <= 1
    return run


@functools.cache
def sample_run() -> str:
    """What a sweep would write into run.json, as JSON."""
    lists = {"jobs": ["a.r0"], "skipped": [], "base": {}, "axes": {"seed": [1]}, "exclude": []}
    return json.dumps(
        {
            **lists,
            "world_size": 2,
            "measure": MeasureSettings().model_dump(),
            "environment": {"cpu_model": "x"},
            "data": {},
        }
    )


def load_and_report(contents: tuple[list[bytes], bytes]) -> None:
    """Records and a run all the way to every text that `hvbench report` writes: one line a row, nothing alive in it."""
    run, records = {}, []
    for content in contents[0]:
        with contextlib.suppress(UsageError):
            records.append(parse_record(content, where="fuzz.json"))
    with contextlib.suppress(UsageError):
        run = parse_run(contents[1], where="run.json")
    if not records and not run:
        raise UsageError("nothing to report")
    one = Run(records, run)
    tables = [throughput_table(one), convergence_table(one)]
    texts = [render(table) for table in tables for render in (render_text, render_markdown, render_csv)]
    texts += [frame_to_csv(one.points), render_page(one, plots=[]), render_report(one, plots={})]
    for text in texts:
        assert all(each.isprintable() or each == "\n" for each in text)
    for text in (texts[1], texts[4], texts[-1]):
        outside_code = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
        assert not re.search(r"<(script|img)|(?<!\\)\]\(javascript:", outside_code), outside_code


# name -> what to try once, what to draw from, what reads it
LOADERS: dict[str, tuple[list, st.SearchStrategy, Callable[[Any], Any]]] = {
    "suite": (EXTREME_SUITES, SUITES, load_suite_text),
    "record": (EXTREME_RECORDS, RECORDS, lambda content: parse_record(content, where="fuzz.json")),
    "run": (EXTREME_RECORDS, RUNS, load_run),
    "report": ([], REPORTS, load_and_report),
}


# Where mutations start from, besides what hypothesis draws.
GOOD: dict[str, list] = {
    "suite": [path.read_text() for path in list_suites()],
    "record": [sample_record().encode()],
    "run": [json.dumps({**json.loads(sample_run()), "schema_version": 4}).encode()],
    "report": [],
}
WORD = re.compile(rb'"[^"]{0,60}"|[\w.+-]{1,60}|[^\w\s]')
WORDS = [
    *(json.dumps(word).encode() for word in (*HOSTILE_TEXTS, *RUN_KEYS, *Point.model_fields, *MeasureSettings.model_fields)),
    *(b"1", b"0", b"3", b"0.5", b"2.5e3", b'"x"', b'"a b"', b'"ok"', b'"failed"') * 20,
    *(repr(number).encode() for number in HOSTILE_NUMBERS), b"NaN", b"1e999", b"null", b"true", b"[]", b"{}", b"[[", b"}}", b"=", b"\xff", b"",
]  # fmt: skip


def mutate(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """`content` with one to three changes: a word replaced or dropped, a part repeated, cut out, or taken from `other`."""
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        start = chance.randrange(len(content) + 1)
        end = min(len(content), start + chance.randrange(1, 80))
        change = chance.randrange(7)
        if change < 4 and (found := WORD.search(content, start)):
            content = content[: found.start()] + chance.choice(WORDS) + content[found.end() :]
        elif change == 4:
            content = content[:start] + content[start:end] * chance.choice((0, 2, 30))
            content += content[end:] if chance.random() < 0.8 else b""
        elif change == 5:
            place = chance.randrange(len(other) + 1)
            content = content[:start] + other[place : place + 80] + content[end:]
        else:
            content = content[:start] + chance.randbytes(1) + content[start + 1 :]
    return content


def fuzz(name: str, *, inputs: int, derandomize: bool, mutations: int = 0, seed: int = 0) -> Tally:
    """Feed one loader; an exception other than UsageError comes out with the input that caused it."""
    extremes, strategy, loader = LOADERS[name]
    good = list(GOOD[name])
    pool: list[Any] = []
    tally = Tally()
    for content in extremes:
        tally.load(loader, content)

    @settings(
        max_examples=inputs, deadline=None, database=None, derandomize=derandomize, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )  # fmt: skip
    @given(strategy)
    def feed(content: Any) -> None:
        pool.append(content)
        if tally.load(loader, content):
            good.append(content)

    feed()
    chance = random.Random(seed)
    for _ in range(mutations):
        content, other = chance.choice(good if chance.random() < 0.8 else pool), chance.choice(pool)
        if isinstance(content, str):
            content = mutate(content.encode(), other.encode(), chance).decode(errors="replace")
        else:
            content = mutate(content, other, chance)
        try:
            if tally.load(loader, content):
                good.append(content)  # a mutation of it may get further
        except Exception as error:
            error.add_note(f"input: {content!r}")
            raise
    return tally


def main() -> None:
    """Run the slow version and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="of each loader")
    parser.add_argument(
        "--drawn", type=int, default=3_000, help="of these, drawn by hypothesis; the others are mutations"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--loaders", nargs="+", choices=LOADERS, default=list(LOADERS))
    options = parser.parse_args()
    for name in options.loaders:
        begun = time.monotonic()
        drawn = min(options.inputs, options.drawn)
        tally = fuzz(name, inputs=drawn, derandomize=False, mutations=options.inputs - drawn, seed=options.seed)
        total, seconds = sum(tally.endings.values()), time.monotonic() - begun
        endings = ", ".join(f"{count} {ending}" for ending, count in sorted(tally.endings.items()))
        print(
            f"{name}: {total} inputs in {seconds:.0f} s: {endings}; slowest {tally.slowest_seconds:.2f} s: {tally.slowest}",
            flush=True,
        )


if __name__ == "__main__":
    main()

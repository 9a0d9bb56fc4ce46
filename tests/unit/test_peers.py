"""The peers benchmark: its arithmetic by hand, what it keeps and refuses, and one real, small run of it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import benchmarks.contenders as contenders_module
from benchmarks.contenders import IMPLEMENTATIONS, all_names, parse_contender
from benchmarks.peers import USUAL, choose_contenders, main
from benchmarks.ratios import (
    QUESTIONS,
    check_equal_work,
    describe_price,
    find_bar,
    judge,
    judge_bar,
    log_speeds,
    memory_rows,
    rate_rows,
    ratio_rows,
    split_by_length,
    tokens_per_second,
)
from benchmarks.rounds import Rounds
from benchmarks.side_by_side import Work, run_round
from hvbench.analysis.stats.contrasts import Call, Contrast
from hvbench.errors import LaunchError, UsageError
from tests import patience

ROOT = Path(__file__).parents[2]
TWINS, FLOORS, SETTINGS = QUESTIONS


def make_launch(contender: str, *, number: int, step_seconds: float, **changes: object) -> dict:
    """One launch: a slow warm-up step, two timed ones and an outlier."""
    seconds = [9.0, step_seconds, step_seconds, 4 * step_seconds]
    return {
        "contender": contender,
        "round": number,
        "precision": "fp32",
        "sequence_length": 128,
        "parameters": 1000,
        "tokens_per_step": 60,
        "warmup_steps": 1,
        "step_seconds": seconds,
        "cpu_seconds": [value / 2 for value in seconds],
        "loss": [5.5, 5.4, 5.3, 5.2],
        "base_rss_bytes": 300 * 2**20,
        "peak_rss_bytes": 500 * 2**20,
        **changes,
    }


def make_rounds(seconds: dict[str, list[float]]) -> list[dict]:
    """Launches of contenders, given the step seconds of each round."""
    return [
        make_launch(name, number=number, step_seconds=value)
        for name, values in seconds.items()
        for number, value in enumerate(values)
    ]


def test_rate_is_tokens_over_seconds_without_the_warm_up() -> None:
    assert tokens_per_second(make_launch("pytorch", number=0, step_seconds=0.5)) == pytest.approx(3 * 60 / 3.0)


def test_a_ratio_is_of_steps_within_a_round_and_only_of_rounds_that_have_both() -> None:
    pair = ("pytorch", "huggingface")
    launches = make_rounds({"pytorch": [1.0, 10.0, 1.0], "huggingface": [2.0, 20.0]})  # round 1 was slow for both
    for clock in ("step_seconds", "cpu_seconds"):
        assert log_speeds(launches, pair, clock=clock) == pytest.approx([math.log(2.0)] * 2)
    # Hodges and Lehmann: the median of all nine ratios of a step of one to a step of the other, not a ratio of two means.
    launches = [
        make_launch("pytorch", number=0, step_seconds=1.0) | {"step_seconds": [9.0, 1.0, 2.0, 4.0]},
        make_launch("huggingface", number=0, step_seconds=1.0) | {"step_seconds": [9.0, 3.0, 3.0, 30.0]},
    ]
    assert log_speeds(launches, pair) == pytest.approx([math.log(3.0)])  # of 0.75 ×2, 1.5 ×2, 3 ×2, 7.5, 15, 30


def test_the_rule_says_what_is_faster_and_what_more_rounds_would_tell() -> None:
    seconds = {
        "pytorch": [1.0, 1.01, 0.99, 1.0],
        "huggingface": [1.1, 1.12, 1.09, 1.1],
        "plain-torch": [1.0, 1.4, 0.8, 1.1],
    }
    family = judge(make_rounds(seconds), TWINS)
    assert family.contrasts[0].ratio == pytest.approx((1.1 * 1.12 * 1.09 * 1.1 / (1.01 * 0.99)) ** 0.25)
    assert [contrast.call for contrast in family.contrasts] == [Call.FASTER, Call.OPEN]
    assert [row["is"] for row in ratio_rows(make_rounds(seconds), TWINS)] == ["faster", "cannot be said"]
    (line,) = describe_price(make_rounds(seconds))
    assert line.startswith("fp32, 128 tokens, twin or peer: a difference of 5 % takes about ") and "--rounds" in line
    del seconds["plain-torch"]
    assert describe_price(make_rounds(seconds)) == []
    assert judge(make_rounds(seconds), SETTINGS) is None and ratio_rows(make_rounds(seconds), SETTINGS) == []


def test_every_published_row_has_n_and_an_interval() -> None:
    names = ("pytorch", "plain-torch", "pytorch+onednn", "keras-hub")
    launches = make_rounds({name: [1.0, 1.1, 1.2] for name in names})
    rates, twins, settings = rate_rows(launches, names), ratio_rows(launches, TWINS), ratio_rows(launches, SETTINGS)
    assert [row["contender"] for row in rates] == list(names)
    assert [(row["twin"], row["peer"]) for row in twins] == [("pytorch", "plain-torch")]
    assert [(row["with"], row["without"]) for row in settings] == [("pytorch+onednn", "pytorch")]
    assert {row["n"] for row in [*rates, *twins, *settings]} == {3}
    assert all("…" in row["95 % interval"] for row in rates)
    assert all("…" in row[name] for row in twins for name in ("twin/peer", "by CPU time"))
    assert twins[0]["is"] == "within 3 %"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.11, 1.4, "1.1: reached"), (1.0, 1.09, "1.1: missed"), (1.0, 1.2, "1.1: undecided"), (None, None, "1.1: n=1"),
    ],
)  # fmt: skip
def test_a_bar_is_judged_by_the_whole_interval(low: float | None, high: float | None, verdict: str) -> None:
    contrast = Contrast(ratio=1.2, low=low, high=high, rounds=3, p_value=None, call=Call.OPEN)
    assert judge_bar(contrast, 1.1) == verdict and judge_bar(contrast, None) == ""


def test_bars_are_of_a_model_a_length_and_a_twin() -> None:
    launch = make_launch("pytorch", number=0, step_seconds=1.0)
    assert find_bar(launch, ("pytorch", "huggingface")) == find_bar(launch, ("pytorch", "plain-torch+compile")) == 1.1
    assert find_bar(launch, ("pytorch+compile", "plain-torch+compile")) is None
    assert find_bar(launch | {"sequence_length": 2048}, ("tensorflow", "keras-hub")) == 1.3
    assert find_bar(launch | {"sequence_length": 512}, ("tensorflow", "keras-hub")) is None
    assert find_bar(launch | {"sequence_length": 512}, ("tensorflow", "tensorflow+floor")) == pytest.approx(
        0.893, abs=1e-3
    )
    assert find_bar(launch | {"model": "tiny"}, ("tensorflow", "keras-hub")) is None


def test_lengths_are_judged_by_themselves_and_share_their_tables() -> None:
    seconds = {"tensorflow": [1.0, 1.01, 0.99], "keras-hub": [1.5, 1.52, 1.49], "tensorflow+floor": [0.95, 0.96, 0.94]}
    short = make_rounds(seconds)
    peak = {"peak_rss_bytes": 900 * 2**20, "tokens_per_step": 2048}
    long = [
        {**each, "sequence_length": 2048, "tokens_per_step": 2048, **(peak if each["contender"] == "keras-hub" else {})}
        for each in make_rounds({**seconds, "keras-hub": [3.0, 3.03, 2.97]})
    ]
    for each in short + long:
        if each["contender"] == "tensorflow+floor":
            each["loss"] = [None] * 4  # nothing is trained
    check_equal_work(short + long)
    rows = ratio_rows(short + long, TWINS)
    assert [(row["sequence_length"], row["twin/peer"][:5], row["bar"]) for row in rows] == [
        (128, "1.503", "1.15: reached"), (2048, "3.000", "1.3: reached"),
    ]  # fmt: skip
    assert [row["bar"] for row in ratio_rows(short + long, FLOORS)] == ["0.893: reached"] * 2
    memory = memory_rows(short + long)
    assert [(row["peak, twin/peer"], row["growth, twin/peer"], row["bar"]) for row in memory] == [
        ("1.00", "1.00", ""), ("0.56", "0.33", "at most 0.5: missed"),
    ]  # fmt: skip
    rates = rate_rows(short + long, list(seconds))
    assert [row["peak (MiB)"] for row in rates] == ["500", "500", "", "500", "900", ""]
    assert [row["growth (MiB)"] for row in rates] == ["200", "200", "", "200", "600", ""]
    assert rates[2]["first loss"] == "" and rates[0]["first loss"] == "5.50000"


@pytest.mark.parametrize("changes", [{"parameters": 999}, {"tokens_per_step": 59}])
def test_unequal_work_is_refused(changes: dict[str, int]) -> None:
    launches = [
        make_launch("pytorch", number=0, step_seconds=1.0),
        make_launch("x", number=0, step_seconds=1.0, **changes),
    ]
    with pytest.raises(ValueError, match="x trains"):
        check_equal_work(launches)
    check_equal_work(launches[:1])


def test_every_contender_has_a_question_and_every_question_its_contenders() -> None:
    asked = {name for question in QUESTIONS for pair in question.pairs for name in pair}
    assert asked == set(all_names())
    for name in all_names():
        contender = parse_contender(name)
        assert contender.name == name and IMPLEMENTATIONS[contender.base] is contender.implementation
    assert set(USUAL) < asked and {name for pair in FLOORS.pairs for name in pair} < set(USUAL)
    # Whatever is compared with a peer has that peer's setting, too, or is as it is: the best of its peers counts.
    assert all(twin.partition("+")[2] in ("", peer.partition("+")[2]) for twin, peer in TWINS.pairs)


@pytest.mark.parametrize(
    "name", ["jax", "pytorch+", "+compile", "keras-hub+compile", "tensorflow+malloc", "pytorch+onednn+compile"]
)
def test_a_contender_that_there_is_not_is_refused_with_those_that_there_are(name: str) -> None:
    with pytest.raises(UsageError, match=r"allowed: pytorch, huggingface"):
        parse_contender(name)


def test_what_a_precision_has_not_is_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["pytorch", "pytorch+onednn", "pytorch+compile", "plain-torch+compile", "pytorch"]
    monkeypatch.setattr(contenders_module, "multiplies_natively", lambda dtype, device: False)
    monkeypatch.setenv("CXX", sys.executable)  # any program that is there
    assert [each.name for each in choose_contenders(names, precision="fp32")] == names[:4]
    assert [each.name for each in choose_contenders(names, precision="bf16")] == ["pytorch", "plain-torch+compile"]
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[2].partition(":")[0] for line in told] == [
        " without pytorch+onednn",
        " without pytorch+compile",
    ]
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        UsageError, match=r"pytorch\+compile needs a C\+\+ compiler, and there is no no-such-compiler; or leave it out"
    ):
        choose_contenders(names, precision="fp32")


def test_rounds_are_kept_and_continued(tmp_path: Path) -> None:
    asked = {"steps": 3, "contenders": ["pytorch", "huggingface"]}
    rounds = Rounds(tmp_path / "fp32", asked)
    for number in range(2):
        rounds.add([make_launch(name, number=9, step_seconds=1.0) for name in asked["contenders"]])
        assert rounds.count(128) == number + 1
    again = Rounds(tmp_path / "fp32", asked)
    assert again.count(128) == 2 and again.count(2048) == 0 and again.launches == rounds.launches
    assert {each["round"] for each in again.launches} == {0, 1}
    assert (tmp_path / "fp32" / "table.md").read_text(encoding="utf-8") == again.table
    assert Rounds(tmp_path / "fp32", asked, anew=True).count(128) == 0
    with pytest.raises(UsageError, match="rounds of steps 3, not 4; name another --out, or replace them with --anew"):
        Rounds(tmp_path / "fp32", {**asked, "steps": 4})


def forget_turns(content: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name != "in_turns"}


def move_to_another_machine(content: dict[str, Any]) -> dict[str, Any]:
    return {**content, "environment": {**content["environment"], "cpu_model": "Z80"}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (forget_turns, "launched one after the other"),
        (move_to_another_machine, "rounds of cpu_model Z80, not "),
        (lambda content: [content], "not what this program writes"),
        (lambda content: {**content, "asked": None}, "not what this program writes"),
    ],
)
def test_rounds_of_something_else_are_not_continued(tmp_path: Path, change: Any, message: str) -> None:
    rounds = Rounds(tmp_path, {"contenders": ["pytorch"]})
    rounds.add([make_launch("pytorch", number=0, step_seconds=1.0)])
    rounds.path.write_text(json.dumps(change(json.loads(rounds.path.read_text(encoding="utf-8")))), encoding="utf-8")
    with pytest.raises(UsageError, match=message):
        Rounds(tmp_path, {"contenders": ["pytorch"]})


def test_a_contender_that_fails_ends_the_round_with_its_own_words() -> None:
    work = Work(knobs={"model": "giant"}, threads=1, warmup_steps=1, steps=1, seconds=1.0)
    with pytest.raises(LaunchError, match=r"(?s)pytorch ended with code 1:.*giant"):
        run_round([parse_contender("pytorch")], work, seed=(0,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--contenders", "pytorch,jax"), "Error: unknown contender jax; allowed: pytorch, huggingface"),
        (("--precision", "fp16"), "Error: --precision fp16: must be fp32 or bf16"),
        (("--shapes", "128x3000000"), "Error: peers.py: micro_batch_size = 3000000"),
    ],
)
def test_a_wrong_command_line_starts_nothing(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(message)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["128", "128x", "x8", "0x8", "128x8,", "128x8,128x4"])
def test_a_shape_that_is_none_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--shapes", text])
    assert "argument --shapes: " in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.long
def test_twin_and_plain_torch_do_the_same_work_in_turns(tmp_path: Path) -> None:
    program = [sys.executable, str(ROOT / "benchmarks" / "peers.py")]
    done = subprocess.run(
        [*program, "--contenders", "pytorch,plain-torch,plain-torch+malloc,pytorch+floor", "--shapes", "32x8,48x2", "--rounds", "1", "--steps", "2", "--warmup-steps", "1",
        "--model", "tiny", "--precision", "fp32", "--out", str(tmp_path)],
        capture_output=True, text=True, timeout=patience.SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "fp32" / "table.md").read_text(encoding="utf-8") in done.stdout
    launches = json.loads((tmp_path / "fp32" / "launches.json").read_text(encoding="utf-8"))["launches"]
    assert len(launches) == 8
    trained = [each for each in launches if each["contender"] != "pytorch+floor"]
    assert {loss for each in launches if each not in trained for loss in each["loss"]} == {None}
    assert {len(each["step_seconds"]) for each in launches} == {3}
    assert {each["contender"]: each["keeps_freed_memory"] for each in launches} == {
        "pytorch": True, "plain-torch": True, "plain-torch+malloc": False, "pytorch+floor": True,
    }  # fmt: skip
    for same in split_by_length(trained):
        for losses in zip(*(each["loss"] for each in same), strict=True):  # the same weights, tokens and updates
            assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)

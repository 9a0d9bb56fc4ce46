"""No test fails because a machine is busy: what has to happen is waited for as long as a hang is, and no assertion bounds a clock on the wall."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import patience

ROOT = Path(__file__).parents[1]
WAITS = {"wait", "join", "receive", "communicate"}  # whose first argument may be the limit
LIMITS = {"timeout", "seconds"}
CLOCKS = ("monotonic()", "perf_counter()", "time.time()")


def is_hasty(value: ast.expr) -> bool:
    """Whether it is a number of seconds, long enough for something to be expected and shorter than `patience.SECONDS`."""
    return isinstance(value, ast.Constant) and type(value.value) in (int, float) and 1 <= value.value < patience.SECONDS


def find_hasty(source: str) -> Iterator[int]:
    """Lines that wait less than `patience.SECONDS` for what has to happen, or assert how long something took."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            limits = [keyword.value for keyword in node.keywords if keyword.arg in LIMITS]
            limits = (limits + node.args[:1]) if name in WAITS else limits if name.startswith(("run", "wait")) else []
            if any(map(is_hasty, limits)):
                yield node.lineno
        if isinstance(node, ast.BinOp) and ast.unparse(node.left).endswith(CLOCKS) and is_hasty(node.right):
            yield node.lineno
        if isinstance(node, ast.Assert) and any(
            isinstance(part, ast.BinOp) and isinstance(part.op, ast.Sub) and ast.unparse(part.left).endswith(CLOCKS)
            for part in ast.walk(node.test)
        ):
            yield node.lineno


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_test_is_in_a_hurry(path: Path) -> None:
    assert list(find_hasty(path.read_text(encoding="utf-8"))) == [], "a busy machine turns these lines red"


@pytest.mark.parametrize(
    "line",
    [
        "process.wait(60)",
        "process.communicate(timeout=10)",
        "thread.join(30.0)",
        "subprocess.run(words, timeout=120)",
        "deadline = time.monotonic() + 60",
        "assert time.monotonic() - begun < 10",
    ],
)
def test_what_is_in_a_hurry_is_found(line: str) -> None:
    assert list(find_hasty(line)) == [1]


@pytest.mark.parametrize(
    "line",
    ["hub.receive(0.1)", "process.wait()", "join(words)", "subprocess.run(words, timeout=550)", "record(seconds=1.0)"],
)
def test_what_waits_for_nothing_or_long_enough_is_not(line: str) -> None:
    assert list(find_hasty(line)) == []

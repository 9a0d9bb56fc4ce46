"""Values on the command line: a comma separates them, unless it is quoted; what could mean two things is refused."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvbench.comparison.ab.arms import parse_arm
from hvbench.errors import UsageError
from hvbench.spec.choices import quote_for_shell, split_choices, unquote
from hvbench.spec.suite import Suite, apply_overrides, parse_suite

# Paths with what separates or means something elsewhere: in this syntax, in a shell, in TOML.
PATHS = [
    "x,y",
    "a b",
    "a=b",
    "~x",
    "$HOME",
    "it's",
    'say "hi"',
    "x\\y",
    "#1",
    "a;b|c&d",
    "[x]",
    "ä,ö",
    "'x",
    "x'",
    '","',
    " ",
]


def suite(text: str = "") -> Suite:
    return parse_suite(text, name="run", where="hvbench run")


def read(*overrides: str) -> list[str]:
    return list(dict.fromkeys(point.data for point in apply_overrides(suite(), overrides, option="").points()))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data=x", ["x"]),
        ("data=x,y", ["x", "y"]),
        ('data="x,y"', ["x,y"]),
        ("data='x,y'", ["x,y"]),
        ("data='x,y',z", ["x,y", "z"]),
        ("data=z,\"x,y\",'a,b'", ["z", "x,y", "a,b"]),
        (r'data="x\"y,z"', ['x"y,z']),
        (r'data="x\\y"', ["x\\y"]),
        (r"data='x\y'", ["x\\y"]),
        ("data=x=y,a b", ["x=y", "a b"]),
        ("data=it's,so", ["it's", "so"]),  # a quote within a value is a character
        ("data=~/x,$HOME/y", ["~/x", "$HOME/y"]),
    ],
)
def test_commas_separate_values_outside_quotes(override: str, expected: list[str]) -> None:
    assert read(override) == expected


@pytest.mark.parametrize("path", PATHS)
def test_every_path_can_be_given_in_each_way(path: str) -> None:
    """Typed in a shell, as one of several values, in a suite's base and in its axes, and as an arm of `ab`."""
    (word,) = shlex.split(quote_for_shell("data", path))
    assert read(word) == [path]
    assert read(f"{word},other") == [path, "other"]
    text = json.dumps(path, ensure_ascii=False)  # a TOML string, too
    assert {point.data for point in suite(f"[point]\ndata = {text}").points()} == {path}
    assert [point.data for point in suite(f'[axes]\ndata = [{text}, "other"]').points()] == [path, "other"]
    arm = parse_arm("b", [f"set={word}"])
    assert [point.data for point in apply_overrides(suite(), arm.overrides).points()] == [path]


@given(st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp", "Cf"]), min_size=1), min_size=1))
def test_quoted_values_come_back(values: list[str]) -> None:
    (word,) = shlex.split(quote_for_shell("data", *values))
    words = split_choices(word.removeprefix("data="), where="test")
    assert [unquote(each, where="test") for each in words] == values


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('data="x,y', "the quote is not closed"),
        ("data='x,y", "the quote is not closed"),
        ('data="x"y', "comes a comma or the end, not 'y'"),
        (r'data="x\y"', "write it in single quotes"),
        ("data=x\ny", "must be text without control characters"),
        ("data=x,", "data"),
        ("data=", "must be key=value"),
        ("steps='x,y'", "steps"),
    ],
)
def test_what_cannot_be_read_is_one_line(override: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read(override)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["data", "initial_checkpoint", "initial_weights"])
def test_a_file_with_a_comma_is_not_taken_for_two(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x,y", "x", "y"):
        Path(name).write_text("some text")
    with pytest.raises(UsageError, match="there is a file") as caught:
        apply_overrides(suite(), [f"{key}=x,y"], option="")
    # Both ways of saying it are in the message, as a shell takes them.
    typed = [word for word in shlex.split(str(caught.value).replace(";", " ")) if word.startswith(f"{key}='")]
    assert [word.rstrip(",") for word in typed] == [f"{key}='x,y'", f"{key}='x','y'"]
    for word in typed:
        apply_overrides(suite(), [word.rstrip(",")], option="")


def test_quotes_around_other_values_stay_what_they_were() -> None:
    point = apply_overrides(suite(), ['precision="bf16"', "micro_batch_size=4"], option="").points()[0]
    assert (point.precision, point.micro_batch_size) == ("bf16", 4)
    with pytest.raises(UsageError, match="one value"):
        parse_arm("a", ["set=precision=fp32,bf16"])

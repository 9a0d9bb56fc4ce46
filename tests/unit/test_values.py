"""Sizes and outcomes as people write them."""

from __future__ import annotations

import click
import pytest

from hvbench.cli.param_types import Duration, Memory, Outcomes, Share


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GiB", 2 * 2**30),
        ("512m", 512 * 10**6),
        ("1.5 GB", 1_500_000_000),
        ("100000000", 10**8),
        ("64MiB", 2**26),
        ("1TiB", 2**40),
    ],
)
def test_a_size_is_read(text: str, size: int) -> None:
    assert Memory().convert(text, None, None) == size


@pytest.mark.parametrize(
    "text", ["", "much", "-1GiB", "2XiB", "2iB", "1e3GiB", "nan", "63MiB", "9" * 30, "999999999TiB"]
)
def test_what_is_no_size_or_holds_no_worker_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Memory().convert(text, None, None)


def test_outcomes_are_read() -> None:
    assert Outcomes().convert("oom, timeout", None, None) == {"oom", "timeout"}


@pytest.mark.parametrize("text", ["ok", "oom,slow", "skipped", "stopped"])
def test_an_outcome_that_cannot_be_retried_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="allowed: oom, failed, timeout, diverged, interrupted"):
        Outcomes().convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "share"), [("2%", 0.02), ("0.02", 0.02), ("0.5 %", 0.005), (".1", 0.1), ("99%", 0.99)]
)
def test_a_share_is_read(text: str, share: float) -> None:
    assert Share().convert(text, None, None) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "2", "100%", "0", "0%", "-1%", "%", ".", "much", "1e-2", "nan", "1" * 30])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="write for example 2% or 0.02"):
        Share().convert(text, None, None)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("2 M", 120)])
def test_a_length_of_time_is_read(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "0", "0m", "-1", "10d", "m", "1e3", "inf", "9" * 30])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="write for example 90s, 10m or 1.5h"):
        Duration().convert(text, None, None)

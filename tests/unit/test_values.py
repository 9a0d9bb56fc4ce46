"""Sizes and outcomes as people write them."""

from __future__ import annotations

import click
import pytest

from hvbench.cli.values import Memory, Outcomes


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GiB", 2 * 2**30), ("512m", 512 * 10**6), ("1.5 GB", 1_500_000_000), ("100000000", 10**8), ("64MiB", 2**26), ("1TiB", 2**40)],
)
def test_a_size_is_read(text: str, size: int) -> None:
    assert Memory().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "much", "-1GiB", "2XiB", "2iB", "1e3GiB", "nan", "63MiB", "9" * 30, "999999999TiB"])
def test_what_is_no_size_or_holds_no_worker_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Memory().convert(text, None, None)


def test_outcomes_are_read() -> None:
    assert Outcomes().convert("oom, timeout", None, None) == {"oom", "timeout"}


@pytest.mark.parametrize("text", ["ok", "oom,slow", "skipped"])
def test_an_outcome_that_cannot_be_retried_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="allowed: oom, failed, timeout, diverged, interrupted"):
        Outcomes().convert(text, None, None)

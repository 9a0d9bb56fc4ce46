"""Runs the examples in a docstring."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from typing import Any

import hvbench


def run_examples(function: Callable[..., Any]) -> None:
    """Run what the docstring shows, with `hvbench` imported; fails with what was expected and what came out."""
    (test,) = doctest.DocTestFinder(recurse=False).find(function, function.__name__, globs={"hvbench": hvbench})
    assert test.examples
    lines: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=lines.append)
    assert not lines, "".join(lines)

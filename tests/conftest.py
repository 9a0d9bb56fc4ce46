"""The order of tests and the process that each runs in.

First come the unit tests, which find most faults in a minute, then what takes longest, so that no process of pytest-xdist
is left with a long test when the others have ended. Tests that share a costly fixture stay in one process.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

from hvbench.frameworks import uncollected

# Fixtures of a module or a session that take seconds to make, other than those that all processes share (`tests/once.py`).
COSTLY = {"browser", "built", "pages", "broken", "ended", "extended", "proofs", "ranks", "whole"}


# Places of tests in the order in which they begin; the last ones are short.
ORDER = (
    "tests/unit/",
    "tests/faults/test_chaos.py",
    "tests/faults/test_agents.py",
    "tests/parallel/test_launchers.py",
    "tests/parity/",
    "tests/parallel/",
    "tests/scripts/",
    "tests/docs/",
    "tests/distribution/",
    "tests/browser/",
    "tests/network/",
    "tests/faults/",
)


def place_of(item: pytest.Item) -> int:
    """Where the item's file stands in `ORDER`, or behind it."""
    return next((place for place, start in enumerate(ORDER) if item.nodeid.startswith(start)), len(ORDER))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave 6,000 tests and the modules that they need to no search for cycles: it took half of the time of collecting."""
    with uncollected():
        return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=place_of)
    for item in items:
        for fixture in COSTLY.intersection(getattr(item, "fixturenames", ())):
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            name = f"{item.path.parent.name}-{item.path.stem}-{fixture}-{parameters.get(fixture, '')}"
            item.add_marker(pytest.mark.xdist_group(name))

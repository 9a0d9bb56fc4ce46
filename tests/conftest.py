"""Tests that share what takes long to make stay in one process; all others go to whichever process is free."""

from __future__ import annotations

import pytest

# Fixtures of a module or a session that take seconds to make, other than those that all processes share (`tests/once.py`).
COSTLY = {"browser", "pages", "broken", "extended", "proofs", "ranks", "whole"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for fixture in COSTLY.intersection(getattr(item, "fixturenames", ())):
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            name = f"{item.path.parent.name}-{item.path.stem}-{fixture}-{parameters.get(fixture, '')}"
            item.add_marker(pytest.mark.xdist_group(name))

"""Tests that share what takes long to make stay in one process; all others go to whichever process is free."""

from __future__ import annotations

import pytest

SHARED = (
    "tests/parity/",
    "tests/browser/",
    "tests/docs/test_pages.py",
    "tests/parallel/test_ablation.py",
    "tests/parallel/test_checkpoints.py",
    "tests/unit/test_published_figures.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for place in SHARED:
            if item.nodeid.startswith(place):
                item.add_marker(pytest.mark.xdist_group(place))

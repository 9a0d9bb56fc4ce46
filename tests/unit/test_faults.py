"""Where a deliberate fault happens, and where it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hvbench.worker.faults import inject

STATE = {"phase": "measure", "index": 0, "point": "tensorflow-tiny-x", "job": "measure"}


@pytest.mark.parametrize(
    ("fault", "state", "happens"),
    [
        ({}, {}, True),
        ({"point": "tensorflow", "phase": "measure"}, {}, True),
        ({"point": "pytorch"}, {}, False),
        ({"phase": "build"}, {}, False),
        ({}, {"job": "trace"}, False),  # the check before a sweep, unless the fault is meant for it
        ({"job": "trace"}, {"job": "trace"}, True),
        ({"job": "trace"}, {}, False),
        ({"phase": "start"}, {"job": "trace", "phase": "start", "point": None}, False),
    ],
)
def test_a_fault_happens_where_it_is_meant_to(
    tmp_path: Path, fault: dict[str, Any], state: dict[str, Any], happens: bool
) -> None:
    inject([{"kind": "garbage", "file": "progress", **fault}], STATE | state, directory=tmp_path)
    assert (tmp_path / "progress.json").exists() == happens

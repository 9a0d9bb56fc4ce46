"""`hvbench.run_point` trains a real point."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import hvbench
from hvbench.errors import StorageError
from tests.doctests import run_examples


@pytest.fixture(autouse=True)
def no_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in os.environ:
        if key.startswith(("HVBENCH_HOSTS", "HOROVOD_", "OMPI_", "PMI_", "PMIX_")):
            monkeypatch.delenv(key)


@pytest.mark.slow
def test_the_example_trains_a_point() -> None:
    run_examples(hvbench.run_point)


@pytest.mark.slow
def test_records_are_kept_where_they_are_asked_for_and_never_replaced(tmp_path: Path) -> None:
    fields = {"framework": "pytorch", "model": "tiny", "data": "synthetic", "warmup_steps": 1, "steps": 2}
    frame = hvbench.run_point(np=2, out=tmp_path / "run", **fields)
    assert list(frame["status"]) == ["ok"] and list(frame["world_size"]) == [2]
    assert frame.equals(hvbench.load(tmp_path / "run"))
    with pytest.raises(StorageError, match="holds a run already"):
        hvbench.run_point(np=2, out=tmp_path / "run", **fields)

"""A real sweep over the ways to exchange gradients, ceilings included: each is measured, not only right."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvbench.records.store import RunFolder
from hvbench.registry import FRAMEWORKS
from tests.parallel.test_launchers import launch

OTHERS = ("native", "parameter_server")  # than Horovod's ring, which nearly every other launch of the tests measures


@pytest.mark.slow
def test_other_strategies_are_measured_in_both_frameworks(tmp_path: Path) -> None:
    smaller = [
        "-s",
        "model=tiny",
        "-s",
        f"strategy={','.join(OTHERS)}",
        "-s",
        "steps=2",
        "-s",
        "warmup_steps=1",
        "-s",
        "repeats=1",
    ]
    words = ["hvbench", "sweep", "strategies", "--np", "2", "--out", "run", "--no-parity", *smaller]
    done = launch(words, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    records, problems = RunFolder(tmp_path / "run").read_records()
    assert problems == []
    found = {(record.point.framework, record.point.strategy): record for record in records}
    assert set(found) == {(framework, strategy) for framework in FRAMEWORKS for strategy in OTHERS}
    for (_, strategy), record in found.items():
        busbw = record.ranks[0].ceiling.allreduce_busbw_bytes_per_second
        assert (busbw is None) == (strategy == "parameter_server"), "a server's ranks know no all-reduce"
        for rank in (0, 1):
            assert record.ranks[rank].loss == pytest.approx(found["pytorch", "native"].ranks[rank].loss, rel=2e-5)
    logs = [
        path for path in (tmp_path / "run" / "logs").glob("*.log") if "Traceback" in path.read_text(errors="replace")
    ]
    assert logs == [], "no worker ended badly after its work"

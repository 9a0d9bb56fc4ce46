"""A real sweep over the ways to exchange gradients, ceilings included: each is measured, not only right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hvbench.analysis.frame.idle import straggler_rank
from hvbench.analysis.frame.samples import make_samples
from hvbench.records.store import RunFolder
from hvbench.registry import FRAMEWORKS
from hvbench.worker.faults import VARIABLE
from tests.parallel.test_launchers import launch

DIVERGING = """
question = "Does a rank that diverges alone keep the others waiting?"
[point]
model = "tiny"
num_layers = 1
data = "synthetic"
micro_batch_size = 2
[axes]
strategy = ["local", "parameter_server_async"]
framework = ["pytorch", "tensorflow"]
[[exclude]]
strategy = "local"
framework = "tensorflow"
[[exclude]]
strategy = "parameter_server_async"
framework = "pytorch"
[measure]
warmup_steps = 1
steps = 7
evaluate_every = 4
ceilings = false
"""
OTHERS = (
    "native",
    "hierarchical",
    "parameter_server",
)  # than Horovod's ring, which nearly every other launch of the tests measures


@pytest.mark.slow
def test_other_strategies_are_measured_in_both_frameworks(tmp_path: Path) -> None:
    smaller = [
        "-s",
        "model=tiny",
        "-s",
        "num_layers=1",
        "-s",
        f"strategy={','.join(OTHERS)}",
        "-s",
        "straggler_seconds=0.3",
        "-s",
        "steps=2",
        "-s",
        "warmup_steps=1",
        "-s",
        "repeats=1",
    ]
    words = ["hvbench", "sweep", "strategies", "--np", "2", "--out", "run", "--no-parity", "--no-report", *smaller]
    done = launch(words, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    records, problems = RunFolder(tmp_path / "run").read_records()
    assert problems == []
    found = {(record.point.framework, record.point.strategy): record for record in records}
    assert set(found) == {(framework, strategy) for framework in FRAMEWORKS for strategy in OTHERS}
    for (_, strategy), record in found.items():
        assert record.environment["framework_versions"]["tf32"] == "off", (
            "fp32 is IEEE float32, whatever a framework starts with"
        )
        busbw = record.ranks[0].ceiling.allreduce_busbw_bytes_per_second
        assert (busbw is None) == (strategy == "parameter_server"), "a server's ranks know no all-reduce"
        for rank in (0, 1):
            assert record.ranks[rank].loss == pytest.approx(found["pytorch", "native"].ranks[rank].loss, rel=2e-5)
        waits = [len(rank.exchange_wait_seconds) for rank in record.ranks]
        hides_waits = (record.point.framework, strategy) == ("pytorch", "native")  # in its backward pass
        assert waits == [0, 0] if hides_waits else [3, 3]
        late = straggler_rank(make_samples(record))
        assert late is None if hides_waits else late == 1, (
            "0.3 s a step are more than what a busy machine does to either rank"
        )
    logs = [
        path for path in (tmp_path / "run" / "logs").glob("*.log") if "Traceback" in path.read_text(errors="replace")
    ]
    assert logs == [], "no worker ended badly after its work"


@pytest.mark.slow
def test_a_rank_that_diverges_alone_ends_its_point_on_all_ranks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With that outcome and what all had trained, and not because the time is up; and the next point runs."""
    (tmp_path / "diverging.toml").write_text(DIVERGING)
    faults = [{"kind": "diverge", "rank": 1, "point": "pytorch", "step": 1}]
    faults += [{"kind": "diverge", "rank": 0, "point": "tensorflow", "step": 4}]
    monkeypatch.setenv(VARIABLE, json.dumps(faults))
    words = [
        "hvbench",
        "sweep",
        "diverging.toml",
        "--np",
        "2",
        "--out",
        "run",
        "--no-parity",
        "--no-report",
        "--timeout",
        "300",
    ]
    done = launch(words, folder=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    records, problems = RunFolder(tmp_path / "run").read_records()
    assert problems == [] and {record.generation for record in records} == {0, 1}
    for record in records:
        rank, step, met = (1, 1, 4) if record.point.framework == "pytorch" else (0, 4, 8)
        assert (record.outcome.status, record.outcome.rank) == ("diverged", rank), record.outcome
        assert record.outcome.message.startswith(f"gradient norm nan at step {step}, loss ")
        steps = {each.rank: len(each.loss) for each in record.ranks}
        assert steps == {rank: step + 1, 1 - rank: met}

"""`hvbench ab` with real launches: two arms train on two ranks, in turns, and every part of it is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.parallel.test_launchers import launch

SUITE = """
[point]
model = "tiny"
micro_batch_size = 2
[measure]
warmup_steps = 1
steps = 3
ceilings = false
"""


@pytest.mark.slow
def test_one_pair_is_launched_and_is_too_little_for_a_verdict(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(SUITE)
    words = "hvbench ab mine.toml --np 2 --b env:HOROVOD_CYCLE_TIME=50 --b set=precision=bf16 --budget 0.1 --out out".split()
    done = launch([*words, "--json", "verdict.json"], folder=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "1 pairs; 6 are needed" in done.stdout
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert (verdict["verdict"], verdict["launches"]) == ("inconclusive", 1)
    kept = json.loads((tmp_path / "out" / "ab.json").read_text())
    assert [(each["exit_code"], each["in_turns"]) for each in kept["launches"]] == [(0, True)] * 2, done.stderr
    assert kept["apart_because"] is None and "the two launches of each pair took turns" in done.stdout
    turns = json.loads((tmp_path / "out" / "pairs" / "00-turns.json").read_text())["turns"]
    assert sorted((place, arm, steps) for place, arm, steps, *_ in turns) == [(0, "a", 1)] * 4 + [(0, "b", 1)] * 4
    assert {arm for _, arm, *_, control_seconds in turns if control_seconds > 0} == {"a", "b"}, "each its own control"
    for arm, precision, cycle_time in (("a", "fp32", None), ("b", "bf16", "50")):
        (path,) = (tmp_path / "out" / "pairs" / f"00-{arm}" / "records").glob("*.json")
        record = json.loads(path.read_text())
        assert (record["outcome"]["status"], record["point"]["precision"], len(record["ranks"])) == ("ok", precision, 2)
        assert record["environment"]["horovod_settings"].get("HOROVOD_CYCLE_TIME") == cycle_time
    assert not (tmp_path / "out" / "pairs" / "00-a" / "report.md").exists()  # nobody reads 36 reports
    assert launch(["hvbench", "compare", "out"], folder=tmp_path).returncode == 0

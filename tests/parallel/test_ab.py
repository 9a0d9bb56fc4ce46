"""`hvbench ab` with real launches: two arms train on two ranks, in turns, and every part of it is kept."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests import patience
from tests.faults.sweeps import start, wait_until
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


SCRIPT = """
import time
import numpy as np
from hvbench import probe
SLEEP = 0.0
values = np.random.default_rng(0).random(2_000)
with probe.training() as training:
    for step in range(100):
        with training.step():
            np.sort(values)
            time.sleep(SLEEP)
        training.log(loss=1 / (step + 1))
"""
OWN = """
[script]
command = "python train.py {n}"
[axes]
n = [1]
[measure]
warmup_steps = 1
steps = 3
"""


def count_worktrees(folder: Path) -> int:
    listed = subprocess.run(["git", "worktree", "list"], cwd=folder, check=True, capture_output=True, text=True)
    return len(listed.stdout.splitlines())


@pytest.mark.slow
def test_two_revisions_of_a_script_take_turns_and_leave_nothing_behind(tmp_path: Path) -> None:
    """One pair; tests/scripts/test_examples.py has a verdict, which takes six."""

    def commit(name: str, *, sleep: float, values: str) -> None:
        (tmp_path / "train.py").write_text(SCRIPT.replace("SLEEP = 0.0", f"SLEEP = {sleep}"), encoding="utf-8")
        (tmp_path / "own.toml").write_text(OWN.replace("[1]", values), encoding="utf-8")
        for words in (["add", "own.toml", "train.py"], ["commit", "-qm", name], ["tag", name]):
            subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@y", *words], cwd=tmp_path, check=True)

    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    commit("old", sleep=0.0, values="[1, 2]")
    commit("new", sleep=0.05, values="[1]")
    words = ["hvbench", "ab", "own.toml", "--np", "1", "--seed", "1"]
    done = launch([*words, "--a", "rev=old", "--b", "rev=new", "--out", "pair", "--budget", "0.1"], folder=tmp_path)
    assert done.returncode == 3 and "1 pairs; 6 are needed" in done.stdout, done.stderr
    assert "note: only in arm a, so not compared: n=2" in done.stdout
    assert "the two launches of each pair took turns" in done.stdout
    assert count_worktrees(tmp_path) == 1 and not (tmp_path / "pair" / "worktrees").exists()
    broken_off = start([*words, "--b", "rev=new", "--out", "run", "-s", "steps=90"], tmp_path, {})
    is_training = (broken_off.folder.path / "pairs" / "00-b" / "logs").is_dir
    wait_until(is_training, seconds=patience.SECONDS, what=broken_off.describe_processes)
    broken_off.press_ctrl_c()
    code, output = broken_off.wait()
    assert code == 130 and "hvbench: stopped by SIGINT; " in output, output
    broken_off.wait_for_nobody()
    assert count_worktrees(tmp_path) == 1 and not (broken_off.folder.path / "worktrees").exists()

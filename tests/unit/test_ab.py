"""`hvbench ab` and `gate` without training: arms are stubs that write records, everything else is real."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from hvbench.cli import run as run_command_line
from hvbench.comparison.ab import control
from hvbench.comparison.ab.arms import parse_arm, prepare_arm
from hvbench.comparison.ab.pairs import plan_orders, read_ab
from hvbench.comparison.ab.worktrees import remove_worktrees
from hvbench.comparison.gate.rule import LOOKS
from hvbench.errors import UsageError
from hvbench.records.record import SCHEMA_VERSION
from tests import patience
from tests.unit.sample_records import make_rank, make_record

SUITE = 'question = "?"\n[point]\nmodel = "tiny"\n[measure]\nwarmup_steps = 1\nsteps = 5\n'


class Answer(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def hvbench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Answer]:
    for key in os.environ:
        if key.startswith(("HVBENCH_", "HOROVOD_", "OMPI_", "PMI_", "PMIX_", "GITHUB_")):
            monkeypatch.delenv(key)
    monkeypatch.chdir(tmp_path)
    # A yardstick that really moves (2 % of all looks at a quiet machine) would make these tests fail now and then.
    monkeypatch.setattr("hvbench.comparison.ab.launches.measure_control_seconds", lambda: 0.01)
    (tmp_path / "mine.toml").write_text(SUITE)

    def call(*arguments: str) -> Answer:
        capfd.readouterr()
        code = run_command_line(arguments)
        return Answer(code, *capfd.readouterr())

    return call


STAND_IN = """#!/bin/sh
# An arm is started as: python -P -c START sweep SUITE … --out FOLDER …
shift 3
if [ $# = 0 ]; then exit {turns_exit_code}; fi
if [ "$1" = --version ]; then exit {version_exit_code}; fi
while [ "$1" != --out ]; do shift; done
pair=$(basename "$2"); pair=${{pair%-*}}
mkdir -p "$2" && cp -r {launches}/$pair/. "$2"
echo "the last line of a log"
[ "$pair" = {crash} ] && exit 1
exit {exit_code}
"""


@pytest.fixture
def arm(tmp_path: Path) -> Callable[..., str]:
    """Makes a Python environment whose hvbench leaves records without training anything; `env=PATH` of it."""

    def make(
        name: str,
        *,
        exit_code: int = 0,
        version_exit_code: int = 0,
        crash_in_pair: int = -1,
        knows_turns: bool = False,
        **settings: Any,
    ) -> str:
        launches = tmp_path / name / "launches"
        for pair in range(LOOKS[-1]):
            status = "failed" if pair == crash_in_pair else "ok"
            leave_launch(
                launches / f"{pair:02}",
                status=status,
                has_record=exit_code in (0, 1),
                seed=[len(name), *name.encode(), pair],
                **settings,
            )
        binary = tmp_path / name / "bin" / "python"
        binary.parent.mkdir(parents=True)
        text = STAND_IN.format(
            version_exit_code=version_exit_code,
            turns_exit_code=int(not knows_turns),
            launches=shlex.quote(str(launches)),
            crash=f"{crash_in_pair:02}",
            exit_code=exit_code,
        )
        binary.write_text(text)
        binary.chmod(0o755)
        return f"env={tmp_path / name}"

    return make


def leave_launch(
    path: Path, *,
    seed: list[int], status: str, has_record: bool, factor: float = 1.0, spread: float = 0.01, loss_factor: float = 1.0,
    environment: dict[str, Any] | None = None, point: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """The run folder of a sweep of one point."""
    seconds = [0.05 * factor * np.random.default_rng(seed).lognormal(0, spread)] * 6
    loss = [(5.0 - 0.1 * step) * (loss_factor if step > 2 else 1.0) for step in range(6)]
    ranks = [make_rank(rank, step_seconds=seconds, loss=loss) for rank in range(2)]
    record = make_record(
        ranks if status == "ok" else [], status=status, message=None if status == "ok" else "it broke",
        environment={"cpu_model": "One"} | (environment or {}), **(point or {}),
    )  # fmt: skip
    (path / "records").mkdir(parents=True)
    (path / "run.json").write_text(json.dumps({"schema_version": SCHEMA_VERSION, "suite": "mine"}))
    if has_record:
        (path / "records" / f"{record.point_id}.r0.json").write_text(json.dumps(record.model_dump()))


def ab(hvbench: Callable[..., Answer], a: str, b: str, *more: str) -> Answer:
    out = str(Path("out").absolute())
    return hvbench("ab", "mine.toml", "--a", a, "--b", b, "--seed", "1", "--out", out, *more)


# Every exit code


def test_two_equal_arms_pass_at_the_first_look(hvbench: Callable[..., Answer], arm: Callable[..., str]) -> None:
    answer = ab(hvbench, arm("old"), arm("new"))
    assert answer.code == 0, answer
    assert answer.out.startswith("PASS (mine, 6 pairs against arm a (env=")
    assert answer.err.count("[pair ") == 12
    run = read_ab(Path("out"))
    assert run.pairs == 6 and [order for order in run.orders[:6]] == plan_orders(1)[:6]
    assert [each.arm for each in run.launches] == list("".join(run.orders[:6]))


def test_a_slower_arm_is_a_regression_and_the_files_say_so(
    hvbench: Callable[..., Answer], arm: Callable[..., str]
) -> None:
    answer = ab(hvbench, arm("old"), arm("new", factor=1.1), "--markdown", "comment.md", "--json", "verdict.json")
    assert answer.code == 1
    assert answer.err.splitlines()[-1].startswith("hvbench: REGRESSION (mine, 6 pairs against arm a")
    assert "step time" in answer.out.splitlines()[0]
    verdict = json.loads(Path("verdict.json").read_text())
    assert (verdict["verdict"], verdict["exit_code"]) == ("regression", 1)
    (worse,) = (finding for finding in verdict["findings"] if finding["kind"] == "regression")
    assert worse["metric"] == "step_seconds_median" and 0.08 < worse["decision"]["estimate"] < 0.12
    assert worse["decision"]["low"] > 0 and worse["decision"]["sign_flip_p_value"] == 2 / 64
    assert Path("comment.md").read_text().startswith("### 🔴 hvbench: REGRESSION")
    # The same pairs, judged again, and compared
    assert hvbench("gate", "out").code == 1
    assert "slower" in hvbench("compare", "out").out


def test_the_pairs_go_on_to_the_last_look_while_nothing_is_clear(
    hvbench: Callable[..., Answer], arm: Callable[..., str]
) -> None:
    answer = ab(hvbench, arm("old", spread=0.3), arm("new", spread=0.3))
    assert answer.code == 3 and "INCONCLUSIVE (mine, 18 pairs" in answer.out
    assert [line.split(":")[0] for line in answer.err.splitlines() if line.startswith("after")] == [
        f"after {look} pairs" for look in LOOKS
    ]


def test_a_spent_budget_is_inconclusive(hvbench: Callable[..., Answer], arm: Callable[..., str]) -> None:
    answer = ab(hvbench, arm("old"), arm("new", factor=2.0), "--budget", "0.01")
    assert answer.code == 3 and "1 pairs; 6 are needed" in answer.out
    assert "the budget of 0.01 s is spent" in answer.err


def test_another_machine_is_not_comparable(hvbench: Callable[..., Answer], arm: Callable[..., str]) -> None:
    answer = ab(hvbench, arm("old"), arm("new", factor=2.0, environment={"cpu_model": "Two"}), "--budget", "0.01")
    assert answer.code == 4 and 'cpu_model differs: A "One", B "Two"' in answer.out
    assert "REGRESSION" not in answer.out


def test_other_software_is_what_an_arm_is_for(hvbench: Callable[..., Answer], arm: Callable[..., str]) -> None:
    old, new = ({"packages": {"torch": version}, "python": version} for version in ("2.13", "2.14"))
    assert ab(hvbench, arm("old", environment=old), arm("new", environment=new)).code == 0


def test_a_point_that_crashes_ends_it_at_once(hvbench: Callable[..., Answer], arm: Callable[..., str]) -> None:
    answer = ab(hvbench, arm("old"), arm("new", crash_in_pair=1))
    assert answer.code == 5 and answer.err.count("[pair ") == 4
    assert "CRASH" in answer.out and "b: 1 of 2 launches: failed (it broke)" in answer.out


def test_launches_that_know_turns_are_alive_together(hvbench: Callable[..., Answer], arm: Callable[..., str]) -> None:
    answer = ab(hvbench, arm("old", knows_turns=True), arm("new", knows_turns=True))
    assert answer.code == 0 and "note: the two launches of each pair took turns, a few steps each" in answer.out, answer
    run = read_ab(Path("out"))
    assert run.pairs == 6 and run.apart_because is None and all(each.in_turns for each in run.launches)
    assert sorted(path.name for path in Path("out/pairs").iterdir())[:5] == [
        "00-a",
        "00-a.log",
        "00-b",
        "00-b.log",
        "00-turns.json",
    ]


def test_a_pair_that_fails_in_turns_is_launched_again_and_so_are_those_after_it(
    hvbench: Callable[..., Answer], arm: Callable[..., str]
) -> None:
    answer = ab(hvbench, arm("old", knows_turns=True), arm("new", knows_turns=True, crash_in_pair=1))
    reason = "arm b did not get to its end in pair 2"
    assert f"from here on the launches of a pair follow each other: {reason}" in answer.err
    assert answer.code == 5 and "b: 1 of 2 launches: failed (it broke)" in answer.out and f": {reason}" in answer.out
    run = read_ab(Path("out"))
    assert [(each.pair, each.in_turns) for each in run.launches] == [(0, True)] * 2 + [(1, False)] * 2
    assert run.apart_because == reason and (run.path / "pairs" / "in-turns-01-b").is_dir()


def test_launches_follow_each_other_where_an_arm_knows_no_turns_or_none_are_wanted(
    hvbench: Callable[..., Answer], arm: Callable[..., str]
) -> None:
    old, new = arm("old"), arm("new", knows_turns=True)
    answer = ab(hvbench, old, new)
    assert answer.code == 0 and "follow each other: the hvbench of arm a does not support turns" in answer.err
    assert "6 pairs were launched one after the other: the hvbench of arm a does not support turns" in answer.out
    answer = hvbench("ab", "mine.toml", "--a", new, "--b", new, "--no-turns", "--out", "again", "--budget", "0.01")
    assert "follow each other: asked for by --no-turns" in answer.err


def test_what_an_older_hvbench_has_kept_is_read(hvbench: Callable[..., Answer], arm: Callable[..., str]) -> None:
    assert ab(hvbench, arm("old"), arm("new")).code == 0
    kept = json.loads(Path("out/ab.json").read_text())
    del kept["apart_because"]
    kept["launches"] = [{key: value for key, value in each.items() if key != "in_turns"} for each in kept["launches"]]
    Path("out/ab.json").write_text(json.dumps(kept | {"schema_version": 1}))
    answer = hvbench("gate", "out")
    assert answer.code == 0 and "note: 6 pairs were launched one after the other\n" in answer.out


def test_a_point_of_one_arm_only_is_missing(hvbench: Callable[..., Answer], arm: Callable[..., str]) -> None:
    answer = ab(hvbench, arm("old"), arm("new", point={"micro_batch_size": 4}))
    assert answer.code == 5 and "MISSING" in answer.out and "not there" in answer.out


@pytest.mark.parametrize("settings", [{"exit_code": 5}, {"exit_code": 2}])
def test_a_launch_without_records_is_an_error_with_its_log(
    hvbench: Callable[..., Answer], arm: Callable[..., str], settings: dict
) -> None:
    answer = ab(hvbench, arm("old", **settings), arm("new", **settings))
    assert answer.code == 5 and "its launch left no record: the last line of a log (see " in answer.err.splitlines()[-1]


def test_an_arm_in_which_hvbench_does_not_start_is_an_error(
    hvbench: Callable[..., Answer], arm: Callable[..., str]
) -> None:
    answer = ab(hvbench, arm("old"), arm("new", version_exit_code=1))
    assert answer.code == 5 and "hvbench does not start" in answer.err and "[pair" not in answer.err


def test_numerics_that_moved_are_a_regression_of_their_own(
    hvbench: Callable[..., Answer], arm: Callable[..., str]
) -> None:
    answer = ab(hvbench, arm("old"), arm("new", loss_factor=1.001))
    assert answer.code == 1 and "the loss changed at step 4: 4.7 became 4.7047" in answer.out
    Path("policy.toml").write_text("check_loss = false\n")
    assert hvbench("gate", "out", "--policy", "policy.toml").code == 0


def test_an_arm_with_another_field_is_another_point_whose_loss_may_move(
    hvbench: Callable[..., Answer], arm: Callable[..., str]
) -> None:
    old, new = arm("old"), arm("new", loss_factor=1.001, point={"compression": "fp16"})
    answer = hvbench(
        "ab", "mine.toml", "--a", old, "--b", new, "--b", "set=compression=fp16", "--out", "out", "--seed", "1"
    )
    assert answer.code == 0, answer
    assert read_ab(Path("out")).changed_fields == {"compression"}


def test_an_accepted_regression_passes_until_its_day(hvbench: Callable[..., Answer], arm: Callable[..., str]) -> None:
    assert ab(hvbench, arm("old"), arm("new", factor=1.1)).code == 1
    exception = (
        '[[accepted]]\npoint = "pytorch-*"\nmetric = "step_seconds_median"\nreason = "known: issue 7"\nexpires = {}\n'
    )
    policy = Path("policy.toml")
    policy.write_text(exception.format("2999-01-01"))
    answer = hvbench("gate", "out", "--policy", "policy.toml")
    assert answer.code == 0 and "accepted until 2999-01-01: known: issue 7" in answer.out
    policy.write_text(exception.format("2020-01-01"))
    answer = hvbench("gate", "out", "--policy", "policy.toml")
    assert answer.code == 1 and "expired on 2020-01-01 and no longer counts: remove it" in answer.out
    policy.write_text(exception.format("2999-01-01") + "up_to = 0.02\n")
    assert hvbench("gate", "out", "--policy", "policy.toml").code == 1


def test_a_machine_that_moved_is_inconclusive(hvbench: Callable[..., Answer], arm: Callable[..., str]) -> None:
    assert ab(hvbench, arm("old"), arm("new", factor=1.1)).code == 1
    kept = json.loads(Path("out/ab.json").read_text())
    for launch in kept["launches"]:
        launch["control_seconds"] = [0.0105 if launch["arm"] == "b" else 0.01] * 2
    Path("out/ab.json").write_text(json.dumps(kept))
    answer = hvbench("gate", "out")
    assert (
        answer.code == 3
        and "the machine moved: a fixed numpy kernel was 5.0 % slower beside B's launches" in answer.out
    )


def test_a_folder_in_use_is_not_written_over(hvbench: Callable[..., Answer], arm: Callable[..., str]) -> None:
    Path("out").mkdir()
    Path("out/ab.json").write_text("{}")
    answer = ab(hvbench, arm("old"), arm("new"))
    assert answer.code == 5 and "holds an A/B comparison already" in answer.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ab", "mine.toml"], "nothing is different: say what arm b is"),
        (
            ["ab", "mine.toml", "--b", "speed=11"],
            '--b "speed=11": must be env=PATH, rev=GIT, env:NAME=VALUE or set=KEY=VALUE',
        ),
        (["ab", "mine.toml", "--b", "env=nowhere"], "no Python environment there"),
        (["ab", "mine.toml", "--b", "set=steps=9"], "steps is how both arms are measured; set it for both with -s"),
        (["ab", "mine.toml", "--b", "set=presicion=bf16"], 'did you mean "precision"'),
        (["ab", "mine.toml", "--b", "set=precision=bf17"], "precision"),
        (["ab", "mine.toml", "--b", "set=precision=fp32,bf16"], "one value"),
        (["ab", "mine.toml", "-s", "precision=fp32,bf16", "--b", "set=precision=bf16"], "precision is an axis of mine"),
        (["ab", "mine.toml", "--b", "rev=nosuch"], "lies in no git repository"),
        (["ab", "mine.toml", "--b", "rev=--help"], "not a revision"),
        (["gate", "nowhere"], "not a run folder"),
        (["gate", "mine@latest"], "there is none below results"),
        (["gate", "../x@latest"], "not the name of a suite"),
        (["compare", "one"], "not a run folder"),
    ],
)
def test_a_mistake_is_one_line(hvbench: Callable[..., Answer], arguments: list[str], message: str) -> None:
    answer = hvbench(*arguments)
    assert answer.code in (2, 5) and message in answer.err and len(answer.err.splitlines()) == 1, answer


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_ends_the_launch_and_keeps_the_pairs(
    tmp_path: Path, arm: Callable[..., str], number: signal.Signals
) -> None:
    """A program of its own, so that a real signal can be sent; the third pair's first launch never ends by itself."""
    old = arm("old")
    binary = tmp_path / "old" / "bin" / "python"
    marker = tmp_path / "sleeps"
    sleep = f'case "$pair" in 02) touch {shlex.quote(str(marker))}; exec sleep 600;; esac\necho'
    binary.write_text(binary.read_text().replace("echo", sleep, 1))
    (tmp_path / "mine.toml").write_text(SUITE)
    code = "from hvbench.cli import main; main()"
    words = ["ab", "mine.toml", "--a", old, "--b", arm("new"), "--seed", "1", "--out", "out"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HVBENCH_", "OMPI_", "PMI"))}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    )
    while not marker.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(number)
    _, told = process.communicate(timeout=patience.SECONDS)
    assert process.returncode == 130
    assert told.splitlines()[-1] == (
        f"hvbench: stopped by {number.name}; 2 complete pairs are kept, hvbench gate out judges them"
    )
    assert read_ab(tmp_path / "out").pairs == 2


def test_under_a_launcher_it_is_refused(hvbench: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in (
        ("OMPI_COMM_WORLD_RANK", "0"),
        ("OMPI_COMM_WORLD_SIZE", "2"),
        ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
    ):
        monkeypatch.setenv(key, value)
    assert "start it without horovodrun" in hvbench("ab", "mine.toml", "--b", "set=seed=1").err


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"schema_version": 1}', '{"schema_version": 9, "launches": []}', "[" * 100_000],
)
def test_a_broken_ab_json_is_one_line(hvbench: Callable[..., Answer], content: str) -> None:
    Path("out").mkdir()
    Path("out/ab.json").write_text(content)
    answer = hvbench("gate", "out")
    assert answer.code == 2 and len(answer.err.splitlines()) == 1 and answer.err.startswith("hvbench: out/ab.json: ")


def test_a_folder_without_a_complete_pair_is_missing_data(
    hvbench: Callable[..., Answer], arm: Callable[..., str]
) -> None:
    assert ab(hvbench, arm("old"), arm("new"), "--budget", "0.01").code == 3
    kept = json.loads(Path("out/ab.json").read_text())
    Path("out/ab.json").write_text(json.dumps(kept | {"launches": kept["launches"][:1]}))
    answer = hvbench("gate", "out")
    assert answer.code == 5 and "no point ended in ok on both sides" in answer.out
    assert hvbench("compare", "out").code == 5


# Its parts


@pytest.mark.parametrize("seed", range(20))
def test_between_two_looks_each_arm_goes_first_equally_often(seed: int) -> None:
    orders = plan_orders(seed)
    assert len(orders) == 18 and orders == plan_orders(seed)
    for start in (0, 6, 12):
        assert Counter(orders[start : start + 6]) == {"ab": 3, "ba": 3}
    assert any(plan_orders(other) != orders for other in range(20))


def test_an_arm_says_what_is_different() -> None:
    arm = parse_arm("b", [f"env={sys.executable}", "env:A_B=x=y z", "set=precision=bf16", "set=seed=3", "rev=HEAD"])
    assert (
        arm.variables == (("A_B", "x=y z"),)
        and arm.overrides == ("precision=bf16", "seed=3")
        and arm.revision == "HEAD"
    )
    assert arm.python == Path(sys.executable) and arm.changed_fields == {"precision", "seed"}
    assert parse_arm("a", []).describe() == "as it is"


def test_a_revision_runs_from_its_own_worktree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@y", *words], check=True, capture_output=True)

    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    (tmp_path / "hvbench" / "cli").mkdir(parents=True)
    (tmp_path / "hvbench" / "__init__.py").touch()
    program = tmp_path / "hvbench" / "cli" / "__init__.py"
    for version in ("old", "new"):
        program.write_text(f"def main(): print({version!r})")
        git("add", "-A")
        git("commit", "-qm", version)
    prepared = {
        name: prepare_arm(parse_arm(name, [f"rev={revision}"]), worktrees=tmp_path / "trees")
        for name, revision in (("a", "HEAD~1"), ("b", "HEAD"))
    }
    said = {
        name: subprocess.run(one.command([]), env=one.environment, capture_output=True, text=True).stdout.strip()
        for name, one in prepared.items()
    }
    assert said == {"a": "old", "b": "new"}
    remove_worktrees(tmp_path / "trees")
    listed = subprocess.run(["git", "worktree", "list"], capture_output=True, text=True).stdout
    assert len(listed.splitlines()) == 1 and not (tmp_path / "trees").exists()
    with pytest.raises(UsageError, match="no such revision"):
        prepare_arm(parse_arm("a", ["rev=nosuch"]), worktrees=tmp_path / "trees")


def test_the_yardstick_takes_a_time_and_stolen_time_is_a_share() -> None:
    assert 0 < control.measure_control_seconds() < 10
    before, after = {"steal_ticks": 10, "total_ticks": 1000}, {"steal_ticks": 20, "total_ticks": 1100}
    assert control.stolen_share(before, after) == 0.1
    for unknown in (None, {}, {"steal_ticks": None, "total_ticks": 5}):
        assert control.stolen_share(before, unknown) is None
    assert control.stolen_share(before, before) is None

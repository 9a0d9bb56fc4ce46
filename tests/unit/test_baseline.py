"""Stored baselines: kept by fingerprint, found again, and never enough for a verdict of regression on their own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hvbench.cli import run as run_command_line
from hvbench.records.record import Record
from hvbench.records.store import RunFolder
from tests.unit.test_compare import launches

MACHINE = {"cpu_model": "One", "packages": {"torch": "2.13"}, "usable_cores": 2}


@pytest.fixture
def hvbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    for key in os.environ:
        if key.startswith(("HVBENCH_", "HOROVOD_", "OMPI_", "PMI_", "PMIX_", "GITHUB_")):
            monkeypatch.delenv(key)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        return (run_command_line(arguments), *capfd.readouterr())

    return call


def keep(name: str, records: list[Record], *, suite: str = "mine") -> str:
    """A run below results/."""
    path = Path("results") / suite / name
    folder = RunFolder(path)
    folder.open_for_writing()
    folder.write_run({"suite": suite, "created_at": "2026-01-01", "jobs": [], "skipped": []})
    for record in records:
        folder.write_record(record)
    folder.close()
    return str(path)


def test_a_run_is_kept_shown_and_compared_with(hvbench: Callable[..., Any]) -> None:
    keep("1", launches(environment=MACHINE))
    code, out, _ = hvbench("baseline", "set", "mine@latest")
    assert code == 0 and "1 points, 8 launches, results/baselines/" in out
    code, out, _ = hvbench("baseline", "show")
    assert code == 0 and out.startswith("mine  ") and "One, 2 cores, torch 2.13" in out and len(out.splitlines()) == 1
    keep("2", launches(environment=MACHINE, seed=1))
    code, out, _ = hvbench("gate", "mine@latest")
    assert code == 0 and out.startswith("PASS (mine, 8 launches against the baseline results/baselines/")
    assert hvbench("compare", "mine@baseline", "mine@latest")[0] == 0


def test_a_slower_run_is_a_suspicion_unless_the_user_wants_more(hvbench: Callable[..., Any]) -> None:
    hvbench("baseline", "set", keep("1", launches(environment=MACHINE)))
    slow = keep("2", launches(environment=MACHINE, seed=1, factor=1.2))
    code, out, _ = hvbench("gate", slow)
    assert (
        code == 3
        and "suspected; a stored baseline cannot tell a slower program from a slower day, run hvbench ab" in out
    )
    code, out, err = hvbench("gate", slow, "--fail-on-baseline")
    assert code == 1 and out.startswith("REGRESSION") and err.startswith("hvbench: REGRESSION")
    Path("policy.toml").write_text("fail_on_baseline = true\n")
    assert hvbench("gate", slow, "--policy", "policy.toml")[0] == 1
    assert hvbench("gate", slow, "--policy", "policy.toml", "--baseline", slow)[0] == 0


def test_too_few_launches_are_said(hvbench: Callable[..., Any]) -> None:
    hvbench("baseline", "set", keep("1", launches(environment=MACHINE)))
    code, out, _ = hvbench(
        "gate", keep("2", launches(environment=MACHINE, repeats=5, factor=2.0)), "--fail-on-baseline"
    )
    assert code == 3 and "5 launches a side; 6 are needed" in out


def test_no_baseline_is_missing_data(hvbench: Callable[..., Any]) -> None:
    code, out, err = hvbench("gate", keep("1", launches(environment=MACHINE)))
    assert (code, out) == (
        5,
        "",
    ) and 'no baseline of "mine" below results/baselines; keep one with hvbench baseline set RUN' in err


def test_a_baseline_of_another_machine_is_not_comparable_and_the_fields_are_named(hvbench: Callable[..., Any]) -> None:
    hvbench("baseline", "set", keep("1", launches(environment=MACHINE)))
    other = keep("2", launches(environment=MACHINE | {"cpu_model": "Two", "packages": {"torch": "2.14"}}))
    code, out, err = hvbench("gate", other)
    assert (code, out) == (4, "")
    assert (
        'the nearest differs in cpu_model: baseline "One", now "Two"; packages.torch: baseline "2.13", now "2.14"'
        in err
    )
    code, out, err = hvbench("gate", other, "--baseline", "mine@baseline")
    assert code == 4 and "cpu_model differs" in out
    code, out, err = hvbench("compare", "mine@baseline", other)
    assert code == 4 and err == "hvbench: not comparable: cpu_model, packages.torch\n"


def test_a_point_that_is_gone_is_missing(hvbench: Callable[..., Any]) -> None:
    hvbench(
        "baseline", "set", keep("1", launches(environment=MACHINE) + launches(environment=MACHINE, micro_batch_size=16))
    )
    code, out, _ = hvbench("gate", keep("2", launches(environment=MACHINE)))
    assert code == 5 and "b16: now: not there" in out


def test_a_point_that_fails_now_is_a_crash(hvbench: Callable[..., Any]) -> None:
    hvbench("baseline", "set", keep("1", launches(environment=MACHINE)))
    now = launches(environment=MACHINE)[:7] + launches(environment=MACHINE, status="oom", message="too big")[7:]
    code, out, _ = hvbench("gate", keep("2", now))
    assert code == 5 and "now: 1 of 8 launches: oom (too big)" in out


def test_a_newer_baseline_takes_the_place_of_an_older_one(hvbench: Callable[..., Any]) -> None:
    hvbench("baseline", "set", keep("1", launches(environment=MACHINE)))
    hvbench("baseline", "set", keep("2", launches(environment=MACHINE, repeats=3)))
    out = hvbench("baseline", "show")[1]
    assert "3 launches" in out and len(out.splitlines()) == 1
    (suite,) = Path("results/baselines").glob("*/*")
    assert len(list((suite / "records").iterdir())) == 3 and len(list(suite.parent.iterdir())) == 1
    assert hvbench("baseline", "set", str(suite)) == (2, "", f"hvbench: {suite}: is the baseline already\n")


@pytest.mark.parametrize("name", ["../../escape", "", ".hidden", "a/b", "a\nb"])
def test_a_run_whose_name_leads_elsewhere_is_refused(hvbench: Callable[..., Any], tmp_path: Path, name: str) -> None:
    run = keep("1", launches(environment=MACHINE))
    text = (Path(run) / "run.json").read_text().replace('"mine"', json.dumps(name))
    (Path(run) / "run.json").write_text(text)
    assert hvbench("baseline", "set", run)[0] == 2 and hvbench("gate", run)[0] == 2
    assert not (Path("results") / "baselines").exists() and not (tmp_path.parent / "escape").exists()


def test_a_run_of_two_machines_is_no_baseline(hvbench: Callable[..., Any]) -> None:
    mixed = launches(environment=MACHINE)[:4] + launches(environment=MACHINE | {"cpu_model": "Two"})[4:]
    code, _, err = hvbench("baseline", "set", keep("1", mixed))
    assert code == 2 and "2 different machines" in err


def test_a_few_pages_of_a_small_process_are_no_suspicion(hvbench: Callable[..., Any]) -> None:
    """2 MiB of 32 are 6 %: more than the margin's 3 %, and less than any change of memory that counts."""
    small = 1 / 16  # of 512 MiB
    hvbench("baseline", "set", keep("1", launches(environment=MACHINE, memory=small)))
    code, out, _ = hvbench("gate", keep("2", launches(environment=MACHINE, seed=1, memory=small * 17 / 16)))
    assert code == 0 and out.startswith("PASS"), out
    code, out, _ = hvbench("gate", keep("3", launches(environment=MACHINE, seed=1, memory=small * 1.5)))
    assert code == 3 and "peak memory 50.0 % worse" in out

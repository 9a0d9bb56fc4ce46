"""The command line: what it prints, and that every mistake is one line and its documented exit code.

Most tests call `hvbench.cli.run` in this process; the last ones start the real program.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hvbench
from hvbench import errors
from hvbench.cli import run as run_command_line
from hvbench.cli.group import EPILOG
from hvbench.cli.group import hvbench as command_line
from hvbench.plan.skip import LINK_VARIABLE, is_installed
from hvbench.records.store import RunFolder
from hvbench.registry import FRAMEWORKS
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from tests import patience
from tests.unit.sample_records import make_quickstart, make_record

COMMANDS = sorted(command_line.commands)
SUITE = 'question = "Does it work?"\n[point]\nmodel = "tiny"\n[axes]\nframework = ["pytorch", "tensorflow"]\n'

needs_both_frameworks = pytest.mark.skipif(
    not all(map(is_installed, FRAMEWORKS)), reason="points of a framework that is not installed are skipped"
)


class Answer(NamedTuple):
    code: int
    out: str
    err: str


Hvbench = Callable[..., Answer]


@pytest.fixture
def hvbench_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Hvbench:
    """Runs a command line in an empty folder and no launch; an exception would be a traceback for the user."""
    for key in os.environ:
        if key.startswith(("HVBENCH_", "HOROVOD_", "OMPI_", "PMI_", "PMIX_")):
            monkeypatch.delenv(key)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Answer:
        capfd.readouterr()
        code = run_command_line(arguments)
        return Answer(code, *capfd.readouterr())

    return call


def refusal(answer: Answer, *, code: int = 2) -> str:
    """The one line of a command that was refused."""
    assert (answer.code, answer.out) == (code, ""), answer
    (line,) = answer.err.splitlines()
    assert line.startswith("hvbench: ") and line.isprintable()
    return line.removeprefix("hvbench: ")


# What it says when all is well


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "install-horovod"])
def test_every_command_explains_itself(hvbench_in: Hvbench, command: str) -> None:
    answer = hvbench_in(command, "--help")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"Usage: hvbench {command} ")


def test_help_teaches_the_flow_and_the_exit_codes(hvbench_in: Hvbench) -> None:
    answer = hvbench_in("--help")
    assert (answer.code, answer.err) == (0, "")
    assert all(command in answer.out for command in COMMANDS)
    assert "horovodrun -np 8 hvbench sweep" in answer.out
    family = {
        each.exit_code for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)
    }
    documented = {int(part.split()[0]) for part in EPILOG.partition("Exit codes: ")[2].split("·")}
    assert documented == family | {0}


def test_version(hvbench_in: Hvbench) -> None:
    assert hvbench_in("--version").out == f"hvbench, version {hvbench.__version__}\n"


def test_suites_lists_every_question(hvbench_in: Hvbench) -> None:
    answer = hvbench_in("suites")
    lines = answer.out.splitlines()
    assert answer.code == 0 and len(lines) >= 7
    assert all(line.partition("  (--scale ")[0].endswith("?") for line in lines)


def test_a_local_suite_is_listed_by_its_name(hvbench_in: Hvbench, tmp_path: Path) -> None:
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "mine.toml").write_text(SUITE)
    assert any(line.split() == ["mine", "Does", "it", "work?"] for line in hvbench_in("suites").out.splitlines())


def test_plan_lists_every_field_with_its_default_and_meaning(hvbench_in: Hvbench) -> None:
    out = hvbench_in("plan", "--fields").out
    for name, field in (Point.model_fields | MeasureSettings.model_fields).items():
        (line,) = (line for line in out.splitlines() if line.split()[:1] == [name])
        assert field.description in line


@needs_both_frameworks
def test_plan_shows_jobs_skipped_points_with_reasons_and_time(hvbench_in: Hvbench, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(SUITE + 'compression = ["none", "fp16"]\n')
    answer = hvbench_in("plan", "a.toml")
    assert answer.code == 0
    assert answer.out.startswith("a: Does it work?\n")
    assert (
        "\n\nskipped: one rank has nothing to all-reduce: Horovod skips compression: 2 points (pytorch-tiny-b8x1-fp32-fp16, "
        "tensorflow-tiny-b8x1-fp32-fp16)\n\n"
    ) in answer.out
    assert (
        "\n2 launches of points (1 each) on 1 rank, 2 skipped; 3 warm-up and 10 timed steps each\nabout " in answer.out
    )
    assert list(tmp_path.iterdir()) == [tmp_path / "a.toml"]  # planning writes nothing


@needs_both_frameworks
def test_plan_uses_the_ranks_that_are_asked_for(hvbench_in: Hvbench, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(SUITE)
    out = hvbench_in("plan", "a.toml", "--np", "2").out
    assert " on 2 ranks, 0 skipped" in out
    assert out.count("2 ranks together reach ") == 1  # as many times what one rank does
    assert "together reach" not in hvbench_in("plan", "a.toml", "--np", "1").out


def test_plan_takes_the_fields_of_a_run(hvbench_in: Hvbench) -> None:
    out = hvbench_in("plan", "model=tiny", "data=synthetic", "micro_batch_size=2,4", "steps=7", "--np", "1").out
    assert out.startswith("run\n\n") and "2 launches of points (1 each) on 1 rank" in out
    assert "3 warm-up and 7 timed steps each" in out


@needs_both_frameworks
def test_plan_warns_of_points_that_will_not_fit_and_names_the_extra_time(hvbench_in: Hvbench, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(SUITE)
    plain = hvbench_in("plan", "a.toml", "-s", "precision_target=0.02", "-s", "budget_seconds=600").out
    assert "warning" not in plain
    ratios = "; and at most 10 min more until the ratio of the frameworks' tokens/s is known to ± 2 % in every configuration\n"
    assert plain.endswith(ratios)
    alone = hvbench_in("plan", "a.toml", "-s", "precision_target=0.02", "-s", "turns=false").out
    assert alone.endswith("; and at most 30 min more until the tokens/s of every point are known to ± 2 %\n")
    limited = hvbench_in("plan", "a.toml", "--memory-limit", "512MiB").out
    warnings = [line for line in limited.splitlines() if "warning: " in line]
    assert len(warnings) == 1 and "tensorflow-tiny" in warnings[0] and "more than the limit of 0.5 GiB" in warnings[0]
    huge = hvbench_in("plan", "a.toml", "-s", "micro_batch_size=1000000", "--np", "2").out
    assert huge.count("and its 2 ranks together more than this host's") == 2


@needs_both_frameworks
def test_a_plan_of_any_shipped_suite_has_something_to_run(hvbench_in: Hvbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LINK_VARIABLE, "eth0")  # as in a lab, for the suite `network`; planning shapes nothing
    for line in hvbench_in("suites").out.splitlines():
        out = hvbench_in("plan", line.split()[0], "--np", "2").out
        assert re.search(r"\d launches (of points \(|for \d+ configurations)", out) and "\n0 launches" not in out, out


def test_report_is_rebuilt_from_records(hvbench_in: Hvbench, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.open_for_writing()
    folder.write_run(
        {"suite": "quickstart", "question": "?", "jobs": [], "skipped": [], "measure": {"precision_target": 0.02}}
    )
    folder.write_record(make_quickstart()[0])
    (folder.records_path / "broken.json").write_text("{")
    folder.close()
    answer = hvbench_in("report", "run")
    assert answer.code == 0, answer
    assert (tmp_path / "run" / "report.md").exists()
    assert "not a readable record: run/records/broken.json: not JSON (truncated?)" in answer.out
    assert "0 of 1 points reached the precision target of ± 2 %; not: pytorch-small-" in answer.out
    assert "report: run/report.html" in answer.out


# Mistakes in the arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuch"], "No such command 'nosuch'; see hvbench --help"),
        (["--nosuch"], "No such option '--nosuch'; see hvbench --help"),
        (["report"], "Missing argument 'RUN'; see hvbench --help"),
        (["plan", "smoke", "extra"], 'plan "smoke" "extra": one suite, or fields as KEY=VALUE, which have no --scale'),
        (
            ["plan", "model=tiny", "--scale", "base"],
            'plan "model=tiny": one suite, or fields as KEY=VALUE, which have no --scale',
        ),
        (
            ["sweep", "smoke", "--np", "many"],
            "Invalid value for '--np': 'many' is not a valid integer; see hvbench --help",
        ),
        (["plan", "missing.toml"], "missing.toml: cannot be read: No such file or directory"),
        (["report", "nosuch"], "nosuch: not a run folder (run.json: No such file or directory)"),
        (["report", "file"], "file: not a run folder (run.json: Not a directory)"),
        (["report", "."], ".: not a run folder (run.json: No such file or directory)"),
        (["plan", "a\nb\x1b[31m.toml"], r"a\nb\x1b[31m.toml: cannot be read: No such file or directory"),
        (
            ["run", "data=/no/such/place"],
            'data = \'/no/such/place\': no such file or folder; allowed: a path (with a comma in it: between quotes), "stdlib" or "synthetic"',
        ),
        (
            ["plan", "smoke", "-s", "data=/no/such/place"],
            'data = \'/no/such/place\': no such file or folder; allowed: a path (with a comma in it: between quotes), "stdlib" or "synthetic"',
        ),
        (["run", "--budget", "10m"], "--budget goes with --precision-target, such as --precision-target 2%"),
        (
            ["run", "--precision-target", "2"],
            "Invalid value for '--precision-target': '2' is not a share above 0 % and below 100 %; write for example "
            "2% or 0.02; see hvbench --help",
        ),
        (
            ["run", "compression=fp16"],
            "hvbench run: none of its 1 points can run: one rank has nothing to all-reduce: Horovod skips compression",
        ),
        (
            ["parity", "compression=fp16"],
            "hvbench parity: none of its 6 configurations can run: one rank has nothing to all-reduce: Horovod skips "
            "compression",
        ),
        (["parity", "smoke", "batch"], "hvbench parity: smoke and batch: give one suite, and fields as key=value"),
        (
            ["parity", "warmup_steps=2"],
            "hvbench parity: warmup_steps is a setting of measurements; updates to compare are --steps N",
        ),
        (
            ["parity", "precision=int8"],
            "\"precision=int8\": precision = \"int8\": must be 'fp32', 'tf32', 'bf16' or 'fp16'",
        ),
        (
            ["parity", "data=/no/such/place"],
            'data = \'/no/such/place\': no such file or folder; allowed: a path (with a comma in it: between quotes), "stdlib" or "synthetic"',
        ),
        (
            ["parity", "--steps", "0"],
            "Invalid value for '--steps': 0 is not in the range 1<=x<=10000; see hvbench --help",
        ),
    ],
)
@needs_both_frameworks
def test_a_mistake_is_told_in_one_line(hvbench_in: Hvbench, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "file").touch()
    assert refusal(hvbench_in(*arguments)) == message


@pytest.mark.parametrize("command", ["plan", "sweep", "parity"])
def test_an_unknown_suite_is_met_with_the_known_ones(hvbench_in: Hvbench, command: str) -> None:
    message = refusal(hvbench_in(command, "smok"))
    assert message.startswith('no suite named "smok" (did you mean "smoke"?); known: ')


@pytest.mark.parametrize("np", ["0", "-1", "1000000", "99999999999999999999"])
@pytest.mark.parametrize(
    "command", [["sweep", "smoke"], ["run"], ["plan", "smoke"], ["parity"]], ids=lambda command: command[0]
)
def test_an_absurd_np_is_refused(hvbench_in: Hvbench, command: list[str], np: str) -> None:
    message = refusal(hvbench_in(*command, "--np", np))
    assert message.startswith(f"--np {np}: must be between 1 and ")


@pytest.mark.parametrize(
    "command", [["sweep", "smoke"], ["run"], ["plan", "smoke"], ["parity"]], ids=lambda command: command[0]
)
def test_under_a_launcher_another_np_is_refused_and_only_rank_0_says_so(
    hvbench_in: Hvbench, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in (
        ("OMPI_COMM_WORLD_SIZE", "2"),
        ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
        ("OMPI_COMM_WORLD_RANK", "0"),
    ):
        monkeypatch.setenv(key, value)
    assert refusal(hvbench_in(*command, "--np", "3")) == "--np 3: the launcher has started 2 ranks; leave --np out"
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    assert hvbench_in(*command, "--np", "3") == Answer(2, "", "")


@pytest.mark.parametrize("command", [["sweep", "smoke"], ["run", "data=synthetic"]], ids=lambda command: command[0])
def test_a_folder_that_cannot_be_written_is_refused(hvbench_in: Hvbench, tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "file").touch()
    message = refusal(hvbench_in(*command, "--out", "file/run"), code=5)
    assert message == "file/run: cannot be written: Not a directory; choose another folder with --out"


@needs_both_frameworks
def test_a_file_of_figures_that_cannot_be_written_is_refused_before_the_check(hvbench_in: Hvbench) -> None:
    message = refusal(hvbench_in("parity", "data=synthetic", "--json", "nosuch/a.json"), code=5)
    assert message == "nosuch/a.json: cannot be written; --json names a file in a folder that exists"


def test_a_run_that_is_there_already_is_not_written_over(hvbench_in: Hvbench, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.open_for_writing()
    folder.write_run({"suite": "smoke"})
    path = folder.write_record(make_record())
    folder.close()
    before = path.read_bytes()
    message = refusal(hvbench_in("sweep", "smoke", "--out", "run"), code=5)
    assert message == "run: holds a run already; go on with --resume, or choose another folder with --out"
    assert path.read_bytes() == before


# Mistakes in a suite, through a file and through -s: the same words, and nothing is left behind


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[point]\nmicro_batch_size = 0", "a.toml: [point]: micro_batch_size = 0: must be greater than or equal to 1"),
        ('[axes]\nframework = ["jax"]', "a.toml: [axes]: framework = \"jax\": must be 'pytorch' or 'tensorflow'"),
        ("[axes]\nprecision = []", "a.toml: [axes] precision = []: an axis needs at least one value"),
        ("[point", "a.toml: not valid TOML: \"Expected ']' at the end of a table declaration (at end of document)\""),
        ('[point]\ndata = "\\u0007"', 'a.toml: [point]: data = "\\u0007": must be text without control characters'),
    ],
)
@pytest.mark.parametrize("command", ["plan", "sweep"])
def test_a_mistake_in_a_suite_is_told_in_one_line(
    hvbench_in: Hvbench, tmp_path: Path, command: str, text: str, message: str
) -> None:
    (tmp_path / "a.toml").write_text(text)
    assert refusal(hvbench_in(command, "a.toml")) == message
    assert [path.name for path in tmp_path.iterdir()] == ["a.toml"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("framework=jax", "-s \"framework=jax\": framework = \"jax\": must be 'pytorch' or 'tensorflow'"),
        ("micro_batch_size=0", '-s "micro_batch_size=0": micro_batch_size = 0: must be greater than or equal to 1'),
        ("learning_rate=nan", '-s "learning_rate=nan": learning_rate = NaN: must be a finite number'),
        ("data=a\nb", r'-s "data=a\nb": data = "a\nb": must be text without control characters'),
    ],
)
def test_a_mistake_in_an_override_is_told_in_one_line(
    hvbench_in: Hvbench, tmp_path: Path, override: str, message: str
) -> None:
    assert refusal(hvbench_in("sweep", "smoke", "-s", override)) == message
    assert refusal(hvbench_in("plan", "smoke", "-s", override)) == message
    assert refusal(hvbench_in("run", override)).endswith(message.removeprefix("-s "))
    assert list(tmp_path.iterdir()) == []


ARGUMENT = st.text(alphabet=st.characters(exclude_characters="\0", codec="utf-8"), max_size=12)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["-s", "--np", "--set", "smoke", "--resume"]) | ARGUMENT, max_size=4))
def test_arbitrary_arguments_of_plan_end_in_a_plan_or_one_line(hvbench_in: Hvbench, arguments: list[str]) -> None:
    answer = hvbench_in("plan", *arguments)
    if answer.code:
        refusal(answer)


# The real program


def program(*arguments: str | bytes, cwd: Path) -> Answer:
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("HVBENCH_", "HOROVOD_", "OMPI_", "PMI"))
    }
    result = subprocess.run(
        [Path(sys.executable).with_name("hvbench"), *arguments],
        cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=patience.SECONDS,
    )  # fmt: skip
    return Answer(result.returncode, result.stdout, result.stderr)


def test_the_program_refuses_with_one_line_and_code_2(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[axes]\nprecision = 'fp32'")
    expected = 'a.toml: [axes] precision = "fp32": must be a list, for example precision = ["fp32"]'
    assert refusal(program("sweep", "a.toml", cwd=tmp_path)) == expected


def test_the_program_refuses_a_file_name_that_is_no_text(tmp_path: Path) -> None:
    answer = program("plan", b"\xff\n.toml", cwd=tmp_path)
    assert refusal(answer).endswith(".toml: cannot be read: No such file or directory")


def test_the_program_refuses_a_place_that_cannot_be_written_with_code_5(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    answer = program("sweep", "smoke", "--np", "2", "--out", "file/run", cwd=tmp_path)
    assert refusal(answer, code=5).startswith("file/run: cannot be written: ")


def test_the_builder_explains_itself_through_the_program(tmp_path: Path) -> None:
    answer = program("install-horovod", "--help", cwd=tmp_path)
    assert answer.code == 0 and "--rebuild" in answer.out


def test_a_reader_who_leaves_early_sees_no_traceback(tmp_path: Path) -> None:
    """`hvbench suites | head`."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as out:
        result = subprocess.run(
            [Path(sys.executable).with_name("hvbench"), "suites"],
            cwd=tmp_path,
            stdout=out,
            stderr=subprocess.PIPE,
            timeout=patience.SECONDS,
        )
    assert (result.returncode in (0, 1), result.stderr) == (True, b"")


def test_doctor_answers_with_findings(tmp_path: Path) -> None:
    answer = program("doctor", cwd=tmp_path)
    assert answer.code in (0, 1)
    assert all(subject in answer.out for subject in ("cores", "memory", *FRAMEWORKS, "horovod"))
    assert json.dumps(answer.err) == '""'

"""Suites of people's own training: how a [script] expands, what of it is executed, and that every mistake is one line."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest

from hvbench.analysis.frame.axes import axis_values
from hvbench.errors import UsageError
from hvbench.launch.agent import complete
from hvbench.launch.generation import Generation
from hvbench.launch.joining import join_variables
from hvbench.launch.messages import Progress, Result
from hvbench.launch.script import STOPPED, VARIABLE, find_processes
from hvbench.launch.script_process import place_of_mpi
from hvbench.launch.turns import VARIABLE as TURNS
from hvbench.parity.stamp import find_pairs
from hvbench.plan.jobs import Plan, make_plan
from hvbench.records.environment import CHOSEN_VARIABLE
from hvbench.records.script_source import describe_script_source, list_tracked
from hvbench.spec.labels import distinguish, short_name
from hvbench.spec.schema import suite_schema
from hvbench.spec.script import ScriptPoint
from hvbench.spec.suite import Suite, apply_overrides, apply_scale, parse_suite
from hvbench.sweep.tasks import Shared, make_task
from tests import patience
from tests.unit.sample_probe import make_supervised

SUITE = """
question = "Is our fine-tuning still as fast as last week?"
[script]
command = "python train.py --batch {batch} --dtype={dtype}"
[axes]
batch = [8, 16]
dtype = ["fp32", "bf16"]
[[exclude]]
batch = 16
dtype = "fp32"
[measure]
steps = 7
repeats = 2
[scale.large.point]
batch = 512
"""


def parse(text: str) -> Suite:
    return parse_suite(text, name="own", where="own.toml")


def test_a_script_expands_to_its_own_axes() -> None:
    points = parse(SUITE).points()
    assert [point.values for point in points] == [
        {"batch": 8, "dtype": "fp32"},
        {"batch": 8, "dtype": "bf16"},
        {"batch": 16, "dtype": "bf16"},
    ]
    assert points[0].arguments() == ["python", "train.py", "--batch", "8", "--dtype=fp32"]
    assert len({point.point_id for point in points}) == 3
    assert points[0].point_id.startswith("train-batch8-dtypefp32-")
    assert ScriptPoint.model_validate_json(points[0].model_dump_json()) == points[0]


def test_an_id_is_of_the_command_and_its_values() -> None:
    """What it was when scripts came in: results of years have to stay comparable."""
    assert parse(SUITE).points()[0].point_id == "train-batch8-dtypefp32-d3b27ac8"


def test_options_and_scales_change_values() -> None:
    changed = apply_overrides(parse(SUITE), ["batch=4", 'dtype="8","x"', "steps=3", "repository=elsewhere"])
    assert [point.values for point in changed.points()] == [{"batch": 4, "dtype": "8"}, {"batch": 4, "dtype": "x"}]
    assert (changed.measure.steps, changed.folder) == (3, Path("elsewhere"))
    assert [point.values["batch"] for point in apply_scale(parse(SUITE), "large").points()] == [512, 512]


def test_ranks_and_seeds_are_axes_too() -> None:
    suite = parse('[script]\ncommand = "./train {seed}"\n[axes]\nworld_size = [1, 2]\nseed = [3, 4]\n')
    assert [(point.world_size, point.arguments()) for point in suite.points()] == [
        (1, ["./train", "3"]),
        (1, ["./train", "4"]),
        (2, ["./train", "3"]),
        (2, ["./train", "4"]),
    ]
    plan = make_plan(suite.points(), suite.measure, world_size=1)
    assert len(plan.jobs) == 2
    assert {skipped.reason for skipped in plan.skipped} == {"needs 2 ranks, 1 launched"}
    names = distinguish(suite.points())
    assert len({short_name(point) + names[point] for point in suite.points()}) == 4


@pytest.mark.parametrize(
    "value", ["$(touch pwned)", "; touch pwned", "`touch pwned`", '" ; touch pwned ; "', "a b", "*", "-rf"]
)
@pytest.mark.parametrize("shell", [False, True])
def test_no_value_is_read_by_a_shell(value: str, shell: bool, tmp_path: Path) -> None:
    program = "import sys; print(sys.argv[1:])"
    (tmp_path / "show.py").write_text(program, encoding="utf-8")
    text = f'[script]\ncommand = "{sys.executable} show.py --name={{value}} {{value}}"\nshell = {str(shell).lower()}\n'
    point = parse(f"{text}[axes]\nvalue = [{json.dumps(value)}]\n").points()[0]
    shown = subprocess.run(point.arguments(), cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert shown.strip() == str([f"--name={value}", value])
    assert os.listdir(tmp_path) == ["show.py"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('command = "python {x}"', "[script] command names {x}, and there is no such axis"),
        ('command = "p {batch}"\n[axes]\nbath = [1]', 'bath is not in the command (did you mean "batch"?)'),
        ('command = "p {a}"\n[axes]\na = [1, "x"]', "[axes] a: numbers and text in one axis"),
        ('command = "p {a}"\n[axes]\na = 8', "[axes] a = 8: must be a list, for example a = [8]"),
        ('command = "p {a}"\n[axes]\na = [[1]]', "[axes]: a = [1]: must be true, false, a finite number"),
        ('command = "p {a}"\n[axes]\na = [1, 1]', "[axes] a: 1 is listed twice"),
        ('command = "p {a!r}"', "braces hold the name of an axis, not"),
        ('command = "p {a.b}"', "braces hold the name of an axis, not"),
        ('command = "p {}"', "braces hold the name of an axis, not"),
        ('command = "p {"', "a brace of its own is written twice"),
        ("command = \"p '\"", "No closing quotation"),
        ('command = ""', "must have at least 1 character"),
        ('command = " "', "must have 1 to 1000 words"),
        ('comand = "p"', "command is missing"),
        ('command = "p"\nshel = true', 'unknown key "shel" (did you mean "shell"?)'),
        ('command = "p"\nshell = "yes"', "shell"),
        ('command = "p \'{a}\'"\nshell = true\n[axes]\na = [1]', "stands in quotes; hvbench quotes its value itself"),
        ('command = "p"\n[point]\nmodel = "tiny"', "model is not in the command"),
        ('command = "p"\n[measure]\nnoise_every = 3', "only hvbench's own trainings have it"),
        ('command = "p"\n[measure]\nstop_at_target = true', "stop_at_target = true has no effect without target_loss"),
        ('command = "p {a}"\n[axes]\na = ["x\\u0000y"]', "characters without control characters"),
        ('command = "p {a}"\n[axes]\na = [inf]', "a finite number"),
        ('command = "p"\n[axes]\nworld_size = ["two"]', "world_size"),
        ('command = "p"\nenvironment = "A=1"', "environment"),
        ('command = "p"\n[script.environment]\nA = 1.5', "[script]: environment.A = 1.5: must be a valid string"),
        ('command = "p"\n[script.environment]\n"A B" = "x"', 'environment] "A B": the name of a variable has letters, digits and _'),
        ('command = "p"\n[script.environment]\nRANK = 1', '[script.environment] "RANK": hvbench itself sets it for each rank'),
        ('command = "p"\n[script.environment]\nHVBENCH_SEED = 1', '"HVBENCH_SEED": hvbench itself sets it for each rank'),
        ('command = "p"\n[script.environment]\nPYTHONPATH = "src"', '"PYTHONPATH": it decides which code runs; set it where you call'),
        ('command = "p"\n[script.environment]\nAPI_KEY = "x"', '"API_KEY": suites and records are read by others; set it where you call'),
        ('command = "p"\n[script.environment]\nOMP_NUM_THREADS = 1', "for another number call hvbench with OMP_NUM_THREADS=N"),
        ('command = "p"\n[script.environment]\nA = "{b}"', "[script.environment] names {b}, and there is no such axis"),
        ('command = "p"\n[script.environment]\nA = "{"', '[script.environment] A = "{": '),
        ('command = "p"\n[script.environment]\nHOROVOD_CYCLE_TIME = "fast"', '"fast": must be a number from 0 to 100000 (milliseconds)'),
        ('command = "p"\n[script.environment]\nHOROVOD_CYCLE_TIME = "{a}"\n[axes]\na = ["x"]', '"x": must be a number from 0 to 100000'),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(f"[script]\n{text}\n").points()
    assert message in str(caught.value)
    assert str(caught.value).startswith("own.toml: ") and str(caught.value).isprintable()


WITH_VARIABLES = """
[script]
command = "python train.py --batch {batch}"
[script.environment]
MALLOC_TRIM_THRESHOLD_ = 1073741824
NCCL_ALGO = "{algorithm}"
[point]
batch = 8
[axes]
algorithm = ["Ring", "Tree"]
"""


def test_a_suite_sets_variables_for_its_script_and_compares_values_of_them() -> None:
    suite = parse(WITH_VARIABLES)
    points = suite.points()
    assert [point.variables() for point in points] == [
        {"MALLOC_TRIM_THRESHOLD_": "1073741824", "NCCL_ALGO": algorithm} for algorithm in ("Ring", "Tree")
    ]
    assert points[0].arguments() == ["python", "train.py", "--batch", "8"]
    assert (
        points[0].full_command
        == "MALLOC_TRIM_THRESHOLD_=1073741824 NCCL_ALGO='{algorithm}' python train.py --batch {batch}"
    )
    other = parse(WITH_VARIABLES.replace("1073741824", "0")).points()
    assert len({point.point_id for point in [*points, *other]}) == 4, "another setting is another training"
    task = make_task(make_plan(points, suite.measure, world_size=1).jobs[0], Shared(settings=suite.measure))
    assert (task.variables, task.settings) == (points[0].variables(), {"HVBENCH_SEED": "0"})
    assert [find_variables(point) for point in (points[0], parse(SUITE).points()[0])] == [
        "MALLOC_TRIM_THRESHOLD_=1073741824 NCCL_ALGO='{algorithm}'",
        None,
    ]


def find_variables(point: ScriptPoint) -> str | None:
    """What tables say of a point's variables; None where they have no such column for it."""
    return axis_values(point).get("environment")


def test_an_option_for_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match=r'unknown key "bath" \(did you mean "batch"\?\)'):
        apply_overrides(parse(SUITE), ["bath=3"])


def test_the_schema_knows_scripts() -> None:
    check = jsonschema.Draft202012Validator(suite_schema())
    script = {"command": "p {a}"}
    assert check.is_valid({"script": script, "axes": {"a": [1, 2]}, "measure": {"steps": 3}})
    assert not check.is_valid({"script": {}, "axes": {"a": [1]}})
    assert not check.is_valid({"script": script, "axes": {"a": 1}})
    assert not check.is_valid({"script": script, "measure": {"noise_every": 3}})


def test_a_task_has_the_command_and_the_seed_of_its_launch() -> None:
    suite = parse(
        SUITE.replace("repeats = 2", "repeats = 2\nseed_per_repeat = true").replace("{dtype}", "{dtype} {seed}")
    )
    plan = make_plan(suite.points(), suite.measure, world_size=2)
    task = make_task(plan.jobs[-1], Shared(settings=suite.measure, folder=Path("/there")))
    assert task.command == ("python", "train.py", "--batch", "8", "--dtype=fp32", "1")
    assert (task.folder, task.settings, task.world_size) == ("/there", {"HVBENCH_SEED": "1"}, 2)
    assert len({make_task(job, Shared(settings=suite.measure)).group for job in plan.jobs}) == len(plan.jobs)
    assert find_pairs(Plan(jobs=plan.jobs, skipped=[], done=[])) == []  # there is no twin to compare it with


def test_ranks_learn_where_the_others_are() -> None:
    slots = [
        SimpleNamespace(rank=rank, hostname="here", local_rank=rank, local_size=2, cross_rank=0) for rank in range(2)
    ]
    variables = join_variables(slots, address="10.0.0.1")
    assert [variables[rank]["RANK"] for rank in range(2)] == ["0", "1"]
    assert {each["MASTER_ADDR"] for each in variables.values()} == {"127.0.0.1"}
    assert len({each["MASTER_PORT"] for each in variables.values()}) == 1
    clusters = [json.loads(each["TF_CONFIG"]) for each in variables.values()]
    assert clusters[0]["cluster"] == clusters[1]["cluster"]
    assert [each["task"]["index"] for each in clusters] == [0, 1]
    workers = clusters[0]["cluster"]["worker"]
    assert len({*workers, f"127.0.0.1:{variables[0]['MASTER_PORT']}"}) == 3
    slots[1].hostname, slots[1].local_rank = "there", 0
    variables = join_variables(slots, address="10.0.0.1")
    assert variables[1]["MASTER_ADDR"] == "10.0.0.1"
    assert [each.rpartition(":")[0] for each in json.loads(variables[1]["TF_CONFIG"])["cluster"]["worker"]] == [
        "10.0.0.1",
        "there",
    ]


def test_open_mpi_of_a_virtual_environment_finds_its_files(tmp_path: Path) -> None:
    """Only there: one of the system, or of conda, knows its own place."""
    (tmp_path / "bin").mkdir()
    for name in ("python", "orted"):
        (tmp_path / "bin" / name).write_text("")
        (tmp_path / "bin" / name).chmod(0o755)
    assert place_of_mpi(str(tmp_path / "bin")) == {}
    (tmp_path / "pyvenv.cfg").touch()
    assert place_of_mpi(f"{tmp_path / 'bin'}:/usr/bin") == {"OPAL_PREFIX": str(tmp_path)}
    (tmp_path / "bin" / "orted").unlink()
    assert place_of_mpi(str(tmp_path / "bin")) == place_of_mpi(str(tmp_path / "nowhere")) == {}


def test_a_process_that_has_left_its_session_is_found(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"]
    with subprocess.Popen(
        command, env={**os.environ, VARIABLE: str(tmp_path)}, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        process.stdout.readline()
        assert find_processes(tmp_path) == [process.pid]
        assert find_processes(tmp_path / "other") == []
        process.kill()


def git(folder: Path, *words: str) -> str:
    name = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    return subprocess.run(["git", "-C", str(folder), *name, *words], check=True, capture_output=True, text=True).stdout


def test_a_digest_is_of_sources_and_not_of_outputs(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("a = 1\n", encoding="utf-8")
    without_git = describe_script_source(tmp_path)
    (tmp_path / "run" / "records").mkdir(parents=True)
    for name in ("run/run.json", "run/records/one.json"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    assert describe_script_source(tmp_path) == without_git, "whatever the folder of results is called"
    assert without_git["revision"] is None and without_git["is_dirty"] is None and without_git["digest"]
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "train.py")
    git(tmp_path, "commit", "-qm", "one")
    first = describe_script_source(tmp_path)
    assert first["revision"] == git(tmp_path, "rev-parse", "HEAD")[:12]
    assert first["is_dirty"] is False
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "run.json").write_text("{}", encoding="utf-8")
    assert describe_script_source(tmp_path) == first
    (tmp_path / "helper.py").write_text("b = 2\n", encoding="utf-8")
    assert describe_script_source(tmp_path)["digest"] != first["digest"]
    (tmp_path / "helper.py").unlink()
    (tmp_path / "train.py").write_text("a = 2\n", encoding="utf-8")
    changed = describe_script_source(tmp_path)
    assert changed["is_dirty"] is True and changed["digest"] != first["digest"]


def test_git_runs_nothing_that_a_repository_names_and_takes_any_name_of_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    monitor, ran = tmp_path / "monitor", tmp_path / "ran"
    monitor.write_text(f"#!/bin/sh\ntouch '{ran}'\n", encoding="utf-8")
    monitor.chmod(0o755)
    git(folder, "init", "-q")
    names = [b" first.py", b"two\nlines.py", b"\xff.py"]
    for name in names:
        (folder / os.fsdecode(name)).write_text("a = 1\n", encoding="utf-8")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    git(folder, "config", "core.fsmonitor", str(monitor))
    assert list_tracked(folder) == [os.fsdecode(name) for name in names]
    assert describe_script_source(folder)["is_dirty"] is False
    assert not ran.exists()
    git(folder, "status")
    assert ran.exists(), "git itself would have run it"


def test_variables_of_a_suite_are_the_script_s_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not its supervisor's, which they could break; records know that the suite has set them, and nobody else."""
    monkeypatch.setenv("OURS", "before")
    supervisor = "open(f'/proc/{os.getppid()}/environ', 'rb').read().split(b'\\0')"
    program = f"import os; print(os.environ['OURS'], os.environ['PYTHONHASHSEED'], b'OURS=before' in {supervisor})"
    words = make_supervised(tmp_path / "rank", program, environment={"OURS": "now", "PYTHONHASHSEED": "7"})
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "now 7 True\n"
    assert complete({"A": "1"}, own=["OURS"])[CHOSEN_VARIABLE].split(",") == ["A", "OURS"]


DAEMON = """
import os, subprocess, sys
hidden = f"import os, time; open({sys.argv[1]!r} + '/daemon', 'w').close(); time.sleep(3600)"
if os.fork() == 0:
    os.setsid()
    subprocess.Popen([sys.executable, "-c", hidden, sys.argv[1]], env={}, start_new_session=True)
    os._exit(0)
import time
while not os.path.exists(sys.argv[1] + "/daemon"):
    time.sleep(0.01)
"""


def mentions(folder: Path) -> list[str]:
    """Command lines of processes that name the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes() if entry.name.isdecimal() else b""
            if str(folder).encode() in words:
                found.append(words.decode())
    return found


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("os.kill(os.getpid(), 9)", -9),
        ("os.kill(os.getpid(), 6)", -6),
        ("open(sys.argv[1] + '/hangs', 'w').close(); time.sleep(3600)", -15),
    ],
)
def test_a_script_s_end_is_the_process_s_and_nothing_of_it_is_left(end: str, code: int, tmp_path: Path) -> None:
    """Not even a daemon with a session of its own and no environment by which it would be found."""
    folder = tmp_path / "rank"
    with subprocess.Popen(make_supervised(folder, f"{DAEMON}{end}\n"), start_new_session=True) as process:
        if code == -15:
            deadline = time.monotonic() + patience.SECONDS
            while not (folder / "hangs").exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.terminate()
            assert process.wait(timeout=patience.SECONDS) == -9, "the script was killed"
        else:
            assert process.wait(timeout=patience.SECONDS) == code
    assert mentions(folder) == []


def test_a_script_has_its_cores_before_its_first_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a process group of its own, in which what it forks is suspended with it; SIGPIPE is what it is for any program."""
    monkeypatch.setenv(TURNS, "a:nowhere")
    program = (
        "import os, signal; print(len(os.sched_getaffinity(0)), os.getpgid(0) == os.getpid() == os.getsid(0), "
        "signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)"
    )
    words = make_supervised(tmp_path / "rank", program)
    about = json.loads((tmp_path / "rank" / "generation.json").read_text(encoding="utf-8"))
    (tmp_path / "rank" / "generation.json").write_text(json.dumps(about | {"world_size": 64}), encoding="utf-8")
    ignoring = ["sh", "-c", "trap '' TERM; exec \"$@\"", "sh", *words]  # as an agent does
    assert subprocess.run(ignoring, capture_output=True, text=True, check=True).stdout == "1 True True\n"


def test_ranks_that_do_not_stop_together_are_told_apart_from_those_that_do_it_later() -> None:
    ranks = Generation(number=0, ranks=[0, 1])

    def report(rank: int, phase: str, index: int = 0) -> tuple[int, int] | None:
        ranks.note(Progress(generation=0, rank=rank, index=index, phase=phase, step=5))
        return ranks.split_by_stop(0)

    assert report(0, "measure") is None and report(1, "measure") is None
    assert report(1, STOPPED) == (1, 0), "not by its result: in turns it waits for the others before it has one"
    assert report(0, "evaluate") is None, "it may come to the same"
    assert report(0, "measure") == (1, 0)
    assert report(0, STOPPED) is None
    assert report(1, "finished") is None
    report(0, "measure")
    ranks.note(Result(generation=0, rank=1, index=0, result={"samples": {"stopped_by": "target"}}))
    assert ranks.split_by_stop(0) == (1, 0)
    assert ranks.split_by_stop(1) is None and report(0, "measure", index=1) is None
    ranks.note(Result(generation=0, rank=1, index=0, result={"samples": "garbage"}))
    report(0, "measure")
    assert ranks.split_by_stop(0) is None

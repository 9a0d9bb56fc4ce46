"""Two revisions of a script: worktrees of a real repository, the points that both have, and what is said of the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hvbench.comparison.ab.arms import Arm, parse_arm
from hvbench.comparison.ab.imports import ask_python, stand_ins
from hvbench.comparison.ab.options import AbOptions
from hvbench.comparison.ab.pairs import AbRun
from hvbench.comparison.ab.run import run_ab
from hvbench.comparison.ab.scripts import ArmSuites, Named, find_common, make_arm_suites
from hvbench.comparison.ab.worktrees import add_worktree, remove_worktree, remove_worktrees
from hvbench.comparison.gate.policy import Policy
from hvbench.errors import UsageError
from hvbench.plan.jobs import make_plan, number_places
from hvbench.records.source import PACKAGE
from hvbench.spec.suite import Suite, apply_overrides, load_suite, parse_suite
from hvbench.spec.suite_text import write_suite
from tests import patience
from tests.faults.sweeps import start, wait_until

SUITE = '[script]\ncommand = "python train.py {batch}"\n[axes]\nbatch = [8, 16]\n[measure]\nsteps = 7\n'


def git(folder: Path, *words: str) -> str:
    name = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "init.defaultBranch=main"]
    return subprocess.run(["git", "-C", str(folder), *name, *words], check=True, capture_output=True, text=True).stdout


class Repository:
    """A git repository of a script, commit by commit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        git(folder, "init", "-q")

    def commit(self, name: str, **files: str | None) -> None:
        """A commit with these files (`own` is own.toml, `train` is train.py), tagged `name`; None deletes one."""
        for stem, text in files.items():
            path = self.folder / {"own": "own.toml", "train": "train.py"}.get(stem, stem)
            if text is None:
                path.unlink()
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
        git(self.folder, "add", "-A")
        git(self.folder, "commit", "-qm", name)
        git(self.folder, "tag", name)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "project")


@pytest.fixture
def arms_of(tmp_path: Path, repository: Repository) -> Callable[..., ArmSuites]:
    def make(*, a: list[str], b: list[str], overrides: list[str] | None = None, file: Path | None = None) -> ArmSuites:
        chosen = file or repository.folder / "own.toml"
        named = Named(
            file=chosen, overrides=overrides or [], suite=apply_overrides(load_suite(chosen), overrides or [])
        )
        arms = [parse_arm("a", a, fields=None), parse_arm("b", b, fields=None)]
        return make_arm_suites(named, arms, worktrees=tmp_path / "worktrees")

    return make


def values_of(suite: Suite) -> list[dict[str, Any]]:
    return [dict(point.values) for point in suite.points()]


# Revisions


def test_each_arm_runs_its_own_revision_in_a_worktree(
    repository: Repository, arms_of: Callable[..., ArmSuites], tmp_path: Path
) -> None:
    repository.commit("old", own=SUITE, train="print('old')")
    repository.commit("new", train="print('new')")
    (repository.folder / "train.py").write_text("print('now')", encoding="utf-8")
    made = arms_of(a=["rev=old"], b=["rev=new"])
    said = [(suite.folder / "train.py").read_text(encoding="utf-8") for suite in made.suites.values()]
    assert said == ["print('old')", "print('new')"] and made.notes == ()
    assert [values_of(suite) for suite in made.suites.values()] == [[{"batch": 8}, {"batch": 16}]] * 2
    remove_worktrees(tmp_path / "worktrees")
    assert not (tmp_path / "worktrees").exists()
    assert len(git(repository.folder, "worktree", "list").splitlines()) == 1


def test_an_arm_without_a_revision_runs_the_files_as_they_are(
    repository: Repository, arms_of: Callable[..., ArmSuites]
) -> None:
    repository.commit("old", own=SUITE, train="print('old')")
    (repository.folder / "train.py").write_text("print('now')", encoding="utf-8")
    made = arms_of(a=["rev=HEAD"], b=[])
    assert made.suites["b"].folder == repository.folder
    assert (made.suites["a"].folder / "train.py").read_text(encoding="utf-8") == "print('old')"


def test_a_revision_has_its_own_axes_and_command_and_the_named_suite_the_settings(
    repository: Repository, arms_of: Callable[..., ArmSuites]
) -> None:
    repository.commit("old", own=SUITE.replace("steps = 7", "steps = 3"), train="")
    new = SUITE.replace("[8, 16]", "[32, 16, 8]").replace("train.py", "train.py --batch")
    repository.commit("new", own=new)
    made = arms_of(a=["rev=old"], b=["rev=new"])
    a, b = made.suites.values()
    assert values_of(a) == values_of(b) == [{"batch": 8}, {"batch": 16}]
    assert [suite.script.command for suite in (a, b)] == ["python train.py {batch}", "python train.py --batch {batch}"]
    assert a.measure.steps == b.measure.steps == 7
    assert any("its own [measure] differs" in note for note in made.notes)
    assert "only in arm b, so not compared: batch=32" in made.notes


def test_a_suite_that_a_revision_lacks_is_the_one_here(
    repository: Repository, arms_of: Callable[..., ArmSuites]
) -> None:
    repository.commit("old", train="print('old')")
    repository.commit("new", own=SUITE)
    made = arms_of(a=["rev=old"], b=["rev=new"])
    assert made.notes == ("arm a: rev=old has no own.toml: it runs what this one says",)
    assert (made.suites["a"].folder / "train.py").read_text(encoding="utf-8") == "print('old')"


def test_a_suite_outside_names_a_folder_of_the_repository(
    repository: Repository, arms_of: Callable[..., ArmSuites], tmp_path: Path
) -> None:
    repository.commit("old", **{"inner/train.py": "print('old')"})
    repository.commit("new", **{"inner/train.py": "print('new')"})
    file = tmp_path / "elsewhere.toml"
    file.write_text(SUITE.replace('{batch}"', '{batch}"\nrepository = "project/inner"'), encoding="utf-8")
    made = arms_of(a=["rev=old"], b=["rev=new"], file=file)
    assert [suite.folder.relative_to(tmp_path / "worktrees") for suite in made.suites.values()] == [
        Path("a/inner"),
        Path("b/inner"),
    ]


def test_git_runs_nothing_of_the_repository(
    repository: Repository, arms_of: Callable[..., ArmSuites], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "ran"
    repository.commit("old", own=SUITE, train="", **{".gitattributes": "*.py filter=lfs\n"})
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {marker}\ncat\n", encoding="utf-8")
    program.chmod(0o755)
    hook = repository.folder / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_bytes(program.read_bytes())
    hook.chmod(0o755)
    for key, value in (
        ("core.hooksPath", str(hook.parent)),
        ("core.fsmonitor", str(program)),
        ("filter.lfs.smudge", str(program)),
        ("filter.lfs.required", "true"),
    ):
        git(repository.folder, "config", key, value)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "another"))  # as a hook of another repository would have it
    arms_of(a=["rev=old"], b=[])
    assert not marker.exists()


def test_a_stop_while_a_worktree_is_made_leaves_nothing(repository: Repository, tmp_path: Path) -> None:
    """A checkout that hangs in a filter of the user's own: the filter is no child of hvbench, and has to end as well."""
    repository.commit("old", own=SUITE, train="", **{".gitattributes": "*.py filter=slow\n"})
    marker = tmp_path / "begun"
    git(repository.folder, "config", "filter.slow.smudge", f"touch {marker}; sleep 600")
    comparison = start(["hvbench", "ab", "own.toml", "--a", "rev=old", "--out", "run"], repository.folder, {})
    wait_until(marker.exists, seconds=patience.SECONDS, what=comparison.describe_processes)
    comparison.press_ctrl_c()
    assert comparison.wait() == (130, "hvbench: stopped by SIGINT; no pair was complete\n")
    comparison.wait_for_nobody()
    assert len(git(repository.folder, "worktree", "list").splitlines()) == 1
    assert sorted(path.name for path in comparison.folder.path.iterdir()) == [".lock", "ab.json"]


@pytest.mark.parametrize("state", ["locked", "missing"])
def test_a_worktree_that_git_had_not_finished_is_removed(repository: Repository, tmp_path: Path, state: str) -> None:
    """As git leaves one when it is killed: an entry that is locked, whose folder may not be there."""
    repository.commit("old", own=SUITE, train="")
    worktree = add_worktree("old", tmp_path / "worktrees" / "a", repository=repository.folder)
    git(repository.folder, "worktree", "lock", "--reason", "initializing", str(worktree))
    if state == "missing":
        remove_worktree(worktree, repository=repository.folder)
    remove_worktrees(tmp_path / "worktrees")
    assert not (tmp_path / "worktrees").exists()
    assert len(git(repository.folder, "worktree", "list").splitlines()) == 1


def test_a_folder_that_is_not_there_is_one_line(repository: Repository, tmp_path: Path) -> None:
    repository.commit("old", own=SUITE.replace("[axes]", 'repository = "nowhere"\n[axes]'), train="")
    options = AbOptions(suite=str(repository.folder / "own.toml"), b=["set=batch=8"], out=tmp_path / "out")
    with pytest.raises(UsageError) as caught:
        run_ab(options, Policy(), root=tmp_path, report=print)
    assert str(caught.value).endswith(
        f'[script] repository = "nowhere": no folder {repository.folder}/nowhere; it is seen from the suite\'s file'
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("a", "change", "message"),
    [
        (["rev=nosuch"], {}, "arm a (rev=nosuch): rev=\"nosuch\": no such revision in the git repository"),
        (["rev=old"], {"train": "", "own": SUITE}, "that revision has no train.py"),
        (["rev=odd"], {}, "own.toml has no [script] in that revision"),
        (["rev=out"], {}, 'own.toml: [script] repository = ".." leads out of the repository'),
        (["rev=broken"], {}, "not valid TOML"),
        (["rev=new", "set=dtype=fp32"], {}, '--a "set=dtype=fp32": unknown key "dtype"'),
        (["rev=new", "set=batch=8"], {}, "batch is an axis of own; fix it for both arms with -s batch=VALUE first"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(
    repository: Repository, arms_of: Callable[..., ArmSuites], a: list[str], change: dict[str, str], message: str
) -> None:
    repository.commit("old", readme="")
    repository.commit("odd", own="[axes]\nframework = ['pytorch']\n", train="")
    repository.commit("out", own=SUITE.replace("[axes]", 'repository = ".."\n[axes]'))
    repository.commit("broken", own="[")
    repository.commit("new", own=SUITE)
    with pytest.raises(UsageError) as caught:
        arms_of(a=a, b=[])
    assert message in str(caught.value) and str(caught.value).isprintable()


def test_a_folder_without_git_has_no_revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "own.toml").write_text(SUITE, encoding="utf-8")
    named = Named(file=tmp_path / "own.toml", overrides=[], suite=load_suite(tmp_path / "own.toml"))
    with pytest.raises(UsageError, match="lies in no git repository"):
        make_arm_suites(named, [Arm(name="a", revision="HEAD"), Arm(name="b")], worktrees=tmp_path / "w")


# What both have


AXES = "[axes]\nbatch = [1]\ndtype = [1]\n"


def make_suites(a: str, b: str, *, command: str = "p {batch} {dtype}") -> dict[str, Suite]:
    return {
        name: parse_suite(f'[script]\ncommand = "{command}"\n{text}', name="own", where="own.toml")
        for name, text in (("a", a), ("b", b))
    }


@pytest.mark.parametrize(
    ("a", "b", "common", "rest"),
    [
        (  # the same points, in another order
            'batch = [1, 2]\ndtype = ["x"]', 'dtype = ["x"]\nbatch = [2, 1]', [(1, "x"), (2, "x")], [],
        ),
        (  # an axis here, a fixed value there
            'batch = [1, 2]\ndtype = ["x", "y"]', 'batch = [2]\ndtype = ["y", "x"]', [(2, "x"), (2, "y")],
            ["only in arm a, so not compared: batch=1"],
        ),
        (  # values that each has for itself
            'batch = [1, 2]\ndtype = ["x", "y"]', 'batch = [2, 3]\ndtype = ["y", "z"]', [(2, "y")],
            ["only in arm a, so not compared: batch=1, dtype=x", "only in arm b, so not compared: batch=3, dtype=z"],
        ),
        (  # 8 is not 8.0, and true is not 1: a command line shows them otherwise
            'batch = [1, 2]\ndtype = [1, 2]', 'batch = [1, 2.0]\ndtype = [1, 2]', [(1, 1), (1, 2)],
            ["only in arm a, so not compared: batch=2", "only in arm b, so not compared: batch=2.0"],
        ),
        (  # what either leaves out is left out of both
            'batch = [1, 2]\ndtype = ["x", "y"]\n[[exclude]]\nbatch = 1\ndtype = "x"',
            'batch = [1, 2]\ndtype = ["x", "y"]\n[[exclude]]\nbatch = 2\ndtype = "y"', [(1, "y"), (2, "x")],
            ["only in arm a, so not compared: batch=2 dtype=y", "only in arm b, so not compared: batch=1 dtype=x"],
        ),
    ],
)  # fmt: skip
def test_points_that_both_arms_have_are_compared_and_the_rest_is_named(
    a: str, b: str, common: list[tuple], rest: list[str]
) -> None:
    suites, notes = find_common(make_suites(f"[axes]\n{a}", f"[axes]\n{b}"), changed=())
    found = [[(point.values["batch"], point.values["dtype"]) for point in suite.points()] for suite in suites.values()]
    assert found == [common, common] and notes == rest


def test_ranks_and_seeds_are_values_too() -> None:
    text = '[point]\ndtype = "x"\n[axes]\nbatch = [1, 2]\nworld_size = {}\n'
    suites, notes = find_common(make_suites(text.format("[1, 2]"), text.format("[2, 4]")), changed=())
    assert [(point.world_size, point.values["batch"]) for point in suites["b"].points()] == [(2, 1), (2, 2)]
    assert notes == [
        "only in arm a, so not compared: world_size=1",
        "only in arm b, so not compared: world_size=4",
    ]


def test_what_an_arm_sets_joins_no_points() -> None:
    """Also where the other arm's script does not know the name at all."""
    a = parse_suite('[script]\ncommand = "p {batch}"\n[axes]\nbatch = [1, 2]', name="own", where="own.toml")
    b = make_suites('[point]\ndtype = "x"\n[axes]\nbatch = [1, 2, 3]\n[[exclude]]\ndtype = "x"\nbatch = 1\n', AXES)["a"]
    suites, notes = find_common({"a": a, "b": b}, changed={"dtype"})
    assert values_of(suites["a"]) == [{"batch": 2}] and values_of(suites["b"]) == [{"batch": 2, "dtype": "x"}]
    assert notes == ["only in arm a, so not compared: batch=1", "only in arm b, so not compared: batch=3"]


@pytest.mark.parametrize(
    ("b", "message"),
    [
        ('command = "p {batch} {dtype}"\n[axes]\nbatch = [1]\ndtype = ["x", "y"]',
         "nothing to compare: only arm b has {dtype}; fix it there, for example --b set=dtype=x"),
        ('command = "p {batch}"\n[axes]\nbatch = [3, 4]',
         "nothing to compare: the arms have no value of batch in common; arm a: 1, 2; arm b: 3, 4"),
        ('command = "p {batch}"\n[axes]\nbatch = [1, 2]\n[[exclude]]\nbatch = 1\n', "no point is left"),
    ],
)  # fmt: skip
def test_arms_that_have_nothing_in_common_are_one_line(b: str, message: str) -> None:
    a = '[script]\ncommand = "p {batch}"\n[axes]\nbatch = [1, 2]\n[[exclude]]\nbatch = 2\n'
    a = a if "exclude" in b else a.partition("[[")[0]
    suites = {
        name: parse_suite(text, name="own", where="own.toml") for name, text in (("a", a), ("b", f"[script]\n{b}"))
    }
    with pytest.raises(UsageError) as caught:
        find_common(suites, changed=())
    assert message in str(caught.value)


def test_many_points_of_one_arm_are_counted() -> None:
    excludes = "".join(f'[[exclude]]\nbatch = {n}\ndtype = "x"\n' for n in range(1, 10))
    axes = '[axes]\nbatch = [1, 2, 3, 4, 5, 6, 7, 8, 9]\ndtype = ["x", "y"]\n'
    _, notes = find_common(make_suites(axes + excludes, axes), changed=())
    assert notes == [f"only in arm b, so not compared: {', '.join(f'batch={n} dtype=x' for n in range(1, 7))}, 3 more"]


def test_launches_of_both_arms_have_the_same_places() -> None:
    """By which they find each other to take turns."""
    suites, _ = find_common(
        make_suites('[axes]\nbatch = [1, 2, 3]\ndtype = ["x", "y"]', '[axes]\ndtype = ["y", "z", "x"]\nbatch = [3, 2]'),
        changed=(),
    )
    places = []
    for suite in suites.values():
        plan = make_plan(suite.points(), suite.measure, world_size=2)
        places.append(
            {json.dumps(job.point.values, sort_keys=True): number_places(suite.points(), plan.jobs)[job.key]
             for job in plan.jobs}
        )  # fmt: skip
    assert places[0] == places[1] and sorted(places[0].values()) == [0, 1, 2, 3]


# What an arm is given


def test_variables_that_an_arm_sets_are_not_the_suite_s(
    repository: Repository, arms_of: Callable[..., ArmSuites]
) -> None:
    repository.commit("old", own=f"{SUITE}[script.environment]\nA = 1\nB = 2\n", train="")
    made = arms_of(a=["rev=old"], b=["rev=old", "env:A=3", "env:C=4"])
    environments = {name: suite.script.environment for name, suite in made.suites.items()}
    assert environments == {"a": {"A": "1", "B": "2"}, "b": {"B": "2"}}


@pytest.mark.parametrize(
    "text",
    [
        SUITE,
        'question = "a \\"b\\" \\\\ é 😀"\ncompares = ["x"]\n[script]\ncommand = "p \\"{x}\\" {y} {z}"\nshell = false\n'
        'repository = "/a b"\n[point]\ny = true\nseed = 3\n[axes]\nx = [1e-05, 1e300, 0.1]\nz = ["1", "\\\\n"]\n'
        "[[exclude]]\nx = 0.1\nz = \"1\"\n[measure]\nturns = false\ntimeout_seconds = 2.5\nwarmup_steps = 1\n",
        '[script]\ncommand = "p {x}"\nshell = true\n[axes]\nx = [' + ", ".join(f"{n}.5" for n in range(300)) + "]\n",
        '[script]\ncommand = "p {x}"\n[script.environment]\nA = 1\nB = "{x} \\"1.2\\""\n[axes]\nx = [1, 2]\n',
        "[point]\nmodel = 'tiny'\n[axes]\nframework = ['pytorch', 'tensorflow']\n",
    ],
)  # fmt: skip
def test_a_suite_that_is_written_is_the_same_suite(text: str) -> None:
    text = text if "300" not in text and ".5, " not in text else text.replace(", ", ",\n")
    suite = parse_suite(text, name="own", where="own.toml")
    again = parse_suite(write_suite(suite), name="own", where="own.toml")
    assert again.points() == suite.points() and again.measure == suite.measure
    assert (again.question, again.script, list(again.compares)) == (suite.question, suite.script, list(suite.compares))


def test_an_arm_imports_the_packages_of_its_own_revision(tmp_path: Path) -> None:
    project, worktree = tmp_path / "project", tmp_path / "worktree"
    for folder in (project / "src", worktree / "src", project / ".venv" / "lib"):
        folder.mkdir(parents=True)
    given = [project / "src", project, project / ".venv" / "lib", project / "src", tmp_path, PACKAGE.parent]
    assert stand_ins(given, repository=project, worktree=worktree) == [worktree / "src", worktree]
    assert stand_ins([PACKAGE.parent], repository=PACKAGE.parent, worktree=worktree) == []
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(project)}
    folders = ask_python(f"{sys.executable} train.py", environment)
    assert Path(json.__file__).parents[1] in folders and project not in folders
    assert ask_python("./train.sh", environment) == ask_python("nosuch", environment) == []


def test_fields_of_an_arm_are_axes_of_the_script() -> None:
    arms = {"a": {"overrides": []}, "b": {"overrides": ["dtype=bf16", "seed=3"]}}
    about = {"path": Path(), "suite": "own", "arms": arms, "orders": [], "seed": 0, "command": "", "created_at": ""}
    assert AbRun(**about, is_script=True).changed_fields == {"{dtype}", "seed"}
    assert AbRun(**about).changed_fields == {"dtype", "seed"}

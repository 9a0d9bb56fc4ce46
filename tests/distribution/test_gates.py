"""The GitHub action and GitLab's job: their steps are executed on a small repository, as the services execute them.

What stands for the services' own parts: an environment that has everything but hvbench, which the steps install; the cache and the
upload of artifacts as functions; `tests.distribution.services` for the rest.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from tests import patience
from tests.distribution.services import Comments, Job, clean_environment, evaluate, serving_comments
from tests.environments import make_environment

ROOT = Path(__file__).parents[2]
TRAIN = """
import sys, time
from hvbench import probe
with probe.training() as training:
    while True:
        with training.step():
            time.sleep({seconds})
        training.log(loss=1.0)
"""
SUITE = """
question = "Is it slower?"
[script]
command = "python train.py"
[measure]
warmup_steps = 1
steps = 6
"""


def git(folder: Path, *words: str) -> str:
    name = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "init.defaultBranch=main"]
    return subprocess.run(
        ["git", "-C", folder, *name, *words], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def checkouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository `origin` whose branch `slower` doubles the time of a step, and shallow checkouts of it by name of the branch."""
    folder = tmp_path_factory.mktemp("checkouts")
    origin = folder / "origin"
    (origin / "bench").mkdir(parents=True)
    git(origin, "init", "-q")
    for branch, seconds in (("main", 0.01), ("slower", 0.02)):
        git(origin, "checkout", "-qB", branch)
        (origin / "bench" / "own.toml").write_text(SUITE)
        (origin / "bench" / "train.py").write_text(TRAIN.format(seconds=seconds))
        git(origin, "add", "-A")
        git(origin, "commit", "-qm", branch)
    git(origin, "checkout", "-q", "main")
    git(origin, "commit", "-q", "--allow-empty", "-m", "later")
    git(origin, "checkout", "-qB", "merged", "slower")
    git(origin, "merge", "-q", "--no-ff", "-m", "as GitHub merges them to test", "main")
    git(folder, "clone", "-q", "--depth", "1", "--branch", "merged", f"file://{origin}", "merged")
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python environment with everything that hvbench requires, and without hvbench."""
    return make_environment(tmp_path_factory.mktemp("ci") / "environment")


@pytest.fixture
def service() -> Iterator[Comments]:
    with serving_comments() as service:
        yield service


PIP = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_COMPILE": "1", "no_proxy": "127.0.0.1"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this repository's files for an installation, which writes beside setup.py."""
    folder = tmp_path_factory.mktemp("source") / "hvbench"
    folder.mkdir()
    for name in ("action.yml", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("hvbench", "suites"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.slow
def test_the_action_goes_all_the_way_and_an_early_end_is_a_warning(
    checkouts: Path, environment: Path, source: Path, service: Comments, tmp_path: Path
) -> None:
    kept: list[Path] = []

    def upload(given: Mapping[str, str]) -> None:
        """actions/upload-artifact: the files below a path."""
        assert given["name"] == "performance"
        kept.extend(path for path in Path(given["path"]).rglob("*") if path.is_file())

    base = git(checkouts / "origin", "rev-parse", "main")
    job = Job(
        temporary=tmp_path,
        workspace=checkouts / "merged",
        environment=clean_environment(
            **PIP, GITHUB_API_URL=service.address, GITHUB_REPOSITORY="me/own", GITHUB_REF="refs/pull/7/merge"
        ),
        event={"pull_request": {"base": {"sha": base}}},
        used={"actions/upload-artifact": upload},
    )
    inputs = {"environment": str(environment), "extras": "", "horovod": "false", "budget": "1"}  # seconds: one pair
    code = job.run_action(source, suite="bench/own.toml", np="2", **inputs)
    assert (code, job.outputs["exit-code"]) == (0, "3"), job.log
    assert job.steps["revisions"]["outputs"]["base"] == base
    assert job.ran == [
        "Find the revisions", "Install hvbench", "Launch both revisions in turns", "Keep the verdict and the records",
        "Comment the verdict", "Fail for a regression",
    ]  # fmt: skip
    (comment,) = service.kept
    assert comment["body"].startswith("<!-- hvbench bench/own.toml -->\n### 🟡 hvbench: INCONCLUSIVE (own, 1 pair")
    assert "### 🟡 hvbench: INCONCLUSIVE" in job.summary and "::warning::hvbench: undecided" in job.log
    names = {path.name for path in kept}
    assert {"gate.md", "gate.json", "gate.xml", "ab.json"} <= names
    arms = {
        json.loads(path.read_text())["environment"]["script"]["revision"]
        for path in kept
        if path.parent.name == "records"
    }
    assert arms == {base[:12], git(checkouts / "merged", "rev-parse", "HEAD")[:12]}


@pytest.mark.parametrize(("verdict", "code"), [("0", 0), ("1", 1), ("3", 0), ("5", 5), ("130", 130)])
def test_the_action_ends_as_the_verdict_says(verdict: str, code: int, tmp_path: Path) -> None:
    job = Job(temporary=tmp_path, workspace=tmp_path, environment=clean_environment(), event={}, used={})
    job.steps["gate"] = {"outputs": {"exit-code": verdict}}
    assert job.run_action(ROOT, only="Fail for a regression", suite="bench/own.toml") == code


@pytest.mark.long
def test_gitlabs_job_fails_a_merge_request_that_is_slower_and_comments_why(
    checkouts: Path, environment: Path, source: Path, service: Comments, tmp_path: Path
) -> None:
    """GitLab puts all lines of `script` into one shell, which ends at the first that fails."""
    job = yaml.safe_load((ROOT / "docs" / "gitlab-ci.yml").read_text(encoding="utf-8"))["performance"]
    workspace = tmp_path / "workspace"
    git(tmp_path, "clone", "-q", "--branch", "slower", str(checkouts / "origin"), str(workspace))
    variables = {
        name: str(value).replace("$CI_PROJECT_DIR", str(workspace)) for name, value in job["variables"].items()
    }
    variables |= {"HVBENCH": f"{source}[ci]", "ENVIRONMENT": str(environment), "HOROVOD": "false", "BUDGET": "900"}
    given = clean_environment(
        **PIP, **variables, GITLAB_CI="true", CI_API_V4_URL=service.address, CI_PROJECT_ID="3", CI_MERGE_REQUEST_IID="7",
        GITLAB_TOKEN="secret", CI_MERGE_REQUEST_DIFF_BASE_SHA=git(workspace, "rev-parse", "origin/main~1"),
        CI_COMMIT_SHA=git(workspace, "rev-parse", "HEAD"),
    )  # fmt: skip
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", "\n".join(job["script"])], cwd=workspace, env=given, capture_output=True,
        text=True, timeout=patience.SECONDS,
    )  # fmt: skip
    assert done.returncode == 1 and job["allow_failure"]["exit_codes"] == [3], done.stderr
    assert all((workspace / path).exists() for path in job["artifacts"]["paths"])
    assert (workspace / job["artifacts"]["reports"]["junit"]).read_text().startswith("<?xml")
    (note,) = service.kept
    assert note["body"].startswith("<!-- hvbench bench/own.toml -->\n### 🔴 hvbench: REGRESSION (own, 6 pairs")


@pytest.mark.parametrize(
    ("base", "message"), [("", "set base"), ("--upload-pack=touch x", "fatal: "), ("unrelated", "nothing in common")]
)
def test_a_base_that_is_none_ends_the_action_before_anything_is_installed(
    base: str, message: str, checkouts: Path, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    git(tmp_path, "clone", "-q", checkouts / "origin", workspace)
    git(workspace, "checkout", "-q", "--orphan", "unrelated")
    git(workspace, "commit", "-qm", "unrelated")
    git(workspace, "checkout", "-q", "main")
    job = Job(temporary=tmp_path, workspace=workspace, environment=clean_environment(), event={}, used={})
    assert job.run_action(ROOT, suite="bench/own.toml", base=base) and message in job.log, job.log
    assert job.ran == [] and not (workspace / "x").exists()


def test_the_runner_of_these_tests_reads_expressions_as_github_does() -> None:
    contexts = {"inputs": {"a": "true", "b": ""}, "steps": {"x-y": {"outputs": {"z": "5"}}}}
    for expression, value in (
        ("inputs.a == 'true'", "true"),
        ("inputs.a != 'true'", ""),
        (" steps.x-y.outputs.z ", "5"),
        ("inputs.b || 'no'", "no"),
        ("inputs.a && steps.x-y.outputs.z", "5"),
        ("inputs.c && 'x'", ""),
    ):
        assert evaluate(expression, contexts) == value


def test_the_example_of_a_workflow_and_the_head_of_the_action_fit_its_inputs() -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "gate.yml").read_text(encoding="utf-8"))
    (step,) = [step for step in workflow["jobs"]["gate"]["steps"] if step["uses"] == "./"]
    assert step["with"].keys() <= action["inputs"].keys()
    shown = yaml.safe_load(
        "\n".join(re.findall(r"^#   (.*)$", (ROOT / "action.yml").read_text(encoding="utf-8"), re.M))
    )[-1]
    assert shown["with"].keys() <= action["inputs"].keys()
    assert {name for name, one in action["inputs"].items() if one.get("required")} <= shown["with"].keys()

"""`hvbench comment`: written once, then over itself, where the job's variables say; a service that refuses is one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hvbench.cli import run
from hvbench.comparison.comment import MAX_CHARACTERS, PAGE
from tests.distribution.services import Comments, serving_comments


@pytest.fixture
def service() -> Iterator[Comments]:
    with serving_comments() as service:
        yield service


@pytest.fixture(params=["github", "gitlab"])
def job(request: pytest.FixtureRequest, service: Comments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A job of a service, in a folder with a verdict; its name."""
    of_github = {
        "GITHUB_ACTIONS": "true", "GITHUB_API_URL": service.address, "GITHUB_REPOSITORY": "me/own", "GITHUB_TOKEN": "secret",
        "GITHUB_REF": "refs/pull/7/merge",
    }  # fmt: skip
    of_gitlab = {
        "GITLAB_CI": "true", "CI_API_V4_URL": service.address, "CI_PROJECT_ID": "3", "CI_MERGE_REQUEST_IID": "7",
        "GITLAB_TOKEN": "secret",
    }  # fmt: skip
    for name in (*of_github, *of_gitlab):
        monkeypatch.delenv(name, raising=False)
    for name, value in (of_github if request.param == "github" else of_gitlab).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    Path("gate.md").write_text("### A verdict é")
    return request.param


def test_a_comment_is_written_once_and_then_over_itself(
    job: str, service: Comments, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = "<!-- hvbench bench/own.toml -->\n"
    stranger = {"user": {"type": "User"}, "author": {"id": 6}, "body": f"{mark}mine"}
    service.kept = [{"id": number, **stranger} for number in range(PAGE + 1)]  # the next page has more
    assert run(["comment", "gate.md", "--subject", "bench/own.toml"]) == 0
    Path("gate.md").write_text("x" * (2 * MAX_CHARACTERS))
    assert run(["comment", "gate.md", "--subject", "bench/own.toml"]) == 0
    assert run(["comment", "gate.md", "--subject", "an other\n-->"]) == 0
    written = [comment["body"] for comment in service.kept[PAGE + 1 :]]
    assert len(written) == 2 and len(written[0]) < 65_536
    assert written[0].startswith(f"{mark}xxx") and "…cut here" in written[0]
    assert written[1].startswith("<!-- hvbench an-other---- -->\nxxx")
    assert all(comment["body"] == stranger["body"] for comment in service.kept[: PAGE + 1])
    assert capsys.readouterr().out.splitlines() == [
        "gate.md: a new comment", "gate.md: written over the earlier comment", "gate.md: a new comment",
    ]  # fmt: skip


def test_a_service_that_refuses_is_one_line(job: str, service: Comments, capsys: pytest.CaptureFixture[str]) -> None:
    service.token = "another"
    assert run(["comment", "gate.md"]) == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert ": 403 Forbidden: " in line and line.endswith("the job's token may not write comments")
    assert service.kept == []


def test_a_service_that_is_gone_is_one_line(
    job: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_API_URL" if job == "github" else "CI_API_V4_URL", "http://127.0.0.1:9")
    assert run(["comment", "gate.md"]) == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert "Connection refused" in line


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        (("GITHUB_ACTIONS", "GITLAB_CI"), "this is no job of either"),
        (("GITHUB_REF", "CI_MERGE_REQUEST_IID"), "request"),
        (("GITHUB_TOKEN", "GITLAB_TOKEN"), "_TOKEN is not set"),
        (("GITHUB_API_URL", "CI_API_V4_URL"), "is not set"),
    ],
)
def test_a_job_of_another_kind_is_one_line(
    gone: tuple[str, ...], message: str, job: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in gone:
        monkeypatch.delenv(name, raising=False)
    assert run(["comment", "gate.md"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_a_file_that_is_not_there_is_one_line(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["comment", "nowhere.md"]) == 2
    assert capsys.readouterr().err == "hvbench: nowhere.md: cannot be read: No such file or directory\n"

"""The README tells the truth: its commands run, its output is that of a committed run, its links lead somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

from docs.published import DOCUMENTS, REFERENCE, ROOT, RUNS, read_quotes
from hvbench.records.store import RunFolder
from tests.parallel.test_launchers import SMOKE, launch

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (.+)$", README, re.M)
LAUNCHED = " ".join(SMOKE)  # whose records are looked at, too: tests/parallel/test_launchers.py


def test_the_readme_shows_commands() -> None:
    assert len(COMMANDS) >= 6 and LAUNCHED in COMMANDS


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in COMMANDS if command != LAUNCHED])
def test_a_command_of_the_readme_runs(command: str, tmp_path: Path) -> None:
    words = command.split()
    if words[1] == "sweep":  # `LAUNCHED` is one; here the suite and the options are read, and no rank is started
        words[1] = "plan"
    for run in set(re.findall(r"results/reference/\w+", command)):  # a copy, for `hvbench report` writes there
        shutil.copytree(ROOT / run, tmp_path / run)
    done = launch(words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("target", ["sweep", "test"])
def test_both_make_targets_exist(target: str) -> None:
    assert f"make {target}" in README
    subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize(
    "page", [page for page in DOCUMENTS if read_quotes(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_quoted_tables_are_those_of_the_committed_runs(page: Path) -> None:
    for quote in read_quotes(page):
        assert quote.text == quote.compute(), f"{quote.path}: make reference writes it"


def test_every_page_with_figures_quotes_them() -> None:
    assert len([quote for page in DOCUMENTS for quote in read_quotes(page)]) >= 8
    assert all(
        page.read_text(encoding="utf-8").count("<!-- from results/") == len(read_quotes(page)) for page in DOCUMENTS
    )


KEPT = re.compile(
    r"(\w+/(records/.+|run|launches|allreduce)|(gate|gpu|peers)/.+)\.json"
)  # what was measured, and asked


def test_git_keeps_the_records_and_what_documents_show() -> None:
    """Everything else below results/reference is computed from them: make reference."""
    listed = subprocess.run(
        ["git", "ls-files", "results/reference"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    kept = [ROOT / line for line in listed.stdout.splitlines()]
    shown = (
        {
            (page.parent / link).resolve()
            for page in DOCUMENTS
            for link in re.findall(r"\]\(([^)#:]+)", page.read_text(encoding="utf-8"))
        }
        | {ROOT / quote.path for page in DOCUMENTS for quote in read_quotes(page)}
        | set(DOCUMENTS)
    )
    loose = [path for path in kept if not KEPT.fullmatch(str(path.relative_to(REFERENCE))) and path not in shown]
    assert loose == []
    assert (
        sum(len(zlib.compress(path.read_bytes())) for path in kept) < 6e6
    )  # bytes, as git sends them: a clone stays small


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_local_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#:]+)(?:#([^)]+))?\)", text)
    assert [link for link, _ in links if not (path.parent / link).exists()] == []
    anchors = [(path.parent / link, anchor) for link, anchor in links if anchor] + [
        (path, anchor) for anchor in re.findall(r"\]\(#([^)]+)\)", text)
    ]
    assert [(page.name, anchor) for page, anchor in anchors if anchor not in list_anchors(page)] == []


def list_anchors(page: Path) -> list[str]:
    """Of each heading of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


@pytest.mark.parametrize("folder", RUNS, ids=lambda path: path.name)
def test_a_committed_run_is_complete_and_readable(folder: Path) -> None:
    records, problems = RunFolder(folder).read_records()
    assert problems == []
    assert sorted(f"{each.point_id}.r{each.repeat}" for each in records) == sorted(RunFolder(folder).read_run()["jobs"])
    # One of its rules asks for 64 times the rate at the largest batch, and says so.
    assert {each.outcome.status for each in records} - ({"diverged"} if folder.name == "large_batch" else set()) == {
        "ok"
    }


def test_every_suite_is_listed_with_its_question() -> None:
    listing = (ROOT / "suites" / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "suites").glob("*.toml"):
        assert f"`{path.stem}`" in listing

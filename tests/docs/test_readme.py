"""The README tells the truth: its commands run, its output is that of a committed run, its links lead somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hvbench.records.store import RunFolder
from tests.parallel.test_launchers import SMOKE, launch

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (.+)$", README, re.M)
LAUNCHED = " ".join(SMOKE)  # whose records are looked at, too: tests/parallel/test_launchers.py
REFERENCES = sorted(path.parent for path in (ROOT / "results" / "reference").glob("*/run.json"))


def test_the_readme_shows_commands() -> None:
    assert len(COMMANDS) >= 6 and LAUNCHED in COMMANDS


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in COMMANDS if command != LAUNCHED])
def test_a_command_of_the_readme_runs(command: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "results" / "reference", tmp_path / "results" / "reference")
    done = launch(command.split(), folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("target", ["sweep", "test"])
def test_both_make_targets_exist(target: str) -> None:
    assert f"make {target}" in README
    subprocess.run(["make", "--dry-run", target], cwd=ROOT, check=True, capture_output=True)


def test_quoted_tables_are_those_of_the_committed_runs() -> None:
    pages = [README, *(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))]
    quotes = [
        quote for page in pages for quote in re.findall(r"<!-- from (\S+\.md) -->\n(.*?)\n<!-- end -->", page, re.S)
    ]
    assert len(quotes) >= 5
    for path, quoted in quotes:
        table = [line for line in (ROOT / path).read_text(encoding="utf-8").splitlines() if line.startswith("|")]
        assert [line for line in quoted.splitlines() if line.strip()] == table


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "suites/README.md",
        "results/README.md",
        "CONTRIBUTING.md",
        *sorted(
            str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md") if "_generated" not in path.parts
        ),
    ],
)
def test_local_links_lead_somewhere(document: str) -> None:
    path = ROOT / document
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


@pytest.mark.parametrize("folder", REFERENCES, ids=lambda path: path.name)
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

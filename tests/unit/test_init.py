"""`hvbench init`: what it writes is a suite that can be planned at once, with each line explained from the declarations of its fields."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvbench.cli import run
from hvbench.registry import FRAMEWORKS
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.spec.suite import load_suite
from tests import patience

KEY = re.compile(r"(\w+) = ", re.M)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In an empty folder, where nobody can be asked."""
    monkeypatch.chdir(tmp_path)
    with open(os.devnull) as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        yield


def test_a_suite_is_written_that_can_be_planned(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "--output", "own.toml", "--axis", "precision=fp32,bf16", "-s", "steps=20"]) == 0
    assert capsys.readouterr().out == "own.toml: 4 points; next: hvbench plan own.toml --np 2\n"
    suite = load_suite(Path("own.toml"))
    assert suite.axes == {"framework": list(FRAMEWORKS), "precision": ["fp32", "bf16"]}
    assert (suite.base, suite.compares) == ({"model": "small"}, ["precision"])
    assert (suite.measure.steps, suite.measure.repeats) == (20, 5)
    assert suite.question == "What do these cost and buy: precision (fp32, bf16)?"
    assert run(["plan", "own.toml", "--np", "2"]) == 0
    assert "20 launches of points (5 each) on 2 ranks, 0 skipped" in capsys.readouterr().out


def test_each_line_is_explained_by_the_declaration_of_its_field() -> None:
    words = ["--framework", "pytorch", "--model", "tiny", "-s", "evaluate_every=5", "-s", "schedule_steps=90"]
    assert run(["init", "--output", "own.toml", "--axis", "micro_batch_size", "--np", "4", *words]) == 0
    text = Path("own.toml").read_text(encoding="utf-8")
    fields = {**Point.model_fields, **MeasureSettings.model_fields}
    paragraphs = [part for part in text.split("\n\n") if KEY.search(part)]
    for part in paragraphs:
        (name,) = KEY.findall(part)
        about = " ".join(line[2:] for line in part.splitlines() if line.startswith("# "))
        if name in fields:
            assert fields[name].description in about and "accepts " in about
        else:
            assert name in ("question", "compares") and about
    assert "accepts integer from 1 to 1e+06; in samples; default 8\nmicro_batch_size = [8, 16, 32]\n" in text
    assert tomllib.loads(text)["point"] == {"model": "tiny", "framework": "pytorch", "schedule_steps": 90}
    assert "hvbench sweep own.toml --np 4 " in text


@pytest.mark.parametrize("name", Point.model_fields)
def test_every_field_can_be_compared_or_says_what_it_needs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["init", "--output", "own.toml", "--axis", name, "--np", "2"])
    if code == 0:
        assert len(load_suite(Path("own.toml")).all_axes[name]) >= 2
    else:
        (line,) = capsys.readouterr().err.splitlines()
        assert code == 2 and name in line and not Path("own.toml").exists()


def test_what_cannot_run_here_is_not_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "--output", "own.toml", "--axis", "compression", "--np", "1"]) == 2
    assert "--axis compression: no two values suggest themselves here (one rank has nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "own.toml"], "--axis is missing, and there is no terminal to ask on"),
        (["--axis", "precision"], "--output is missing, and there is no terminal to ask on"),
        (["--axis", "precision", "--output", "there.toml"], "there.toml: is there already, and is not overwritten"),
        (["--axis", "precision", "--output", "own.txt"], "own.txt: a suite is a file that ends in .toml"),
        (["--axis", "precision", "--output", "no/own.toml"], "no/own.toml: cannot be written: No such file"),
        (["--axis", "presicion", "--output", "own.toml"], 'no field of a training (did you mean "precision"?)'),
        (["--axis", "precision=fp32", "--output", "own.toml"], "--axis precision: one value compares nothing"),
        (["--axis", "precision=fp32,fp8", "--output", "own.toml"], 'precision = "fp8": must be'),
        (["--axis", "model", "--model", "tiny", "--output", "own.toml"], "--axis model says that already"),
        (["--axis", "precision", "--output", "own.toml", "--question", "a\nb"], "must be one printable line"),
        (
            ["--axis", "precision", "--output", "own.toml", "-s", "target_loss=2"],
            "has no effect without evaluate_every",
        ),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("there.toml").write_text("mine")
    code = run(["init", *words])
    (line,) = capsys.readouterr().err.splitlines()
    assert code == (5 if "cannot be written" in message else 2) and message in line
    assert os.listdir() == ["there.toml"] and Path("there.toml").read_text() == "mine"


def test_on_a_terminal_it_asks_and_asks_again(tmp_path: Path) -> None:
    """Each answer is a line that is typed; an empty one takes what is suggested."""
    answers = ["presicion", "micro_batch_size", "tiny", "pytorch,jax", "pytorch", "none", "", "2,x", "2,4", "", ""]
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "hvbench", "init"], stdin=theirs, stdout=theirs, stderr=theirs
    ) as asked:
        os.close(theirs)
        os.write(ours, "".join(f"{answer}\n" for answer in answers).encode())
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # Linux, of a terminal that nobody has open
                break
            if not part:
                break
            shown += part
        code = asked.wait(timeout=patience.SECONDS)
    os.close(ours)
    said = shown.decode().replace("\r", "")
    assert code == 0, said
    for again in (
        'did you mean "precision"',
        "must be 'pytorch'",
        "'none' is not a valid integer",
        'micro_batch_size = "x"',
    ):
        assert again in said
    suite = load_suite(tmp_path / "micro_batch_size.toml")
    assert suite.axes == {"micro_batch_size": [2, 4]} and suite.base == {"model": "tiny", "framework": "pytorch"}
    assert said.endswith("micro_batch_size.toml: 2 points; next: hvbench plan micro_batch_size.toml --np 2\n")

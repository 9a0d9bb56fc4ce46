"""The tab key: what is offered behind which words, in bash itself, and in the other shells as click speaks to them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from hvbench.cli import run
from hvbench.cli.completion import SHELLS
from hvbench.cli.group import hvbench

ASK = """
source "$1"
COMP_LINE="$2" COMP_POINT=${#2}
_hvbench_completion hvbench
printf '%s\\n' "${COMPREPLY[@]}"
"""


def offered(words: str) -> list[str]:
    """What is completed at the end of `hvbench WORDS`."""
    *before, last = words.split(" ")
    return [item.value for item in ShellComplete(hvbench, {}, "hvbench", "_").get_completions(before, last)]


@pytest.mark.parametrize(
    ("words", "some"),
    [
        ("swe", ["sweep"]),
        ("sweep quick", ["quickstart"]),
        ("sweep quickstart --res", ["--resume"]),
        ("sweep batch -s precisi", ["precision=", "precision_target="]),
        ("sweep batch -s precision=", ["precision=fp32", "precision=bf16"]),
        ("sweep batch -s precision=bf16,f", ["precision=bf16,fp32", "precision=bf16,fp16"]),
        ("run model=tiny frame", ["framework="]),
        ("run tied_embeddings=", ["tied_embeddings=true", "tied_embeddings=false"]),
        ("plan local", ["local_sgd"]),
        ("plan learning_r", ["learning_rate="]),
        ("compare smoke@latest smo", ["smoke@latest"]),
        ("completion z", ["zsh"]),
    ],
)
def test_what_is_offered(words: str, some: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "results" / "smoke" / "20260101T000000Z"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert set(some) <= set(offered(words))
    assert all(value.startswith(words.split(" ")[-1]) for value in offered(words))


def test_nothing_is_offered_for_an_unknown_field() -> None:
    assert offered("run no_field=") == []


@pytest.mark.parametrize(
    ("typed", "reply"),
    [
        ("hvbench swee", {"sweep"}),
        ("hvbench sweep batch -s precision=b", {"bf16"}),
        ("hvbench sweep batch -s 'precision=bf16,fp3", {"bf16,fp32"}),
        ("hvbench run framework=t", {"tensorflow"}),
        ("hvbench sweep ", {"quickstart", "smoke"}),
    ],
)
def test_bash_puts_the_answer_behind_what_it_has_cut(typed: str, reply: set[str], tmp_path: Path) -> None:
    script = tmp_path / "completion.bash"
    script.write_text(source("bash"))
    words = ["bash", "-c", ASK, "bash", str(script), typed]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"PATH": path}, check=True)
    assert reply <= set(done.stdout.splitlines()), done.stderr


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_gets_its_script(shell: str) -> None:
    text = source(shell)
    assert f"_HVBENCH_COMPLETE={shell}_complete" in text and text.endswith("\n")
    if program := shutil.which(shell):  # bash is everywhere; the others where people have them
        subprocess.run([program, "-n"], input=text, text=True, check=True)


def test_another_shell_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", "csh"]) == 2
    assert "'bash', 'zsh', 'fish'" in capsys.readouterr().err


def source(shell: str) -> str:
    """What `hvbench completion SHELL` prints."""
    return CliRunner().invoke(hvbench, ["completion", shell]).output

"""The usual trainings of the guide to fine-tuning are commands that hvbench takes, here at sizes that a test has time for."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from hvbench.cli import run
from hvbench.spec.point import Point
from hvbench.training.huggingface.export import make_byte_tokenizer, write_model
from hvbench.training.weights import initial_weights

PAGE = (Path(__file__).parents[2] / "docs" / "fine-tuning.md").read_text(encoding="utf-8")
_, SECTION = PAGE.split("## Four usual trainings, a command each")
COMMANDS = re.findall(r"^```sh\nhvbench run (.+?)\n```", SECTION.split("\n## ")[0].replace("\\\n", ""), re.M | re.S)
SIZES = {"num_layers": 1, "num_heads": 2, "hidden_size": 32, "mlp_size": 64, "vocab_size": 256, "sequence_length": 64}
WHAT = {  # of each: epochs, samples of a step, and what the plan says of the folder
    "epochs=5": (5, 16, "initial_weights: 26 tensors from bert-base\n"),
    "objective=classification": (3, 16, "pooler.bias, pooler.weight, which it lacks, from the seed"),
    "optimizer=sgd": (1, 32, "a causal mask, which its config.json does not say"),
    "model=llama-1b": (1, 16, None),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the commands name: weights, texts and labelled texts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HVBENCH_CACHE", str(tmp_path / "cache"))
    point = Point(family="bert", **SIZES)
    write_model(tmp_path / "bert-base", point, initial_weights(point), tokenizer=make_byte_tokenizer())
    for name in ("texts", "reviews"):
        (tmp_path / name).mkdir()
    (tmp_path / "texts" / "a.txt").write_text("".join(f"line {number} of a text\n" for number in range(900)))
    lines = [json.dumps({"text": f"text {number}", "label": number % 3}) for number in range(200)]
    (tmp_path / "reviews" / "train.jsonl").write_text("\n".join(lines))
    return tmp_path


def test_the_guide_has_them_all() -> None:
    assert len(COMMANDS) == len(WHAT) and all(any(key in command for command in COMMANDS) for key in WHAT)


@pytest.mark.parametrize("key", WHAT)
def test_a_usual_training_is_planned(folder: Path, capsys: pytest.CaptureFixture[str], key: str) -> None:
    epochs, batch, line = WHAT[key]
    (words,) = [shlex.split(command) for command in COMMANDS if key in command]
    sizes = [word for name, value in SIZES.items() for word in ("-s", f"{name}={value}")]
    assert run(["plan", *words, *sizes, "-s", "num_kv_heads=2"]) == 0
    shown = capsys.readouterr().out
    (samples, steps) = re.search(rf"{epochs} epochs? of ([\d,]+) training samples: ([\d,]+) steps", shown).groups()
    assert int(steps.replace(",", "")) == -(-epochs * int(samples.replace(",", "")) // batch)
    assert "0 skipped" in shown and "2 launches of points" in shown
    assert line is None or line in shown

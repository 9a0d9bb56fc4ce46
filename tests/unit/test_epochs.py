"""Epochs are as many steps as their samples need, however the batch grows, or one line where the points differ."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import hvbench
from hvbench.cli import run
from hvbench.errors import DataError, UsageError
from hvbench.spec.point import Point
from hvbench.spec.suite import Suite, apply_overrides, apply_scale, parse_suite
from hvbench.sweep.epochs import resolve_epochs, steps_of_epochs
from hvbench.training.schedule import samples_before
from tests.unit.test_sweep import prepare


@pytest.mark.parametrize("epochs", [0.5, 1, 3])
@pytest.mark.parametrize(("accumulation", "batch_warmup_steps"), [(1, 0), (3, 7), (4, 200)])
def test_the_last_step_is_the_one_that_completes_the_epochs(epochs, accumulation, batch_warmup_steps) -> None:
    sizes = {"micro_batch_size": 4, "gradient_accumulation_steps": accumulation, "world_size": 2}
    point = Point(model="tiny", batch_warmup_steps=batch_warmup_steps, **sizes)
    for samples in (100, 101, 128, 1000):
        steps = steps_of_epochs(point, epochs, samples=samples)
        assert samples_before(point, steps) >= epochs * samples > samples_before(point, steps - 1)


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """160 training rows and 20 of validation."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HVBENCH_CACHE", str(tmp_path / "cache"))
    for split, count in (("train", 160), ("validation", 20)):
        lines = [json.dumps({"text": f"text {number}", "label": number % 3}) for number in range(count)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines))
    return tmp_path / "train.jsonl"


def make_suite(words: str) -> Suite:
    fixed = "objective=classification num_classes=3 data=train.jsonl model=tiny"
    return apply_overrides(parse_suite("", name="run", where="hvbench run"), f"{fixed} {words}".split(), option="")


def test_a_suite_gets_the_steps_of_its_epochs(rows: Path) -> None:
    said: list[str] = []
    suite = make_suite("epochs=2.5 warmup_steps=4 micro_batch_size=8,4")
    for accumulated, expected in (("8", 50), ("4", 100)):
        one = make_suite(f"epochs=2.5 warmup_steps=4 micro_batch_size={accumulated}")
        resolved = resolve_epochs(one, one.points(), world_size=1, say=said.append)
        assert (resolved.measure.warmup_steps, resolved.measure.steps) == (4, expected - 4)
        again = resolve_epochs(resolved, resolved.points(), world_size=1, say=said.append)
        assert again.measure == resolved.measure, "as a run that is resumed has it"
    assert said[0] == "2.5 epochs of 160 training samples: 50 steps, 4 of them warm-up"
    with pytest.raises(UsageError, match="epochs = 2.5: 50, 100 steps, for its points have different global batches"):
        resolve_epochs(suite, suite.points(), world_size=1, say=said.append)
    short = make_suite("epochs=0.01")
    with pytest.raises(UsageError, match="1 steps, allowed: more than warmup_steps"):
        resolve_epochs(short, short.points(), world_size=1, say=said.append)
    assert resolve_epochs(make_suite("steps=7"), [], world_size=1, say=said.append).measure.steps == 7


def test_only_one_of_steps_and_epochs_says_how_long_to_train() -> None:
    """What is set together contradicts itself; what is set later, by a scale or an override, replaces."""
    twice = "steps = 5 and epochs = 2.* both say how long to train: set one of them"
    for words in ("steps=5 epochs=2", "epochs=2 steps=5"):
        with pytest.raises(UsageError, match=f"^hvbench run: {twice}"):
            make_suite(words)
    for text, where in (("[measure]", "[measure]"), ("[scale.base.measure]", "[scale.base.measure]")):
        with pytest.raises(UsageError, match=rf"^mine: {re.escape(where)}: {twice}"):
            parse_suite(f"{text}\nsteps = 5\nepochs = 2\n", name="mine", where="mine")
    with pytest.raises(UsageError, match=f"^hvbench.run_point: {twice}"):
        hvbench.run_point(steps=5, epochs=2)
    for own, scaled, override in (("steps = 5", "epochs = 2", "epochs=2"), ("epochs = 2", "steps = 5", "steps=5")):
        suite = parse_suite(
            f"[measure]\n{own}\nrepeats = 2\n[scale.base.measure]\n{scaled}\n", name="mine", where="mine"
        )
        for changed in (apply_scale(suite, "base"), apply_overrides(suite, [override])):
            expected = {"epochs": 2, "steps": 10} if override == "epochs=2" else {"epochs": None, "steps": 5}
            assert {name: getattr(changed.measure, name) for name in expected} == expected
            assert changed.measure.repeats == 2


def test_a_plan_says_the_steps(rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.toml").write_text(
        '[point]\nobjective = "classification"\nnum_classes = 3\ndata = "train.jsonl"\nmodel = "tiny"\n'
        '[axes]\nframework = ["pytorch", "tensorflow"]\n[measure]\nepochs = 3\n'
    )
    assert run(["plan", "mine.toml", "--np", "1"]) == 0
    shown = capsys.readouterr().out
    assert "3 epochs of 160 training samples: 60 steps, 3 of them warm-up" in shown
    assert "3 warm-up and 57 timed steps each" in shown


def test_a_run_is_not_resumed_with_another_labelled_file(rows: Path, tmp_path: Path) -> None:
    """The line says that the text has changed, also where its epochs are other steps now."""
    suite = (
        '[point]\nobjective = "classification"\nnum_classes = 3\ndata = "train.jsonl"\nmodel = "tiny"\n'
        '[axes]\nframework = ["pytorch", "tensorflow"]\n[measure]\nepochs = 3\n'
    )
    prepare(tmp_path / "run", text=suite).folder.close()
    again = prepare(tmp_path / "run", text=suite, resume=True)
    assert again.suite.measure.steps == 3 * 160 // 16 - 3, "two ranks of eight"
    again.folder.close()
    before = rows.read_text()
    for changed in (before + '\n{"text": "one more", "label": 1}' * 40, before.replace('"label": 2', '"label": 1', 1)):
        rows.write_text(changed)
        with pytest.raises(UsageError) as refused:
            prepare(tmp_path / "run", text=suite, resume=True)
        assert "its text has changed since it was begun: data." in str(refused.value)
        assert "measure.steps" not in str(refused.value) and "\n" not in str(refused.value)
    rows.write_text(before)
    with pytest.raises(UsageError, match="measure.epochs was 3.*, is 2"):
        prepare(tmp_path / "run", text=suite.replace("epochs = 3", "epochs = 2"), resume=True)
    rows.unlink()
    with pytest.raises(DataError, match="train.jsonl"):
        prepare(tmp_path / "run", text=suite, resume=True)

"""`hvbench export`: which checkpoint is meant, what is written, and the one line for everything else.

That transformers loads it, `tests/parallel/test_pretrained.py` shows.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from hvbench.cli import run as run_command_line
from hvbench.records.record import Record
from hvbench.records.store import RunFolder
from hvbench.training import corpus
from hvbench.training.checkpoints import Checkpoint, CheckpointHeader, name_checkpoint, save_checkpoint
from hvbench.training.huggingface.start import load_weights
from hvbench.training.weights import initial_weights
from tests.unit.sample_records import make_record

TEXT = "".join(f"a line with the number {number} in it\n" for number in range(500))


def leave(run: Path, record: Record, *steps: int) -> None:
    """A record, and checkpoints after `steps`: parameters that say which."""
    RunFolder(run).write_record(record)
    point = record.point
    for step in steps:
        header = CheckpointHeader(
            step=step, samples=step, global_batch_size=point.global_batch_size, optimizer=point.optimizer, loss_scale=1.0,
            clean_steps=0, tokens_digest="abc", seed=point.seed, framework=point.framework,
        )  # fmt: skip
        arrays = {f"parameters/{name}": value + step for name, value in initial_weights(point).items()}
        path = run / "checkpoints" / record.key / name_checkpoint(step)
        save_checkpoint(path, Checkpoint(header=header, arrays={**arrays, "optimizer/updates": np.array(step)}))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HVBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text(TEXT)
    run = tmp_path / "run"
    (run / "records").mkdir(parents=True)
    RunFolder(run).write_run({"suite": "example", "jobs": []})
    bpe = {"vocab_size": 300, "data": "text.txt"}
    digest = corpus.prepare("text.txt", vocab_size=300).digest
    leave(run, make_record(framework="pytorch", data="text.txt"), 5, 10)
    leave(run, make_record(framework="pytorch", data="text.txt", repeat=1), 10)
    leave(run, make_record(framework="tensorflow", environment={"data_digest": digest}, **bpe), 10)
    leave(run, make_record(framework="tensorflow", environment={"data_digest": "other"}, seed=3, **bpe), 10)
    leave(run, make_record(framework="tensorflow", data="synthetic", activation="gelu_tanh"), 10)
    leave(run, make_record(framework="tensorflow", data="synthetic", objective="classification"), 10)
    leave(run, make_record(framework="tensorflow", data="synthetic", objective="masked_lm"), 10)
    bert = {"family": "bert", "objective": "classification", "attention_mask": "causal"}
    leave(run, make_record(framework="tensorflow", data="synthetic", **bert), 10)
    leave(run, make_record(framework="tensorflow", data="synthetic", learning_rate=0.5))
    return run


def id_of(run: Path, **fields: object) -> str:
    """The id of the one point with these fields."""
    records, problems = RunFolder(run).read_records()
    assert problems == []
    (found,) = {
        record.point_id
        for record in records
        if all(getattr(record.point, name) == value for name, value in fields.items())
    }
    return found


def test_the_last_checkpoint_of_the_first_launch_or_the_one_that_is_asked_for(run: Path) -> None:
    folder, weights = run.parent / "out", initial_weights(make_record(framework="pytorch").point)
    for words, step in (([], 10), (["--step", "5", "--force"], 5), (["--repeat", "1", "--force"], 10)):
        assert run_command_line(["export", "run", "pytorch", "out", *words]) == 0
        arrays = load_file(folder / "model.safetensors")
        assert np.array_equal(arrays["transformer.wpe.weight"], weights["position_embedding"] + step)
    assert len(arrays) == len(weights)
    point = make_record(framework="pytorch", initial_weights=str(folder)).point
    assert all(np.array_equal(value, weights[name] + 10) for name, value in load_weights(point).items())
    about = json.loads((folder / "config.json").read_text())
    assert (about["n_layer"], about["n_positions"], about["activation_function"]) == (2, 32, "gelu")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = "bytes: é \t\x00 and ü\n"
    assert tokenizer.encode(text).ids == list(text.encode()), "token n is byte n"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_a_vocabulary_of_the_text_goes_with_the_model(run: Path) -> None:
    point = id_of(run, vocab_size=300, seed=0)
    assert run_command_line(["export", "run", point[-8:], "out"]) == 0
    tokenizer = Tokenizer.from_file("out/tokenizer.json")
    train = corpus.prepare("text.txt", vocab_size=300).train[:400]
    assert tokenizer.encode(tokenizer.decode(train)).ids == train.tolist()
    assert tokenizer.decode(train) == TEXT[: len(tokenizer.decode(train))]


def test_synthetic_tokens_have_no_tokenizer(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command_line(["export", "run", id_of(run, activation="gelu_tanh"), "out"]) == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["config.json", "model.safetensors"]
    assert "no tokenizer: the model was trained on synthetic tokens" in capsys.readouterr().out
    assert json.loads(Path("out/config.json").read_text())["activation_function"] == "gelu_new"


def test_what_lies_in_a_folder_stays_unless_force_is_given(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    Path("out/mine.txt").write_text("mine")
    assert run_command_line(["export", "run", "pytorch", "out"]) == 2
    assert "out: is not empty (it has mine.txt)" in capsys.readouterr().err
    assert [path.name for path in Path("out").iterdir()] == ["mine.txt"]
    assert run_command_line(["export", "run", "pytorch", "out", "--force"]) == 0
    assert Path("out/mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("fields", "words", "code", "message"),
    [
        ({"learning_rate": 0.5}, [], 5, "left a checkpoint; train with checkpoint_every = STEPS"),
        ({"framework": "pytorch"}, ["--repeat", "7"], 5, "repeat 7 of pytorch-tiny"),
        ({"framework": "pytorch"}, ["--step", "7"], 5, "left no checkpoint after step 7; there are of [5, 10]"),
        (
            {"family": "bert"},
            [],
            2,
            "classification with a causal mask: transformers has no bert model that classifies by the last position",
        ),
        ({"objective": "classification", "family": "gpt2"}, [], 2, "classifies by the mean over all positions"),
        ({"objective": "masked_lm"}, [], 2, "sees what comes after"),
        ({"seed": 3}, [], 2, "export without it with --no-tokenizer"),
    ],
    ids=str,
)
def test_what_cannot_be_exported_is_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], fields: dict, words: list[str], code: int, message: str
) -> None:
    assert run_command_line(["export", "run", id_of(run, **fields), "out", *words]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and not Path("out").exists()


def test_a_point_is_named_by_what_no_other_has(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wanted, code, message in (
        ("tiny", 2, '"tiny" is part of 8 points\' ids: '),
        ("jax", 5, 'no point\'s id contains "jax"; it has pytorch-tiny'),
    ):
        assert run_command_line(["export", "run", wanted, "out"]) == code
        assert message in capsys.readouterr().err
    assert run_command_line(["export", "text.txt", "pytorch", "out"]) == 2
    assert "not a run folder" in capsys.readouterr().err
    assert run_command_line(["export", "run", id_of(run, seed=3), "out", "--no-tokenizer"]) == 0
    assert not Path("out/tokenizer.json").exists()


def test_lora_is_merged_and_what_transformers_has_no_place_for_is_refused(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for adaptation in ("lora", "adapter", "prefix"):
        leave(run, make_record(framework="tensorflow", data="synthetic", adaptation=adaptation, lora_rank=4), 10)
    point = make_record(framework="tensorflow", data="synthetic", adaptation="lora", lora_rank=4).point
    assert run_command_line(["export", "run", id_of(run, adaptation="lora"), "out"]) == 0
    before = {name: value + 10 for name, value in initial_weights(point).items()}
    layer = "block1.attention.qkv"
    product = before[f"{layer}.lora_a.weight"].astype(float) @ before[f"{layer}.lora_b.weight"]
    arrays = load_file("out/model.safetensors")
    merged = before[f"{layer}.weight"] + 16 / 4 * product
    assert np.array_equal(arrays["transformer.h.1.attn.c_attn.weight"], merged.astype(np.float32))
    assert not [name for name in arrays if "lora" in name]
    capsys.readouterr()
    for adaptation in ("adapter", "prefix"):
        assert run_command_line(["export", "run", id_of(run, adaptation=adaptation), "refused"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"adaptation {adaptation}: transformers has no gpt2 model" in line and not Path("refused").exists()

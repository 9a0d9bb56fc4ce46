"""Masked language modelling: how many tokens are masked, by what, independent of how the batch is divided."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hvbench.spec.point import Point
from hvbench.training import corpus
from hvbench.training.batches import Batches
from hvbench.training.masking import IGNORED, chosen_tokens, mask_samples, special_token

POINT = Point(model="tiny", objective="masked_lm", world_size=1, micro_batch_size=16)


def test_masked_random_and_kept_shares_are_those_of_bert() -> None:
    tokens = np.random.default_rng(0).integers(1, 256, size=(4000, 32))
    inputs, targets = mask_samples(tokens, np.arange(4000), point=POINT, stream=1)
    asked = targets != IGNORED
    assert set(asked.sum(axis=1)) == {chosen_tokens(32)} == {5}
    assert np.array_equal(targets[asked], tokens[asked])
    assert np.array_equal(inputs[~asked], tokens[~asked]), "only what is asked for is hidden"
    is_mask = (inputs == special_token("[MASK]", POINT))[asked]
    is_kept = (inputs == tokens)[asked]
    assert is_mask.mean() == pytest.approx(0.8, abs=0.01)
    assert is_kept.mean() == pytest.approx(0.1 + 0.1 / 256, abs=0.01)
    assert asked.mean(axis=0) == pytest.approx(np.full(32, 5 / 32), abs=0.03), "no position is preferred"
    assert inputs.dtype == targets.dtype == np.int32


def test_the_mask_of_a_sample_does_not_depend_on_its_batch() -> None:
    tokens = np.random.default_rng(0).integers(1, 256, size=(8, 32))
    whole = mask_samples(tokens, np.arange(8), point=POINT, stream=1)
    parts = [mask_samples(tokens[i : i + 2], np.arange(i, i + 2), point=POINT, stream=1) for i in range(0, 8, 2)]
    for index in (0, 1):
        assert np.array_equal(whole[index], np.concatenate([part[index] for part in parts]))
    for changes in ({"stream": 2}, {"point": POINT.model_copy(update={"seed": 1})}):
        other = mask_samples(tokens, np.arange(8), **{"point": POINT, "stream": 1} | changes)
        assert not np.array_equal(whole[0], other[0])
    assert [chosen_tokens(length) for length in (1, 3, 10, 128)] == [1, 1, 2, 19]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("".join(f"line {i}: what is {i} times {i}? äöü €\n" for i in range(4000)))
    return path


@pytest.mark.parametrize("vocab_size", [256, 400])
def test_no_text_contains_special_tokens(text: Path, tmp_path: Path, vocab_size: int) -> None:
    found = corpus.prepare(str(text), vocab_size=vocab_size, cache=tmp_path)
    point = POINT.model_copy(update={"vocab_size": vocab_size})
    special = [special_token(name, point) for name in ("[MASK]", "[CLS]", "[SEP]")]
    assert len(set(special)) == 3
    assert not np.isin(found.train, special).any() and not np.isin(found.validation, special).any()


def test_special_tokens_of_a_bpe_are_nul_and_bytes_of_no_utf_8() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        ["some text"] * 9, trainer=trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    )
    point = POINT.model_copy(update={"vocab_size": 300})
    assert tokenizer.encode("\0").ids == [special_token("[MASK]", point)]
    assert tokenizer.id_to_token(special_token("[CLS]", point)) == "\xff", "GPT-2's letter for the byte 0xFF"
    assert tokenizer.id_to_token(special_token("[SEP]", point)) == "\xfe"


@pytest.mark.parametrize(("world_size", "micro", "accumulation"), [(1, 8, 2), (2, 8, 1), (2, 2, 4)])
def test_masks_do_not_depend_on_ranks_accumulation_and_micro_batch(
    text, tmp_path, world_size, micro, accumulation
) -> None:
    found = corpus.prepare(str(text), vocab_size=256, cache=tmp_path)
    whole = Batches(POINT, found, rank=0).train_batch(3)
    cut = POINT.model_copy(
        update={"world_size": world_size, "micro_batch_size": micro, "gradient_accumulation_steps": accumulation}
    )
    ranks = [Batches(cut, found, rank=rank).train_batch(3) for rank in range(world_size)]
    for index in (0, 1):
        joined = np.concatenate([rank[index].reshape(-1, 32) for rank in ranks])
        assert np.array_equal(joined, whole[index].reshape(-1, 32))
    causal = Batches(POINT.model_copy(update={"objective": "causal_lm"}), found, rank=0).train_batch(3)[0]
    asked = whole[1] != IGNORED
    assert np.array_equal(whole[0][~asked], causal[~asked]) and np.array_equal(whole[1][asked], causal[asked])


def test_validation_masks_the_same_tokens_every_time(text: Path, tmp_path: Path) -> None:
    batches = Batches(POINT, corpus.prepare(str(text), vocab_size=256, cache=tmp_path), rank=0)
    first, again = (list(batches.validation_batches(32)) for _ in range(2))
    assert len(first) == 2
    for left, right in zip(first, again, strict=True):
        assert np.array_equal(left.inputs, right.inputs) and np.array_equal(left.targets, right.targets)
        assert ((left.targets != IGNORED).sum(axis=1) == 5).all(), "a mean over samples is one over masked tokens"

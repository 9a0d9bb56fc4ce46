"""Pairs of texts: what their samples hold, which of them belong together, and that nothing else decides on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hvbench.errors import DataError
from hvbench.plan.skip import reason_to_skip
from hvbench.spec.point import Point
from hvbench.training import corpus
from hvbench.training.batches import Batches
from hvbench.training.masking import IGNORED, chosen_tokens, special_token
from hvbench.training.packages import make_batches
from hvbench.training.pairs import FOLLOWS, IS_RANDOM, SPECIAL, PairBatches

POINT = Point(model="bert-tiny", next_sentence=True, world_size=1, micro_batch_size=64)
LENGTH = POINT.sequence_length
MASK, CLASS, SEPARATOR = (special_token(name, POINT) for name in ("[MASK]", "[CLS]", "[SEP]"))


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> corpus.Corpus:
    """Bytes that name their own place: a window is known by any few of them."""
    folder = tmp_path_factory.mktemp("text")
    for number in range(8):
        (folder / f"{number}.txt").write_text("".join(f"{number}{place:04d}," for place in range(2_000)))
    return corpus.prepare(str(folder), vocab_size=256, cache=folder / "cache")


def parts(inputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two texts of a sample, as they were before tokens were hidden."""
    ends = np.flatnonzero(inputs == SEPARATOR)
    assert inputs[0] == CLASS and len(ends) == 2 and ends[1] == len(inputs) - 1
    assert (targets[[*ends]] == IGNORED).all(), "special tokens are never asked for"
    shown = np.where(targets == IGNORED, inputs, targets)
    assert not np.isin(shown[1 : ends[0]], (MASK, CLASS)).any()
    return shown[1 : ends[0]], shown[ends[0] + 1 : ends[1]]


def test_a_sample_is_two_texts_between_special_tokens_and_half_of_them_belong_together(text: corpus.Corpus) -> None:
    room, whole = LENGTH - SPECIAL, text.train.tobytes()
    batches, classes, cuts = make_batches(POINT, text, rank=0), [], []
    assert isinstance(batches, PairBatches)
    for step in range(8):
        inputs, targets = (array[0] for array in batches.train_batch(step))
        windows = Batches(POINT, text, rank=0).train_batch(step)
        windows = np.where(windows[1] == IGNORED, *windows)[0]
        assert ((targets[:, 1:] != IGNORED).sum(axis=1) == chosen_tokens(room)).all()
        for row, (sample, asked) in enumerate(zip(inputs, targets, strict=True)):
            first, second = parts(sample, asked)
            assert np.array_equal(first, windows[row, : len(first)]), "the sample's own window begins it"
            follows = np.array_equal(second, windows[row, len(first) : room])
            assert asked[0] == (FOLLOWS if follows else IS_RANDOM)
            assert second.astype(np.uint8).tobytes() in whole, "a piece of text, whether it follows or not"
            classes.append(asked[0])
            cuts.append(len(first))
    assert np.mean(classes) == pytest.approx(0.5, abs=3 * 0.5 / np.sqrt(len(classes)))
    assert (min(cuts), max(cuts)) == (room // 4, room - room // 4)


@pytest.mark.parametrize(("world_size", "micro", "accumulation"), [(2, 32, 1), (2, 8, 4)])
def test_pairs_do_not_depend_on_ranks_accumulation_and_micro_batch(
    text: corpus.Corpus, world_size: int, micro: int, accumulation: int
) -> None:
    whole = PairBatches(POINT, text, rank=0).train_batch(3)
    cut = POINT.model_copy(
        update={"world_size": world_size, "micro_batch_size": micro, "gradient_accumulation_steps": accumulation}
    )
    ranks = [PairBatches(cut, text, rank=rank).train_batch(3) for rank in range(world_size)]
    for index in (0, 1):
        assert np.array_equal(np.concatenate([rank[index].reshape(-1, LENGTH) for rank in ranks]), whole[index][0])
    other = PairBatches(POINT.model_copy(update={"seed": 1}), text, rank=0).train_batch(3)
    assert not np.array_equal(other[1][0, :, 0], whole[1][0, :, 0])


def test_validation_asks_the_same_every_time_of_held_out_text(text: corpus.Corpus) -> None:
    batches = PairBatches(POINT, text, rank=0)
    first, again = (list(batches.validation_batches(64)) for _ in range(2))
    assert np.array_equal(first[0].inputs, again[0].inputs) and np.array_equal(first[0].targets, again[0].targets)
    held_out = text.validation.tobytes()
    for sample, asked in zip(first[0].inputs, first[0].targets, strict=True):
        assert all(part.astype(np.uint8).tobytes() in held_out for part in parts(sample, asked))
    assert set(first[0].targets[:, 0]) == {FOLLOWS, IS_RANDOM}


def test_a_random_token_is_no_separator() -> None:
    """Synthetic text has all tokens, and so have the random ones that stand for hidden ones."""
    point = POINT.model_copy(update={"data": "synthetic"})
    batches = PairBatches(point, corpus.prepare("synthetic", vocab_size=256), rank=0)
    for step in range(20):
        assert ((batches.train_batch(step)[0][0] == SEPARATOR).sum(axis=1) == 2).all()


def test_samples_that_grow_are_pairs_of_any_length(text: corpus.Corpus) -> None:
    batches = PairBatches(POINT.model_copy(update={"length_warmup_steps": 3}), text, rank=0)
    for step, length in enumerate((8, 16, 24, 32)):
        inputs, targets = batches.train_batch(step)
        assert inputs.shape[-1] == length
        for sample, asked in zip(inputs[0], targets[0], strict=True):
            assert all(len(part) for part in parts(sample, asked))


def test_a_text_of_one_held_out_sample_is_too_short(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text of a few lines\n" * 40)
    short = corpus.prepare(str(tmp_path), vocab_size=256, cache=tmp_path / "cache")
    point = POINT.model_copy(update={"micro_batch_size": 1, "sequence_length": len(short.validation) - 2})
    with pytest.raises(
        DataError, match=r"next_sentence: the text has \d+ training samples .* and holds out 1, of which two"
    ):
        PairBatches(point, short, rank=0)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"model": "tiny", "objective": "masked_lm"}, "which family gpt2 has not: family must be bert"),
        ({"objective": "classification"}, "objective or pretraining must be masked_lm"),
        ({"segmentation": "documents"}, "segmentation must be windows or overlap"),
        ({"sequence_length": 7}, "next_sentence: 7 tokens are too few for two texts: samples must have at least 8"),
        ({"sequence_length": 28, "length_warmup_steps": 9}, "next_sentence: 7 tokens are too few"),
        ({"objective": "classification", "pretraining": "masked_lm"}, None),
        ({"segmentation": "overlap"}, None),
    ],
)
def test_pairs_are_for_masked_language_models_with_segments(fields: dict, line: str | None) -> None:
    reason = reason_to_skip(
        Point(**{"model": "bert-tiny", "world_size": 1, "next_sentence": True, **fields}), world_size=1
    )
    assert (reason is None) if line is None else (line in reason)

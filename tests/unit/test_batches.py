"""The order of samples does not depend on ranks, accumulation and micro-batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvbench.errors import DataError
from hvbench.spec.messages import validate
from hvbench.spec.point import Point
from hvbench.training.batches import Batches
from hvbench.training.corpus import Corpus

LENGTH = 5


def make_point(**values: Any) -> Point:
    return validate(Point, {"model": "tiny", "sequence_length": LENGTH, "vocab_size": 65536, **values}, where="test")


def make_corpus(*, train_samples: int, validation_samples: int = 7, spare: int = 0) -> Corpus:
    """The training token at position p is p, the validation token at p is 10000 + p: a window's tokens tell its position."""
    train = np.arange(train_samples * LENGTH + 1 + spare, dtype=np.uint16)
    return Corpus(
        train=train,
        validation=10_000 + np.arange(validation_samples * LENGTH + 1, dtype=np.uint16),
        vocab_size=65536,
        vocabulary_size=65536,
        digest="0" * 16,
        tokens_digest="0" * 16,
        source="counting",
        files=1,
        left_out=(),
        text_bytes=len(train),
    )


def global_batch(corpus: Corpus, *, step: int, ranks: int, steps: int, micro: int, seed: int = 0) -> np.ndarray:
    """Inputs [global_batch_size, T] of all ranks in the global order."""
    point = make_point(world_size=ranks, gradient_accumulation_steps=steps, micro_batch_size=micro, seed=seed)
    inputs = [Batches(point, corpus, rank=rank).train_batch(step)[0] for rank in range(ranks)]
    return np.concatenate(inputs).reshape(-1, LENGTH)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_batch_warm_up_skips_no_sample_and_repeats_none(ranks: int) -> None:
    """Passes 1, 2, 3, 4, 4, 4: the samples of all steps are those that equal steps would have read, in their order."""
    corpus = make_corpus(train_samples=200)
    point = make_point(
        world_size=ranks, micro_batch_size=4 // ranks, gradient_accumulation_steps=4, batch_warmup_steps=3
    )
    batches = [Batches(point, corpus, rank=rank) for rank in range(ranks)]
    steps = [np.concatenate([each.train_batch(step)[0] for each in batches]) for step in range(6)]
    assert [len(inputs) for inputs in steps] == [passes * ranks for passes in (1, 2, 3, 4, 4, 4)]
    seen = [window for inputs in steps for window in windows(inputs)]
    even = [global_batch(corpus, step=step, ranks=1, steps=1, micro=18) for step in range(4)]
    assert seen == [window for inputs in even for window in windows(inputs)]


def windows(inputs: np.ndarray) -> list[int]:
    return (inputs[..., 0].reshape(-1) // LENGTH).tolist()


def test_batches_have_the_documented_shape_dtype_and_layout() -> None:
    corpus = make_corpus(train_samples=40)
    point = make_point(world_size=2, gradient_accumulation_steps=3, micro_batch_size=4)
    inputs, targets = Batches(point, corpus, rank=1).train_batch(0)
    assert inputs.shape == targets.shape == (3, 4, LENGTH)
    assert inputs.dtype == targets.dtype == np.int32
    assert inputs.flags.c_contiguous and targets.flags.c_contiguous
    assert np.array_equal(targets, inputs + 1)  # in counting text, the next token is the next number
    assert (inputs[..., 0] % LENGTH == 0).all()
    batch = next(Batches(point, corpus, rank=1).validation_batches(8))
    inputs, targets = batch.inputs, batch.targets
    assert inputs.shape == targets.shape == (4, LENGTH)
    assert inputs.dtype == targets.dtype == np.int32
    assert inputs.flags.c_contiguous and targets.flags.c_contiguous
    assert np.array_equal(targets, inputs + 1)


@settings(max_examples=60, deadline=None)
@given(
    factors=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)),
    train_samples=st.integers(64, 200),
    step=st.integers(0, 50),
    seed=st.integers(0, 2**31 - 1),
)
def test_any_factorisation_of_a_global_batch_yields_the_same_samples_in_the_same_order(
    factors: tuple[int, int, int], train_samples: int, step: int, seed: int
) -> None:
    ranks, steps, micro = factors
    corpus = make_corpus(train_samples=train_samples)
    size = ranks * steps * micro
    whole = global_batch(corpus, step=step, ranks=1, steps=1, micro=size, seed=seed)
    parts = global_batch(corpus, step=step, ranks=ranks, steps=steps, micro=micro, seed=seed)
    assert np.array_equal(parts, whole)


@settings(max_examples=40, deadline=None)
@given(train_samples=st.integers(8, 60), size=st.integers(1, 8), spare=st.integers(0, LENGTH - 1))
def test_every_epoch_visits_every_window_once_in_another_order(train_samples: int, size: int, spare: int) -> None:
    """Global batches that do not divide the epoch span two."""
    corpus = make_corpus(train_samples=train_samples, spare=spare)
    batches = Batches(make_point(world_size=1, micro_batch_size=size), corpus, rank=0)
    assert batches.samples_per_epoch == train_samples
    seen: list[int] = []
    while len(seen) < 3 * train_samples:
        seen += windows(batches.train_batch(len(seen) // size)[0])
    epochs = [seen[epoch * train_samples : (epoch + 1) * train_samples] for epoch in range(3)]
    for order in epochs:
        assert sorted(order) == list(range(train_samples))
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_batch_of_a_step_does_not_depend_on_earlier_calls() -> None:
    corpus = make_corpus(train_samples=20)
    point = make_point(world_size=1, micro_batch_size=8)
    batches = Batches(point, corpus, rank=0)
    in_order = [windows(batches.train_batch(step)[0]) for step in range(30)]
    assert windows(batches.train_batch(3)[0]) == in_order[3]
    assert windows(Batches(point, corpus, rank=0).train_batch(29)[0]) == in_order[29]


def test_the_order_is_the_documented_permutation_of_pcg64() -> None:
    corpus = make_corpus(train_samples=12)
    batches = Batches(make_point(world_size=1, micro_batch_size=12, seed=3), corpus, rank=0)
    for epoch in range(2):
        expected = np.random.Generator(np.random.PCG64([3, epoch])).permutation(12)
        assert windows(batches.train_batch(epoch)[0]) == expected.tolist()


def test_the_seed_changes_the_order() -> None:
    corpus = make_corpus(train_samples=64)
    orders = {tuple(windows(global_batch(corpus, step=0, ranks=1, steps=1, micro=64, seed=seed))) for seed in range(5)}
    assert len(orders) == 5


def test_a_long_run_keeps_few_permutations_in_memory() -> None:
    batches = Batches(make_point(world_size=1, micro_batch_size=8), make_corpus(train_samples=9), rank=0)
    for step in range(100):
        batches.train_batch(step)
    assert len(batches._orders) <= 2


def validation_windows(corpus: Corpus, samples: int, *, ranks: int, micro: int) -> list[list[list[int]]]:
    """Rank -> micro-batch -> numbers of the windows that count."""
    point = make_point(world_size=ranks, micro_batch_size=micro)
    result = []
    for rank in range(ranks):
        batches = Batches(point, corpus, rank=rank).validation_batches(samples)
        result.append([windows(batch.inputs - 10_000)[: batch.samples] for batch in batches])
    return result


def test_validation_windows_are_divided_among_the_ranks() -> None:
    corpus = make_corpus(train_samples=64, validation_samples=20)
    assert validation_windows(corpus, 8, ranks=2, micro=2) == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    assert validation_windows(corpus, 5, ranks=3, micro=2) == [[[0]], [[1, 2]], [[3, 4]]]
    assert validation_windows(corpus, 2, ranks=3, micro=2) == [[], [[0]], [[1]]]


def test_batches_read_a_mapped_corpus(tmp_path: Any) -> None:
    from hvbench.training.corpus import prepare

    path = tmp_path / "input.txt"
    path.write_text("abcdefghijklmnopqrstuvwxyz" * 100)
    corpus = prepare(str(path), vocab_size=256, cache=tmp_path / "cache")
    point = make_point(vocab_size=256, world_size=1, micro_batch_size=4)
    inputs, targets = Batches(point, corpus, rank=0).train_batch(0)
    assert type(inputs) is np.ndarray
    for row, following in zip(inputs[0].tolist(), targets[0].tolist(), strict=True):
        assert bytes(row).decode() in "abcdefghijklmnopqrstuvwxyz" * 2
        assert following[:-1] == row[1:]


def test_too_little_text_is_refused_when_batches_are_made() -> None:
    point = make_point(world_size=4, gradient_accumulation_steps=2, micro_batch_size=8)
    with pytest.raises(DataError, match="has 63 training samples of 5 tokens, the global batch needs 64"):
        Batches(point, make_corpus(train_samples=63), rank=0)
    with pytest.raises(DataError, match="too little text for validation"):
        Batches(point, make_corpus(train_samples=64, validation_samples=0), rank=0)


@pytest.mark.parametrize(("world_size", "rank"), [(None, 0), (2, 2), (2, -1)])
def test_a_rank_outside_the_world_raises_value_error(world_size: int | None, rank: int) -> None:
    with pytest.raises(ValueError, match="rank"):
        Batches(make_point(world_size=world_size), make_corpus(train_samples=64), rank=rank)


def test_a_corpus_with_a_larger_vocabulary_raises_value_error() -> None:
    with pytest.raises(ValueError, match="vocab_size 256"):
        Batches(make_point(vocab_size=256, world_size=1), make_corpus(train_samples=64), rank=0)


def test_samples_that_grow_are_the_beginnings_of_those_at_full_length() -> None:
    """Nothing else of the order changes: which sample a step reads does not depend on its length."""
    corpus = make_corpus(train_samples=60)
    fields = {"world_size": 1, "micro_batch_size": 4, "gradient_accumulation_steps": 2}
    full, growing = (Batches(make_point(**fields, length_warmup_steps=steps), corpus, rank=0) for steps in (0, 3))
    for step, length in enumerate([2, 3, 4, 5, 5]):
        for whole, part in zip(full.train_batch(step), growing.train_batch(step), strict=True):
            assert np.array_equal(part, whole[..., :length]) and part.flags.c_contiguous
    assert next(growing.validation_batches(4)).inputs.shape == (4, LENGTH), "evaluated at full length"


def test_masked_samples_that_grow_hide_the_same_share() -> None:
    point = make_point(
        objective="masked_lm", sequence_length=40, length_warmup_steps=3, world_size=1, micro_batch_size=2
    )
    corpus = make_corpus(train_samples=80, validation_samples=9)
    batches = Batches(point, corpus, rank=0)
    hidden = [(batches.train_batch(step)[1] >= 0).sum(axis=-1).ravel().tolist() for step in range(4)]
    assert hidden == [[2, 2], [3, 3], [4, 4], [6, 6]]  # 15 % of 10, 20, 30, 40 tokens, rounded to even


@pytest.mark.parametrize(("stride", "samples"), [(1, 36), (2, 18), (3, 12), (5, 8), (None, 18)])
def test_windows_overlap_by_the_stride_and_each_is_read_once_an_epoch(stride: int | None, samples: int) -> None:
    """41 tokens: windows of 6 begin at 0, stride, … up to 35; without a stride at every second token, half of 5."""
    point = make_point(segmentation="overlap", segmentation_stride=stride, world_size=1, micro_batch_size=1)
    batches = Batches(point, make_corpus(train_samples=8), rank=0)
    read = [batches.train_batch(step) for step in range(samples)]
    assert batches.samples_per_epoch == samples
    begins = sorted(int(inputs[0, 0, 0]) for inputs, _ in read)
    assert begins == list(range(0, 36, stride or 2))
    assert all(np.array_equal(targets, inputs + 1) for inputs, targets in read)


def test_windows_at_a_stride_of_their_length_are_those_side_by_side() -> None:
    corpus = make_corpus(train_samples=40)
    usual, at_stride = (
        Batches(make_point(world_size=1, **fields), corpus, rank=0)
        for fields in ({}, {"segmentation": "overlap", "segmentation_stride": LENGTH})
    )
    assert all(
        np.array_equal(*pair)
        for step in range(9)
        for pair in zip(usual.train_batch(step), at_stride.train_batch(step), strict=True)
    )


def test_held_out_text_is_evaluated_once_whatever_the_stride() -> None:
    corpus = make_corpus(train_samples=40, validation_samples=7)
    overlapping = make_point(segmentation="overlap", segmentation_stride=1, world_size=1, micro_batch_size=7)
    (batch,) = Batches(overlapping, corpus, rank=0).validation_batches(100)
    assert batch.samples == 7
    assert np.unique(batch.targets).size == 7 * LENGTH

"""Rows of documents: every target once, none across a file, nothing lost; packed tightly, and the same for all ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvbench.errors import DataError
from hvbench.spec.point import Point
from hvbench.training import corpus
from hvbench.training.documents import Rows, pack
from hvbench.training.layout import Layout, from_arrays, to_arrays
from hvbench.training.masking import IGNORED, chosen_tokens
from hvbench.training.packages import make_batches
from hvbench.worker.evaluation import evaluate

T = 8
sizes = st.lists(st.integers(0, 40), max_size=30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of 1 to 60 letters, most of them shorter than two rows; a letter says which file it is of."""
    root = tmp_path_factory.mktemp("documents")
    random = np.random.default_rng(0)
    for number in range(120):
        (root / f"{number:03}.txt").write_text(chr(65 + number % 50) * int(random.integers(1, 60)))
    return root


def make_point(folder: Path, **changes: Any) -> Point:
    fields = {
        "model": "tiny", "sequence_length": T, "segmentation": "documents", "data": str(folder), "world_size": 1,
        "micro_batch_size": 4,
    }  # fmt: skip
    return Point(**fields | changes)


def open_batches(point: Point, folder: Path, *, rank: int = 0):
    cache = folder.parent / "cache"
    return make_batches(point, corpus.prepare(str(folder), vocab_size=256, cache=cache), rank=rank, cache=cache)


@given(sizes, st.integers(1, 12), st.booleans())
def test_every_position_lies_in_one_row(counts: list[int], length: int, packing: bool) -> None:
    rows = Rows(counts, length=length, packing=packing)
    seen, begins = [], np.cumsum([0, *counts])
    for row in range(len(rows)):
        pieces = list(rows.pieces(row))
        assert 0 < sum(count for _, count in pieces) <= length
        assert rows.positions(np.array([row])).tolist() == [sum(count for _, count in pieces)]
        assert packing or len(pieces) == 1
        seen += [place for begin, count in pieces for place in range(begin, begin + count)]
    targets_of_files = [
        place for begin, count in zip(begins, counts, strict=False) for place in range(begin, begin + count - 1)
    ]
    assert sorted(seen) == targets_of_files, "each token that has a next one in its file, once"


@given(st.lists(st.integers(1, 10), max_size=60))
def test_pieces_are_packed_by_best_fit(lengths: list[int]) -> None:
    """No row overflows; no two rows could be one, so that all but one are more than half full."""
    rows = pack(np.array(lengths, dtype=np.int64), capacity=10)
    filled = np.bincount(rows, weights=lengths) if lengths else np.zeros(0)
    assert (filled <= 10).all() and (filled > 0).all()
    assert len(filled) < 2 or np.sort(filled)[:2].sum() > 10


def test_rows_say_where_documents_begin_and_padding_has_no_target(folder: Path) -> None:
    batches = open_batches(make_point(folder, gradient_accumulation_steps=2), folder)
    for step in range(6):
        inputs, targets, layout = batches.train_batch(step)
        assert inputs.shape == targets.shape == layout.starts.shape == (2, 4, T)
        assert inputs.dtype == targets.dtype == layout.starts.dtype == np.int32
        for tokens, next_tokens, starts in zip(
            *(each.reshape(-1, T) for each in (inputs, targets, layout.starts)), strict=True
        ):
            is_real = next_tokens != IGNORED
            assert is_real[0] and (np.diff(is_real.astype(int)) <= 0).all(), "padding is behind everything"
            assert (tokens[is_real] == next_tokens[is_real]).all(), "a file is one letter: no target is of another one"
            for start in np.unique(starts):
                assert np.flatnonzero(starts == start)[0] == start
                assert np.unique(tokens[(starts == start) & is_real]).size <= 1


def test_the_weights_of_all_passes_make_a_mean_over_all_targets(folder: Path) -> None:
    whole = open_batches(make_point(folder, micro_batch_size=16, packing=False), folder)
    cut = make_point(folder, micro_batch_size=4, gradient_accumulation_steps=2, world_size=2, packing=False)
    ranks = [open_batches(cut, folder, rank=rank) for rank in range(2)]
    for step in range(3):
        inputs, targets, layout = whole.train_batch(step)
        assert layout.weights.tolist() == [1.0]
        parts = [batches.train_batch(step) for batches in ranks]
        assert np.array_equal(np.concatenate([part[0] for part in parts]).reshape(inputs.shape), inputs)
        counts = np.concatenate([(part[1] != IGNORED).sum(axis=(1, 2)) for part in parts])
        weights = np.concatenate([part[2].weights for part in parts])
        assert weights == pytest.approx(counts / counts.mean()) and len(set(counts.tolist())) > 1
        tokens = int((targets != IGNORED).sum())
        assert whole.tokens_of_step(step) == tokens == ranks[0].tokens_of_step(step) == ranks[1].tokens_of_step(step)
        assert tokens < targets.size, "padding is no token"


def test_hidden_tokens_are_a_share_of_each_row_s_own(folder: Path) -> None:
    batches = open_batches(make_point(folder, objective="masked_lm", packing=False), folder)
    for step in range(4):
        _, targets, layout = batches.train_batch(step)
        rows = batches._windows(4 * step, 4)
        expected = [chosen_tokens(int(count)) for count in batches.rows.positions(rows)]
        assert (targets != IGNORED).sum(axis=-1).ravel().tolist() == expected
        assert all(
            (row[count:] == IGNORED).all() for row, count in zip(targets[0], batches.rows.positions(rows), strict=True)
        )
        assert layout.weights.tolist() == [1.0]


def test_rows_that_grow_are_the_beginnings_of_those_at_full_length(folder: Path) -> None:
    full, growing = (open_batches(make_point(folder, length_warmup_steps=steps), folder) for steps in (0, 3))
    for step, length in enumerate([2, 4, 6, 8]):
        whole, part = full.train_batch(step), growing.train_batch(step)
        assert np.array_equal(part[0], whole[0][..., :length]) and np.array_equal(part[1], whole[1][..., :length])
        assert np.array_equal(part[2].starts, whole[2].starts[..., :length])
        assert growing.tokens_of_step(step) == (part[1] != IGNORED).sum()


def test_an_evaluation_counts_every_target_once_whatever_the_micro_batch_and_the_ranks(folder: Path) -> None:
    class Teller:
        """A trainer whose loss of a target is the target."""

        def evaluate(self, inputs: np.ndarray, targets: np.ndarray, starts: np.ndarray) -> np.ndarray:
            is_real = targets != IGNORED
            return (targets * is_real).sum(axis=1) / is_real.sum(axis=1)

    found = corpus.prepare(str(folder), vocab_size=256, cache=folder.parent / "cache")
    held_out = open_batches(make_point(folder), folder).validation_rows
    tokens = [
        found.validation[begin + 1 : begin + 1 + count]
        for row in range(len(held_out))
        for begin, count in held_out.pieces(row)
    ]
    expected = np.concatenate(tokens).mean()
    for ranks, micro in ((1, 1), (1, 5), (2, 3)):
        point = make_point(folder, world_size=ranks, micro_batch_size=micro)
        parts = [
            evaluate(Teller(), open_batches(point, folder, rank=rank).validation_batches(10_000), point=point)
            for rank in range(ranks)
        ]
        assert sum(part.loss * part.targets for part in parts) / sum(part.targets for part in parts) == pytest.approx(
            expected
        )
        assert sum(part.targets for part in parts) == sum(map(len, tokens))


def test_a_file_shorter_than_a_row_is_used(tmp_path: Path) -> None:
    """Windows would refuse this text; as documents every one of its files is read."""
    for number in range(90):
        (tmp_path / f"{number:02}.txt").write_text("abcdefg"[: 3 + number % 4])
    point = make_point(tmp_path, sequence_length=256, micro_batch_size=1)
    batches = open_batches(point, tmp_path)
    counts = corpus.count_file_tokens(str(tmp_path), vocab_size=256, cache=tmp_path.parent / "cache")
    assert batches.tokens_of_step(0) > 128 and len(batches.rows) <= 2
    assert sum(batches.rows.positions(np.arange(len(batches.rows)))) == sum(max(0, count - 1) for _, count, _ in counts)
    with pytest.raises(DataError, match="too little text for validation"):
        open_batches(point.model_copy(update={"segmentation": "windows"}), tmp_path)


def test_too_few_documents_are_an_error_with_numbers(folder: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_batches(make_point(folder, micro_batch_size=5000), folder)
    assert "rows of 8 tokens, the global batch needs 5000; bring more text" in str(caught.value)


def test_a_batch_is_the_same_behind_a_pipeline(folder: Path) -> None:
    batches = open_batches(make_point(folder), folder)
    batch = batches.train_batch(0)
    arrays = to_arrays(batch)
    assert [str(array.dtype) for array in arrays] == list(batches.dtypes)
    inputs, targets, layout = from_arrays(arrays)
    assert inputs is batch[0] and targets is batch[1]
    assert isinstance(layout, Layout) and layout.starts is batch[2].starts and layout.weights is batch[2].weights

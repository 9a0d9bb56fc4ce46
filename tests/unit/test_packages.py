"""Labelled samples: each comes from one file of its class, on every rank."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hvbench.errors import DataError
from hvbench.plan.skip import reason_to_skip
from hvbench.spec.point import Point
from hvbench.training import corpus
from hvbench.training.masking import special_token
from hvbench.training.packages import find_packages, make_batches
from hvbench.training.pretraining import pretraining_point
from hvbench.training.weights import initial_weights, parameter_shapes

FOLDERS = {"alpha": 900, "beta": 700, "gamma": 500, "delta": 60}  # lines


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text of folders in whose files every line is the folder's name, and one file outside of them."""
    root = tmp_path_factory.mktemp("text")
    for name, lines in FOLDERS.items():
        for number in range(20):
            path = root / name / "inner" / f"{number}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{name} has line {line} öü\n" for line in range(lines // 20)))
    (root / "alone.txt").write_text("of no package\n" * 200)
    return root


def make_point(text: Path, **changes) -> Point:
    fields = {
        "model": "tiny",
        "objective": "classification",
        "num_classes": 3,
        "data": str(text),
        "world_size": 1,
        "micro_batch_size": 8,
    }
    return Point(**fields | changes)


def test_a_berts_samples_begin_with_a_token_of_their_own(text: Path, cache: Path) -> None:
    found = corpus.prepare(str(text), vocab_size=256, cache=cache)
    points = [make_point(text, family=family) for family in ("gpt2", "bert")]
    (plain, labels), (inputs, classes) = (
        make_batches(point, found, rank=0, cache=cache).train_batch(1) for point in points
    )
    assert (inputs[..., 0] == special_token("[CLS]", points[1])).all() and not (plain == inputs[0, 0, 0]).any()
    assert np.array_equal(inputs[..., 1:], plain[..., 1:]) and np.array_equal(classes, labels)


def decode(tokens: np.ndarray) -> str:
    return bytes(tokens.tolist()).decode(errors="ignore")


def test_a_sample_is_text_of_its_package_alone(text: Path, cache: Path) -> None:
    point = make_point(text)
    found = corpus.prepare(str(text), vocab_size=256, cache=cache)
    packages = find_packages(point, cache=cache)
    assert packages.names == ["alpha", "beta", "gamma"], "the largest, in alphabetical order"
    for windows, tokens in ((packages.train, found.train), (packages.validation, found.validation)):
        assert windows.starts.size == windows.labels.size > 0
        for start, label in zip(windows.starts, windows.labels, strict=True):
            sample = decode(tokens[start : start + point.sequence_length])
            others = set(FOLDERS) - {packages.names[label]}
            assert packages.names[label] in sample or not any(other in sample for other in others)
            assert "of no package" not in sample


@pytest.mark.parametrize("seed", [0, 1])
def test_the_first_validation_samples_are_of_all_packages_and_the_same_for_every_seed(text, cache, seed: int) -> None:
    """An evaluation takes the first samples, and text has one package after the other: unmixed they were all of the first one."""
    point = make_point(text, seed=seed)
    found = find_packages(point, cache=cache).validation
    first, whole = (np.bincount(labels, minlength=3) / labels.size for labels in (found.labels[:48], found.labels))
    assert np.abs(first - whole).max() < 0.2, "as often as in all of them"
    assert np.array_equal(found.starts, find_packages(make_point(text), cache=cache).validation.starts)
    assert len(np.unique(found.starts)) == found.starts.size


def test_token_counts_of_files_with_a_bpe_add_up_to_the_corpus(text: Path, cache: Path) -> None:
    counts = [corpus.count_file_tokens(str(text), vocab_size=300, cache=cache) for _ in range(2)]  # counted, then read
    assert counts[0] == counts[1]
    found = corpus.prepare(str(text), vocab_size=300, cache=cache)
    assert sum(train for _, train, _ in counts[0]) == len(found.train)
    packages = find_packages(make_point(text, vocab_size=300), cache=cache)
    assert packages.names == ["alpha", "beta", "gamma"]


@pytest.mark.parametrize(("world_size", "micro", "accumulation"), [(1, 4, 2), (2, 4, 1), (2, 2, 2)])
def test_samples_do_not_depend_on_ranks_accumulation_and_micro_batch(
    text, cache, world_size, micro, accumulation
) -> None:
    found = corpus.prepare(str(text), vocab_size=256, cache=cache)
    whole = make_batches(make_point(text), found, rank=0, cache=cache).train_batch(2)
    cut = make_point(text, world_size=world_size, micro_batch_size=micro, gradient_accumulation_steps=accumulation)
    ranks = [make_batches(cut, found, rank=rank, cache=cache).train_batch(2) for rank in range(world_size)]
    assert ranks[0][0].shape == (accumulation, micro, 32) and ranks[0][1].shape == (accumulation, micro)
    assert ranks[0][0].dtype == ranks[0][1].dtype == np.int32
    assert np.array_equal(np.concatenate([inputs.reshape(-1, 32) for inputs, _ in ranks]), whole[0].reshape(-1, 32))
    assert np.array_equal(np.concatenate([labels.ravel() for _, labels in ranks]), whole[1].ravel())


def test_an_epoch_sees_every_sample_once(text: Path, cache: Path) -> None:
    point = make_point(text, micro_batch_size=1)
    batches = make_batches(point, corpus.prepare(str(text), vocab_size=256, cache=cache), rank=0, cache=cache)
    labels = [int(batches.train_batch(step)[1][0, 0]) for step in range(batches.samples_per_epoch)]
    assert np.bincount(labels).tolist() == np.bincount(find_packages(point, cache=cache).train.labels).tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "synthetic"}, "random tokens come from no package"),
        ({"num_classes": 5}, "has 4 folders with text, num_classes is 5"),
        ({"sequence_length": 5000}, "has no training sample of 5000 tokens"),
        ({"micro_batch_size": 100_000}, "fewer than the global batch"),
    ],
)
def test_an_unusable_text_is_an_error_of_one_line(text: Path, cache: Path, changes: dict, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        find_packages(make_point(text, **changes), cache=cache)
    assert "\n" not in str(caught.value)


def test_the_standard_library_has_enough_packages() -> None:
    packages = find_packages(Point(model="tiny", objective="classification", world_size=2))
    assert len(packages.names) == 8 and len(set(packages.validation.labels)) >= 5


def test_a_classifier_adds_a_projection_and_changes_no_other_weight() -> None:
    point = Point(model="tiny", objective="classification", pretraining="masked_lm", world_size=1)
    source = pretraining_point(point)
    assert (source.objective, source.pretraining, source.learning_rate) == ("masked_lm", "none", point.learning_rate)
    assert set(parameter_shapes(point)) - set(parameter_shapes(source)) == {"classifier.weight", "classifier.bias"}
    mine, theirs = initial_weights(point), initial_weights(source)
    assert all(np.array_equal(mine[name], theirs[name]) for name in theirs)
    assert [
        point.model_copy(update={"pretraining": name}).is_causal for name in ("none", "causal_lm", "masked_lm")
    ] == [False, True, False]


def test_pretraining_comes_before_classification_alone() -> None:
    assert "comes before classification" in reason_to_skip(
        Point(model="tiny", pretraining="causal_lm", world_size=1), world_size=1
    )

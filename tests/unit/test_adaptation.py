"""Which parameters train: names, counts, products and bytes of every adaptation, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hvbench.analysis.frame.run import Run
from hvbench.analysis.topics.adaptation.front import ADAPT, find_fronts
from hvbench.analysis.topics.adaptation.sentences import describe_ways
from hvbench.analysis.topics.adaptation.topic import adaptation_tables, compares_adaptations
from hvbench.spec.adaptation import ADAPTATIONS
from hvbench.spec.knob import knobs_of
from hvbench.spec.point import Point
from hvbench.spec.suite import choose_suite
from hvbench.training.flops import attention_flops_per_token, model_facts
from hvbench.training.memory import estimate_memory
from hvbench.training.optimizers import state_shapes
from hvbench.training.pretraining import pretraining_name
from hvbench.training.products import linear_layers, model_products, total_flops
from hvbench.training.weights import initial_weights, parameter_shapes, trained_shapes
from tests.unit.sample_learning import make_learner, make_run
from tests.unit.sample_records import make_launch

TINY = {"model": "tiny", "world_size": 2, "micro_batch_size": 4}  # L = 2, W = 32, V = 256, T = 32
W = 32
NORM = 2 * W
CASES = [  # knobs, and how many parameters train
    ({"adaptation": "lora"}, 2 * (W * 8 + 8 * 3 * W)),
    ({"adaptation": "lora", "lora_rank": 2, "lora_targets": "attention"}, 2 * 2 * (W + 3 * W + W + W)),
    (
        {"adaptation": "lora", "lora_rank": 2, "lora_targets": "linear"},
        2 * 2 * (W + 3 * W + W + W + W + 4 * W + 4 * W + W),
    ),
    ({"adaptation": "adapter", "adapter_size": 4}, 2 * 2 * (2 * 4 * W + 4 + W + NORM) + NORM),
    ({"adaptation": "prefix", "prefix_length": 3}, 2 * 2 * 3 * W),
    ({"adaptation": "prefix", "prefix_length": 3, "model": "llama-tiny"}, 2 * 2 * 3 * 16),
    ({"adaptation": "bias"}, 2 * (3 * W + W + 4 * W + W + 2 * W) + W),
    ({"adaptation": "last_layers"}, 12 * W**2 + 3 * W + W + 4 * W + W + 2 * NORM + NORM),
    ({"adaptation": "last_layers", "trained_layers": 2}, 2 * (12 * W**2 + 13 * W) + NORM),
    ({"adaptation": "head", "objective": "classification"}, 8 * W + 8),
    ({"adaptation": "lora", "objective": "classification"}, 2 * (W * 8 + 8 * 3 * W) + 8 * W + 8),
    ({"adaptation": "head", "model": "llama-tiny", "tied_embeddings": False}, 256 * W),
    ({"adaptation": "last_layers", "model": "llama-tiny", "tied_embeddings": False}, 12_352 + W + 256 * W),
    ({"adaptation": "bias", "model": "bert-tiny"}, 2 * 11 * W + 3 * W + 256),
    ({"adaptation": "adapter", "adapter_size": 4, "model": "bert-tiny"}, 4 * (2 * 4 * W + 4 + W + NORM) + 2 * NORM),
    ({"adaptation": "head", "model": "bert-tiny"}, W**2 + W + NORM + 256),
    ({"adaptation": "head", "model": "bert-tiny", "objective": "classification"}, W**2 + W + 8 * W + 8),
    ({"adaptation": "last_layers", "model": "bert-tiny"}, 12 * W**2 + 9 * W + 2 * NORM + W**2 + W + NORM + 256),
]
each_case = pytest.mark.parametrize(("knobs", "trained"), CASES, ids=lambda value: str(value))


@each_case
def test_what_trains_is_counted_sent_and_kept(knobs: dict, trained: int) -> None:
    point = Point(**{**TINY, **knobs})
    shapes = trained_shapes(point)
    facts = model_facts(point)
    assert sum(map(math.prod, shapes.values())) == facts.trained_parameters == trained
    assert facts.parameters == sum(map(math.prod, parameter_shapes(point).values()))
    assert facts.allreduce_bytes_per_step == 4 * trained
    assert state_shapes(point)["first_moments"] == shapes
    memory, full = (
        estimate_memory(each, is_native=True) for each in (point, point.model_copy(update={"adaptation": "full"}))
    )
    assert (memory.gradient_bytes, memory.optimizer_state_bytes) == (4 * trained, 8 * trained)
    assert memory.parameter_bytes == 4 * facts.parameters and memory.copies_bytes <= full.copies_bytes


@each_case
def test_flops_of_a_token_are_those_of_its_products(knobs: dict, trained: int) -> None:
    """And 6 for each value of a vector, as ever."""
    point = Point(**{**TINY, **knobs})
    facts, tokens = model_facts(point), point.micro_batch_size * point.sequence_length
    layers = linear_layers(point)[: -1 if point.is_classifier else None]
    vectors = facts.parameters_in_flops - sum(layer.weights * layer.count for layer in layers)
    of_products = total_flops(model_products(point)) / tokens
    attention = attention_flops_per_token(point, point.sequence_length)
    assert facts.model_flops_per_token == of_products + attention + 6 * vectors


def test_where_gradients_begin() -> None:
    """LoRA: nothing trains in front of the first block's queries, keys and values; two blocks, so that one has their input's gradient."""
    layers = {
        (layer.inputs, layer.outputs): layer
        for layer in linear_layers(Point(**TINY, adaptation="lora", lora_rank=2))[:-1]
    }
    counts = {shape: (layer.input_gradients, layer.weight_gradients) for shape, layer in layers.items()}
    assert counts == {
        (W, 3 * W): (1, 0),
        (W, W): (2, 0),
        (W, 4 * W): (2, 0),
        (4 * W, W): (2, 0),
        (W, 2): (1, 2),
        (2, 3 * W): (2, 2),
    }
    (logits,) = linear_layers(Point(**TINY, adaptation="bias"))[-1:]
    assert (logits.input_gradients, logits.weight_gradients) == (1, 0)
    of_head = linear_layers(Point(**{**TINY, "model": "llama-tiny"}, adaptation="head", tied_embeddings=False))
    assert [(each.input_gradients, each.weight_gradients) for each in of_head] == [(0, 0)] * 5 + [(0, 1)]


def test_full_training_counts_as_ever() -> None:
    facts = model_facts(Point(**TINY))
    assert facts.trained_parameters == facts.parameters
    assert facts.model_flops_per_token == 6 * facts.parameters_in_flops + 12 * 2 * W * 32


@pytest.mark.parametrize("adaptation", ["lora", "adapter", "prefix"])
def test_what_is_added_moves_no_initial_weight(adaptation: str) -> None:
    """A LoRA begins as the model does (B = 0), an adapter close to it; prefixes are a start of their own."""
    points = [Point(**{**TINY, "objective": "classification"}, adaptation=each) for each in ("full", adaptation)]
    before, after = map(initial_weights, points)
    assert all(np.array_equal(after[name], value) for name, value in before.items())
    added = {name: value for name, value in after.items() if name not in before}
    assert added and set(added) == set(trained_shapes(points[1])) & set(added)
    for name, value in added.items():
        if ".prefix." in name:
            assert value.std() == pytest.approx(0.02, rel=0.1)
        elif name.endswith("lora_a.weight"):
            assert value.std() == pytest.approx(1 / 8, rel=0.1)
        elif name.endswith(("lora_b.weight", ".bias")):
            assert not value.any()
        else:
            assert value.std() == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"adaptation": "bias", "model": "llama-tiny"}, "family llama has no biases to train"),
        ({"adaptation": "head"}, "the output projection is the token embedding"),
        ({"adaptation": "last_layers", "trained_layers": 3}, "trained_layers 3 is more than num_layers 2"),
        ({"adaptation": "lora", "lora_rank": 33}, "lora_rank 33 is more than 32, the rank of the smallest matrix"),
        ({"adaptation": "lora", "lora_rank": 20, "mlp_size": 16, "lora_targets": "linear"}, "more than 16, the rank"),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line(knobs: dict, words: str) -> None:
    point = Point(**{**TINY, **knobs})
    reasons = [knob.impossible(point) for knob in knobs_of(Point).values() if knob.impossible]
    (reason,) = [each for each in reasons if each]
    assert words in reason and "\n" not in reason
    assert all(not knob.impossible(Point(**TINY)) for knob in knobs_of(Point).values() if knob.impossible)


def test_every_adaptation_has_words() -> None:
    knob = knobs_of(Point)["adaptation"]
    assert {knob.in_words(name) for name in ADAPTATIONS} == set(ADAPTATIONS.values())


def test_what_trains_is_in_a_table_where_adaptations_are_compared() -> None:
    records = [
        make_launch({"framework": "pytorch", "adaptation": adaptation}, repeat=repeat, evaluate_every=5)
        for adaptation in ("full", "lora")
        for repeat in range(2)
    ]
    run = Run(records=records)
    (table,) = adaptation_tables(run)
    full, lora = (dict(zip(table.header, row, strict=False)) for row in table.cells)
    trained = 4 * (256 * 8 + 8 * 3 * 256)
    assert (lora["trained parameters"], full["of all (%)"]) == (f"{trained:,}", "100")
    assert lora["sent per step and rank (KiB)"] == f"{4 * trained / 1024:,.1f}"
    assert lora["optimizer state (KiB)"] == f"{8 * trained / 1024:,.1f}"
    assert compares_adaptations(run) and not compares_adaptations(Run(records=records[:2]))


@pytest.mark.parametrize(
    ("loss", "seconds", "front"),
    [
        (3.0, 0.1, {"lora"}),  # it sends less, and is as good in all else
        (3.02, 0.1, {"lora"}),  # within 1 % of the loss
        (3.1, 0.1, {"full", "lora"}),
        (3.0, 0.11, {"full", "lora"}),
        (2.8, 0.09, {"lora"}),
    ],
)
def test_what_another_beats_is_not_on_the_front(loss: float, seconds: float, front: set[str]) -> None:
    """`full` has a loss of 3 nats and steps of 0.1 s; seeds scatter by a thousandth."""
    records = [
        make_learner(level + 0.003 * (seed % 2), seed=seed, seconds=length, framework="pytorch", adaptation=adaptation)
        for adaptation, level, length in (("full", 3.0, 0.1), ("lora", loss, seconds))
        for seed in range(5)
    ]
    (found,) = find_fronts(make_run(records, compares=["adaptation"]))
    assert {row["adaptation"] for row in found.rows} == front
    assert [(row["adaptation"], by["adaptation"]) for row, by in found.beaten] == [("full", "lora")] * (2 - len(front))


def test_a_point_over_another_link_beats_nothing() -> None:
    """Steps are ten times as long over the slower link, whatever is trained there."""
    records = [
        make_learner(level + 0.003 * (seed % 2), seed=seed, seconds=length, framework="pytorch", adaptation=adaptation, link_bits_per_second=link)
        for adaptation, level in (("full", 3.0), ("lora", 3.1))
        for link, length in ((2 * 10**8, 1.0), (10**9, 0.1))
        for seed in range(5)
    ]  # fmt: skip
    run = make_run(records, compares=["adaptation"])
    assert [(found.link, len(found.rows), found.beaten) for found in find_fronts(run)] == [
        (" over 200 Mbit/s", 2, ()), (" over 1 Gbit/s", 2, ())
    ]  # fmt: skip
    said = describe_ways(run, ADAPT)[0].text
    assert "In PyTorch over 200 Mbit/s and PyTorch over 1 Gbit/s 2 of 2 ways to adapt" in said


@pytest.mark.parametrize("scale", [None, "base", "llama"])
def test_all_ways_of_the_suite_start_from_the_same_weights(scale: str | None) -> None:
    """Each has a learning rate of its own, and pretraining has its own."""
    points = choose_suite("adaptation", scale=scale).points()
    assert len({point.learning_rate for point in points}) > 2
    assert len({pretraining_name(point) for point in points}) == 1

"""Families of models: what a point says of them, and the names, shapes, counts and bytes that follow, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hvbench.errors import UsageError
from hvbench.plan.skip import reason_to_skip
from hvbench.registry import FRAMEWORKS
from hvbench.spec.model import FAMILIES
from hvbench.spec.point import Point
from hvbench.spec.suite import parse_suite
from hvbench.training.flops import hidden_flops_per_token, model_facts, recomputed_flops_per_token
from hvbench.training.huggingface.families import FAMILIES as FOLDERS
from hvbench.training.huggingface.families import family_of
from hvbench.training.memory import KEPT, estimate_memory
from hvbench.training.optimizers import is_adapted, state_shapes
from hvbench.training.products import model_products, rounded_elements, total_flops
from hvbench.training.weights import constants, initial_weights, is_decayed, parameter_shapes

# llama-tiny: L = 2, W = 32, H = 2, K = 1, Q = 16, M = 96, V = 256, T = 32
BLOCK = {
    "norm1.gain": (32,), "attention.qkv.weight": (32, 64), "attention.out.weight": (32, 32),
    "norm2.gain": (32,), "mlp.gate.weight": (32, 96), "mlp.up.weight": (32, 96), "mlp.down.weight": (96, 32),
}  # fmt: skip
OF_BLOCK = 32 + 32 * 64 + 32 * 32 + 32 + 3 * 32 * 96
TINY = {"model": "llama-tiny", "world_size": 1}
# bert-tiny: as above, with M = 128
BERT_BLOCK = {
    "attention.qkv.weight": (32, 96), "attention.qkv.bias": (96,), "attention.out.weight": (32, 32), "attention.out.bias": (32,),
    "norm1.gain": (32,), "norm1.bias": (32,),
    "mlp.up.weight": (32, 128), "mlp.up.bias": (128,), "mlp.down.weight": (128, 32), "mlp.down.bias": (32,),
    "norm2.gain": (32,), "norm2.bias": (32,),
}  # fmt: skip
OF_BERT_BLOCK = 4 * 32 * 32 + 2 * 32 * 128 + 4 * 32 + 128 + 32 + 4 * 32
BERT = {"model": "bert-tiny", "world_size": 1}


def test_a_preset_implies_its_family_and_what_is_set_by_hand_wins() -> None:
    assert Point(model="llama-tiny").family == "llama" and Point().family == "gpt2"
    point = Point(model="tiny", family="llama")
    assert (point.kv_heads, point.mlp_width) == (2, 96), "8/3 of 32 is 85.3: the next multiple of 32"
    assert Point(model="llama-tiny", mlp_size=40).mlp_width == 40
    assert Point(model="tiny").mlp_width == 128 and Point(model="small", family="llama").mlp_width == 704


def test_a_size_that_is_written_out_names_the_point_that_it_would_have_anyhow() -> None:
    assert Point(model="tiny", num_kv_heads=2, mlp_size=128).point_id == Point(model="tiny").point_id
    assert Point(model="llama-tiny", mlp_size=None).point_id == Point(model="llama-tiny").point_id
    assert Point(model="llama-tiny", num_kv_heads=None).point_id != Point(model="llama-tiny").point_id


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"family": "gpt2"}, "family gpt2 has as many heads of keys as of queries: num_kv_heads is 1, and must be 2"),
        ({"num_heads": 4, "num_kv_heads": 3}, "num_heads 4 is not a multiple of num_kv_heads 3"),
        ({"num_kv_heads": 4}, "num_heads 2 is not a multiple of num_kv_heads 4"),
        ({"hidden_size": 6}, "family llama rotates pairs of a head's values: hidden_size / num_heads is 3, and must be even"),
        (
            {"model": "tiny", "tied_embeddings": False},
            "family gpt2 has the token embedding as its output projection: tied_embeddings must be true",
        ),
        (
            {"model": "bert-tiny", "tied_embeddings": False},
            "family bert has the token embedding as its output projection: tied_embeddings must be true",
        ),
        ({"model": "bert-tiny", "objective": "causal_lm"}, None),
        ({"model": "bert-tiny", "objective": "classification", "pretraining": "causal_lm"}, None),
        ({"model": "bert-tiny", "initial_weights": "a"}, None),
        ({"model": "bert-tiny", "objective": "classification", "pretraining": "masked_lm", "activation": "relu"}, None),
        ({"family": "gpt2", "num_kv_heads": 2}, None),
        ({"model": "tiny", "mlp_size": 40}, None),
    ],
)  # fmt: skip
def test_what_no_family_can_have_is_one_line(fields: dict, line: str | None) -> None:
    assert reason_to_skip(Point(**{**TINY, **fields}), world_size=1) == line


def test_a_theta_is_for_families_that_rotate() -> None:
    assert parse_suite('[point]\nmodel = "llama-1b"\nrope_theta = 1e6\n', name="s", where="s").points()
    assert parse_suite(
        '[point]\nrope_theta = 1e6\n[axes]\nmodel = ["tiny", "llama-tiny"]\n', name="s", where="s"
    ).points()
    with pytest.raises(UsageError, match="^s: rope_theta = 1000000.0 has no effect without family llama"):
        parse_suite('[point]\nmodel = "tiny"\nrope_theta = 1e6\n', name="s", where="s")


@pytest.mark.parametrize("fields", [{"model": "bert-tiny"}, {"model": "tiny", "family": "bert"}])
def test_bert_hides_tokens_unless_it_is_told_otherwise(fields: dict) -> None:
    assert Point(**fields).objective == "masked_lm" and not Point(**fields).is_causal
    classifier = Point(**fields, objective="classification")
    assert classifier.is_classifier and not classifier.is_causal
    assert not Point(**fields, objective="classification", initial_weights="a").is_causal
    for objective in ("causal_lm", "classification"):
        learned = {"pretraining": "causal_lm"} if objective == "classification" else {}
        assert Point(**fields, objective=objective, **learned).is_causal
    assert Point(**fields, objective="causal_lm", initial_weights="a").is_causal
    assert Point(**fields, objective="classification", attention_mask="causal").is_causal
    assert not Point(**fields, attention_mask="causal").is_causal, "which is of labels"
    assert Point(model="tiny").objective == Point(model="llama-tiny").objective == "causal_lm"
    text = '[point]\nmodel = "tiny"\n[axes]\nfamily = ["gpt2", "bert"]\n'
    points = parse_suite(text, name="s", where="s").points()
    assert [point.objective for point in points] == ["causal_lm", "masked_lm"]


@pytest.mark.parametrize("model", ["tiny", "llama-tiny", "bert-tiny"])
def test_every_familys_parameters_have_their_tensors_in_a_folder(model: str) -> None:
    point = Point(model=model)
    assert FOLDERS.keys() == FAMILIES.keys() and family_of(point).model_type == point.family
    stored = family_of(point).stored(point)
    assert stored.keys() == parameter_shapes(point).keys()
    sizes = {name: sum(math.prod(shape) for _, shape in parts) for name, parts in stored.items()}
    assert sizes == {name: math.prod(shape) for name, shape in parameter_shapes(point).items()}


@pytest.mark.parametrize("is_tied", [True, False])
def test_names_and_shapes_of_llama(is_tied: bool) -> None:
    expected: dict = {"token_embedding": (256, 32)}
    for layer in range(2):
        expected |= {f"block{layer}.{name}": shape for name, shape in BLOCK.items()}
    expected["final_norm.gain"] = (32,)
    expected |= {} if is_tied else {"output_embedding": (256, 32)}
    point = Point(**TINY, tied_embeddings=is_tied)
    assert list(parameter_shapes(point).items()) == list(expected.items())
    vectors = {name for name, shape in expected.items() if len(shape) == 1}
    assert {name for name in expected if not is_decayed(name)} == vectors
    assert {name for name in expected if not is_adapted(name)} == vectors
    assert state_shapes(point)["first_moments"] == expected


@pytest.mark.parametrize(
    ("objective", "judges"),
    [("masked_lm", False), ("masked_lm", True), ("causal_lm", False), ("classification", False)],
)
def test_names_and_shapes_of_bert(objective: str, judges: bool) -> None:
    expected: dict = {"token_embedding": (256, 32), "position_embedding": (32, 32), "segment_embedding": (2, 32)}
    expected |= {"embedding_norm.gain": (32,), "embedding_norm.bias": (32,)}
    for layer in range(2):
        expected |= {f"block{layer}.{name}": shape for name, shape in BERT_BLOCK.items()}
    if objective != "classification":
        expected |= {"head.weight": (32, 32), "head.bias": (32,), "head_norm.gain": (32,), "head_norm.bias": (32,)}
        expected["output.bias"] = (256,)
        pair = {
            "pooler.weight": (32, 32),
            "pooler.bias": (32,),
            "next_sentence.weight": (32, 2),
            "next_sentence.bias": (2,),
        }
        expected |= pair if judges else {}
    else:
        expected |= {
            "pooler.weight": (32, 32),
            "pooler.bias": (32,),
            "classifier.weight": (32, 8),
            "classifier.bias": (8,),
        }
    point = Point(**BERT, objective=objective, next_sentence=judges)
    assert list(parameter_shapes(point).items()) == list(expected.items())
    vectors = {name for name, shape in expected.items() if len(shape) == 1}
    assert {name for name in expected if not is_decayed(name)} == vectors | {"position_embedding", "segment_embedding"}
    assert {name for name in expected if not is_adapted(name)} == vectors


def test_initial_weights_of_bert() -> None:
    """All matrices alike; a classifier has those of the language model but for the heads."""
    model, classifier = (
        initial_weights(Point(model="small", family="bert", objective=objective))
        for objective in ("masked_lm", "classification")
    )
    for name, value in (model | classifier).items():
        if value.ndim == 1:
            assert (value == (1 if name.endswith(".gain") else 0)).all(), name
        else:
            assert np.std(value) == pytest.approx(0.02, rel=5 / math.sqrt(2 * value.size)), name
    assert all(np.array_equal(model[name], classifier[name]) for name in set(model) & set(classifier))
    assert {name.partition(".")[0] for name in set(model) ^ set(classifier)} == {
        "head", "head_norm", "output", "pooler", "classifier"
    }  # fmt: skip


def test_facts_and_products_of_bert() -> None:
    point = Point(**BERT, micro_batch_size=4)
    facts = model_facts(point)
    of_body, of_head = 256 * 32 + 2 * 32 + 2 * OF_BERT_BLOCK, 32 * 32 + 32 + 64 + 256
    assert facts.parameters == of_body + of_head + 34 * 32
    assert facts.parameters_in_flops == of_body + of_head, "lookups of positions and segments multiply nothing"
    shapes = [product.shape for product in model_products(point)[::3]]
    assert shapes == [(128, 32, 96), (128, 32, 32), (128, 32, 128), (128, 128, 32), (128, 32, 32), (128, 32, 256)]
    causal = point.model_copy(update={"objective": "causal_lm"})
    assert model_facts(causal) == facts and hidden_flops_per_token(point) == 0
    assert hidden_flops_per_token(causal) == hidden_flops_per_token(Point(model="tiny")) == 6 * 2 * 32 * 31
    pairs = model_facts(point.model_copy(update={"next_sentence": True}))
    assert pairs.parameters == facts.parameters + 33 * 32 + 33 * 2
    assert pairs.parameters_in_flops == facts.parameters_in_flops, "what judges a pair runs once a sample"
    classifier = point.model_copy(update={"objective": "classification"})
    assert [product.shape for product in model_products(classifier)[::3]] == shapes[:-2]
    assert model_facts(classifier).parameters_in_flops == of_body - 256 * 32, "a pooler runs once a sample"


def test_bert_base_has_the_published_110_million_parameters() -> None:
    # 109,482,240 with the pooler's 590,592, which a language model lacks; its head has 590,592 + 1,536 + 30,522
    assert model_facts(Point(model="bert-base")).parameters == 109_482_240 + 1_536 + 30_522


def test_a_norm_of_a_sum_reads_the_last_product_of_what_is_recomputed() -> None:
    by_block = {
        name: recomputed_flops_per_token(Point(model=name, recompute="block")) for name in ("tiny", "bert-tiny")
    }
    assert by_block["bert-tiny"] - by_block["tiny"] == 2 * 2 * 128 * 32


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_head_keeps_what_a_norm_and_an_activation_keep(framework: str) -> None:
    block = KEPT[framework].blocks["bert"]
    with_head, without = (
        estimate_memory(Point(**BERT, framework=framework, objective=objective, micro_batch_size=4), is_native=False)
        for objective in ("masked_lm", "classification")
    )
    kept = sum(block.mlp_input + block.mlp) * 128 * 32 * 4
    assert with_head.activation_bytes - without.activation_bytes == kept


def test_the_classifier_of_an_untied_model_starts_as_its_language_model_does() -> None:
    model, classifier = (
        initial_weights(Point(**TINY, tied_embeddings=False, objective=objective))
        for objective in ("causal_lm", "classification")
    )
    assert set(model) - set(classifier) == {"output_embedding"}
    assert set(classifier) - set(model) == {"classifier.weight", "classifier.bias"}
    assert all(np.array_equal(model[name], classifier[name]) for name in set(model) & set(classifier))


def test_initial_weights_of_llama() -> None:
    for name, value in initial_weights(Point(model="small", family="llama", tied_embeddings=False)).items():
        if value.ndim == 1:
            assert (value == 1).all(), name
            continue
        is_residual = name.endswith(("attention.out.weight", "mlp.down.weight"))
        expected = 0.02 / math.sqrt(2 * 4) if is_residual else 0.02
        assert np.std(value) == pytest.approx(expected, rel=5 / math.sqrt(2 * value.size)), name


def test_positions_rotate_by_the_angles_of_the_paper() -> None:
    assert constants(Point(model="tiny")) == {}
    cosines, sines = constants(Point(**TINY))["rotary"]
    assert cosines.shape == (32, 8) and (cosines[0] == 1).all() and (sines[0] == 0).all()
    assert sines[5, 3] == pytest.approx(math.sin(5 * 10_000 ** (-2 * 3 / 16)), rel=1e-15)
    _, slower = constants(Point(**TINY, rope_theta=500_000.0))["rotary"]
    assert slower[5, 0] == sines[5, 0] and slower[5, 7] < sines[5, 7]


def test_facts_of_llama() -> None:
    tied, untied = (model_facts(Point(**TINY, tied_embeddings=is_tied)) for is_tied in (True, False))
    assert tied.parameters == tied.parameters_in_flops == 256 * 32 + 2 * OF_BLOCK + 32
    assert untied.parameters == tied.parameters + 256 * 32
    assert untied.parameters_in_flops == tied.parameters_in_flops, "a lookup multiplies nothing"
    assert tied.model_flops_per_token == untied.model_flops_per_token == 6 * tied.parameters + 12 * 2 * 32 * 32
    classifier = model_facts(Point(**TINY, objective="classification"))
    assert classifier.parameters_in_flops == 2 * OF_BLOCK + 32


def test_llama_1b_has_the_published_1_24_billion_parameters() -> None:
    # Llama 3.2 1B: 128256·2048 tied, 16·(2048·3072 + 2048² + 3·2048·8192 + 2·2048), and the last norm
    assert model_facts(Point(model="llama-1b")).parameters == 1_235_814_400


def test_products_of_llama() -> None:
    point = Point(**TINY, micro_batch_size=4)
    shapes = [product.shape for product in model_products(point)[::3]]
    assert shapes == [(128, 32, 64), (128, 32, 32), (128, 32, 96), (128, 32, 96), (128, 96, 32), (128, 32, 256)]
    matrices = 2 * (OF_BLOCK - 64) + 256 * 32
    assert total_flops(model_products(point)) == 6 * matrices * 128


def test_what_an_emulated_precision_rounds_of_llama() -> None:
    """One token, one block: each matrix's input, weight and output, queries and keys once more, the logits; and all gradients."""
    point = Point(
        family="llama", model="tiny", num_layers=1, num_heads=1, hidden_size=2, mlp_size=5, sequence_length=1,
        micro_batch_size=1,
    )  # fmt: skip
    qkv, out, gate_and_up, down, turned = 2 + 12 + 6, 2 + 4 + 2, 2 * (2 + 10 + 5), 5 + 10 + 2, 2 + 2
    assert rounded_elements(point) == 2 * (qkv + out + gate_and_up + down + turned + (2 + 2 * 256 + 256))


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_activations_of_llama_are_its_own(framework: str) -> None:
    """S = 128 tokens; the width of the MLP counts apart."""
    block = KEPT[framework].blocks["llama"]
    by_width, by_mlp = sum(block.attention + block.mlp_input), sum(block.mlp)
    point = Point(**TINY, framework=framework, micro_batch_size=4)
    matrix = 2 * 128 * 2 * 32 * 4 if KEPT[framework].strip_rows else 0
    found = estimate_memory(point, is_native=False)
    holes, of_mlp = 1 + KEPT[framework].holes[0], KEPT[framework].mlp_values
    values = 2 * (by_width * 32 + by_mlp * 96) * 128 * 4
    assert found.activation_bytes == int(holes * values) + matrix + of_mlp * 96 * 128 * 4
    wider = estimate_memory(point.model_copy(update={"mlp_size": 100}), is_native=False)
    more = (holes * 2 * by_mlp + of_mlp) * 4 * 128 * 4
    assert wider.activation_bytes - found.activation_bytes == pytest.approx(more, abs=1)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_an_untied_embedding_has_one_gradient(framework: str) -> None:
    tied, untied = (
        estimate_memory(Point(**TINY, framework=framework, tied_embeddings=is_tied), is_native=False)
        for is_tied in (True, False)
    )
    clipped = 4 * 256 * 32 if KEPT[framework].copies_clipped else 0  # of the second matrix
    assert tied.copies_bytes - untied.copies_bytes == 4 * 256 * 32 - clipped
    assert untied.parameter_bytes - tied.parameter_bytes == 4 * 256 * 32

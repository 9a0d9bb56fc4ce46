"""Families beside GPT-2: the twins do the same work, and it is that of the family elsewhere."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hvbench.frameworks.contract import Arrays
from hvbench.parity.norms import relative_error
from hvbench.parity.pairs import compare_points
from hvbench.registry import FRAMEWORKS
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.point import Point
from hvbench.training.flops import attention_flops_per_token, recomputed_flops_per_token
from hvbench.training.huggingface.export import write_model
from hvbench.training.masking import IGNORED, special_token
from hvbench.training.packages import make_batches, prepare_text
from hvbench.training.products import model_products, total_flops
from hvbench.training.weights import parameter_shapes
from tests.parity.alone import FP64, lay_out, lively_weights
from tests.parity.points import FAMILIES, LABELLED_FILE, make_point

TINY = {"model": "llama-tiny", "gemm": "default", "world_size": 1, "micro_batch_size": 2}


@pytest.mark.parametrize(("world_size", "knobs"), FAMILIES, ids=str)
def test_twins_agree(traced, world_size, knobs):
    points = [make_point(framework, world_size, **knobs) for framework in FRAMEWORKS]
    parity = compare_points(*(traced[point] for point in points))
    assert parity.problem is None
    assert [deviation for deviation in parity.deviations if not deviation.is_within] == []
    assert parity.is_proven
    compared = {deviation.name.partition("rank0/update/")[2] for deviation in parity.deviations}
    assert set(parameter_shapes(points[0])) <= compared
    loss = traced[points[0]].ranks[0]["loss"]
    if points[0].is_classifier:  # it learns as little so soon as those of `test_twins_agree_on_other_objectives`
        assert loss[0] == pytest.approx(np.log(8), rel=0.02) and loss[-3:].mean() < loss[:3].mean() - 0.02
    else:
        begin = np.log(256) + np.log(2) * points[0].judges_pairs
        assert loss[0] == pytest.approx(begin, rel=0.02) and loss[-1] < loss[0] - 0.2


def make_model(point: Point, weights: Arrays, *, is_double: bool = False):
    """PyTorch's model of a point."""
    from hvbench.frameworks.pytorch.model import Model

    return Model(point, weights, precision=FP64 if is_double else PRECISIONS["fp32"], device="cpu")


@pytest.mark.parametrize("knobs", [{}, {"tied_embeddings": False, "rope_theta": 500.0}, {"num_kv_heads": 2}], ids=str)
def test_llama_is_that_of_transformers(knobs):
    """Logits and loss of `LlamaForCausalLM` with the same weights, which are far from the initial ones."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    point = Point(**{**TINY, **knobs})
    weights = {name: value.astype("float32") for name, value in lively_weights(point).items()}
    weights = {name: value * (0.2 if value.ndim == 2 else 1.0) for name, value in weights.items()}
    config = LlamaConfig(
        vocab_size=point.vocab_size,
        hidden_size=point.hidden_size,
        intermediate_size=point.mlp_width,
        num_hidden_layers=point.num_layers,
        num_attention_heads=point.num_heads,
        num_key_value_heads=point.kv_heads,
        max_position_embeddings=point.sequence_length,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": point.rope_theta},
        tie_word_embeddings=point.tied_embeddings,
    )
    theirs = LlamaForCausalLM(config)
    theirs.load_state_dict(in_their_names(point, weights), strict=True)
    tokens = torch.from_numpy(np.random.default_rng(3).integers(256, size=(2, point.sequence_length)))
    with torch.no_grad():
        expected = theirs(tokens).logits.numpy()
        ours = make_model(point, weights).logits(tokens).numpy()
    assert expected.std() > 0.5, "not flat"
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"activation": "relu", "mlp_size": 40},
        {"objective": "classification", "num_classes": 3},
        {"next_sentence": True},
        {"objective": "causal_lm"},
    ],
    ids=str,
)
def test_bert_is_that_of_transformers(tmp_path, knobs):
    """Logits of its class for the objective, which loads what hvbench exports; of pairs of texts the segments are given to it."""
    import torch
    import transformers

    point = Point(**{**TINY, "model": "bert-tiny", **knobs})
    weights = {name: value.astype("float32") for name, value in lively_weights(point).items()}
    write_model(tmp_path, point, weights, tokenizer=None)
    (name,) = json.loads((tmp_path / "config.json").read_text())["architectures"]
    theirs, about = getattr(transformers, name).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(about[f"{what}_keys"] for what in ("missing", "unexpected", "mismatched"))
    tokens = torch.from_numpy(np.random.default_rng(3).integers(254, size=(2, point.sequence_length)))
    model, segments = make_model(point, weights), torch.zeros_like(tokens)
    if point.judges_pairs:
        tokens[:, 12] = tokens[:, -1] = special_token("[SEP]", point)
        segments[:, 13:] = 1
    with torch.no_grad():
        found = theirs.eval()(tokens, token_type_ids=segments)
        expected = (found.prediction_logits if point.judges_pairs else found.logits).numpy()
        ours = model.logits(tokens).numpy()
        if point.judges_pairs:
            judged = found.seq_relationship_logits.numpy()
            np.testing.assert_allclose(
                model.next_sentence_logits(tokens), judged, rtol=0, atol=1e-5 * np.abs(judged).max()
            )
    assert expected.shape == ((2, 3) if point.is_classifier else (2, point.sequence_length, 256))
    assert expected.std() > 0.5, "not flat"
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_labelled_pair_has_the_logits_that_transformers_makes_of_its_segments(tmp_path):
    """Rows of the file as batches have them, against BertForSequenceClassification given token types and what is padding."""
    import torch
    import transformers

    knobs = {"objective": "classification", "num_classes": 2, "data": str(LABELLED_FILE), "micro_batch_size": 16}
    point = Point(**{**TINY, "model": "bert-tiny", "sequence_length": 24, "world_size": 1, **knobs})
    weights = {name: value.astype("float32") for name, value in lively_weights(point).items()}
    write_model(tmp_path / "bert", point, weights, tokenizer=None)
    theirs = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "bert").eval()
    inputs, _, layout = make_batches(point, prepare_text(point, cache=tmp_path / "cache"), rank=0).train_batch(0)
    tokens, starts = torch.from_numpy(inputs[0]).long(), torch.from_numpy(layout.starts[0]).long()
    segments, is_text = torch.zeros_like(tokens), (starts == 0).long()
    for row, ends in enumerate((tokens == special_token("[SEP]", point)).tolist()):
        first, second = [place for place, is_end in enumerate(ends) if is_end]
        segments[row, first + 1 : second + 1] = 1
        assert is_text[row].sum() == second + 1
    assert is_text.sum(dim=1).min() < tokens.shape[1], "no sample is padded"
    model = make_model(point, weights)
    with torch.no_grad():
        expected = theirs(tokens, token_type_ids=segments, attention_mask=is_text).logits.numpy()
        of_one_segment = theirs(tokens, attention_mask=is_text).logits.numpy()
        ours = model.logits(tokens, starts=starts).numpy()
    scale = np.abs(expected).max()
    assert np.abs(of_one_segment - expected).max() > 1e-2 * scale
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("chunk", [0, 5])
def test_the_bias_of_the_logits_counts_in_loss_and_gradient_whatever_the_chunks(chunk):
    """In float64, with rows of zeros below the output projection: the gradient is the mean of softmax less one-hot."""
    import torch

    point = Point(**{**TINY, "model": "bert-tiny", "loss_chunk_tokens": chunk})
    model = make_model(point, lively_weights(point), is_double=True)
    model.padding = 7
    random = np.random.default_rng(3)
    tokens = torch.from_numpy(random.integers(256, size=(2, point.sequence_length)))
    targets = torch.where(torch.from_numpy(random.random(tokens.shape) < 0.3), tokens, IGNORED)
    model.loss(tokens, targets).backward()
    logits = model.logits(tokens).detach()
    counted = targets != IGNORED
    d = torch.softmax(logits, dim=-1)[counted] - torch.nn.functional.one_hot(targets[counted], 256)
    found = model.parameters["output.bias"].grad.numpy()
    assert relative_error(found, d.mean(dim=0).numpy()) < 1e-12


def in_their_names(point: Point, weights: Arrays) -> dict:
    """The weights as `LlamaForCausalLM` names and stores them: [out, in], queries, keys and values apart."""
    import torch

    width, shared = point.hidden_size, point.kv_heads * point.hidden_size // point.num_heads
    output = weights.get("output_embedding", weights["token_embedding"])
    found = {"model.embed_tokens.weight": weights["token_embedding"], "model.norm.weight": weights["final_norm.gain"]}
    found["lm_head.weight"] = output
    for layer in range(point.num_layers):
        ours, theirs = f"block{layer}", f"model.layers.{layer}"
        q, k, v = np.split(weights[f"{ours}.attention.qkv.weight"].T, [width, width + shared])
        found |= {f"{theirs}.self_attn.{name}_proj.weight": value for name, value in (("q", q), ("k", k), ("v", v))}
        found[f"{theirs}.self_attn.o_proj.weight"] = weights[f"{ours}.attention.out.weight"].T
        found[f"{theirs}.input_layernorm.weight"] = weights[f"{ours}.norm1.gain"]
        found[f"{theirs}.post_attention_layernorm.weight"] = weights[f"{ours}.norm2.gain"]
        for name in ("gate", "up", "down"):
            found[f"{theirs}.mlp.{name}_proj.weight"] = weights[f"{ours}.mlp.{name}.weight"].T
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in found.items()}


@pytest.mark.parametrize("name", ["llama-tiny", "bert-tiny"])
def test_positions_of_a_document_begin_anew(name):
    """In float64: a document is the same alone in a row and behind another."""
    import torch

    point = Point(**{**TINY, "model": name, "segmentation": "documents", "num_layers": 1})
    model = make_model(point, lively_weights(point), is_double=True)
    tokens = np.random.default_rng(2).integers(256, size=33).astype(np.int32)
    first, second = (tokens[:-1], tokens[1:], 10), (tokens[::-1][1:], tokens[::-1][:-1], 16)
    rows = [lay_out(documents, 32) for documents in ([first, second], [second])]
    with torch.no_grad():
        packed, alone = (
            model.logits(torch.from_numpy(row[0]).long(), starts=torch.from_numpy(row[2]).long())[0].numpy()
            for row in rows
        )
    assert relative_error(packed[10:26], alone[:16]) < 1e-13
    assert relative_error(packed[10:26], packed[:16]) > 0.1


@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"tied_embeddings": False, "num_kv_heads": 2},
        {"mlp_size": 40},
        {"model": "bert-tiny", "objective": "causal_lm"},
    ],
    ids=str,
)
def test_flops_are_those_that_pytorch_multiplies(knobs):
    """Counted in what runs, with attention's products in the open; what is recomputed included."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    counts = {}
    for recompute in ("none", "attention", "block"):
        point = Point(**{**TINY, "recompute": recompute, "loss_chunk_tokens": 0, **knobs})
        model = make_model(point, lively_weights(point))
        tokens = torch.zeros((point.micro_batch_size, point.sequence_length), dtype=torch.int64)
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            model.loss(tokens, tokens).backward()
        counts[recompute] = counter.get_total_flops()
        count = point.micro_batch_size * point.sequence_length
        of_attention = attention_flops_per_token(point, point.sequence_length) * count
        assert counts["none"] == total_flops(model_products(point)) + of_attention
        assert counts[recompute] - counts["none"] == recomputed_flops_per_token(point) * count

"""Model FLOPs, sizes and all-reduce payload against numbers worked out by hand."""

from __future__ import annotations

import math
import tracemalloc

import pytest

from hvbench.spec.point import Point
from hvbench.training.flops import model_facts
from hvbench.training.weights import parameter_shapes


def test_facts_of_the_tiny_model() -> None:
    # L = 2, width W = 32, vocabulary V = 256, sequence T = 32
    token_embedding = 256 * 32  # 8192, tied to the output projection: counted once
    position_embedding = 32 * 32  # 1024
    attention = (32 * 96 + 96) + (32 * 32 + 32)  # qkv 3168, out 1056
    mlp = (32 * 128 + 128) + (128 * 32 + 32)  # up 4224, down 4128
    norms = 2 * (32 + 32)  # two layer norms a block, gain and bias
    block = attention + mlp + norms  # 12704
    assert block == 12_704
    parameters = token_embedding + position_embedding + 2 * block + (32 + 32)
    assert parameters == 34_688

    facts = model_facts(Point(model="tiny", micro_batch_size=4, gradient_accumulation_steps=2, world_size=2))
    assert facts.parameters == 34_688
    assert facts.parameters_in_flops == 34_688 - 1024
    assert facts.model_flops_per_token == 6 * 33_664 + 12 * 2 * 32 * 32  # 6 N + 12 L W T
    assert facts.tokens_per_step == 4 * 2 * 2 * 32
    assert facts.allreduce_bytes_per_step == 34_688 * 4


def test_gpt2_has_the_published_124_million_parameters() -> None:
    # 50257·768 + 1024·768 + 12·(12·768² + 13·768) + 2·768, as in OpenAI's "124M" checkpoint
    assert model_facts(Point(model="gpt2")).parameters == 124_439_808


def test_gpt2_medium_has_the_published_355_million_parameters() -> None:
    assert model_facts(Point(model="gpt2-medium")).parameters == 354_823_168


def test_doubling_the_sequence_doubles_only_the_attention_term() -> None:
    short, long = (model_facts(Point(model="tiny", sequence_length=length)) for length in (32, 64))
    assert long.model_flops_per_token - short.model_flops_per_token == 12 * 2 * 32 * (64 - 32)
    assert long.parameters_in_flops == short.parameters_in_flops


@pytest.mark.parametrize(("compression", "bytes_per_value"), [("none", 4), ("fp16", 2)])
def test_compression_halves_the_payload(compression: str, bytes_per_value: int) -> None:
    facts = model_facts(Point(model="tiny", world_size=2, compression=compression))
    assert facts.allreduce_bytes_per_step == 34_688 * bytes_per_value


def test_accumulation_does_not_change_the_payload_of_a_step() -> None:
    payloads = {
        model_facts(Point(model="tiny", world_size=2, gradient_accumulation_steps=steps)).allreduce_bytes_per_step
        for steps in (1, 2, 8)
    }
    assert len(payloads) == 1


def test_one_rank_sends_nothing() -> None:
    assert model_facts(Point(model="tiny", world_size=1)).allreduce_bytes_per_step == 0


@pytest.mark.parametrize("layers", [1, 2, 7])
def test_sizes_are_those_of_all_parameters(layers: int) -> None:
    point = Point(model="tiny", num_layers=layers)
    assert model_facts(point).parameters == sum(math.prod(shape) for shape in parameter_shapes(point).values())


def test_a_million_layers_are_counted_without_naming_them() -> None:
    tracemalloc.start()
    facts = model_facts(Point(model="tiny", num_layers=1_000_000))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert facts.parameters == 256 * 32 + 32 * 32 + 1_000_000 * 12_704 + 64
    assert peak_bytes < 10_000_000

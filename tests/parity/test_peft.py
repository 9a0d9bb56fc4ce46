"""LoRA against peft: the same weights give the same logits and gradients."""

from __future__ import annotations

import numpy as np
import pytest

from hvbench.parity.norms import relative_error
from hvbench.spec.point import Point
from hvbench.training.adaptation import LORA_A, LORA_B, without_adaptation
from hvbench.training.huggingface.export import describe_model
from hvbench.training.huggingface.families import family_of
from hvbench.training.weights import parameter_shapes
from tests.parity.test_adaptations import SMALL, weights_of
from tests.parity.test_families import make_model

TARGETS = {"qkv": ["attn.c_attn"], "linear": ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]}
LAYERS = {
    "attention.qkv": "attn.c_attn",
    "attention.out": "attn.c_proj",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's, of transformers
@pytest.mark.parametrize("targets", TARGETS)
def test_lora_is_that_of_peft(targets: str) -> None:
    import peft
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    point = Point(**SMALL, adaptation="lora", lora_rank=4, lora_alpha=6.0, lora_targets=targets)
    weights, plain = weights_of(point), without_adaptation(point)
    config = GPT2Config(**describe_model(plain))
    theirs = GPT2LMHeadModel(config).eval()
    tensors = {
        key: torch.from_numpy(np.array(part))
        for name in parameter_shapes(plain)
        for key, part in family_of(point).split(name, weights[name], point).items()
    }
    left = theirs.load_state_dict(tensors, strict=False)
    assert left.unexpected_keys == [] and set(left.missing_keys) <= {"lm_head.weight"}
    choices = {"r": 4, "lora_alpha": 6.0, "lora_dropout": 0.0, "fan_in_fan_out": True}
    theirs = peft.get_peft_model(theirs, peft.LoraConfig(**choices, target_modules=TARGETS[targets]))
    found = {}
    for name, value in theirs.named_parameters():
        if "lora_" not in name:
            assert not value.requires_grad
            continue
        block, layer = name.split(".h.")[1].split(".lora_")[0].split(".", 1)
        ours = next(key for key, path in LAYERS.items() if path == layer)
        own = f"block{block}.{ours}.{LORA_A if '.lora_A.' in name else LORA_B}"
        value.data = torch.from_numpy(weights[own].T.copy())
        found[own] = value
    model = make_model(point, weights)
    assert found.keys() == model.trained.keys()
    tokens = torch.from_numpy(np.random.default_rng(3).integers(256, size=(2, 33)))
    inputs, targets_of = tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
    of_theirs = theirs(inputs).logits
    assert relative_error(model.logits(inputs).detach().numpy(), of_theirs.detach().numpy()) < 1e-5
    torch.nn.functional.cross_entropy(of_theirs.flatten(end_dim=1), targets_of.flatten()).backward()
    model.loss(inputs, targets_of).backward()
    for name, value in found.items():
        assert relative_error(model.trained[name].grad.numpy(), value.grad.numpy().T) < 1e-4, name

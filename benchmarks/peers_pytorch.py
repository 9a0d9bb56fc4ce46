"""GPT-2s in PyTorch to compare with: Hugging Face's, and a plain loop as one would write it first.

bf16 is `torch.autocast`, as their users enable it; `torch.compile` has the mode of the point's `compile`.
"""

from __future__ import annotations

import os

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from hvbench.frameworks.contract import Arrays
from hvbench.frameworks.pytorch.execution import MODES
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.point import Point


class Peer:
    """A module, torch's AdamW and a plain training step; subclasses build the module and say where weights go."""

    fused_optimizer: bool

    def __init__(self, point: Point, weights: Arrays, *, threads: int) -> None:
        torch.set_num_threads(threads)
        is_tf32 = PRECISIONS[point.precision].uses_tf32  # else fp32 is IEEE float32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = is_tf32
        self.point = point
        self.device = point.device
        self.module = self.build(point).to(self.device)
        self.named = dict(self.module.named_parameters())
        with torch.no_grad():
            for name, value in weights.items():
                self.place(name, torch.from_numpy(value))
        groups = [
            {"params": [p for p in self.named.values() if self.is_decayed(p)], "weight_decay": point.weight_decay},
            {"params": [p for p in self.named.values() if not self.is_decayed(p)], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups,
            lr=point.learning_rate,
            betas=(point.beta1, point.beta2),
            eps=point.epsilon,
            fused=self.fused_optimizer or None,
        )
        if point.compile != "none":
            self.compute_loss = torch.compile(self.compute_loss, mode=MODES[point.compile])

    def build(self, point: Point) -> nn.Module:
        raise NotImplementedError

    def place(self, name: str, value: torch.Tensor) -> None:
        """Copy one initial weight, given by its canonical name, to where this model keeps it."""
        raise NotImplementedError

    def compute_loss(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def is_decayed(self, parameter: nn.Parameter) -> bool:
        return parameter.dim() == 2 and parameter is not self.positions()

    def positions(self) -> nn.Parameter:
        raise NotImplementedError

    def count_parameters(self) -> int:
        return sum(value.numel() for value in self.module.parameters())

    def train_step(self, inputs: np.ndarray, targets: np.ndarray, *, learning_rate: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        tokens, following = (torch.from_numpy(each).long().to(self.device) for each in (inputs, targets))
        with torch.autocast(self.device, torch.bfloat16, enabled=self.point.precision == "bf16"):
            loss = self.compute_loss(tokens, following)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.point.max_gradient_norm)
        self.optimizer.step()
        return loss.item()


class HuggingFace(Peer):
    """`transformers.GPT2LMHeadModel` with its own attention choice and its own loss, and its Trainer's fused AdamW."""

    fused_optimizer = True

    def build(self, point: Point) -> nn.Module:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        from transformers import GPT2Config, GPT2LMHeadModel

        config = GPT2Config(
            vocab_size=point.vocab_size,
            n_positions=point.sequence_length,
            n_embd=point.hidden_size,
            n_layer=point.num_layers,
            n_head=point.num_heads,
            activation_function="gelu",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
            use_cache=False,
        )
        return GPT2LMHeadModel(config).train()

    def place(self, name: str, value: torch.Tensor) -> None:
        layer, _, part = name.rpartition(".")
        block, _, rest = layer.partition(".")
        modules = {
            "norm1": "ln_1",
            "norm2": "ln_2",
            "attention.qkv": "attn.c_attn",
            "attention.out": "attn.c_proj",
            "mlp.up": "mlp.c_fc",
            "mlp.down": "mlp.c_proj",
        }
        parts = {"gain": "weight", "bias": "bias", "weight": "weight"}
        whole = {"token_embedding": "transformer.wte.weight", "position_embedding": "transformer.wpe.weight"}
        if name in whole:
            target = whole[name]
        elif layer == "final_norm":
            target = f"transformer.ln_f.{parts[part]}"
        else:
            target = f"transformer.h.{block.removeprefix('block')}.{modules[rest]}.{parts[part]}"
        self.named[target].copy_(value)  # its Conv1D keeps (in, out), as hvbench does

    def positions(self) -> nn.Parameter:
        return self.module.transformer.wpe.weight

    def compute_loss(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        # `shift_labels`: targets are shifted already, so that every position of the batch has one.
        return self.module(input_ids=inputs, labels=targets, shift_labels=targets).loss


class PlainTorch(Peer):
    """`nn.Linear`, `nn.LayerNorm`, scaled-dot-product attention, `torch.optim.AdamW` with its defaults."""

    fused_optimizer = False

    def build(self, point: Point) -> nn.Module:
        return PlainGPT(point)

    def place(self, name: str, value: torch.Tensor) -> None:
        whole = {"token_embedding": "tokens.weight", "position_embedding": "positions.weight"}
        target = whole.get(name, name.replace("block", "blocks.").replace(".gain", ".weight"))
        is_linear = name.endswith(".weight")
        self.named[target].copy_(value.t() if is_linear else value)  # nn.Linear keeps (out, in)

    def positions(self) -> nn.Parameter:
        return self.module.positions.weight

    def compute_loss(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = self.module(inputs)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))


class PlainGPT(nn.Module):
    def __init__(self, point: Point) -> None:
        super().__init__()
        self.tokens = nn.Embedding(point.vocab_size, point.hidden_size)
        self.positions = nn.Embedding(point.sequence_length, point.hidden_size)
        self.blocks = nn.ModuleList(Block(point.hidden_size, point.num_heads) for _ in range(point.num_layers))
        self.final_norm = nn.LayerNorm(point.hidden_size)
        self.head = nn.Linear(point.hidden_size, point.vocab_size, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.final_norm(x))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"up": nn.Linear(width, 4 * width), "down": nn.Linear(4 * width, width)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp["down"](F.gelu(self.mlp["up"](self.norm2(x))))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, T, W = x.shape
        q, k, v = (part.view(B, T, self.heads, -1).transpose(1, 2) for part in self.qkv(x).split(W, dim=-1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(B, T, W))

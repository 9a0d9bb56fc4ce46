"""What an adaptation adds to the layers in PyTorch: LoRA, bottleneck adapters, prefixes; `hvbench.training.adaptation` has their formulas.

Which parameters take gradients at all is theirs alone (`requires_grad`): the product of a frozen weight's gradient is not computed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from hvbench.frameworks.pytorch.layers import Layers


class AdaptedLayers(Layers):
    """Linear layers with what LoRA adds to them, adapters, and prefixes of attention."""

    def linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """x [..., in] -> x W + b [..., out] in the compute dtype, and alpha / r x A B more where the layer has those."""
        if f"{name}.lora_a.weight" not in self.parameters:
            return super().linear(x, name)
        x = self.round(x)  # once for both
        more = super().linear(super().linear(x, f"{name}.lora_a"), f"{name}.lora_b")
        scale = self.point.lora_alpha / self.point.lora_rank
        return self.round(self.widen(super().linear(x, name)) + self.widen(more) * scale)

    def adapt(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """x [B, T, W] -> x + up(GELU(down(x))) in the parameters' dtype, by the adapter of that name; x where there is none."""
        if f"{name}.down.weight" not in self.parameters:
            return x
        hidden = F.gelu(self.widen(self.linear(x, f"{name}.down")))
        return self.widen(x) + self.widen(self.linear(hidden, f"{name}.up"))

    def prefix(self, k: torch.Tensor, v: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [B, H, T, Q] -> [B, H, P + T, Q], behind the prefixes of the attention of that name; as they are without."""
        if not self.point.num_prefixes:
            return k, v
        return self._behind(k, f"{name}.prefix.keys"), self._behind(v, f"{name}.prefix.values")

    def _behind(self, x: torch.Tensor, name: str) -> torch.Tensor:
        """The prefixes [P, K Q] of all heads in front of x; of a batch's gradients the sum is in the parameters' dtype."""
        B, H, _, Q = x.shape
        heads = self.parameters[name].view(self.point.num_prefixes, self.point.kv_heads, Q).transpose(0, 1)
        heads = heads.repeat_interleave(H // self.point.kv_heads, dim=0)  # [H, P, Q]
        return torch.cat([self.round(heads.expand(B, -1, -1, -1)), x], dim=2)

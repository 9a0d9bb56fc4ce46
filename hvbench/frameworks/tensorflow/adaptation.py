"""What an adaptation adds to the layers in TensorFlow: LoRA, bottleneck adapters, prefixes; `hvbench.training.adaptation` has their formulas.

Which parameters take gradients at all is theirs alone (`trainable`): the product of a frozen weight's gradient is pruned from graphs.
"""

from __future__ import annotations

import tensorflow as tf

from hvbench.frameworks.tensorflow.families.gpt2 import _gelu
from hvbench.frameworks.tensorflow.layers import Layers


class AdaptedLayers(Layers):
    """Linear layers with what LoRA adds to them, adapters, and prefixes of attention."""

    def linear(self, x: tf.Tensor, name: str) -> tf.Tensor:
        """x [B, T, in] -> x W + b [B, T, out] in the compute dtype, and alpha / r x A B more where the layer has those."""
        if f"{name}.lora_a.weight" not in self.parameters:
            return super().linear(x, name)
        x = self.round(x)  # once for both
        more = super().linear(super().linear(x, f"{name}.lora_a"), f"{name}.lora_b")
        scale = self.point.lora_alpha / self.point.lora_rank
        return self.round(self.widen(super().linear(x, name)) + self.widen(more) * scale)

    def adapt(self, x: tf.Tensor, name: str) -> tf.Tensor:
        """x [B, T, W] -> x + up(GELU(down(x))) in the parameters' dtype, by the adapter of that name; x where there is none."""
        if f"{name}.down.weight" not in self.parameters:
            return x
        hidden = _gelu(self.widen(self.linear(x, f"{name}.down")))
        return self.widen(x) + self.widen(self.linear(hidden, f"{name}.up"))

    def prefix(self, k: tf.Tensor, v: tf.Tensor, name: str) -> tuple[tf.Tensor, tf.Tensor]:
        """Keys and values [B, H, T, Q] -> [B, H, P + T, Q], behind the prefixes of the attention of that name; as they are without."""
        if not self.point.num_prefixes:
            return k, v
        return self._behind(k, f"{name}.prefix.keys"), self._behind(v, f"{name}.prefix.values")

    def _behind(self, x: tf.Tensor, name: str) -> tf.Tensor:
        """The prefixes [P, K Q] of all heads in front of x; of a batch's gradients the sum is in the parameters' dtype."""
        B, H, _, Q = x.shape
        P, K = self.point.num_prefixes, self.point.kv_heads
        heads = tf.transpose(tf.reshape(self.parameters[name], (P, K, 1, Q)), (1, 2, 0, 3))
        heads = tf.broadcast_to(heads, (B, K, H // K, P, Q))
        return tf.concat([self.round(tf.reshape(heads, (B, H, P, Q))), x], axis=2)

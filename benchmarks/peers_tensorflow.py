"""A GPT-2 in TensorFlow to compare with: keras-hub's in a `tf.function`, with Keras' AdamW.

bf16 is the policy `mixed_bfloat16`, as its users enable it. Its GELU is the tanh approximation; it has no other.
"""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import keras_hub
import numpy as np
import tensorflow as tf

from hvbench.frameworks.contract import Arrays
from hvbench.spec.point import Point


class KerasHub:
    """`keras_hub.models.GPT2Backbone` with its own tied output projection."""

    has_threads = False

    def __init__(self, point: Point, weights: Arrays, *, threads: int) -> None:
        if not KerasHub.has_threads:  # TensorFlow takes them once, before its first operation
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
            KerasHub.has_threads = True
        tf.config.experimental.enable_tensor_float_32_execution(False)  # fp32 is IEEE float32
        self.backbone = keras_hub.models.GPT2Backbone(
            vocabulary_size=point.vocab_size,
            num_layers=point.num_layers,
            num_heads=point.num_heads,
            hidden_dim=point.hidden_size,
            intermediate_dim=4 * point.hidden_size,
            dropout=0.0,
            max_sequence_length=point.sequence_length,
            dtype="mixed_bfloat16" if point.precision == "bf16" else "float32",
        )
        self.variables = self.backbone.trainable_variables
        width = point.hidden_size
        for variable in self.variables:
            variable.assign(_initial_value(variable.path, weights, width).reshape(variable.shape))
        self.loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.optimizer = keras.optimizers.AdamW(
            learning_rate=point.learning_rate,
            beta_1=point.beta1,
            beta_2=point.beta2,
            epsilon=point.epsilon,
            weight_decay=point.weight_decay,
            global_clipnorm=point.max_gradient_norm,
        )
        decayed = ("kernel", "token_embedding/embeddings")
        self.optimizer.exclude_from_weight_decay(var_list=[v for v in self.variables if not v.path.endswith(decayed)])
        self.optimizer.build(self.variables)
        self._step = tf.function(self._train)

    def count_parameters(self) -> int:
        return sum(int(np.prod(variable.shape)) for variable in self.variables)

    def train_step(self, inputs: np.ndarray, targets: np.ndarray, *, learning_rate: float) -> float:
        self.optimizer.learning_rate = learning_rate
        return float(self._step(tf.constant(inputs), tf.constant(targets)))

    def _train(self, inputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            features = {"token_ids": inputs, "padding_mask": tf.ones_like(inputs)}
            hidden = self.backbone(features, training=True)
            logits = self.backbone.token_embedding(hidden, reverse=True)
            loss = self.loss(targets, logits)
        gradients = tape.gradient(loss, self.variables)
        self.optimizer.apply_gradients(zip(gradients, self.variables, strict=True))
        return loss


def _initial_value(path: str, weights: Arrays, width: int) -> np.ndarray:
    """hvbench's weight for the Keras variable at `path`; query, key and value are thirds of its `qkv`."""
    layer, part = path.rsplit("/", 1)
    end = {"gamma": "gain", "beta": "bias", "kernel": "weight", "bias": "bias"}.get(part)
    if layer in ("token_embedding", "position_embedding"):
        return weights[layer]
    if layer == "layer_norm":
        return weights[f"final_norm.{end}"]
    block, rest = layer.split("/", 1)
    block = block.replace("transformer_layer_", "block")
    kind = rest.split("/")[-1]
    if kind in ("query", "key", "value"):
        thirds = np.split(weights[f"{block}.attention.qkv.{end}"], 3, axis=-1)
        return thirds[("query", "key", "value").index(kind)]
    names = {
        "attention_output": "attention.out",
        "self_attention_layer_norm": "norm1",
        "feedforward_layer_norm": "norm2",
        "feedforward_intermediate_dense": "mlp.up",
        "feedforward_output_dense": "mlp.down",
    }
    return weights[f"{block}.{names[kind]}.{end}"]

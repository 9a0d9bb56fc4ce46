"""Estimate of the peak memory of one rank, from its point alone.

Everything that is allocated at some time of a step is added up as if at the same time: too high in principle, too low by
what allocators keep. For S = micro-batch x sequence tokens, hidden size W, width M of the MLP, H heads, sequence length T, vocabulary
V, and N parameters of 4 bytes, in bytes:

    parameters                  4 N
    gradients                   4 N', of the N' that train, where only a part does (`hvbench.training.adaptation`)
    optimizer state             4 per value of the optimizer's state: 8 N for AdamW and LAMB, 4 N for SGD and LARS; with rounds of local updates
                                4 N' more for the common parameters, where differences are sent, and 4 N' for the outer step's velocity
    accumulation                4 N' in TensorFlow, which sums passes in variables; PyTorch sums in the gradients
    activations                 per block c S W + m S M values kept for the backward pass, and a S H T of the attention matrix;
                                h times the former more, free places of the heap between it; once u S M of all that is there while an
                                MLP is differentiated, or what a strip of fused attention, or plain attention, needs, if that is more
    logits                      4 l S V: logits, their softmax and their gradients; of a chunk of tokens where they are chunked,
                                and 4 V W for the embedding's gradient, which waits for the next chunk's
    dropout                     per block, c S W + a S H T more: masks, and attention matrices that a fused kernel avoids
    copies                      4 V W (a tied embedding has two gradients before their sum), not untied; TensorFlow's clipped gradients
                                4 N, the weights rounded to a lower precision, Horovod's wire format, 4 f N' where what is not sent is fed back
                                (`Kept.feedback_copies`: residuals and messages), 4 N' e at the end of a round of local updates, when all parameters are
                                sent at once (Horovod's buffer, and in TensorFlow a graph's own), and 4 d N of the
                                framework's own strategy
    shards                      what n ranks share is 1 / n of the above: moments, sums of gradients, parameters, of which one block
                                and its gradients are whole; gradients that are sent are there once more, sums of their parts beside the parts that came last
    base                        interpreter, framework, data, that strategy, its compiler

The activations follow Korthikanti et al. (arXiv:2205.05198, section 4.1: 34 S W bytes + 5 S H T per block, in 16 bits
with dropout), counted again for these twins. Kept per block, where a value has the parameters' precision + the precision of matrix
products, c of S W and m of S M, with M = 4 W in GPT-2:

    PyTorch     GPT-2: c = 2 + 6: inputs of both norms + their outputs 2, q k v 3, heads 1; m = 0 + 2, GELU's
                input and output. Llama: c = 4 + 9: inputs of norms and these divided by their size + outputs of norms 2, turned
                queries and keys 2, the product that values are a part of 3, heads 2; m = 3 + 1: gate, its SiLU, up + their
                product. Keys and values that several heads share are repeated for each of them, which is no more.
                Its fused attention keeps no matrix (a = 0), the plain one does (a = 1). u = 2, the gradients of GELU's output and input.
    TensorFlow  GPT-2: c = 4 + 6: inputs of both norms and their scales + outputs of the norms 2, q k v 3, heads 1; m = 2 + 1: GELU's
                scaled input and its probability + its output. Llama: c = 4 + 6, likewise; m = 4 + 1: gate, its sigmoid and SiLU, up + their product. Plain
                attention keeps its matrix, and a rounded copy in lower precision (a = 1); so does fused attention of one strip, of
                R = 256 rows. Longer sequences need 5 H R T values a sample, for one block. u = 3: GELU's gradient in three operations.

Plain attention has 7 (PyTorch) or 15 (TensorFlow) more matrices of S H T while one block is computed and differentiated.

BERT keeps as much as GPT-2: a norm of a sum has the same input and output as one before the next half. Its head before the logits keeps once what a norm
and an activation of W values keep.

With dropout PyTorch keeps masks as numbers (2 S W), and its attention is not fused (3 S H T: probabilities, their mask,
and the product); TensorFlow's masks are bytes (0.5 S W), and its matrix is kept twice (1.25 S H T more).

Where a block, or its attention half, is recomputed, a block keeps the residual stream before it (1 of S W, in the parameters'
precision) in place of what that half keeps: of GPT-2's values above in PyTorch 1 + 5, in TensorFlow 2 + 5 and the matrix. While
it is recomputed, one block has all of them. Where whole blocks are, the gradients of one take as much again, which otherwise
take the place of what later blocks have freed.

Where an adaptation freezes a weight, the input of its linear layer is not kept, for only that weight's gradient reads it (1 of S W, behind the MLP's
activation 1 of S M; PyTorch's kernel keeps heads all the same), and blocks in front of the first that trains keep nothing. An adapter keeps 1 of S W behind
each half, and its bottleneck; prefixes are in PyTorch 2 of S W more, keys and values behind them.

The heap of the C library, from which PyTorch takes its memory, fills what was freed between two tensors that stay with smaller ones only. h is 0.35 where little is freed, and 0.6 where
that is as much as what stays: of 16 bits, made from float32 values, or where the MLP's activation is freed, because its weight is frozen. Two summands that are freed for their sum
(LoRA's, an adapter's) are h of their size more. What PyTorch keeps was counted by the C library's own count of bytes in use. TensorFlow's h is 0.

On a CPU the estimate is within 10 % of the mean of all 60 configurations of `small` that were measured last, two launches each: three families, five adaptations of GPT-2, 128 to 8,192 tokens, fp32 and
native bf16 (docs/measurements.md). Emulated fp16, GPUs, dropout and optimizers other than AdamW were not measured.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, fields

from hvbench.registry import FRAMEWORKS, describe_framework
from hvbench.spec.adaptation import LORA_TARGETS
from hvbench.spec.compression import COMPRESSIONS
from hvbench.spec.exchange import STRATEGIES
from hvbench.spec.model import FAMILIES
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.point import Point
from hvbench.spec.shard import SHARDS
from hvbench.training.adaptation import LORA_A, is_trained, trained_blocks
from hvbench.training.compression import feedback_shapes
from hvbench.training.local_sgd import sends_differences
from hvbench.training.loss_chunks import loss_chunk
from hvbench.training.optimizers import state_shapes
from hvbench.training.parts import WINDOW_BYTES, own_whole
from hvbench.training.weights import block_layers, parameter_shapes, trained_shapes

VALUE_BYTES = 4  # parameters, gradients, optimizer state and the softmax of the loss: fp32 in every precision
HALF_BYTES = 2


KEPT = {name: describe_framework(name).kept for name in FRAMEWORKS}  # in the units of the formula above


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Estimated bytes of one rank, by what they are used for; the module's docstring has the formula."""

    parameter_bytes: int
    gradient_bytes: int
    optimizer_state_bytes: int
    accumulation_bytes: int
    activation_bytes: int
    logits_bytes: int
    copies_bytes: int
    base_bytes: int

    @property
    def peak_bytes(self) -> int:
        """Sum of all parts."""
        return sum(getattr(self, field.name) for field in fields(self))


def estimate_memory(point: Point, *, is_native: bool) -> MemoryEstimate:
    """Estimated memory of one rank of `point` on a CPU; `is_native`: the processor multiplies in the point's precision."""
    kept = KEPT[point.framework]
    parameters, trained = (
        sum(math.prod(shape) for shape in shapes(point).values()) for shapes in (parameter_shapes, trained_shapes)
    )
    tokens = point.micro_batch_size * point.sequence_length
    is_lower = PRECISIONS[point.precision].is_lower
    compute_bytes = HALF_BYTES if is_lower and is_native else VALUE_BYTES

    chunk = min(loss_chunk(point, device="cpu"), tokens)
    logits = 0 if point.predicts_labels else (chunk or tokens) * point.vocab_size
    logits_bytes = (kept.chunk_logits if chunk else kept.logits) * logits * VALUE_BYTES
    if is_lower:  # the rounded logits, and emulated ones once more in fp32
        logits_bytes += logits * (HALF_BYTES + (0 if is_native else VALUE_BYTES))

    head = "token_embedding" if point.tied_embeddings else "output_embedding"
    of_embedding = (1 if point.tied_embeddings else 0) + (1 if chunk and chunk < tokens else 0)
    of_embedding = of_embedding if is_trained(point, head) else 0
    copies_bytes = point.vocab_size * point.hidden_size * VALUE_BYTES * of_embedding
    copies_bytes += trained * VALUE_BYTES if kept.copies_clipped else 0
    copies_bytes += parameters * compute_bytes if is_lower else 0
    wire = COMPRESSIONS[point.compression].wire
    copies_bytes += trained * wire.value_bytes if wire.is_compressed else 0
    fed_back = sum(math.prod(shape) for shape in feedback_shapes(point).values())
    copies_bytes += int(fed_back * VALUE_BYTES * kept.feedback_copies.get(point.compression, 0.0))
    is_own = STRATEGIES[point.strategy].is_native
    copies_bytes += trained * VALUE_BYTES * kept.native_copies if is_own else 0
    state = sum(math.prod(shape) for slot in state_shapes(point).values() for shape in slot.values())
    state += trained * (sends_differences(point) + point.has_outer_step)
    copies_bytes += trained * VALUE_BYTES * kept.average_copies if point.has_local_updates else 0
    sums = kept.copies_sums and point.gradient_accumulation_steps > 1
    shard, ranks = SHARDS[point.shard], (point.world_size or 1)
    own = trained * VALUE_BYTES // ranks  # of what ranks share
    sums_bytes = trained * VALUE_BYTES if sums else 0
    compiler_bytes = kept.compiler_bytes if point.compile != "none" else 0
    parameter_bytes, gradient_bytes, state_bytes = parameters * VALUE_BYTES, trained * VALUE_BYTES, state * VALUE_BYTES
    if point.shares_by_itself:
        state_bytes = _most_owned(point, ranks) * VALUE_BYTES
    elif shard.of_optimizer:
        # All gradients are received once more, or as many as are sent at a time.
        sends_all = kept.copies_parts or not shard.of_gradients
        copies_bytes += trained * VALUE_BYTES if sends_all else 3 * WINDOW_BYTES
        copies_bytes -= (trained * VALUE_BYTES - own) if kept.copies_clipped else 0
        # Sums of its parts, and the parts that have come last; PyTorch frees whole gradients for these.
        gradient_bytes = 2 * own if shard.of_gradients else gradient_bytes + (own if kept.copies_parts else 0)
        state_bytes //= ranks
        sums_bytes = sums_bytes // ranks if shard.of_gradients else sums_bytes
    if shard.of_parameters:
        block = sum(
            math.prod(shape)
            for name, shape in trained_shapes(point).items()
            if name.startswith(f"block{point.num_layers - 1}.")
        )
        parameter_bytes += (
            own - trained * VALUE_BYTES + 2 * block * VALUE_BYTES
        )  # one block and its gradients are whole
    elif shard.of_optimizer and kept.copies_parts and not point.shares_by_itself:
        parameter_bytes += own
    return MemoryEstimate(
        parameter_bytes=parameter_bytes,
        gradient_bytes=gradient_bytes,
        optimizer_state_bytes=state_bytes,
        accumulation_bytes=sums_bytes,
        activation_bytes=_activation_bytes(point, is_native=is_native),
        logits_bytes=logits_bytes,
        copies_bytes=copies_bytes,
        base_bytes=kept.base_bytes + (kept.native_bytes if is_own else 0) + compiler_bytes,
    )


def _most_owned(point: Point, ranks: int) -> int:
    """Values of the optimizer's state on the rank that keeps most, where each rank keeps that of whole tensors."""
    sizes = {name: math.prod(shape) for name, shape in trained_shapes(point).items()}
    slots = state_shapes(point).values()
    return max(
        sum(math.prod(shapes[name]) for shapes in slots for name in owned if name in shapes)
        for owned in own_whole(sizes, world_size=ranks)
    )


def _activation_bytes(point: Point, *, is_native: bool) -> int:
    """What all blocks keep, and what one of them needs while it is computed again."""
    kept = KEPT[point.framework]
    block = kept.blocks[point.family]
    tokens = point.micro_batch_size * point.sequence_length
    has_halves = PRECISIONS[point.precision].is_lower and is_native
    compute_bytes = HALF_BYTES if has_halves else VALUE_BYTES

    def value_bytes(width: int, values: tuple[int, int]) -> int:
        in_parameters, in_products = values
        return tokens * width * (in_parameters * VALUE_BYTES + in_products * compute_bytes)

    length, rows = point.sequence_length, kept.strip_rows
    matrix = tokens * point.num_heads * length
    is_fused = point.attention == "fused"
    in_strips = is_fused and 0 < rows < length
    # One half of one block is computed or differentiated at a time: its MLP, or its attention.
    of_mlp, of_attention = tokens * point.mlp_width * kept.mlp_values * VALUE_BYTES, 0
    of_attention += 0 if is_fused else matrix * kept.plain_values * VALUE_BYTES
    matrix_bytes = 0
    if in_strips:
        of_attention += kept.strip_values * point.micro_batch_size * point.num_heads * rows * length * VALUE_BYTES
    else:
        is_kept = not is_fused or rows  # else a kernel, which dropout does without
        probabilities = matrix * kept.attention_values * (VALUE_BYTES + (compute_bytes if has_halves else 0))
        matrix_bytes = probabilities if is_kept else 0
        matrix_bytes += int(matrix * kept.dropout_attention_values * VALUE_BYTES) if point.dropout else 0
    masks = int(tokens * point.hidden_size * kept.dropout_values / 2 * VALUE_BYTES) if point.dropout else 0
    reads = _inputs_for_weights(point)
    # Fused attention of a kernel keeps its heads for itself, too.
    unread = (not reads["attention.qkv"]) + (not reads["attention.out"] and not (is_fused and not rows))
    attention = value_bytes(point.hidden_size, _less(block.attention, unread)) + masks
    rest = value_bytes(point.hidden_size, _less(block.mlp_input, not reads["mlp.up"])) + masks
    rest += value_bytes(point.mlp_width, _less(block.mlp, not reads["mlp.down"]))
    if point.adaptation == "adapter":  # behind each half one more linear layer's input, and what is inside
        bottleneck = value_bytes(point.hidden_size, (0, 1)) + value_bytes(point.adapter_size, kept.blocks["gpt2"].mlp)
        attention, rest = attention + bottleneck, rest + bottleneck
    if point.num_prefixes and not rows:  # keys and values behind them, beside the product that queries are a part of
        attention += value_bytes(2 * point.kv_heads * point.hidden_size // point.num_heads, (0, 1))
    once = max(of_mlp, of_attention)
    if FAMILIES[point.family].has_heads and not point.predicts_labels:
        once += value_bytes(point.hidden_size, block.mlp_input) + value_bytes(point.hidden_size, block.mlp)

    blocks = trained_blocks(point)  # those in front of the first that trains keep nothing

    def keep(attention: int, rest: int, stream: int) -> int:
        """All blocks, and one of them again; `stream`: the input of what is recomputed."""
        always, again = {
            "none": (attention + rest, 0),
            "attention": (stream + rest, attention),
            "block": (stream, 2 * (attention + rest)),
        }[point.recompute]
        return blocks * always + (again if blocks else 0)

    values = keep(attention, rest, value_bytes(point.hidden_size, (1, 0)))
    freed = blocks * value_bytes(1, (0, _summands(point)))
    holes = kept.holes[has_halves or not reads["mlp.down"]]
    return values + int(holes * (values + freed)) + keep(matrix_bytes, 0, 0) + once


def _summands(point: Point) -> int:
    """Values a token and block that an adaptation adds up: LoRA x W and x A B of each layer that it is of, an adapter its input and output."""
    if point.adaptation == "adapter":
        return 2 * 2 * point.hidden_size
    if point.adaptation != "lora":
        return 0
    layers = block_layers(point)
    return sum(2 * layers[name][1] for name in LORA_TARGETS[point.lora_targets] or layers)


def _inputs_for_weights(point: Point) -> dict[str, bool]:
    """Linear layer below a block -> whether the gradient of a weight reads its input: its own, or that of LoRA's A."""
    last = f"block{point.num_layers - 1}."
    of_last = {name.removeprefix(last) for name in trained_shapes(point) if name.startswith(last)}
    return {name: bool(of_last & {f"{name}.weight", f"{name}.{LORA_A}"}) for name in block_layers(point)}


def _less(values: tuple[int, int], count: int) -> tuple[int, int]:
    """Fewer values in the precision of products."""
    return values[0], values[1] - count


def estimate_largest(point: Point, name: str, *, limit_bytes: int, is_native: bool, at_most: int) -> int:
    """The largest value of the field `name`, from 1 to `at_most`, with which `point` is estimated to stay within the limit; 0: none is."""

    def stays_within(value: int) -> bool:
        return estimate_memory(point.model_copy(update={name: value}), is_native=is_native).peak_bytes <= limit_bytes

    return bisect.bisect_left(range(1, at_most + 1), True, key=lambda value: not stays_within(value))

"""How much memory a rank should need, from its point alone, and what of it can be told apart in a measurement.

Everything that is alive at some moment of a step is added up, as if at one moment: an estimate on the high side in
principle, on the low side by what allocators keep. For S = micro-batch x sequence tokens, width W, H heads, sequence T,
vocabulary V, N parameters of 4 bytes:

    parameters, gradients       4 N each
    optimizer state             4 bytes of every value that the optimizer keeps: 8 N of AdamW and LAMB, 4 N of SGD and LARS
    accumulation                4 N in TensorFlow, which sums passes in variables; PyTorch sums in the gradients
    activations                 per block c S W values kept for the backward pass, and a S H T of the attention matrix
    logits                      4 l S V: logits, their softmax and their gradients
    dropout                     per block, c S W + a S H T more: masks, and the attention matrices that a fused kernel spares
    copies                      4 V W (a tied embedding has two gradients before their sum), TensorFlow's clipped gradients
                                4 N, the weights rounded to a lower precision, Horovod's wire format, and 4 d N of the
                                framework's own strategy
    base                        interpreter, framework, data, that strategy

The activations follow Korthikanti et al. (arXiv:2205.05198, sec. 4.1: 34 S W bytes + 5 S H T per block, in 16 bits with
dropout), counted anew for these twins. Kept per block, in units of S W, where a value is kept in
the parameters' precision + in the precision of matrix products:

    PyTorch     2 + 15: inputs of both norms + their outputs 2, q k v 3, heads 2 (and once transposed), GELU's input and
                output 8. Its attention is fused and keeps no matrix (a = 0).
    TensorFlow  16 + 10: inputs of both norms and their scales 4, inside GELU 12 + outputs of the norms 2, q k v 3,
                heads 1, GELU's output 4. Attention keeps its matrix, rounded once more where it is (a = 1).

With dropout PyTorch keeps masks as numbers (2 S W), and its attention is no longer fused (3 S H T: probabilities, their
mask, and the product); TensorFlow's masks are bytes (0.5 S W), and its matrix is kept twice (1.25 S H T more).

Measured in 34 launches on one machine (x86, glibc, 24 GiB): `tiny`; `small` with micro-batch 1 to 16, accumulation 1 and
2, fp32, emulated bf16, fp16 compression, 1 and 2 ranks; `gpt2` with micro-batch 1 and sequence 128. The estimate was
-10 to +4 % off, in 30 of them within 5 %; too low where passes accumulate (-6 %) and for TensorFlow's emulated bf16 at
micro-batch 16 (-10 %). `base_bytes` and the copies were settled with these launches at hand, TensorFlow's base less the
88 MiB that it no longer imports (`hvbench.frameworks.without`; five launches with and without: 88, 87, 105, 127 and 89,
the estimate -2, -5, -4, 0 and, where passes accumulate, -11 % off); what
MultiWorkerMirroredStrategy adds (d = 10), with one launch of `tiny` and three of `small` on two ranks. Native bf16, fp16, GPUs,
dropout and other optimizers than AdamW were not measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from hvbench.registry import FRAMEWORKS, describe_framework
from hvbench.spec.point import Point
from hvbench.training.optimizers import state_shapes
from hvbench.training.precision import PRECISIONS
from hvbench.training.weights import parameter_shapes

VALUE_BYTES = 4  # parameters, gradients, optimizer state and the softmax of the loss: fp32 in every precision
HALF_BYTES = 2


KEPT = {name: describe_framework(name).kept for name in FRAMEWORKS}  # in the units of the formula above


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes of one rank, by what they hold; see the module's formula."""

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
        """All of it together."""
        return sum(getattr(self, field.name) for field in fields(self))


def estimate_memory(point: Point, *, is_native: bool) -> MemoryEstimate:
    """What one rank of `point` should need on a CPU; `is_native`: it multiplies in the point's precision natively."""
    kept = KEPT[point.framework]
    parameters = sum(math.prod(shape) for shape in parameter_shapes(point).values())
    tokens = point.micro_batch_size * point.sequence_length
    is_lower = PRECISIONS[point.precision].compute_dtype != "float32"
    compute_bytes = HALF_BYTES if is_lower and is_native else VALUE_BYTES

    block_bytes = (
        tokens * point.hidden_size * (kept.parameter_values * VALUE_BYTES + kept.compute_values * compute_bytes)
    )
    matrix_bytes = tokens * point.num_heads * point.sequence_length * kept.attention_values
    matrix_bytes *= VALUE_BYTES + (compute_bytes if is_lower and is_native else 0)
    if point.dropout:
        masks = (
            kept.dropout_values * point.hidden_size
            + kept.dropout_attention_values * point.num_heads * point.sequence_length
        )
        block_bytes += int(tokens * masks * VALUE_BYTES)
    logits = 0 if point.objective == "classification" else tokens * point.vocab_size
    logits_bytes = kept.logits * logits * VALUE_BYTES
    if is_lower:  # rounded, and widened again for the loss
        logits_bytes += logits * (HALF_BYTES + (0 if is_native else VALUE_BYTES))

    copies_bytes = point.vocab_size * point.hidden_size * VALUE_BYTES
    copies_bytes += parameters * VALUE_BYTES if kept.copies_clipped else 0
    copies_bytes += parameters * compute_bytes if is_lower else 0
    copies_bytes += parameters * HALF_BYTES if point.compression != "none" else 0
    is_own = point.strategy == "native"
    copies_bytes += parameters * VALUE_BYTES * kept.native_copies if is_own else 0
    state = sum(math.prod(shape) for slot in state_shapes(point).values() for shape in slot.values())
    sums = kept.copies_sums and point.gradient_accumulation_steps > 1
    return MemoryEstimate(
        parameter_bytes=parameters * VALUE_BYTES,
        gradient_bytes=parameters * VALUE_BYTES,
        optimizer_state_bytes=state * VALUE_BYTES,
        accumulation_bytes=parameters * VALUE_BYTES if sums else 0,
        activation_bytes=point.num_layers * (block_bytes + matrix_bytes),
        logits_bytes=logits_bytes,
        copies_bytes=copies_bytes,
        base_bytes=kept.base_bytes + (kept.native_bytes if is_own else 0),
    )

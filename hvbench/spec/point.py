"""Point: every knob of one training run, validated, hashable, with a stable id.

A suite expands to Points; a worker trains one; a record stores one. All values are explicit after validation: what
the model preset or a default supplied is written out, so a Point read back years later means the same training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from hvbench.registry import FRAMEWORKS
from hvbench.spec.knob import Count, Fraction, Spec, Text

MODEL_PRESETS: dict[str, dict[str, int]] = {
    "tiny": {"num_layers": 2, "num_heads": 2, "hidden_size": 32, "vocab_size": 256, "sequence_length": 32},
    "small": {"num_layers": 4, "num_heads": 4, "hidden_size": 256, "vocab_size": 4096, "sequence_length": 128},
    "gpt2": {"num_layers": 12, "num_heads": 12, "hidden_size": 768, "vocab_size": 50257, "sequence_length": 1024},
    "gpt2-medium": {
        "num_layers": 24,
        "num_heads": 16,
        "hidden_size": 1024,
        "vocab_size": 50257,
        "sequence_length": 1024,
    },
}

# What an optimizer's own paper sets otherwise than the defaults below, which are AdamW's for a GPT. Rates: 1e-2 of
# Adafactor is its paper's, 0.1 of SGD Goyal et al.'s; those of LAMB and LARS train `tiny` without upsetting it.
OPTIMIZER_PRESETS: dict[str, dict[str, float]] = {
    "sgd": {"learning_rate": 0.1, "weight_decay": 1e-4},
    "adafactor": {"learning_rate": 1e-2, "weight_decay": 0.0},
    "lamb": {"learning_rate": 2e-2, "weight_decay": 0.01, "beta2": 0.999, "epsilon": 1e-6},
    "lars": {"learning_rate": 1.0, "weight_decay": 1e-4},
}


class Point(Spec):
    """One training configuration of one framework. Its `point_id` identifies it across runs and machines."""

    framework: Literal[FRAMEWORKS] = Field(FRAMEWORKS[0], description="which twin trains")
    model: Literal["tiny", "small", "gpt2", "gpt2-medium"] = Field("small", description="preset of the sizes below")
    num_layers: Count = Field(description="decoder blocks")
    num_heads: Count = Field(description="attention heads; divides hidden_size")
    hidden_size: Count = Field(description="width of the residual stream")
    vocab_size: Annotated[int, Field(ge=256, le=1_000_000)] = Field(description="256: raw bytes; more: a trained BPE")
    sequence_length: Count = Field(description="tokens per sample")
    objective: Literal["causal_lm", "masked_lm", "classification"] = Field(
        "causal_lm", description="the next token, hidden ones (BERT), or the package that a chunk comes from"
    )
    num_classes: Annotated[int, Field(ge=2, le=1000)] = Field(8, description="of classification: the largest packages")
    pretraining: Literal["none", "causal_lm", "masked_lm"] = Field(
        "none", description="what the weights learn before; classification only"
    )
    pretraining_steps: Annotated[int, Field(ge=2, le=1_000_000)] = Field(
        200, description="steps of that, in the same worker, before the first measured one"
    )

    world_size: Count | None = Field(None, description="ranks that train; left out: as many as were launched")
    micro_batch_size: Count = Field(8, description="samples per rank per backward pass")
    gradient_accumulation_steps: Count = Field(1, description="backward passes per optimizer update")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="of matrix products; weights stay fp32")
    compression: Literal["none", "fp16", "bf16"] = Field(
        "none", description="what goes on the wire; bf16: hvbench's own"
    )
    gemm: Literal["default", "onednn"] = Field("default", description="library of PyTorch's fp32 products on a CPU")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where the framework sees one")

    strategy: Literal["horovod", "native", "parameter_server", "parameter_server_async", "local"] = Field(
        "horovod", description="native: DistributedDataParallel or MultiWorkerMirroredStrategy; local: no exchange"
    )
    reduction: Literal["average", "adasum"] = Field("average", description="what Horovod makes of the ranks' gradients")
    controller: Literal["gloo", "mpi"] = Field("gloo", description="what Horovod's ranks talk over")
    fusion_threshold_bytes: Annotated[int, Field(ge=0, lt=2**40)] | None = Field(
        None, description="HOROVOD_FUSION_THRESHOLD; left out: Horovod's own"
    )
    cycle_time_seconds: Annotated[float, Field(gt=0.0, le=10.0)] | None = Field(
        None, description="HOROVOD_CYCLE_TIME; left out: Horovod's own"
    )
    autotune: bool = Field(False, description="HOROVOD_AUTOTUNE: Horovod tries its own knobs while it trains")
    gradient_predivide: Annotated[float, Field(gt=0.0, le=1e6)] = Field(
        1.0, description="divides gradients before the sum, and the sum by world_size / this"
    )
    link_bits_per_second: Annotated[int, Field(ge=10_000, lt=2**40)] | None = Field(
        None, description="what the hosts' links are shaped to (see hvbench lab); left out: as they are"
    )

    optimizer: Literal["adamw", "sgd", "adafactor", "lamb", "lars"] = Field(
        "adamw", description="update rule; any but adamw has defaults of its own for some of the following"
    )
    learning_rate: Annotated[float, Field(gt=0.0, le=100.0)] = Field(1e-3, description="peak of the schedule")
    lr_scaling: Literal["none", "linear", "sqrt"] = Field("none", description="of learning_rate with the global batch")
    reference_batch_size: Count = Field(16, description="global batch size at which learning_rate is scaled by 1")
    schedule: Literal["constant", "cosine", "linear", "inverse_sqrt"] = Field(
        "cosine", description="learning rate after the warm-up"
    )
    lr_warmup_steps: Annotated[int, Field(ge=0, le=1_000_000)] = Field(10, description="linear warm-up, in steps")
    schedule_steps: Count = Field(1000, description="step at which cosine and linear reach a tenth of the peak")
    batch_warmup_steps: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        0, description="steps over which the batch grows, pass by pass, to all its accumulation steps; 0: none"
    )
    momentum: Fraction = Field(0.9, description="decay of the sum of steps; sgd, lars")
    trust_coefficient: Annotated[float, Field(gt=0.0, le=1.0)] = Field(0.001, description="of the trust ratio; lars")
    beta1: Fraction = Field(0.9, description="decay of the first moment; adamw, lamb")
    beta2: Fraction = Field(0.95, description="decay of the second moment; adamw, lamb")
    epsilon: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1e-8, description="added to the root of the second moment; adamw, lamb, adafactor"
    )
    weight_decay: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.1, description="matrices and token embedding only; decoupled, but in the gradient for sgd and lars"
    )
    max_gradient_norm: Annotated[float, Field(ge=0.0)] = Field(1.0, description="global-norm clipping; 0: off")
    dropout: Fraction = Field(0.0, description="of embeddings, attention and residual branches; never in evaluations")

    data: Text = Field("stdlib", description='"stdlib", "synthetic", or the path of a text file or folder')
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="of initial weights and of batch order")
    initial_checkpoint: Text | None = Field(
        None, description="path of a checkpoint to go on from; left out: from the seed"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        preset = MODEL_PRESETS.get(str(values.get("model", "small")), {})
        return {**preset, **OPTIMIZER_PRESETS.get(str(values.get("optimizer")), {}), **values}

    @property
    def is_served(self) -> bool:
        """Whether a parameter server beside the ranks updates the parameters."""
        return self.strategy.startswith("parameter_server")

    @property
    def is_repeatable(self) -> bool:
        """Whether another run gives the same losses: not where updates depend on which rank comes first."""
        return self.strategy != "parameter_server_async"

    @property
    def point_id(self) -> str:
        """A file-name-safe name that a person can read, ended by a digest of every field.

        Fields at their default are left out, so that a field that a later version adds renames no point.
        """
        canonical = json.dumps(self.model_dump(exclude_defaults=True), sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(canonical.encode()).hexdigest()[:8]
        return (
            f"{self.framework}-{self.model}-b{self.micro_batch_size}x{self.gradient_accumulation_steps}"
            f"-{self.precision}-{self.compression}-{digest}"
        )

    @property
    def is_causal(self) -> bool:
        """Whether a position attends to itself and what came before only; fine-tuning keeps what pretraining had."""
        return "causal_lm" in (self.objective, self.pretraining)

    @property
    def global_batch_size(self) -> int:
        """Samples per step over all ranks; needs a resolved `world_size`."""
        return self.micro_batch_size * self.gradient_accumulation_steps * (self.world_size or 1)

    @property
    def tokens_per_step(self) -> int:
        """Tokens per step over all ranks; needs a resolved `world_size`."""
        return self.global_batch_size * self.sequence_length

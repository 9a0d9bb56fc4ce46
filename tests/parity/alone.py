"""One twin alone in a process, one rank: `python -m tests.parity.alone FRAMEWORK FOLDER` leaves its numbers there.

It only records; `test_against_numpy.py`, `test_optimizers.py`, `test_dropout.py` and `test_broken_twin.py` judge. Files
(npz): `float64` (logits, loss, gradients, losses beside the point, two updates), `float64_OBJECTIVE`
(the same without updates), `float64_FAMILY…` (nor losses beside the point), `optimizers` (updates of each),
`switches` (of TF32), `attention` (losses and gradients at several lengths), `documents` (what documents of a row see of each other), `labelled` (padded samples, and each alone), `prefixes` (losses and gradients with them, at several lengths), `local` (rounds of local updates), `frozen` (FLOPs where only a part trains), `recompute` (losses, gradients and FLOPs with and without), `padding` (of the output projection, likewise), `chunks` (of the loss, likewise), `dropout` (masks, and what they do to losses and gradient norms), `overflow` (a step that overflows), `sums` (over many rows, in float32 and float64),
`rounded_DTYPE_CASE` (traces with rounded products, all else in float64), `decayed_biases`, `undivided` and
`unrounded_biases` (traces of broken twins).
"""

from __future__ import annotations

import functools
import importlib
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np

from hvbench.frameworks import load_framework
from hvbench.frameworks.contract import Arrays, Runtime, Trainer
from hvbench.frameworks.update import train_update
from hvbench.parity.trace import record_trace
from hvbench.spec.model import FAMILIES as MODEL_FAMILIES
from hvbench.spec.model import MODEL_PRESETS
from hvbench.spec.numerics import PRECISIONS, Precision
from hvbench.spec.point import Point
from hvbench.training import corpus
from hvbench.training.batches import Batches
from hvbench.training.layout import Layout
from hvbench.training.masking import IGNORED, SEPARATOR, SPECIAL_BYTES
from hvbench.training.packages import make_batches
from hvbench.training.schedule import learning_rate_at
from hvbench.training.weights import initial_weights, parameter_shapes
from tests.parity.points import BROKEN, LABELLED_FILE, STEPS, configured_point, make_point

# No point asks for it: gradients are checked against finite differences in it.
FP64 = Precision(parameter_dtype="float64", compute_dtype="float64")

DIRECTIONS = 2
FINITE_STEP = 1e-5  # errors: step² from the formula, 1e-16 / step from rounding
OVERFLOWING_SCALE = 2.0**60
OPTIMIZER_RATES = (0.05, 0.1, 0.07)
OPTIMIZER_KNOBS = {
    "adamw": {"layer_lr_decay": 0.5, "beta1": 0.9, "beta2": 0.97, "epsilon": 1e-3, "weight_decay": 0.05},
    "sgd": {"layer_lr_decay": 0.5, "momentum": 0.8, "weight_decay": 0.05},
    "plain_sgd": {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0},
    "lars": {"layer_lr_decay": 0.5, "momentum": 0.8, "weight_decay": 0.05, "trust_coefficient": 0.02},
    "lamb": {"layer_lr_decay": 0.5, "beta1": 0.9, "beta2": 0.97, "epsilon": 1e-3, "weight_decay": 0.05},
    "adafactor": {"layer_lr_decay": 0.5, "epsilon": 1e-3, "weight_decay": 0.05},
}
ACTIVATIONS = {
    "causal_lm": "gelu",
    "masked_lm": "gelu_tanh",
    "classification": "gelu",
}  # of what is recorded in float64
DROPOUT, WRONG_DROPOUT = 0.3, 0.5
DOCUMENT_LENGTHS = (12, 300)  # one strip of TensorFlow's attention, and two
RECOMPUTED = ("none", "block", "attention")
ATTENTION_LENGTHS = (700, 1100)  # strips of TensorFlow's: three that are traced one by one, a loop over five
MASKS, MASKED_PASSES, MASKED_HEADS = 150, 60, 8
LOOKED_AT = 4  # backward passes of a step
# Every part of an update is visible: clipping, an epsilon of the size of the gradients, rates of 0.01 and 0.02.
UPDATE_KNOBS = {"max_gradient_norm": 0.05, "epsilon": 1e-3, "learning_rate": 0.03, "lr_warmup_steps": 2}


# One rank's rounds of two updates, each of which an outer step ends that begins the momentum of the inner ones anew.
LOCAL_KNOBS: dict[str, Any] = {
    "optimizer": "sgd",
    "momentum": 0.8,
    "weight_decay": 0.0,
    "max_gradient_norm": 0.0,
    "sync_every": 2,
    "sync_moments": "reset",
    "outer_optimizer": "nesterov",
    "outer_learning_rate": 0.6,
    "outer_momentum": 0.7,
}
LOCAL_RATE, LOCAL_UPDATES = 0.1, 6


# Families and adaptations, by the name of their file, that are held against the formulas of their papers in float64.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"family": "llama", "num_kv_heads": 1, "tied_embeddings": False},
    "llama_masked_lm": {"family": "llama", "objective": "masked_lm"},
    "llama_classification": {"family": "llama", "num_kv_heads": 1, "objective": "classification"},
    "bert_masked_lm": {"family": "bert", "activation": "relu"},
    "bert_classification": {"family": "bert", "objective": "classification"},
    "bert_causal_lm": {"family": "bert", "objective": "causal_lm", "activation": "gelu_tanh"},
    "lora": {"adaptation": "lora", "lora_rank": 2, "lora_alpha": 3.0, "lora_targets": "linear"},
    "prefix": {"adaptation": "prefix", "prefix_length": 2},
    "adapter_bert_masked_lm": {"family": "bert", "adaptation": "adapter", "adapter_size": 3},
    "bert_pairs_masked_lm": {"family": "bert", "next_sentence": True, "sequence_length": 12},
}
# Points of which only a part trains, whose products are counted.
ADAPTED: dict[str, dict[str, Any]] = {
    name: {"adaptation": name, "num_layers": 2, "loss_chunk_tokens": chunk}
    for name, chunk in (("full", 5), ("lora", 0), ("adapter", 0), ("last_layers", 0))
}
ADAPTED["head"] = ADAPTED["full"] | {"adaptation": "head", "family": "llama", "tied_embeddings": False}
ADAPTED["bert_head"] = ADAPTED["full"] | {"adaptation": "head", "family": "bert"}
ADAPTED["bert_bias"] = ADAPTED["full"] | {"adaptation": "bias", "family": "bert"}
# Compute dtypes, and objectives or models, whose places of rounding are compared.
ROUNDED = [
    ("bfloat16", "causal_lm"),
    ("float16", "causal_lm"),
    ("bfloat16", "classification"),
    ("bfloat16", "llama-tiny"),
    ("bfloat16", "bert-tiny"),
]


@functools.cache
def read_text(data: str, vocab_size: int) -> corpus.Corpus:
    """The tokens of a text, read once."""
    return corpus.prepare(data, vocab_size=vocab_size)


class Twin:
    """One framework's trainers."""

    def __init__(self, framework: str) -> None:
        self.framework = framework
        self.runtime: Runtime = load_framework(framework, "runtime").Runtime(
            rank=0, world_size=1, local_rank=0, threads=1, device="cpu"
        )
        self.module = load_framework(framework, "trainer")
        self.optimizer = load_framework(framework, "optimizer")

    def trainer(self, point: Point, weights: Arrays | None = None, *, precision: Precision | None = None) -> Trainer:
        """A fresh trainer, in the point's precision or in another."""
        meaning = precision or PRECISIONS[point.precision]
        weights = initial_weights(point, dtype=meaning.parameter_dtype) if weights is None else weights
        return self.module.Trainer(point, weights, precision=meaning, runtime=self.runtime)

    def tensor(self, value: np.ndarray | float) -> Any:
        """`value` in float64, as the framework holds it."""
        if self.framework == "pytorch":
            return importlib.import_module("torch").tensor(value)
        return importlib.import_module("tensorflow").constant(value, "float64")

    def batches(self, point: Point) -> Batches:
        """The text's batches of the only rank."""
        return make_batches(point, read_text(point.data, point.vocab_size), rank=0)


def small_point(framework: str, **knobs: float | str) -> Point:
    """A model small enough for finite differences."""
    sizes = {"num_layers": 1, "num_heads": 2, "hidden_size": 8, "sequence_length": 6}
    return make_point(framework, 1, **{"micro_batch_size": 2, **sizes, **knobs})


def lively_weights(point: Point) -> Arrays:
    """float64 weights far from the initial ones, so that attention attends and no bias is zero."""
    random = np.random.default_rng(1)
    weights = {name: 0.5 * random.standard_normal(shape) for name, shape in parameter_shapes(point).items()}
    return {name: value + 1.0 if name.endswith(".gain") else value for name, value in weights.items()}


def random_direction(weights: Arrays, seed: int) -> Arrays:
    """A step of length 1 that moves every coordinate."""
    random = np.random.default_rng(seed)
    direction = {name: random.standard_normal(value.shape) for name, value in weights.items()}
    length = np.sqrt(sum(np.sum(value**2) for value in direction.values()))
    return {name: value / length for name, value in direction.items()}


def record_float64(twin: Twin, *, directions: int = DIRECTIONS, **knobs: Any) -> Arrays:
    """Everything of one small point in float64, with the losses beside it in so many directions."""
    point = small_point(twin.framework, **knobs)
    weights = lively_weights(point)
    inputs, targets = twin.batches(point).train_batch(0)
    trainer = twin.trainer(point, weights, precision=FP64)
    gradients = trainer.gradients(inputs, targets, loss_scale=1.0)
    arrays = {
        "inputs": inputs,
        "targets": targets,
        "logits": trainer.logits(inputs[0]),
        "loss": np.array([mean_loss(trainer, point, *batch) for batch in zip(inputs, targets, strict=True)]),
        "sample_losses": trainer.evaluate(inputs[0], targets[0]),
        "sample_losses_alone": np.concatenate(
            [trainer.evaluate(inputs[0, i : i + 1], targets[0, i : i + 1]) for i in range(len(inputs[0]))]
        ),
        **{f"gradient/{name}": value for name, value in gradients.items()},
    }
    if point.judges_pairs:
        arrays["pair_logits"] = trainer.next_sentence_logits(inputs[0])
    for number in range(directions):
        direction = random_direction(weights, seed=number)
        for sign in (-1, 1):
            moved = {name: value + sign * FINITE_STEP * direction[name] for name, value in weights.items()}
            beside = twin.trainer(point, moved, precision=FP64)
            losses = [mean_loss(beside, point, *batch) for batch in zip(inputs, targets, strict=True)]
            arrays[f"loss_beside/{number}/{sign}"] = np.array(losses)
    return arrays if knobs else arrays | record_updates(twin, weights)


def mean_loss(trainer: Trainer, point: Point, inputs: np.ndarray, targets: np.ndarray) -> float:
    """What a step would make smaller: the mean loss of evaluations, with the cross-entropy of the classes of pairs."""
    loss = trainer.evaluate(inputs, targets).mean()
    if point.judges_pairs:
        logits = trainer.next_sentence_logits(inputs)
        loss += (np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(logits)), targets[:, 0]]).mean()
    return loss


def record_updates(twin: Twin, weights: Arrays) -> Arrays:
    """Gradients and parameters around two updates."""
    point = small_point(twin.framework, **UPDATE_KNOBS)
    trainer, batches = twin.trainer(point, weights, precision=FP64), twin.batches(point)
    arrays = {}
    for step in range(2):
        inputs, targets = batches.train_batch(step)
        gradients = trainer.gradients(inputs, targets, loss_scale=1.0)
        rate = learning_rate_at(
            step,
            peak=point.learning_rate,
            schedule=point.schedule,
            lr_warmup_steps=point.lr_warmup_steps,
            schedule_steps=point.schedule_steps,
        )
        result = trainer.train_step(inputs, targets, learning_rate=rate, loss_scale=1.0)
        arrays[f"step{step}/gradient_norm"] = np.array(result.gradient_norm)
        arrays |= {f"step{step}/gradient/{name}": value for name, value in gradients.items()}
        arrays |= {f"step{step}/after/{name}": value for name, value in trainer.parameters().items()}
    return arrays


def optimizer_weights(point: Point) -> Arrays:
    """float64 weights; one matrix is zero, as a layer may begin."""
    return lively_weights(point) | {"block0.mlp.up.weight": np.zeros(parameter_shapes(point)["block0.mlp.up.weight"])}


def optimizer_gradients(point: Point, step: int) -> Arrays:
    """float64 gradients of one step, of many sizes; those of one vector are zero."""
    random = np.random.default_rng([2, step])
    gradients = {name: random.standard_normal(shape) ** 3 for name, shape in parameter_shapes(point).items()}
    return gradients | {"block0.norm1.bias": np.zeros_like(gradients["block0.norm1.bias"])}


def record_optimizers(twin: Twin) -> Arrays:
    """Parameters around each optimizer's updates in float64; the last is made by another one that goes on from there."""
    arrays = {}
    for name, knobs in OPTIMIZER_KNOBS.items():
        point = small_point(twin.framework, **{"optimizer": name, **knobs})
        model = twin.trainer(point, optimizer_weights(point), precision=FP64).model
        optimizer = twin.optimizer.make_optimizer(model.parameters, point=point)
        for step, rate in enumerate(OPTIMIZER_RATES):
            if step == len(OPTIMIZER_RATES) - 1:
                state = optimizer.state()
                optimizer = twin.optimizer.make_optimizer(model.parameters, point=point)
                optimizer.load_state(state)
                arrays |= {f"{name}/state/{key}": value for key, value in state.items()}
            gradients = {key: twin.tensor(value) for key, value in optimizer_gradients(point, step).items()}
            optimizer.update(gradients, learning_rate=rate if twin.framework == "pytorch" else twin.tensor(rate))
            after = {key: np.array(value.numpy(force=True) if twin.framework == "pytorch" else value.numpy())
                     for key, value in model.parameters.items()}  # fmt: skip
            arrays |= {f"{name}/step{step}/after/{key}": value for key, value in after.items()}
    return arrays


def record_dropout(twin: Twin) -> Arrays:
    """Losses and gradient norms of one batch at the same weights under many masks, and what dropout must not touch."""
    arrays = {}
    knobs = {"optimizer": "sgd", "momentum": 0.0, "micro_batch_size": 16, "gradient_accumulation_steps": 1}
    for name, rate in (("right", DROPOUT), ("wrong", WRONG_DROPOUT), ("none", 0.0)):
        point = small_point(twin.framework, **(knobs | {"dropout": rate}))
        trainer = twin.trainer(point, lively_weights(point), precision=FP64)
        inputs, targets = twin.batches(point).train_batch(0)
        arrays[f"{name}/evaluation"] = np.array(trainer.evaluate(inputs[0], targets[0]).mean())
        arrays[f"{name}/logits"] = trainer.logits(inputs[0])
        if rate:
            results = [trainer.train_step(inputs, targets, learning_rate=0.0, loss_scale=1.0) for _ in range(MASKS)]
            arrays[f"{name}/loss"] = np.array([result.loss for result in results])
            arrays[f"{name}/gradient_norm"] = np.array([result.gradient_norm for result in results])
            trainer.passes = 0
            again = trainer.train_step(inputs, targets, learning_rate=0.0, loss_scale=1.0)
            arrays[f"{name}/loss_again"] = np.array(again.loss)
    return arrays | record_looks(twin) | record_masks(twin)


def record_looks(twin: Twin) -> Arrays:
    """Gradient norms of a batch of equal micro-batches, before its step, of the step, after it, and of the next one."""
    point = small_point(twin.framework, dropout=DROPOUT, gradient_accumulation_steps=LOOKED_AT, optimizer="sgd")
    trainer = twin.trainer(point, lively_weights(point), precision=FP64)
    batch = [np.repeat(tokens[:1], LOOKED_AT, axis=0) for tokens in twin.batches(point).train_batch(0)]
    arrays = {}

    def look(name: str) -> None:
        norms = trainer.gradient_norms(*batch, loss_scale=1.0)
        arrays.update({f"look/{name}/passes": np.array(norms.micro_batches), f"look/{name}": np.array(norms.averaged)})

    look("before")
    step = trainer.train_step(*batch, learning_rate=0.0, loss_scale=1.0)
    look("next")
    trainer.rewind(LOOKED_AT)
    look("again")
    return arrays | {"look/step": np.array(step.gradient_norm)}


def record_masks(twin: Twin) -> Arrays:
    """Which elements each place of dropout drops, pass by pass, read off exact zeros in the gradients.

    With a single token the gradient of what is added right before a mask is that mask times something: position
    embeddings, the output biases of both branches, and the values' biases, whose heads' only probability is 1.
    """
    sizes = {"sequence_length": 1, "hidden_size": 4 * MASKED_HEADS, "num_heads": MASKED_HEADS, "num_layers": 1}
    point = make_point(twin.framework, 1, micro_batch_size=1, gradient_accumulation_steps=1, dropout=DROPOUT, **sizes)
    trainer = twin.trainer(point, lively_weights(point), precision=FP64)
    inputs, targets = twin.batches(point).train_batch(0)
    names = {
        "embedding": "position_embedding",
        "attention_branch": "block0.attention.out.bias",
        "mlp_branch": "block0.mlp.down.bias",
        "attention": "block0.attention.qkv.bias",
    }
    kept: dict[str, list[np.ndarray]] = {place: [] for place in names}
    for number in range(MASKED_PASSES):
        trainer.passes = number
        gradients = trainer.gradients(inputs, targets, loss_scale=1.0)
        for place, name in names.items():
            values = gradients[name].reshape(-1)
            values = np.split(values, 3)[2].reshape(MASKED_HEADS, -1).any(axis=1) if place == "attention" else values
            kept[place].append(values != 0)
    return {f"kept/{place}": np.array(masks) for place, masks in kept.items()}


def record_recompute(twin: Twin) -> Arrays:
    """Loss and gradients of one batch with everything kept and with parts recomputed, dropout on and off; FLOPs of a pass."""
    arrays = {}
    for recompute, rate in itertools.product(RECOMPUTED, (0.0, DROPOUT)):
        point = small_point(twin.framework, num_layers=2, dropout=rate, recompute=recompute)
        batch = twin.batches(point).train_batch(0)
        trainer = twin.trainer(point, lively_weights(point), precision=FP64)
        name = f"{recompute}/{rate}"
        arrays[f"{name}/loss"] = np.array(trainer.backward(*batch, loss_scale=1.0))
        arrays |= {f"{name}/gradient/{key}": value for key, value in trainer.allreduce_kept()[0].items()}
        arrays[f"{name}/forward"] = np.array(trainer.forward(*batch))
        arrays[f"{name}/evaluation"] = trainer.evaluate(batch[0][0], batch[1][0])
        arrays[f"{name}/flops"] = np.array(count_flops(twin, trainer, batch))
    return arrays


def record_documents(twin: Twin) -> Arrays:
    """Two documents and padding in a row; the first with another token; each alone; the gradients of both ways."""
    arrays = {}
    for attention, length in itertools.product(("fused", "plain"), DOCUMENT_LENGTHS):
        knobs = {"attention": attention, "sequence_length": length, "segmentation": "documents", "micro_batch_size": 1}
        point = small_point(twin.framework, gradient_accumulation_steps=2, **knobs)
        trainer = twin.trainer(point, lively_weights(point), precision=FP64)
        tokens = np.random.default_rng(2).integers(256, size=length + 1).astype(np.int32)
        sizes = length // 3, length // 2
        rows = [
            lay_out([(tokens[:-1], tokens[1:], *sizes[:1]), (tokens[::-1][1:], tokens[::-1][:-1], *sizes[1:])], length)
        ]
        rows += [
            lay_out([rows_of], length)
            for rows_of in ((tokens[:-1], tokens[1:], sizes[0]), (tokens[::-1][1:], tokens[::-1][:-1], sizes[1]))
        ]
        packed, first, second = rows
        changed = packed[0].copy()
        changed[0, 1] ^= 1
        name = f"{attention}/{length}"
        arrays[f"{name}/packed"] = trainer.logits(packed[0], packed[2])
        arrays[f"{name}/changed"] = trainer.logits(changed, packed[2])
        for label, row in (("first", first), ("second", second)):
            arrays[f"{name}/{label}"] = trainer.logits(row[0], row[2])
        arrays[f"{name}/losses"] = np.concatenate([trainer.evaluate(*row) for row in rows])
        counts = np.array(sizes) / np.mean(sizes)
        alone = [np.stack(parts) for parts in zip(first, second, strict=True)]
        for label, (inputs, targets, starts), weights in (
            ("packed", [part[None] for part in packed], np.ones(1)),
            ("alone", alone, counts),
        ):
            found = trainer.gradients(inputs, targets, Layout(starts=starts, weights=weights), loss_scale=1.0)
            arrays |= {f"{name}/{label}/gradient/{key}": value for key, value in found.items()}
    return arrays


# Family, attention and objective whose samples of different lengths are padded; and the mask.
PADDED = [
    ("gpt2", "fused", "classification", "none"),
    ("bert", "plain", "classification", "none"),
    ("llama", "fused", "classification", "none"),
    ("bert", "fused", "regression", "causal"),
    ("gpt2", "fused", "token_classification", "none"),
]


def record_labelled(twin: Twin) -> Arrays:
    """Samples of different lengths padded in one batch, with other tokens in the padding, and each alone: `FAMILY/ATTENTION/OBJECTIVE/NAME`."""
    arrays, random = {}, np.random.default_rng(3)
    lengths, longest = np.array([3, 6, 1]), 6
    tokens = random.integers(254, size=(3, longest)).astype(np.int32)
    tokens[1, 3] = SPECIAL_BYTES[SEPARATOR]  # what is behind it is of BERT's second segment
    is_padding = np.arange(longest) >= lengths[:, None]
    starts = np.where(is_padding, lengths[:, None], 0).astype(np.int32)
    tags = np.where(is_padding, IGNORED, random.integers(3, size=tokens.shape)).astype(np.int32)
    labels = {
        "classification": np.arange(3, dtype=np.int32),
        "regression": np.float32([0.5, -2, 1]),
        "token_classification": tags,
    }
    for family, attention, objective, mask in PADDED:
        knobs = {
            "objective": objective,
            "num_classes": 3,
            "data": str(LABELLED_FILE),
            "family": family,
            "attention_mask": mask,
        }
        point = small_point(twin.framework, attention=attention, gradient_accumulation_steps=1, **knobs)
        trainer, targets = twin.trainer(point, lively_weights(point), precision=FP64), labels[objective]
        padded, name = np.where(is_padding, 0, tokens).astype(np.int32), f"{family}/{attention}/{objective}"
        layout = Layout(starts=starts[None], weights=np.ones(1))
        arrays[f"{name}/targets"], arrays[f"{name}/logits"] = targets, trainer.logits(padded, starts)
        arrays[f"{name}/losses"] = trainer.evaluate(padded, targets, starts)
        arrays[f"{name}/losses_of_other_padding"] = trainer.evaluate(tokens, targets, starts)
        arrays[f"{name}/loss"] = np.array(trainer.forward(padded[None], targets[None], layout))
        found = trainer.gradients(padded[None], targets[None], layout, loss_scale=1.0)
        arrays |= {f"{name}/gradient/{key}": value for key, value in found.items()}
        packed = pack_samples(tokens, targets, lengths)
        arrays[f"{name}/packed/logits"] = trainer.logits(packed[0][0], *packed[2].of_pass(0))
        arrays[f"{name}/packed/loss"] = np.array(trainer.forward(*packed))
        found = trainer.gradients(*packed, loss_scale=1.0)
        arrays |= {f"{name}/packed/gradient/{key}": value for key, value in found.items()}
        for row, length in enumerate(lengths):
            own = targets[row : row + 1, :length] if targets.ndim > 1 else targets[row : row + 1]
            alone = tokens[row : row + 1, :length], own, np.zeros((1, length), np.int32)
            arrays[f"{name}/alone/{row}"] = trainer.evaluate(*alone)
            inputs, wanted, begins = (part[None] for part in alone)
            found = trainer.gradients(inputs, wanted, Layout(starts=begins, weights=np.ones(1)), loss_scale=1.0)
            arrays |= {f"{name}/alone/{row}/gradient/{key}": value for key, value in found.items()}
    return arrays


def pack_samples(tokens: np.ndarray, targets: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, Layout]:
    """Three samples [3, T] of `lengths` in rows of T, of which two share one and the last one is padding alone: a step of one pass."""
    shape = tokens.shape
    inputs, starts, tags = np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.full(shape, IGNORED, np.int32)
    begins = {0: (1, 0), 1: (0, 0), 2: (1, lengths[0])}  # sample -> its row and place
    for sample, (row, begin) in begins.items():
        end = begin + lengths[sample]
        inputs[row, begin:end], starts[row, begin:end] = tokens[sample, : lengths[sample]], begin
        starts[row, end:] = end
        if targets.ndim > 1:
            tags[row, begin:end] = targets[sample, : lengths[sample]]
    if targets.ndim > 1:
        return inputs[None], tags[None], Layout(starts=starts[None], weights=np.ones(1))
    places = np.array([[row * shape[1] + begin for row, begin in begins.values()]], np.int32)
    return inputs[None], targets[None], Layout(starts=starts[None], weights=np.ones(1), places=places)


def lay_out(
    documents: list[tuple[np.ndarray, np.ndarray, int]], length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A row [1, length] of documents (inputs, targets, positions) and padding: inputs, targets, and where each begins."""
    inputs, starts = np.zeros((1, length), np.int32), np.zeros((1, length), np.int32)
    targets, end = np.full((1, length), IGNORED, np.int32), 0
    for tokens, next_tokens, count in documents:
        place = slice(end, end + count)
        inputs[0, place], targets[0, place], starts[0, place] = tokens[:count], next_tokens[:count], end
        end += count
    starts[0, end:] = end
    return inputs, targets, starts


def record_attention(twin: Twin) -> Arrays:
    """Losses and gradients with fused attention and with the textbook's; with dropout the losses beside the point as well."""
    arrays = {}
    choices = itertools.product(("fused", "plain"), ("causal_lm", "masked_lm"), (0.0, DROPOUT), ATTENTION_LENGTHS)
    for attention, objective, rate, length in choices:
        if rate and (attention, objective) != ("fused", "causal_lm"):
            continue
        sizes = {"sequence_length": length, "micro_batch_size": 1, "gradient_accumulation_steps": 1}
        point = small_point(twin.framework, attention=attention, objective=objective, dropout=rate, **sizes)
        batch, trainer = twin.batches(point).train_batch(0), twin.trainer(point, lively_weights(point), precision=FP64)
        name = f"{attention}/{objective}/{rate}/{length}"
        arrays[f"{name}/loss"] = np.array(trainer.backward(*batch, loss_scale=1.0))
        gradients = trainer.allreduce_kept()[0]
        arrays |= {f"{name}/gradient/{key}": value for key, value in gradients.items()}
        if rate:
            state, direction = trainer.state(), random_direction(gradients, seed=0)
            for sign in (-1, 1):
                moved = {f"parameters/{key}": value * sign * FINITE_STEP for key, value in direction.items()}
                trainer.load_state({key: value + moved.get(key, 0) for key, value in state.items()})
                arrays[f"{name}/beside/{sign}"] = np.array(trainer.backward(*batch, loss_scale=1.0))
            arrays[f"{name}/slope"] = np.array(sum(np.sum(gradients[key] * direction[key]) for key in direction))
    return arrays


def record_prefixes(twin: Twin) -> Arrays:
    """Losses and gradients with prefixes in front of two strips of TensorFlow's attention, and of a loop over five; and in the open."""
    arrays = {}
    lengths = {"causal_lm": (300, ATTENTION_LENGTHS[1]), "masked_lm": (300,)}
    for attention, objective in itertools.product(("fused", "plain"), lengths):
        for length in lengths[objective]:
            sizes = {"sequence_length": length, "micro_batch_size": 1, "gradient_accumulation_steps": 1}
            knobs = {"attention": attention, "objective": objective, "adaptation": "prefix", "prefix_length": 3}
            point = small_point(twin.framework, **knobs, **sizes)
            trainer = twin.trainer(point, lively_weights(point), precision=FP64)
            name = f"{attention}/{objective}/{length}"
            arrays[f"{name}/loss"] = np.array(trainer.backward(*twin.batches(point).train_batch(0), loss_scale=1.0))
            gradients = trainer.allreduce_kept()[0]
            arrays |= {f"{name}/gradient/{key}": value for key, value in gradients.items()}
    return arrays


def record_local_updates(twin: Twin) -> Arrays:
    """Gradients and parameters of each of LOCAL_UPDATES updates in rounds of two; one continues from the state before it, within a round."""
    point = small_point(twin.framework, **LOCAL_KNOBS)
    trainer, batches, arrays = twin.trainer(point, lively_weights(point), precision=FP64), twin.batches(point), {}
    for step in range(LOCAL_UPDATES):
        if step == LOCAL_UPDATES - 1:
            state = trainer.state()
            trainer = twin.trainer(point, precision=FP64)
            trainer.load_state(state)
        batch = batches.train_batch(step)
        gradients = trainer.gradients(*batch, loss_scale=1.0)
        arrays |= {f"step{step}/gradient/{name}": value for name, value in gradients.items()}
        train_update(trainer, point, step, batch, learning_rate=LOCAL_RATE, loss_scale=1.0)
        arrays |= {f"step{step}/after/{name}": value for name, value in trainer.parameters().items()}
    return arrays


def record_frozen(twin: Twin) -> Arrays:
    """FLOPs of the products of a backward pass of each of ADAPTED."""
    flops = {}
    for name, knobs in ADAPTED.items():
        point = small_point(twin.framework, **knobs)
        batch, trainer = twin.batches(point).train_batch(0), twin.trainer(point, lively_weights(point), precision=FP64)
        trainer.backward(*batch, loss_scale=1.0)
        flops[name] = np.array(count_flops(twin, trainer, batch))
    return flops


def record_padding(twin: Twin) -> Arrays:
    """Logits and gradients of one batch, with rows of zeros below the output projection and without: `PADDING/NAME`."""
    arrays = {}
    for padding in (0, 7):
        point = small_point(twin.framework)
        batch = twin.batches(point).train_batch(0)
        trainer = twin.trainer(point, lively_weights(point), precision=FP64)
        trainer.model.padding = padding
        arrays[f"{padding}/logits"] = trainer.logits(batch[0][0])
        gradients = trainer.gradients(*batch, loss_scale=1.0)
        arrays |= {f"{padding}/gradient/{name}": value for name, value in gradients.items()}
    return arrays


def record_chunks(twin: Twin) -> Arrays:
    """Loss, gradients and evaluation of one batch with all logits at once and in chunks, rows of zeros below: `CHUNK/OBJECTIVE/NAME`."""
    arrays = {}
    for chunk, objective in itertools.product((0, 5), ("causal_lm", "masked_lm")):
        point = small_point(twin.framework, objective=objective, loss_chunk_tokens=chunk)
        batch = twin.batches(point).train_batch(0)
        trainer = twin.trainer(point, lively_weights(point), precision=FP64)
        trainer.model.padding, name = 7, f"{chunk}/{objective}"
        arrays[f"{name}/loss"] = np.array(trainer.backward(*batch, loss_scale=8.0))
        arrays |= {f"{name}/gradient/{key}": value for key, value in trainer.allreduce_kept()[0].items()}
        arrays[f"{name}/evaluation"] = trainer.evaluate(batch[0][0], batch[1][0])
    return arrays


def record_sums(twin: Twin) -> Arrays:
    """Gradients of 8,192 tokens in float32 and in float64, `FAMILY/PRECISION/NAME`, and `losses/PRECISION` of batches of 1,024."""
    arrays = {}
    for family in MODEL_FAMILIES:
        point = small_point(twin.framework, family=family, hidden_size=16, sequence_length=64, micro_batch_size=128)
        batch = twin.batches(point).train_batch(0)
        for name, precision in (("float32", PRECISIONS["fp32"]), ("float64", FP64)):
            gradients = twin.trainer(point, precision=precision).gradients(*batch, loss_scale=1.0)
            arrays |= {f"{family}/{name}/{key}": value for key, value in gradients.items()}
    knobs = {"sequence_length": 64, "micro_batch_size": 16, "gradient_accumulation_steps": 1, "vocab_size": 4096}
    for name, precision in (("float32", PRECISIONS["fp32"]), ("float64", FP64)):
        # Compiled where that takes a second; PyTorch's compiler takes half a minute.
        is_compiled = twin.framework == "tensorflow" and name == "float32"
        point = small_point(twin.framework, **knobs, compile="default" if is_compiled else "none")
        weights = {key: value.astype(name) for key, value in lively_weights(point).items()}
        trainer, batches = twin.trainer(point, weights, precision=precision), twin.batches(point)
        losses = [
            trainer.train_step(*batches.train_batch(step), learning_rate=0.0, loss_scale=1.0).loss for step in range(8)
        ]
        arrays[f"losses/{name}"] = np.array(losses)
    return arrays


def count_flops(twin: Twin, trainer: Trainer, batch: tuple[np.ndarray, np.ndarray]) -> int:
    """FLOPs of the matrix products of one backward pass, counted in what the framework really runs."""
    if twin.framework == "pytorch":
        attention = importlib.import_module("torch.nn.attention")
        counter = importlib.import_module("torch.utils.flop_counter").FlopCounterMode(display=False)
        with counter, attention.sdpa_kernel(attention.SDPBackend.MATH):  # products that a fused kernel hides
            trainer.backward(batch[0][:1], batch[1][:1], loss_scale=1.0)
        return counter.get_total_flops()
    (last,) = trainer._split(batch[0][:1], batch[1][:1], None)
    function = trainer._graphs["_averaged_gradients"]
    graph = function.get_concrete_function(last, trainer._scalar(1.0), with_allreduce=False).graph
    return sum(map(product_flops, reachable(graph.outputs)))


def reachable(outputs: list[Any]) -> list[Any]:
    """The operations of a graph of TensorFlow whose results `outputs` need, or wait for."""
    found, left = {}, [tensor.op for tensor in outputs]
    while left:
        operation = left.pop()
        if operation.name not in found:
            found[operation.name] = operation
            left += [*(tensor.op for tensor in operation.inputs), *operation.control_inputs]
    return list(found.values())


def product_flops(operation: Any) -> int:
    """2 x rows x inner x columns of a matrix product, times those of its batch; 0 for any other operation."""
    if operation.type not in ("MatMul", "BatchMatMulV2"):
        return 0
    shape = operation.inputs[0].shape
    is_transposed = operation.get_attr("transpose_a" if operation.type == "MatMul" else "adj_x")
    return 2 * operation.outputs[0].shape.num_elements() * shape[-2 if is_transposed else -1]


def record_overflow(twin: Twin) -> Arrays:
    """Parameters after a skipped step and a sound one, and after the sound one alone."""
    point = configured_point(twin.framework, (1, "fp16", "none"))
    inputs, targets = twin.batches(point).train_batch(0)
    trainer, arrays = twin.trainer(point), {}
    for name, scale in (("skipped", OVERFLOWING_SCALE), ("sound", 2.0**15)):
        result = trainer.train_step(inputs, targets, learning_rate=1e-3, loss_scale=scale)
        arrays[f"{name}/flag"] = np.array(result.skipped)
        arrays |= {f"{name}/{key}": value for key, value in trainer.parameters().items()}
    fresh = twin.trainer(point)
    fresh.train_step(inputs, targets, learning_rate=1e-3, loss_scale=2.0**15)
    arrays |= {f"fresh/{key}": value for key, value in fresh.parameters().items()}
    return arrays | {f"initial/{key}": value for key, value in initial_weights(point).items()}


def record_switches(twin: Twin) -> Arrays:
    """Whether TF32 is off as the process starts, and after a trainer that wanted it was refused, as on any CPU."""
    point = configured_point(twin.framework, (1, "fp32", "none"))
    before, refusal = twin.runtime.versions()["tf32"], ""
    try:
        twin.trainer(point, precision=PRECISIONS["tf32"])
    except RuntimeError as error:
        refusal = str(error)
    return {
        "before": np.array(before),
        "refusal": np.array(refusal),
        "after": np.array(twin.runtime.versions()["tf32"]),
    }


def trace_decayed_biases(twin: Twin) -> Arrays:
    """A twin whose weight decay forgets to spare biases and gains."""
    point = configured_point(twin.framework, (1, "fp32", "none"))
    sound = twin.optimizer.is_decayed
    twin.optimizer.is_decayed = lambda name: True
    try:
        return record_trace(point, trainer=twin.trainer(point), batches=twin.batches(point), steps=STEPS)
    finally:
        twin.optimizer.is_decayed = sound


def trace_undivided(twin: Twin) -> Arrays:
    """A twin that forgets to divide its gradients by the accumulation steps."""
    point = configured_point(twin.framework, (1, "fp32", "none"))
    trainer = twin.trainer(point)
    finish = trainer.allreduce.finish
    trainer.allreduce.finish = lambda: {
        name: value * point.gradient_accumulation_steps for name, value in finish().items()
    }
    return record_trace(point, trainer=trainer, batches=twin.batches(point), steps=STEPS)


def trace_rounded(twin: Twin, dtype: str, case: str, *, rounds_biases: bool = True) -> Arrays:
    """A trace whose products are rounded to `dtype`, emulated on any processor, and all else is float64."""
    point = make_point(twin.framework, 1, **{"model" if case in MODEL_PRESETS else "objective": case})
    precision = Precision(parameter_dtype="float64", compute_dtype=dtype, loss_scaling=False)
    weights = initial_weights(point, dtype="float64")
    trainer = twin.module.Trainer(point, weights, precision=precision, runtime=twin.runtime)
    trainer.model.is_native = False
    if not rounds_biases:
        sound = trainer.model.round
        trainer.model.round = lambda x: x if len(x.shape) == 1 else sound(x)
    return record_trace(point, trainer=trainer, batches=twin.batches(point), steps=STEPS)


def main(framework: str, folder: Path) -> None:
    """Record everything of one framework."""
    twin = Twin(framework)
    np.savez(folder / "switches.npz", **record_switches(twin))
    np.savez(folder / "float64.npz", **record_float64(twin))
    np.savez(folder / "optimizers.npz", **record_optimizers(twin))
    np.savez(folder / "dropout.npz", **record_dropout(twin))
    np.savez(folder / "attention.npz", **record_attention(twin))
    np.savez(folder / "documents.npz", **record_documents(twin))
    np.savez(folder / "prefixes.npz", **record_prefixes(twin))
    np.savez(folder / "local.npz", **record_local_updates(twin))
    np.savez(folder / "frozen.npz", **record_frozen(twin))
    np.savez(folder / "labelled.npz", **record_labelled(twin))
    np.savez(folder / "recompute.npz", **record_recompute(twin))
    np.savez(folder / "chunks.npz", **record_chunks(twin))
    np.savez(folder / "padding.npz", **record_padding(twin))
    np.savez(folder / "sums.npz", **record_sums(twin))
    for objective in ("masked_lm", "classification"):
        knobs = {"objective": objective, "activation": ACTIVATIONS[objective]}
        np.savez(folder / f"float64_{objective}.npz", **record_float64(twin, **knobs))
    for name, knobs in FAMILIES.items():
        np.savez(folder / f"float64_{name}.npz", **record_float64(twin, directions=0, **knobs))
    np.savez(folder / "overflow.npz", **record_overflow(twin))
    for dtype, case in ROUNDED:
        np.savez(folder / f"rounded_{dtype}_{case}.npz", **trace_rounded(twin, dtype, case))
    if framework == BROKEN:
        unrounded = trace_rounded(twin, *ROUNDED[0], rounds_biases=False)
        np.savez(folder / "unrounded_biases.npz", **unrounded)
        np.savez(folder / "undivided.npz", **trace_undivided(twin))
        np.savez(folder / "decayed_biases.npz", **trace_decayed_biases(twin))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

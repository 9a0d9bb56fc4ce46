"""The configurations that the parity tests train: the `tiny` model on real text, global batch 16, 20 updates.

The learning rate warms up for 5 steps and falls along a cosine; gradient norms lie between 1 and 2.5, so every step is
clipped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hvbench.parity import CHECKED_UPDATES
from hvbench.parity.tolerances import Tolerances, find_tolerances
from hvbench.registry import FRAMEWORKS
from hvbench.spec.point import Point

STEPS = CHECKED_UPDATES
WORLD_SIZES = (1, 2)
PRECISIONS = ("fp32", "bf16", "fp16")

BASE = {
    "model": "tiny",
    "data": "stdlib",
    "gradient_accumulation_steps": 2,
    "lr_warmup_steps": 5,
    "schedule_steps": 25,
}
MICRO_BATCH_SIZE = {1: 8, 2: 4, 4: 2}  # by world size
# Of points that show what is no matter of layers: update rules and cuts of a batch. TensorFlow compiles them in half the time.
FEWER_LAYERS = 1

# Every precision and compression at either world size; one rank has nothing to compress.
CONFIGURATIONS = [
    (world_size, precision, compression)
    for world_size in WORLD_SIZES
    for precision in PRECISIONS
    for compression in (("none", "fp16", "bf16") if world_size > 1 else ("none",))
]
# Other ways to exchange gradients, in fp32 on two ranks: those whose updates are Horovod's average, and adasum.
SAME_AS_HOROVOD: list[dict[str, Any]] = [{"strategy": "native"}, {"strategy": "parameter_server", "servers": 2}]
# Ways to send less than the gradients, which feed back the rest: on two ranks, one of them in bf16.
COMPRESSED: list[dict[str, Any]] = [
    {"compression": "topk", "topk_share": 0.05},
    {"compression": "int8", "int8_bucket": 256},
    {"compression": "powersgd", "powersgd_rank": 2},
    {"compression": "int8", "precision": "bf16"},
    {"compression": "onebit", "onebit_bucket": 256, "onebit_warmup_steps": 12},
]
ADASUM: dict[str, Any] = {"reduction": "adasum", "controller": "mpi"}
# What two ranks share, and what else is set: each does what ranks do that hold everything. LAMB measures norms of whole tensors.
SHARDED: list[dict[str, Any]] = [
    {"shard": "optimizer", "optimizer": "lamb"},
    {"shard": "gradients", "precision": "fp16", "compression": "bf16"},
    {"shard": "parameters", "recompute": "block"},
]
# Local updates on two ranks, with rounds that end with the last of 20 updates: plain, of post-local SGD; and DiLoCo with rounds that grow.
LOCAL_SGD: list[dict[str, Any]] = [
    {"sync_every": 4, "sync_start": 4},
    {
        "sync_every": 4,
        "sync_warmup_steps": 4,
        "sync_moments": "keep",
        "outer_optimizer": "nesterov",
        "compression": "bf16",
    },
]
# The same ways to exchange on four ranks, one layer and one pass a step, but where sums are of parts. What ranks share with LAMB, as on two;
# shard = "optimizer" is made of what "gradients" does.
# With seed 0 a gradient in 8 bits lies between two codes at step 7: PyTorch by itself, its weights moved by one last bit, then has gradient norms
# that differ by up to 5e-4 (with seed 1 over these 20 updates by 2e-4 at most, and its losses by 1e-7).
FOUR_RANKS: list[dict[str, Any]] = [
    {"sync_every": 4, "sync_warmup_steps": 4, "sync_moments": "keep", "outer_optimizer": "nesterov"},
    {"compression": "topk", "topk_share": 0.05},
    {"compression": "int8", "int8_bucket": 256, "seed": 1},
    {"compression": "powersgd", "powersgd_rank": 2},
    {"shard": "gradients", "optimizer": "lamb", "micro_batch_size": 2, "gradient_accumulation_steps": 2},
    {"shard": "parameters", "optimizer": "lamb"},
]
# World size, micro-batch, accumulation: the same 64 samples a step.
SPLITS = [(1, 64, 1), (1, 16, 4), (2, 32, 1), (2, 16, 2)]

# Choices that change time and memory alone, each at a cut that is traced without it, too. What is compiled is the same graph at
# either world size, which PyTorch's compiler keeps in its cache.
EXECUTIONS: list[tuple[tuple[int, int, int], dict[str, Any]]] = [
    ((1, 16, 4), {"attention": "plain", "loss_chunk_tokens": 0}),
    ((2, 16, 2), {"loss_chunk_tokens": 96}),
    ((1, 16, 4), {"recompute": "block"}),
    ((1, 16, 4), {"recompute": "block", "compile": "default"}),
    ((2, 16, 2), {"recompute": "attention"}),
    ((2, 16, 2), {"recompute": "block", "compile": "default"}),
]

# World size, and how text becomes samples: those that overlap and grow, in one training. Two have the other GELU, too.
SEQUENCES: list[tuple[int, dict[str, Any]]] = [
    (1, {"segmentation": "overlap", "segmentation_stride": 5, "length_warmup_steps": 9, "activation": "gelu_tanh"}),
    (
        1,
        {
            "segmentation": "documents",
            "sequence_length": 300,
            "attention": "plain",
            "input": "framework",
            "input_workers": 1,
        },
    ),
    (2, {"segmentation": "documents", "sequence_length": 300, "packing": False}),
    (
        1,
        {
            "segmentation": "documents",
            "objective": "masked_lm",
            "precision": "bf16",
            "length_warmup_steps": 9,
            "activation": "gelu_tanh",
        },
    ),
]
# Who hands the steps their batches, at a cut that is traced with arrays, too.
INPUTS: list[tuple[tuple[int, int, int], dict[str, Any]]] = [
    ((1, 16, 4), {"input": "framework"}),
    ((2, 16, 2), {"input": "framework", "input_workers": 2}),
]
# Attention in several strips, since this is longer than one of TensorFlow's, and logits in chunks; then both as in the textbook.
LONG: dict[str, Any] = {
    "model": "small",
    "num_layers": FEWER_LAYERS,
    "sequence_length": 300,
    "micro_batch_size": 1,
    "gradient_accumulation_steps": 1,
}
LONG_EXECUTIONS: list[dict[str, Any]] = [{"loss_chunk_tokens": 128}, {"attention": "plain", "loss_chunk_tokens": 0}]

# What the other objectives are traced at: loss, attention and what reads the last layer are the only differences. A
# classifier's loss is a mean over samples, where the others' is one over tokens, and takes 64 of them: over 16, one last
# bit of the initial weights makes 1.6e-4 of the loss in bf16, in either twin by itself, and 4e-5 over 64. The twins
# round in the same places, which `test_rounding.py` shows: in float64 their 20 losses agree to 1e-15, over 16 as well.
OTHER_OBJECTIVES = [
    (objective, configuration)
    for objective in ("masked_lm", "classification")
    for configuration in ((1, "bf16", "none"), (2, "fp32", "none"))
]
CLASSIFIED_MICRO_BATCH_SIZE = {1: 32, 2: 16}  # by world size

# World size, and labelled pairs of texts of different lengths: padded, mixed, sorted by length, and packed. Two lengths, for each is a graph.
# The seed 3 is one whose first batch has 26 samples of one class and 38 of the other; 0 has 31 and 33, so that the gradient of the classifier's bias is
# what is left of two sums a hundred times as large: 5e-6 of it are one bit of these (`hvbench.parity.compare.cancellation`).
LABELLED_FILE = Path(__file__).with_name("labelled.csv")
TAGGED_FILE = LABELLED_FILE.with_name("tagged.conll")
LABELLED: list[tuple[int, dict[str, Any]]] = [
    (1, {"precision": "bf16", "length_buckets": 2, "attention_mask": "causal", "seed": 3}),
    (2, {"group_by_length": True, "length_buckets": 2}),
    (1, {"model": "llama-tiny", "attention": "plain", "length_buckets": 1, "padding": "packed", "seed": 0}),
    (
        1,
        {
            "model": "bert-tiny",
            "objective": "regression",
            "label_field": "vowels",
            "padding": "packed",
            "length_buckets": 1,
            "attention_mask": "causal",
            "seed": 3,  # with 0 the 32 numbers that it predicts first are so near 0 that they differ by 4.4e-7 (5e-7 is allowed), not by 2e-7
        },
    ),
    (2, {"objective": "token_classification", "num_classes": 3, "data": str(TAGGED_FILE), "length_buckets": 1}),
]

# World size, and a model of another family: shared keys, tied and untied, both precisions, documents; BERT's head, pooler, pairs and ReLU,
# and BERT as a causal language model, in documents and over two ranks.
FAMILIES: list[tuple[int, dict[str, Any]]] = [
    (1, {"model": "llama-tiny", "precision": "bf16", "tied_embeddings": False}),
    (2, {"model": "llama-tiny"}),
    (2, {"model": "llama-tiny", "precision": "bf16", "num_layers": FEWER_LAYERS}),
    (1, {"model": "llama-tiny", "segmentation": "documents", "num_layers": FEWER_LAYERS, "tied_embeddings": False}),
    (1, {"model": "bert-tiny", "precision": "bf16", "num_layers": FEWER_LAYERS}),
    (2, {"model": "bert-tiny", "next_sentence": True}),
    (
        1,
        {
            "model": "bert-tiny",
            "objective": "causal_lm",
            "segmentation": "documents",
            "num_layers": FEWER_LAYERS,
            "activation": "relu",
            # With seed 0 the weights of its MLP differ by 8.8e-6 after 20 updates (1e-5 is allowed), with GELU in its place no tensor does by 2e-6:
            # a unit whose input is a last bit from 0 has its gradient in one framework alone.
            "seed": 1,
        },
    ),
    (2, {"model": "bert-tiny", "objective": "causal_lm", "precision": "bf16", "num_layers": FEWER_LAYERS}),
    (2, {"model": "bert-tiny", "objective": "classification", "micro_batch_size": 16, "num_layers": FEWER_LAYERS}),
]

# World size, and a point of which only a part trains: every adaptation, both precisions and all families on one rank and on two.
ADAPTATIONS: list[tuple[int, dict[str, Any]]] = [
    (1, {"adaptation": "lora", "lora_targets": "linear", "precision": "bf16", "num_layers": FEWER_LAYERS}),
    (2, {"adaptation": "lora", "model": "llama-tiny", "num_layers": FEWER_LAYERS}),
    (1, {"adaptation": "adapter", "model": "bert-tiny", "num_layers": FEWER_LAYERS}),
    (1, {"adaptation": "prefix", "model": "llama-tiny", "num_layers": FEWER_LAYERS}),
    (2, {"adaptation": "prefix", "precision": "bf16", "num_layers": FEWER_LAYERS}),
    (1, {"adaptation": "bias", "model": "bert-tiny", "precision": "bf16", "num_layers": FEWER_LAYERS}),
    (2, {"adaptation": "last_layers", "recompute": "block"}),
    (
        2,
        {
            "adaptation": "head",
            "objective": "classification",
            "precision": "bf16",
            "micro_batch_size": CLASSIFIED_MICRO_BATCH_SIZE[2],
            "num_layers": FEWER_LAYERS,
        },
    ),
]

# The twin of which broken versions are compared with the sound other one.
BROKEN = "pytorch"

# One knob turned wrongly: what fp32 must show, and what any precision and compression must.
COARSE_MISTAKES: list[dict[str, Any]] = [{"epsilon": 1e-3}, {"learning_rate": 1.01e-3}]
FINE_MISTAKES: list[dict[str, Any]] = [{"weight_decay": 0.099}, {"beta2": 0.951}]
ROUNDED = [(1, "bf16", "none"), (1, "fp16", "none"), (2, "fp32", "fp16"), (2, "fp32", "bf16"), (2, "bf16", "bf16")]
MISTAKES = [((1, "fp32", "none"), knobs) for knobs in [*COARSE_MISTAKES, *FINE_MISTAKES]]
MISTAKES += [(configuration, knobs) for configuration in ROUNDED for knobs in COARSE_MISTAKES]

# Every update rule but AdamW, which all the other points have. SGD at half its rate: at 0.2 and above (LARS: at 3) the
# loss of `tiny` jumps, and what is unstable makes much of a last bit, in either framework.
OPTIMIZERS: dict[str, dict[str, Any]] = {"sgd": {"learning_rate": 0.05}, "adafactor": {}, "lamb": {}, "lars": {}}
# What an update rule is does not depend on the ranks, whose gradients it gets averaged: one is trained on two of them.
OPTIMIZER_WORLDS = [*((optimizer, 1) for optimizer in OPTIMIZERS), ("lamb", 2)]
OPTIMIZER_MISTAKES: list[tuple[str, dict[str, Any]]] = [
    ("sgd", {"momentum": 0.901}),
    ("sgd", {"weight_decay": 2e-4}),
    ("lars", {"trust_coefficient": 0.00101}),
    ("lamb", {"beta2": 0.9991}),
    ("lamb", {"weight_decay": 0.02}),
    ("adafactor", {"learning_rate": 0.0101}),
]


def small_tolerances(precision: str, compression: str) -> Tolerances:
    """What points of the `tiny` model are held to where 16 bits are emulated."""
    return find_tolerances(model="small", precision=precision, compression=compression, is_native=False)


def make_point(framework: str, world_size: int, **knobs: Any) -> Point:
    """The base point with `knobs` turned."""
    micro_batch_size = MICRO_BATCH_SIZE[world_size]
    return Point(**{**BASE, "micro_batch_size": micro_batch_size, **knobs}, framework=framework, world_size=world_size)


def split_point(framework: str, split: tuple[int, int, int], **knobs: Any) -> Point:
    """The base point with its global batch cut as `split` says."""
    world_size, micro_batch_size, steps = split
    return make_point(
        framework,
        world_size,
        micro_batch_size=micro_batch_size,
        gradient_accumulation_steps=steps,
        num_layers=FEWER_LAYERS,
        **knobs,
    )


def long_point(framework: str, **knobs: Any) -> Point:
    """A longer sequence on each of two ranks."""
    return make_point(framework, 2, **{**LONG, **knobs})


def configured_point(framework: str, configuration: tuple[int, str, str]) -> Point:
    """The base point with a world size, a precision and a compression."""
    world_size, precision, compression = configuration
    return make_point(framework, world_size, precision=precision, compression=compression)


def optimizer_point(framework: str, optimizer: str, world_size: int, **knobs: Any) -> Point:
    """The base point with another update rule."""
    knobs = {**OPTIMIZERS[optimizer], **knobs}
    return make_point(framework, world_size, optimizer=optimizer, num_layers=FEWER_LAYERS, **knobs)


def warming_point(framework: str, world_size: int) -> Point:
    """The base point with a batch that grows over 8 steps, and a learning rate that follows it and falls along a line."""
    return make_point(
        framework,
        world_size,
        micro_batch_size=8 // world_size,
        gradient_accumulation_steps=3,
        num_layers=FEWER_LAYERS,
        batch_warmup_steps=8,
        lr_scaling="sqrt",
        schedule="linear",
    )


def cut_point(framework: str, world_size: int, knobs: dict[str, Any]) -> Point:
    """The base point with text that is cut into samples in another way."""
    return make_point(framework, world_size, num_layers=FEWER_LAYERS, **knobs)


def exchanged_point(framework: str, choices: dict[str, Any]) -> Point:
    """The base point at world size 2 with another way to exchange gradients."""
    return make_point(framework, 2, **choices)


def sharded_point(framework: str, knobs: dict[str, Any], **more: Any) -> Point:
    """A point at world size 2 whose ranks share what `shard` says; with shard and recompute none its comparison, which is traced anyhow."""
    knobs = {"optimizer": "adamw", **knobs, **more}
    if knobs["optimizer"] in OPTIMIZERS:
        return optimizer_point(framework, knobs.pop("optimizer"), 2, **knobs)
    return make_point(framework, 2, **knobs)


def local_point(framework: str, choices: dict[str, Any]) -> Point:
    """The base point at world size 2 with updates of each rank's own."""
    return make_point(framework, 2, num_layers=FEWER_LAYERS, **choices)


def compressed_point(framework: str, choices: dict[str, Any]) -> Point:
    """The base point at world size 2, of which less than the gradients is sent."""
    return exchanged_point(framework, {"num_layers": FEWER_LAYERS, **choices})


def four_point(framework: str, choices: dict[str, Any]) -> Point:
    """A point at world size 4 with as many samples a step as the base point."""
    return make_point(
        framework, 4, **{"num_layers": FEWER_LAYERS, "micro_batch_size": 4, "gradient_accumulation_steps": 1, **choices}
    )


def broken_point(knobs: dict[str, Any], configuration: tuple[int, str, str]) -> Point:
    """A configured point with `knobs` wrong."""
    world_size, precision, compression = configuration
    return make_point(BROKEN, world_size, precision=precision, compression=compression, **knobs)


def other_point(framework: str, objective: str, configuration: tuple[int, str, str]) -> Point:
    """A configured point with another objective than causal language modelling."""
    world_size, precision, compression = configuration
    knobs = {"micro_batch_size": CLASSIFIED_MICRO_BATCH_SIZE[world_size]} if objective == "classification" else {}
    return make_point(framework, world_size, objective=objective, precision=precision, compression=compression, **knobs)


def labelled_point(framework: str, world_size: int, **knobs: Any) -> Point:
    """A classifier of labelled pairs of texts, with as many samples as other classifiers have."""
    fixed = {"objective": "classification", "num_classes": 2, "data": str(LABELLED_FILE), "num_layers": FEWER_LAYERS}
    fixed |= {"micro_batch_size": CLASSIFIED_MICRO_BATCH_SIZE[world_size]}
    return make_point(framework, world_size, **fixed | knobs)


def onednn_point() -> Point:
    """The base point at world size 1 in fp32, with PyTorch's products in its other library."""
    return make_point("pytorch", 1, gemm="onednn")


def all_points() -> list[Point]:
    """What is traced in one launch; what several tests need comes once."""
    points = []
    for framework in FRAMEWORKS:
        points += [configured_point(framework, configuration) for configuration in CONFIGURATIONS]
        points += [split_point(framework, split) for split in SPLITS]
        points += [split_point(framework, split, **knobs) for split, knobs in [*EXECUTIONS, *INPUTS]]
        points += [long_point(framework, **knobs) for knobs in LONG_EXECUTIONS]
        for world_size in WORLD_SIZES:
            points.append(warming_point(framework, world_size))
        points += [optimizer_point(framework, optimizer, world_size) for optimizer, world_size in OPTIMIZER_WORLDS]
        points += [other_point(framework, objective, configuration) for objective, configuration in OTHER_OBJECTIVES]
        points += [cut_point(framework, world_size, knobs) for world_size, knobs in SEQUENCES]
        points += [make_point(framework, world_size, **knobs) for world_size, knobs in FAMILIES]
        points += [make_point(framework, world_size, **knobs) for world_size, knobs in ADAPTATIONS]
        points += [labelled_point(framework, world_size, **knobs) for world_size, knobs in LABELLED]
        points += [exchanged_point(framework, choices) for choices in [*SAME_AS_HOROVOD, ADASUM]]
        points += [sharded_point(framework, knobs) for knobs in SHARDED]
        points += [local_point(framework, choices) for choices in LOCAL_SGD]
        points += [compressed_point(framework, choices) for choices in COMPRESSED]
        points += [four_point(framework, choices) for choices in FOUR_RANKS]
    points += [optimizer_point(BROKEN, optimizer, 1, **knobs) for optimizer, knobs in OPTIMIZER_MISTAKES]
    points.append(onednn_point())
    points += [broken_point(knobs, configuration) for configuration, knobs in MISTAKES]
    return list(dict.fromkeys(points))

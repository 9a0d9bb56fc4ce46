"""One rank of one twin under a launcher: `python -m tests.parallel.ablated FRAMEWORK FOLDER` leaves its tensors there.

It only records; `test_ablation.py` judges.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hvbench.frameworks import load_framework
from hvbench.frameworks.contract import Arrays, Runtime, Trainer
from hvbench.frameworks.update import on_common_parameters
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.training import corpus
from hvbench.training.batches import Batches
from hvbench.training.weights import initial_weights
from hvbench.worker.ablation import Ablations
from hvbench.worker.checkpoints import resume_trainer
from hvbench.worker.loop import Loop

ROUNDS = 2
STEPS = 6  # the first of them a warm-up
HALF = STEPS // 2

# What a step changes differs: moments, the masks' place, what a rank has yet to send and, with lars, even the parameters at a learning rate of 0; with
# fp16 the two moments of adamw, and the loss scale, which begins so high that gradients overflow, on the wire or before it.
TRAININGS = {
    "fp32": {"dropout": 0.1, "optimizer": "lars", "compression": "topk"},
    "fp16": {"precision": "fp16", "compression": "fp16"},
    "rounds": {  # of three updates, in the middle of which are evaluations and the first ablations
        "sync_every": 3,
        "sync_moments": "keep",
        "outer_optimizer": "nesterov",
        "compression": "bf16",
        "dropout": 0.1,
    },
}
AVERAGED = {"sync_every": 2, "compression": "fp16"}  # of which the bytes on the wire are counted
PREDIVIDES = (1.0, 1e4)  # with fp16 on the wire: nothing to speak of is lost, and most of the gradients
FIRST_LOSS_SCALE = 2.0**24
# Samples of each step that ablations must leave as they are.
SAME = ("loss", "gradient_norm", "learning_rate", "loss_scale", "step_tokens", "skipped_steps", "averaging_steps")


def train(
    point: Point, *, rounds: int, runtime: Runtime, build: Callable[[Point], Trainer], folder: Path
) -> tuple[Loop, Ablations, Arrays]:
    """A point's training, interrupted by `rounds` of ablations: its samples, theirs, and the state at its end. It leaves checkpoints in `folder`."""
    batches = Batches(point, corpus.prepare(point.data, vocab_size=point.vocab_size), rank=runtime.rank)
    settings = MeasureSettings(
        warmup_steps=1,
        steps=STEPS - 1,
        ablation_rounds=rounds,
        evaluate_every=2,
        evaluate_samples=4,
        checkpoint_every=HALF,
    )
    loop = Loop(point, settings, trainer=build(point), batches=batches, runtime=runtime, folder=folder)
    if loop.loss_scale.enabled:
        loop.loss_scale.scale = FIRST_LOSS_SCALE
    ablations = Ablations(loop)
    loop.start()
    while not loop.is_done:
        loop.advance()
        ablations.interrupt(enter=lambda phase: None)
    return loop, ablations, loop.trainer.state() | loop.trainer.own_state()


def resume(
    point: Point, path: Path, *, runtime: Runtime, build: Callable[[Point], Trainer]
) -> tuple[Loop, dict[str, Arrays]]:
    """The second half of a training without evaluations, from its checkpoint; and parameters in the middle of a round."""
    text = corpus.prepare(point.data, vocab_size=point.vocab_size)
    batches, trainer = Batches(point, text, rank=runtime.rank), build(point)
    header, lost = resume_trainer(trainer, str(path), point, rank=runtime.rank, tokens_digest=text.tokens_digest)
    assert lost is None
    settings = MeasureSettings(warmup_steps=1, steps=STEPS - HALF - 1)
    loop = Loop(point, settings, trainer=trainer, batches=batches, runtime=runtime)
    loop.resume(header)
    loop.start()
    loop.advance()
    found = {"apart": trainer.parameters()}
    with on_common_parameters(trainer, point, loop.first_step + loop.step):
        found["common"] = trainer.parameters()
    found["again"] = trainer.parameters()
    while not loop.is_done:
        loop.advance()
    return loop, found


def count_bytes(framework: str, exchange: Callable[[], None]) -> int:
    """What `exchange` hands to Horovod's all-reduce; TensorFlow's graph is built by it."""
    hvd = load_framework(framework, "allreduce").hvd
    name = "allreduce_async_" if framework == "pytorch" else "allreduce"
    sound, sizes = getattr(hvd, name), []

    def counted(tensor: Any, **choices: Any) -> Any:
        sizes.append(math.prod(tensor.shape) * (tensor.element_size() if framework == "pytorch" else tensor.dtype.size))
        return sound(tensor, **choices)

    setattr(hvd, name, counted)
    exchange()
    setattr(hvd, name, sound)
    return sum(sizes)


def main(framework: str, folder: Path) -> None:
    """Trainings with and without rounds of ablations; gradients with and without the all-reduce."""
    rank, world_size = int(os.environ["HOROVOD_RANK"]), int(os.environ["HOROVOD_SIZE"])
    runtime = load_framework(framework, "runtime").Runtime(
        rank=rank, world_size=world_size, local_rank=rank, threads=1, device="cpu"
    )
    point = Point(
        framework=framework, model="tiny", num_layers=1, data="synthetic", world_size=world_size, micro_batch_size=2,
        gradient_accumulation_steps=2, weight_decay=0.1,
    )  # fmt: skip
    module = load_framework(framework, "trainer")

    def build(point: Point) -> Trainer:
        return module.Trainer(point, initial_weights(point), precision=PRECISIONS[point.precision], runtime=runtime)

    trainer = build(point)
    batches = Batches(point, corpus.prepare(point.data, vocab_size=point.vocab_size), rank=rank)
    batch = batches.train_batch(0)
    trainer.train_step(*batch, learning_rate=1e-3, loss_scale=1.0)  # moments that are not zero

    arrays: Arrays = {}

    def note(name: str, values: Arrays) -> None:
        arrays.update({f"{name}/{key}": value.copy() for key, value in values.items()})

    for name, fields in TRAININGS.items():
        for kind, rounds in (("plain", 0), ("interrupted", ROUNDS)):
            own, left = point.model_copy(update=fields), folder / f"{name}-{kind}"
            loop, ablations, state = train(own, rounds=rounds, runtime=runtime, build=build, folder=left)
            lists = {key: getattr(loop.samples, key) for key in SAME}
            note(f"{name}/{kind}", {**state, **{key: np.array(values, dtype="f8") for key, values in lists.items()}})
            arrays[f"{name}/{kind}/evaluated"] = np.array(
                [each["loss"] for each in loop.samples.evaluations], dtype="f8"
            )
            arrays[f"{name}/{kind}/paused_seconds"] = np.array(loop.paused_seconds)
        note(f"{name}/rounds", {key: np.array(values) for key, values in ablations.samples.items()})

    in_rounds = point.model_copy(update=TRAININGS["rounds"])
    path = folder / "rounds-plain" / f"step-{HALF:07d}"
    loop, found = resume(in_rounds, path, runtime=runtime, build=build)
    note("resumed", {key: np.array(getattr(loop.samples, key), dtype="f8") for key in SAME})
    for key, parameters in found.items():
        note(f"round/{key}", parameters)
    averaging = build(point.model_copy(update=AVERAGED))
    arrays["exchanged_bytes"] = np.array(count_bytes(framework, averaging.average_parameters))

    note("local", trainer.gradients(*batch, loss_scale=1.0, with_allreduce=False))
    note("averaged", trainer.gradients(*batch, loss_scale=1.0))
    alone = point.model_copy(update={"gradient_accumulation_steps": 1})
    trainer_of_one = module.Trainer(alone, trainer.parameters(), precision=PRECISIONS["fp32"], runtime=runtime)
    norms = trainer.gradient_norms(*batch, loss_scale=1.0)
    arrays["micro_gradient_norms"], arrays["averaged_norm"] = np.array(norms.micro_batches), np.array(norms.averaged)
    arrays["scaled_norm"] = np.array(trainer.gradient_norms(*batch, loss_scale=8.0).averaged)
    note("averaged_after_norms", trainer.gradients(*batch, loss_scale=1.0))
    for index in range(point.gradient_accumulation_steps):
        one = trainer_of_one.gradients(
            batch[0][index : index + 1], batch[1][index : index + 1], loss_scale=1.0, with_allreduce=False
        )
        note(f"micro{index}", one)
    compressing = module.Trainer(
        point.model_copy(update={"compression": "fp16"}),
        trainer.parameters(),
        precision=PRECISIONS["fp32"],
        runtime=runtime,
    )
    overflowing = compressing.gradient_norms(*batch, loss_scale=2.0**30)
    arrays["wire_norms"] = np.array([*overflowing.micro_batches, overflowing.averaged])
    for predivide in PREDIVIDES:
        fields = {"compression": "fp16", "gradient_predivide": predivide}
        sending = module.Trainer(
            point.model_copy(update=fields), trainer.parameters(), precision=PRECISIONS["fp32"], runtime=runtime
        )
        sending.backward(*batch, loss_scale=1.0)
        own, averages = sending.allreduce_kept()
        note(f"sent/{predivide:g}/own", own)
        note(f"sent/{predivide:g}/averages", averages)
    arrays["gathered"] = np.array(runtime.gather(0.1 + rank))
    arrays["forward_loss"] = np.array(trainer.forward(*batch))
    arrays["backward_loss"] = np.array(trainer.backward(*batch, loss_scale=1.0))
    arrays["micro_losses"] = np.array([trainer.evaluate(*micro).mean() for micro in zip(*batch, strict=True)])
    local = trainer.train_step(*batch, learning_rate=0.0, loss_scale=1.0, with_allreduce=False)
    whole = trainer.train_step(*batch, learning_rate=0.0, loss_scale=1.0)
    arrays["local_norm"], arrays["whole_norm"] = np.array(local.gradient_norm), np.array(whole.gradient_norm)
    arrays["step_loss"] = np.array(whole.loss)
    # A step without all-reduce that does update: each rank goes where its own gradients point.
    trainer.train_step(*batch, learning_rate=1e-3, loss_scale=1.0, with_allreduce=False)
    note("apart", trainer.parameters())
    np.savez(folder / f"rank{rank}.npz", **arrays)
    runtime.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

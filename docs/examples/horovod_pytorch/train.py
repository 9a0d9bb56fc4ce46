"""A plain Horovod loop in PyTorch: a small network learns which of ten patterns lies in a noisy picture.

    python train.py                        # one process
    horovodrun -np 2 python train.py       # two
    hvbench sweep bench.toml --np 2        # measured, in both ways

It runs without hvbench as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import nullcontext

import horovod.torch as hvd
import torch
from torch import nn

try:
    from hvbench import probe
except ImportError:  # not installed: every call below does nothing

    class Nothing(nullcontext):
        __enter__ = lambda self: self  # noqa: E731
        __getattr__ = lambda self, name: lambda *_, **__: self  # noqa: E731

    probe = Nothing()

CLASSES = 10
PIXELS = 16  # a side


def main(options: argparse.Namespace) -> None:
    """Train, with an evaluation now and then."""
    hvd.init()
    torch.manual_seed(options.seed)
    model = make_model(options.width)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02 * hvd.size(), momentum=0.9)
    optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)

    with probe.training(tokens_per_step=options.batch) as training:  # here what is counted are pictures
        for step, (pictures, labels) in enumerate(load(options), start=1):
            with training.step():
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(pictures), labels)
                loss.backward()
                optimizer.step()
            training.log(loss=loss)
            if step % options.evaluate_every == 0:
                with training.paused():
                    validation = evaluate(model, options)
                    training.evaluate(loss=validation, samples=options.batch)
                if hvd.rank() == 0:
                    print(f"step {step}: loss {loss.item():.3f}, validation {validation:.3f}", flush=True)


def make_model(width: int) -> nn.Module:
    """(batch, 1, PIXELS, PIXELS) -> (batch, CLASSES)."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(width * (PIXELS // 2) ** 2, CLASSES),
    )


def load(options: argparse.Namespace) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """This rank's batches, each another one."""
    chance = torch.Generator().manual_seed(1000 * options.seed + hvd.rank())
    for _ in range(options.steps):
        yield draw(options.batch, chance)


def draw(batch: int, chance: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures (batch, 1, PIXELS, PIXELS) and the patterns in them."""
    patterns = torch.randn(CLASSES, 1, PIXELS, PIXELS, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(CLASSES, (batch,), generator=chance)
    return patterns[labels] + 2 * torch.randn(batch, 1, PIXELS, PIXELS, generator=chance), labels


@torch.no_grad()
def evaluate(model: nn.Module, options: argparse.Namespace) -> float:
    """The loss on pictures that no training sees, averaged over the ranks, each of which has its own."""
    pictures, labels = draw(options.batch, torch.Generator().manual_seed(10**6 + hvd.rank()))
    loss = nn.functional.cross_entropy(model(pictures), labels)
    return hvd.allreduce(loss, name="validation").item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=256, help="pictures a rank and step")
    parser.add_argument("--width", type=int, default=32, help="channels of the network")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--evaluate-every", type=int, default=20, metavar="STEPS")
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())

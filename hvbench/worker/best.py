"""The checkpoint with the lowest validation loss so far: kept while a point trains, and loaded to be tested when it has ended."""

from __future__ import annotations

import math
from collections.abc import Iterable

from hvbench.errors import UsageError
from hvbench.frameworks.contract import Arrays, Trainer
from hvbench.spec.point import Point
from hvbench.spec.shard import SHARDS
from hvbench.training.batches import Batches
from hvbench.training.checkpoints import CheckpointHeader, load_checkpoint
from hvbench.training.evaluation import ValidationBatch
from hvbench.worker.checkpoints import Saver


class BestCheckpoint:
    """`loss` and `step` of the best checkpoint; None and infinity until one is kept. Steps are those of the loop, not of the whole training."""

    def __init__(self, saver: Saver | None, *, every: int) -> None:
        """Args: `every` is the distance, in steps, of the checkpoints that stay whatever their loss; 0: there are none."""
        self.saver = saver
        self.every = every
        self.loss = math.inf
        self.step: int | None = None
        self.first_step = 0  # of the loop in the whole training, by which checkpoints are named

    def keep(self, header: CheckpointHeader, trainer: Trainer, *, loss: float, step: int) -> None:
        """Save where the training stands, in the place of the best checkpoint before it."""
        self.saver.save(header, trainer)
        before, self.loss, self.step, self.first_step = self.step, loss, step, header.step - step
        if before is not None and not (self.every and before % self.every == 0):
            self.saver.remove(self.first_step + before)

    def load(
        self, trainer: Trainer, point: Point, *, batches: Batches, step: int
    ) -> tuple[Arrays | None, Iterable[ValidationBatch]]:
        """Continue from the best checkpoint, if one was kept and the training went on since; `step` is where it stands.

        Where a rank, on a host of its own, does not see the checkpoint, rank 0 tests all samples and the others none.

        Returns:
            The state until then, if another was loaded, and what this rank tests.
        """
        if self.step is None or self.step == step:
            return None, batches.test_batches()
        runtime = self.saver.runtime
        path, last = self.saver.path(self.first_step + self.step), None
        if point.is_sharded or runtime.rank == 0 or path.exists():  # of shards all ranks have a part
            last = {name: value.copy() for name, value in trainer.state().items()}
        if all(runtime.gather(float(path.exists()))):
            tested = batches.test_batches()
        elif SHARDS[point.shard].of_parameters:
            raise UsageError(
                f"keep_best with shard {point.shard}: not every host sees {path.parent}, and one rank alone cannot test"
            )
        elif runtime.rank == 0:
            tested = batches.test_batches(alone=True)
        else:
            return None, ()
        trainer.load_state(load_checkpoint(str(path), point).arrays)
        return last, tested

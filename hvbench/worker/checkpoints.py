"""How the ranks of a training leave checkpoints together, and how one of them continues from one.

Where all ranks see rank 0's folder and the state is large, or ranks have states of their own, each writes its pieces at the same time, and rank
0 the manifest when all of them are on disk; else rank 0 writes one file. A rank that is killed in between leaves the checkpoint before
as it is, and of the new one nothing that is read.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from hvbench.frameworks.contract import Arrays, Runtime, Trainer
from hvbench.io.folders import remove_abandoned
from hvbench.spec.point import Point
from hvbench.training.checkpoints import (
    ONE_FILE_BYTES,
    Checkpoint,
    CheckpointHeader,
    find_checkpoint,
    load_checkpoint,
    name_checkpoint,
    read_own_state,
    save_checkpoint,
)
from hvbench.training.local_sgd import COMMON
from hvbench.training.pieces import cut
from hvbench.training.ring import Ring
from hvbench.training.shards import DIGEST_DIGITS, MANIFEST, remove_folder, write_manifest, write_own, write_pieces

NOTHING = -1.0  # of a rank that has no state of its own


class Saver:
    """Leaves the checkpoints of one training in its folder. All ranks call `save` together; the other methods need no other rank."""

    def __init__(self, folder: Path, runtime: Runtime, *, is_common: bool = True, is_sharded: bool = False) -> None:
        """`is_common`: all ranks have the same state but for what `own_state` gives; else rank 0's is what is kept.

        `is_sharded`: it takes all ranks to put that state together.
        """
        self.folder = folder
        self.runtime = runtime
        self.writers = runtime.world_size if is_common else 1
        self.is_sharded = is_sharded
        self._is_shared: bool | None = None  # whether all ranks see rank 0's folder; None: not looked at yet

    def path(self, step: int) -> Path:
        """Where the checkpoint after `step` updates of the whole training is, a file or a folder; the file's path where neither is."""
        return find_checkpoint(self.folder / name_checkpoint(step))

    def save(self, header: CheckpointHeader, trainer: Trainer) -> None:
        """Write where the training stands; returns when it is on disk, on all ranks. Raises OSError."""
        if self.writers == 1:
            self.runtime.barrier()  # no other rank's update comes between the parts of the state
        if self._is_shared is None:
            self._begin()
        writes = self.runtime.rank == 0 or (self._is_shared and self.writers > 1)
        state, own = trainer.state() if writes or self.is_sharded else {}, trainer.own_state()  # which are copies
        state = {name: value for name, value in state.items() if not name.startswith(COMMON)}  # they are the parameters
        size = sum(value.nbytes for value in state.values())
        has_own = any(self.runtime.gather(float(bool(own))))
        is_large = size > ONE_FILE_BYTES and self.writers > 1
        if self._is_shared and (is_large or has_own):
            self._write_together(header, state, own)
        elif self.runtime.rank == 0:
            path = self.folder / name_checkpoint(header.step)
            save_checkpoint(path, Checkpoint(header=header, arrays=state))
            remove_folder(path.with_suffix(""))
        self.runtime.barrier()  # or the others would wait for rank 0 in their next step

    def remove(self, step: int) -> None:
        """Remove the checkpoint after `step` updates, by rank 0."""
        if self.runtime.rank == 0:
            path = self.folder / name_checkpoint(step)
            path.unlink(missing_ok=True)
            remove_folder(path.with_suffix(""))

    def _write_together(self, header: CheckpointHeader, state: Arrays, own: Arrays) -> None:
        runtime, file = self.runtime, self.folder / name_checkpoint(header.step)
        folder, place = file.with_suffix(""), {"step": header.step, "rank": runtime.rank}
        if runtime.rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
        runtime.barrier()
        pieces = cut(state, ring=Ring(self.writers), rank=runtime.rank)
        digests = runtime.gather(_to_number(write_pieces(folder, pieces, **place)))
        own_digests = runtime.gather(_to_number(write_own(folder, own, **place)) if own else NOTHING)
        if runtime.rank == 0:
            write_manifest(
                folder,
                header.model_dump(),
                digests=[_to_digest(number) for number in digests],
                own_digests=[None if number == NOTHING else _to_digest(number) for number in own_digests],
            )
            file.unlink(missing_ok=True)

    def _begin(self) -> None:
        """Remove what an earlier attempt left half written, and see whether all ranks share rank 0's folder."""
        mark = self.folder / f".seen-{int(self.runtime.gather(float(secrets.randbits(48)))[0]):012x}"
        if self.runtime.rank == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            folders = [path for path in self.folder.glob("step-*") if path.is_dir()]
            remove_abandoned([self.folder, *folders])
            for folder in folders:
                if not (folder / MANIFEST).exists():
                    remove_folder(folder)
            mark.touch()
        self.runtime.barrier()
        self._is_shared = all(self.runtime.gather(float(mark.exists())))
        if self.runtime.rank == 0:
            mark.unlink()


def resume_trainer(
    trainer: Trainer, path: str, point: Point, *, rank: int, tokens_digest: str
) -> tuple[CheckpointHeader, str | None]:
    """Put `trainer` where a checkpoint stands; its header, and a line where this rank's own state is not there.

    Training continues soundly without that: residuals start from zero, as at first. Raises UsageError.
    """
    checkpoint = load_checkpoint(path, point, tokens_digest=tokens_digest)
    trainer.load_state(checkpoint.arrays)
    own = read_own_state(path, rank=rank, world_size=point.world_size or 1)
    wanted = trainer.own_state()
    if own and (not wanted or _shapes_of(own) == _shapes_of(wanted)):
        trainer.load_own_state(own)
    elif wanted:
        return checkpoint.header, (
            f"{path} has no state of each of {point.world_size} ranks that fits this training ({_describe(wanted)}): it started from zero"
        )
    return checkpoint.header, None


def _shapes_of(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in arrays.items()}


def _describe(arrays: Arrays) -> str:
    return ", ".join(sorted({name.partition("/")[0] for name in arrays}))


def _to_number(digest: str) -> float:
    """A digest as `Ranks.gather` carries it, exactly: 48 bits."""
    return float(int(digest, 16))


def _to_digest(number: float) -> str:
    return f"{int(number):0{DIGEST_DIGITS}x}"

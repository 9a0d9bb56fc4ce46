"""The connection between TensorFlow's ranks: by Horovod, or by MultiWorkerMirroredStrategy."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass

import horovod.tensorflow as hvd
import tensorflow as tf

from hvbench.frameworks.parameter_server.client import ServedRanks
from hvbench.frameworks.ranks import Ranks, SingleRank, find_address, group_by_level, publish_address
from hvbench.launch.rendezvous import find_ports
from hvbench.spec.exchange import STRATEGIES

# What a collective ends in where another rank's process is gone.
_GONE = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.InternalError, tf.errors.CancelledError)


@dataclass(frozen=True, kw_only=True)
class Levels:
    """The two levels at which a rank exchanges: with the ranks of its host, and with those of its place on every host; None: it is alone there."""

    host: hvd.ProcessSet | None
    between: hvd.ProcessSet | None


class HorovodRanks:
    """See `hvbench.frameworks.ranks.Ranks`; `levels` where the strategy has two."""

    def __init__(self, *, rank: int, world_size: int, has_levels: bool = False) -> None:
        self.world_size = world_size
        self.levels: Levels | None = None
        if has_levels:
            self.levels = _init_levels(rank, world_size)
        else:
            hvd.init()

    def barrier(self) -> None:
        hvd.allreduce(tf.zeros(()), name="barrier")  # horovod.tensorflow has no barrier

    def gather(self, value: float) -> list[float]:
        return hvd.allgather(tf.constant([value], tf.float64), name="gather").numpy().tolist()

    def leave(self) -> None:
        if self.levels:
            self.barrier()  # a level's last exchange may have ended here and not yet on another host, where the shutdown would cut it off
        hvd.shutdown()


class NativeRanks:
    """MultiWorkerMirroredStrategy (`strategy`), over its ring or, on GPUs, NCCL."""

    def __init__(self, *, rank: int, world_size: int) -> None:
        self.world_size = world_size
        publish_address(f"worker{rank}", port=find_ports(1)[0])
        workers = [find_address(f"worker{other}") for other in range(world_size)]
        task = {"type": "worker", "index": rank}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": task})
        has_gpu = bool(tf.config.get_visible_devices("GPU"))
        kinds = tf.distribute.experimental.CollectiveCommunication
        options = tf.distribute.experimental.CommunicationOptions(implementation=kinds.NCCL if has_gpu else kinds.RING)
        self.strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
        self._gather = tf.function(lambda value: self.strategy.run(_gather, args=(value,)), autograph=False)

    def barrier(self) -> None:
        self.gather(0.0)

    def gather(self, value: float) -> list[float]:
        return self._gather(tf.constant([value], tf.float64)).numpy().tolist()

    def leave(self) -> None:
        # A rank that ends before the others would look like a failure to them. One that has passed this barrier may be
        # gone before the others have fetched what it sent: then it was here, and they may go as well.
        with contextlib.suppress(*_GONE):
            self.barrier()


def join(strategy: str, *, rank: int, world_size: int) -> Ranks:
    """Connect this rank to the others as `strategy` does; waits for all of them."""
    if world_size == 1:
        return SingleRank()
    if STRATEGIES[strategy].is_native:
        return NativeRanks(rank=rank, world_size=world_size)
    if STRATEGIES[strategy].is_served:
        return ServedRanks(rank=rank, world_size=world_size)
    return HorovodRanks(rank=rank, world_size=world_size, has_levels=STRATEGIES[strategy].has_levels)


def _init_levels(rank: int, world_size: int) -> Levels:
    """Initialise Horovod with a process set for every host, and one for every place on the hosts; those of `rank`."""
    groups = group_by_level(os.environ, rank=rank, world_size=world_size)
    # Of all ranks Horovod has a set already, and a rank needs none to be alone.
    made = {tuple(ranks): hvd.ProcessSet(ranks) for level in groups for ranks in level if 1 < len(ranks) < world_size}
    hvd.init(process_sets=list(made.values()))
    sets = made | {tuple(range(world_size)): hvd.global_process_set}
    host, between = (sets.get(tuple(next(ranks for ranks in level if rank in ranks))) for level in groups)
    return Levels(host=host, between=between)


def _gather(value: tf.Tensor) -> tf.Tensor:
    """Called in each replica: every replica's value. TensorFlow needs a tensor with a device, hence the identity."""
    return tf.distribute.get_replica_context().all_gather(tf.identity(value), axis=0)

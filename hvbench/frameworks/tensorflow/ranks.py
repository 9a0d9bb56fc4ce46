"""How TensorFlow's ranks are brought together: by Horovod, or by MultiWorkerMirroredStrategy."""

from __future__ import annotations

import json
import os

import horovod.tensorflow as hvd
import tensorflow as tf

from hvbench.frameworks.parameter_server import ServedRanks
from hvbench.frameworks.ranks import Ranks, SingleRank, find_address, free_port, publish_address
from hvbench.spec.exchange import STRATEGIES


class HorovodRanks:
    """See `hvbench.frameworks.ranks.Ranks`."""

    def __init__(self, *, rank: int, world_size: int) -> None:
        self.world_size = world_size
        hvd.init()

    def barrier(self) -> None:
        hvd.allreduce(tf.zeros(()), name="barrier")  # horovod.tensorflow has no barrier

    def gather(self, value: float) -> list[float]:
        return hvd.allgather(tf.constant([value], tf.float64), name="gather").numpy().tolist()

    def leave(self) -> None:
        hvd.shutdown()


class NativeRanks:
    """MultiWorkerMirroredStrategy's workers, over its ring or, on GPUs, NCCL; `strategy` is theirs."""

    def __init__(self, *, rank: int, world_size: int) -> None:
        self.world_size = world_size
        publish_address(f"worker{rank}", port=free_port())
        workers = [find_address(f"worker{each}") for each in range(world_size)]
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
        self.barrier()  # who ends first must not look like a failure to the others


def join(strategy: str, *, rank: int, world_size: int) -> Ranks:
    """Meet the other ranks in the way that `strategy` does."""
    if world_size == 1:
        return SingleRank()
    if STRATEGIES[strategy].is_native:
        return NativeRanks(rank=rank, world_size=world_size)
    if STRATEGIES[strategy].is_served:
        return ServedRanks()
    return HorovodRanks(rank=rank, world_size=world_size)


def _gather(value: tf.Tensor) -> tf.Tensor:
    """In a replica: every replica's value; TensorFlow wants to know the tensor's device."""
    return tf.distribute.get_replica_context().all_gather(tf.identity(value), axis=0)

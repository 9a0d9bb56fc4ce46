"""The environment by which the ranks of people's own training find each other, whatever brings them together.

`hvd.init()` reads Horovod's variables (`hvbench.launch.placement`); `torch.distributed.init_process_group("env://")` reads
RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT; `tf.distribute.MultiWorkerMirroredStrategy` reads TF_CONFIG.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hvbench.launch.rendezvous import find_ports

LOOPBACK = "127.0.0.1"


def join_variables(slots: Sequence[Any], *, address: str) -> dict[int, dict[str, str]]:
    """Rank -> variables. `slots` are Horovod's places of all ranks, `address` is how they reach rank 0's host.

    The ports are free on this host, rank 0's, now.
    """
    is_single_host = len({slot.hostname for slot in slots}) == 1
    master, *ports = find_ports(1 + len(slots))
    hosts = [LOOPBACK if is_single_host else address if slot.rank == 0 else slot.hostname for slot in slots]
    cluster = {"worker": [f"{host}:{port}" for host, port in zip(hosts, ports, strict=True)]}
    shared = {
        "WORLD_SIZE": str(len(slots)),
        "MASTER_ADDR": LOOPBACK if is_single_host else address,
        "MASTER_PORT": str(master),
    }
    if is_single_host and "GLOO_SOCKET_IFNAME" not in os.environ and Path("/sys/class/net/lo").exists():
        shared["GLOO_SOCKET_IFNAME"] = "lo"  # needs no host name that resolves
    return {
        slot.rank: {
            **shared,
            "RANK": str(slot.rank),
            "LOCAL_RANK": str(slot.local_rank),
            "LOCAL_WORLD_SIZE": str(slot.local_size),
            "GROUP_RANK": str(slot.cross_rank),
            "TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": slot.rank}}),
        }
        for slot in slots
    }

"""The order by which each agent starts its worker: the rank's place, its threads, its environment, its jobs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hvbench.launch.environments import find_environment, variables_of_worker
from hvbench.launch.joining import join_variables
from hvbench.launch.messages import Start, WorkerDescription
from hvbench.launch.placement import Member, threads_per_worker, worker_settings
from hvbench.launch.servers import add_servers
from hvbench.launch.settings import chosen_threads
from hvbench.launch.task import Task
from hvbench.launch.turns import VARIABLE as TURNS

GLOO_TIMEOUT = "HOROVOD_GLOO_TIMEOUT_SECONDS"  # of Horovod: 30 s where it is not set
SUSPENDED_SECONDS = 24 * 60 * 60


@dataclass(frozen=True, kw_only=True)
class Rendezvous:
    """What the workers of one generation have in common: where they find each other, and where their logs go."""

    generation: int
    address: str  # of Horovod's rendezvous server
    port: int
    logs: str
    token: str  # name of a file in `logs` by which an agent sees whether it shares the folder
    environment: Mapping[str, str]  # for every worker


def make_orders(
    tasks: Sequence[Task], slots: Sequence[Any], *, members: Sequence[Member], rendezvous: Rendezvous
) -> list[Start]:
    """One order per rank that trains `tasks`, which starts the parameter servers beside it, too; with mpirun one for all ranks.

    `slots` are Horovod's places of those ranks (see `assign_slots`), `members` all ranks of the launch.
    """
    first = tasks[0]
    variables = {**outlast_suspension(rendezvous.environment), **rendezvous.environment}
    joining = join_variables(slots, address=rendezvous.address) if first.command else {}
    environment = find_environment(first.framework)
    variables |= variables_of_worker(first.framework)
    orders = []
    for slot in slots:
        # A share of the launch, not of the point: a rank's cores do not grow when the point does not use all ranks.
        threads = chosen_threads() or threads_per_worker(members, host=slot.hostname)
        places = worker_settings(
            slot, address=rendezvous.address, port=rendezvous.port, threads=threads, by_mpirun=first.by_mpirun
        )
        worker = WorkerDescription(
            framework=first.framework,
            rank=slot.rank,
            world_size=first.world_size,
            local_rank=slot.local_rank,
            host=slot.hostname,
            threads=threads,
            device=first.device,
            strategy=first.strategy,
            memory_limit_bytes=first.memory_limit_bytes,
            jobs=[task.job for task in tasks],
            command=list(first.command) or None,
            folder=first.folder,
            environment=first.variables,
            python=str(environment.python) if environment else None,
        )
        orders.append(
            Start(
                generation=rendezvous.generation,
                logs=rendezvous.logs,
                token=rendezvous.token,
                environment={**variables, **places, **joining.get(slot.rank, {}), **first.settings},
                workers=[worker],
                link_bits_per_second=first.link_bits_per_second,
            )
        )
    if first.by_mpirun:
        return [join_ranks(orders)]
    return add_servers(orders, servers=first.servers) if first.servers else orders


def outlast_suspension(variables: Mapping[str, str]) -> dict[str, str]:
    """For workers that take turns: patience while all of them are suspended, which Gloo would take for a hung peer.

    `variables` are those that are set for them beside this process's own. A rank that is gone closes its connections, and one
    that hangs has its time limit.
    """
    environment = {**os.environ, **variables}
    if not environment.get(TURNS) or environment.get(GLOO_TIMEOUT):
        return {}
    return {GLOO_TIMEOUT: str(SUSPENDED_SECONDS)}


def join_ranks(orders: Sequence[Start]) -> Start:
    """The one order by which rank 0's agent starts all ranks in one mpirun."""
    return replace(orders[0], workers=[worker for order in orders for worker in order.workers], by_mpirun=True)

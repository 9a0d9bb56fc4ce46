"""Parameter servers beside the ranks' workers: where each of them runs, and what tells their processes of each other."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace

from hvbench.launch.messages import Role, Start

COUNT = "HVBENCH_SERVERS"  # how many servers there are
SECRET = "HVBENCH_SERVERS_SECRET"  # by which they know the ranks, and each other


def add_servers(orders: Sequence[Start], *, servers: int) -> list[Start]:
    """The orders that start `servers` parameter servers, too: server k beside rank k, or beside rank k modulo their number where there are more.

    `orders` are those of all ranks, one each. A server is described as a process behind the ranks: it has their number plus its own.
    """
    variables = {COUNT: str(servers), SECRET: secrets.token_hex(16)}
    started = []
    for place, order in enumerate(orders):
        (worker,) = order.workers
        beside = [
            replace(worker, role=Role.SERVER, rank=len(orders) + server, jobs=[])
            for server in range(place, servers, len(orders))
        ]
        started.append(replace(order, environment={**order.environment, **variables}, workers=[worker, *beside]))
    return started

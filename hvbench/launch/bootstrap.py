"""How the other ranks learn rank 0's address: from the launcher that they share."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error

from hvbench.errors import LaunchError
from hvbench.launch.channel import Address
from hvbench.launch.context import Context
from hvbench.launch.hosts import FROM_INPUT, start_remote_agent
from hvbench.launch.rendezvous import ask_store, store_address

KEY_VALUE_PATH = "/hvbench/coordinator"
LOOKUP_SECONDS = 3600.0  # rank 0 may prepare a large text first; the launcher's end ends this too


def publish(address: Address, context: Context) -> list[subprocess.Popen]:
    """Make rank 0's address known; returns the agents that had to be started for it (own launch only)."""
    if context.launcher == "horovodrun-gloo":
        _key_value_request("PUT", address.to_json().encode())
    elif context.launcher == "mpi":
        _broadcast(address.to_json())
    else:
        return _start_agents(address, context)
    return []


def look_up(context: Context) -> Address:
    """Rank 0's address, on any other rank; raises LaunchError when it does not come."""
    if context.launcher == "hvbench":
        text = os.environ["HVBENCH_COORDINATOR"]
        return Address.from_json(sys.stdin.readline() if text == FROM_INPUT else text)
    if context.launcher == "mpi":
        return Address.from_json(_broadcast(None))
    deadline = time.monotonic() + LOOKUP_SECONDS
    while time.monotonic() < deadline:
        content = _key_value_request("GET")
        if content:
            return Address.from_json(content.decode())
        time.sleep(0.1)
    raise LaunchError(f"rank {context.rank}: rank 0 did not announce itself within {LOOKUP_SECONDS:.0f} s")


def _key_value_request(method: str, body: bytes | None = None) -> bytes | None:
    """One request to the launch's key-value store for the coordinator's address; raises LaunchError."""
    try:
        return ask_store(KEY_VALUE_PATH, method=method, body=body)
    except urllib.error.HTTPError as error:
        raise LaunchError(
            f"horovodrun's key-value store at {':'.join(store_address())} answered {error.code}"
        ) from None
    except OSError as error:
        raise LaunchError(
            f"horovodrun's key-value store at {':'.join(store_address())} cannot be reached: {error}"
        ) from None


def _broadcast(text: str | None) -> str:
    """Rank 0's text on every rank, over MPI; MPI ends here again, since workers talk over Gloo."""
    try:
        from mpi4py import MPI
    except ImportError:
        raise LaunchError("launched by MPI, but mpi4py is not installed: pip install mpi4py") from None
    text = MPI.COMM_WORLD.bcast(text, root=0)
    MPI.Finalize()
    return text


def _start_agents(address: Address, context: Context) -> list[subprocess.Popen]:
    """Agents of all ranks but 0: here, or on their hosts."""
    agents = []
    try:
        for rank in range(1, context.size):
            host = context.hosts[rank] if context.hosts else None
            if host is None or host == context.hosts[0]:
                agents.append(_start_agent(address, rank=rank, size=context.size))
            else:
                agents.append(start_remote_agent(address.to_json(), host=host, rank=rank, size=context.size))
    except BaseException:
        for agent in agents:
            agent.kill()
        raise
    return agents


def _start_agent(address: Address, *, rank: int, size: int) -> subprocess.Popen:
    environment = os.environ | {
        "HVBENCH_COORDINATOR": address.to_json(),
        "HVBENCH_RANK": str(rank),
        "HVBENCH_SIZE": str(size),
    }
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "hvbench.launch"],
        env=environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )

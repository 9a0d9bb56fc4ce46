"""Several hosts without a launcher: `-H host1:4,host2:4` starts an agent per rank, on other hosts over ssh.

The first host is this one. The others need the same folder, the same interpreter and an ssh that asks nothing;
$HVBENCH_SSH replaces `ssh -o BatchMode=yes` (as GIT_SSH_COMMAND does for git). What proves that an agent belongs to the
launch goes over its standard input: arguments can be read by everybody on its host.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys

from hvbench.errors import LaunchError
from hvbench.launch.host_list import bare_name
from hvbench.records.switches import is_switch

SSH = "ssh -o BatchMode=yes"
# Settings that an agent on another host needs to be like those here, beside the switches of the libraries.
PASSED_ON = re.compile(
    r"HOROVOD_(?!HOSTNAME|GLOO_RENDEZVOUS)\w+|HVBENCH_(?!RANK|SIZE|COORDINATOR|HOSTS|SSH)\w+|PYTHONPATH"
)
FROM_INPUT = "-"  # HVBENCH_COORDINATOR: read it from standard input


def start_remote_agent(coordinator: str, *, host: str, rank: int, size: int) -> subprocess.Popen[bytes]:
    """Start the agent of `rank` on `host`; raises LaunchError when there is no ssh."""
    settings = {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name) or is_switch(name)}
    settings |= {
        "HVBENCH_RANK": str(rank),
        "HVBENCH_SIZE": str(size),
        "HVBENCH_COORDINATOR": FROM_INPUT,
        "HOROVOD_HOSTNAME": bare_name(host),
    }
    words = [f"{name}={shlex.quote(value)}" for name, value in sorted(settings.items())]
    remote = f"cd {shlex.quote(os.getcwd())} && exec env {' '.join(words)} {shlex.quote(sys.executable)} -P -m hvbench.launch"
    ssh = shlex.split(os.environ.get("HVBENCH_SSH", SSH))
    try:
        process = subprocess.Popen(
            [*ssh, host, remote], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
        )
    except OSError as error:
        raise LaunchError(f"rank {rank} on {host}: {ssh[0]} cannot be run: {error.strerror}") from None
    try:
        process.stdin.write(coordinator.encode() + b"\n")
        process.stdin.close()
    except OSError:  # ssh has given up already; its end is noticed where the agents are waited for
        pass
    return process


def interface_towards(address: str) -> str | None:
    """The network interface by which this host reaches `address`; None when it cannot be found."""
    import psutil

    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))  # sends nothing
            own = probe.getsockname()[0]
    except OSError:
        return None
    found = (name for name, entries in psutil.net_if_addrs().items() for entry in entries if entry.address == own)
    return next(found, None)


def gloo_interface(environment: dict[str, str]) -> dict[str, str]:
    """HOROVOD_GLOO_IFACE for a worker whose launch spans hosts and left it open: interfaces differ from host to host."""
    address = environment.get("HOROVOD_GLOO_RENDEZVOUS_ADDR")
    if not address or "HOROVOD_GLOO_IFACE" in environment or os.environ.get("HOROVOD_GLOO_IFACE"):
        return {}
    interface = interface_towards(address)
    return {"HOROVOD_GLOO_IFACE": interface} if interface else {}

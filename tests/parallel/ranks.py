"""Ranks of a program that uses Horovod, without horovodrun, which takes longer to start than they: it imports both frameworks."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from horovod.runner.http.http_server import RendezvousServer

from hvbench.launch.placement import Member, assign_slots, worker_settings
from hvbench.launch.workers import stop_server
from tests import patience

SCRIPTS = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]
HERE = "127.0.0.1"


def run_ranks(
    words: Sequence[str],
    *,
    folder: Path,
    size: int = 2,
    hosts: Sequence[str] = (HERE,),
    variables: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Run `python WORDS` as each of `size` ranks over Gloo; all they print. Fails unless each ends well.

    `hosts`: names of this one that Horovod takes for as many hosts, with an equal share of the ranks each. `variables`: environment variables of the ranks.
    """
    members = [
        Member(rank=rank, host=hosts[rank * len(hosts) // size], pid=0, cores=[], cgroup_cpu_quota=None)
        for rank in range(size)
    ]
    slots = assign_slots(members)
    with serving(slots) as port, contextlib.ExitStack() as files:
        ranks, outputs = [], []
        for slot in slots:
            outputs.append(files.enter_context((folder / f"output-{slot.rank}").open("w+")))
            ranks.append(
                subprocess.Popen(
                    [sys.executable, *words],
                    cwd=ROOT,
                    env=os.environ
                    | {"PYTHONPATH": str(ROOT), "HOROVOD_GLOO_IFACE": "lo"}
                    | worker_settings(slot, address=HERE, port=port, threads=1)
                    | variables,
                    stdout=outputs[-1],
                    stderr=subprocess.STDOUT,
                )
            )
        try:
            codes = [rank.wait(timeout=patience.SECONDS) for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
                rank.wait()
        said = "".join((folder / f"output-{slot.rank}").read_text(errors="replace") for slot in slots)
        assert codes == [0] * size, said[-4000:]
        return said


@contextlib.contextmanager
def serving(slots: Sequence[object]) -> Iterator[int]:
    """The port of a store in which the ranks find each other."""
    server = RendezvousServer()
    port = server.start()
    server.init(slots)
    try:
        yield port
    finally:
        stop_server(server)

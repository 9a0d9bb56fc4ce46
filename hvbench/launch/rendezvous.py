"""How ranks find each other: the key-value store of a launch, which horovodrun, or hvbench in its place, serves; free ports."""

from __future__ import annotations

import os
import socket
import urllib.error
import urllib.request
from contextlib import ExitStack

REQUEST_SECONDS = 10  # for one answer of the store


def store_address() -> tuple[str, str]:
    """Host and port of the store, as the launch has named them in the environment."""
    return os.environ["HOROVOD_GLOO_RENDEZVOUS_ADDR"], os.environ["HOROVOD_GLOO_RENDEZVOUS_PORT"]


def ask_store(path: str, *, method: str = "GET", body: bytes | None = None) -> bytes | None:
    """One request for `path`, such as `/scope/key`; None when the key is not there yet. Raises OSError (HTTPError)."""
    host, port = store_address()
    request = urllib.request.Request(f"http://{host}:{port}{path}", data=body, method=method)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy
    try:
        with direct.open(request, timeout=REQUEST_SECONDS) as response:
            return response.read()
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def find_ports(count: int) -> list[int]:
    """Different ports that are free now."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("", 0))
        return [probe.getsockname()[1] for probe in probes]

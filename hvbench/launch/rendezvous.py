"""The key-value store of a launch, which horovodrun, or hvbench in its place, serves to the ranks."""

from __future__ import annotations

import os
import urllib.error
import urllib.request

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

"""A site on this machine's own loopback: read only, and built again while sweeps go on. Nobody else can reach it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from hvbench.errors import UsageError
from hvbench.io.folders import is_locked
from hvbench.io.untrusted import read_regular_file
from hvbench.site.build import Built, Wanted, build
from hvbench.site.collect import collect
from hvbench.site.folder import FOLDERS, SiteFolder
from hvbench.site.work import Cache

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")  # any other name that leads here is somebody else's page
POLL_SECONDS = 2.0
SHARE = 0.1  # of a core, at most, that looking and building take
MAX_BYTES = 64_000_000
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
NICENESS = 19  # a sweep that is being measured comes first


class Handler(BaseHTTPRequestHandler):
    """GET and HEAD of the site's own files, and of nothing else."""

    server: SiteServer
    protocol_version = "HTTP/1.1"
    timeout = 30.0  # seconds for a request

    def do_GET(self) -> None:
        """A file with its content."""
        self.answer(with_content=True)

    def do_HEAD(self) -> None:
        """The same without the content."""
        self.answer(with_content=False)

    def answer(self, *, with_content: bool) -> None:
        """The file that is asked for, or why not."""
        status, kind, content = self.find()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if with_content:
            self.wfile.write(content)

    def find(self) -> tuple[HTTPStatus, str, bytes]:
        """Status, type and content of what is asked for."""
        plain = "text/plain"
        if self.headers.get("Host", "") not in {f"{name}:{self.server.server_port}" for name in NAMES}:
            return HTTPStatus.FORBIDDEN, plain, b"asked by another name than this machine's own\n"
        name = unquote(urlsplit(self.path).path).lstrip("/") or "index.html"
        path = find_file(self.server.folder, name)
        if path is None:
            return HTTPStatus.NOT_FOUND, plain, b"no such page\n"
        try:
            return HTTPStatus.OK, TYPES[path.suffix], read_regular_file(path, max_bytes=MAX_BYTES)
        except (OSError, UsageError):
            return HTTPStatus.NOT_FOUND, plain, b"no such page\n"

    def log_message(self, *_: Any) -> None:
        """Say nothing: the terminal is the sweep's, or the user's."""


def find_file(folder: Path, name: str) -> Path | None:
    """The file of a site that a request names: one level deep, of a kind that sites have, never hidden; None otherwise."""
    parts = name.split("/")
    is_known = len(parts) == 1 or (len(parts) == 2 and parts[0] in FOLDERS)
    is_plain = all(part and not part.startswith(".") and part.isprintable() and "\\" not in part for part in parts)
    if not (is_known and is_plain and Path(name).suffix in TYPES):
        return None
    return folder.joinpath(*parts)


class SiteServer(ThreadingHTTPServer):
    """Serves one folder."""

    daemon_threads = True

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        super().__init__((HOST, port), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader who goes away in the middle is nobody's business."""


@contextmanager
def serving(folder: Path, port: int) -> Iterator[SiteServer]:
    """A server in a thread of its own, which is closed at the end; port 0 takes any that is free. Raises UsageError."""
    try:
        server = SiteServer(folder, port)
    except OSError as error:
        raise UsageError(f"port {port}: {error.strerror}; choose another with --port") from None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def watch(wanted: Wanted, folder: SiteFolder, cache: Cache, *, report: Callable[[Built], None]) -> None:
    """Build again whenever a run has changed, until somebody interrupts; `report` takes every build that has written anything.

    Looking and building take a tenth of a core at most, at the lowest priority: the sweep beside is being measured.
    """
    os.nice(NICENESS)
    seen = look(wanted)
    while True:
        begun = time.monotonic()
        now = look(wanted)
        if now != seen:
            built = build(replace(wanted, today=datetime.now(UTC).date()), folder, cache)
            seen = now
            if built.written:
                report(built)
        time.sleep(max(POLL_SECONDS, (time.monotonic() - begun) * (1 / SHARE - 1)))


def look(wanted: Wanted) -> list[tuple[str, str, bool]]:
    """What the site depends on: of every run its name, its signature, and whether a process works on it."""
    return [(place.name, place.signature, is_locked(place.path)) for place in collect(wanted.results)[0]]

"""`hvbench site --serve`: the site's own files to this machine alone, built again when a run has changed, and tidy at the end."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvbench.errors import UsageError
from hvbench.site.serve import find_file, serving
from tests import patience
from tests.unit.sample_site import write_mine


def ask(port: int, path: str, *, method: str = "GET", host: str | None = None) -> tuple[int, bytes]:
    """Status and content; the path goes out as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience.SECONDS)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{port}")
    connection.endheaders()
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


@pytest.fixture
def served(tmp_path: Path) -> Iterator[int]:
    site = tmp_path / "site"
    for name in (
        "index.html",
        "runs/a.html",
        "site.css",
        ".lock",
        ".cache/a.json",
        "hvbench-site.json",
        "other/a.html",
    ):
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(f"this is {name}")
    (tmp_path / "secret.html").write_text("secret")
    (site / "runs" / "link.html").symlink_to(tmp_path / "secret.html")
    with serving(site, 0) as server:
        yield server.server_port


def test_it_gives_the_files_of_the_site(served: int) -> None:
    assert ask(served, "/") == (200, b"this is index.html")
    assert ask(served, "/runs/a.html?x=1") == (200, b"this is runs/a.html")
    assert ask(served, "/site.css", host=f"localhost:{served}")[0] == 200
    assert ask(served, "/index.html", method="HEAD") == (200, b"")


@pytest.mark.parametrize(
    "path",
    ["/../secret.html", "/runs/../../secret.html", "/%2e%2e/secret.html", "/runs/%2e%2e%2f%2e%2e%2fsecret.html", "//../secret.html",
     "/runs/..%5c..%5csecret.html", "/runs/link.html", "/.lock", "/.cache/a.json", "/hvbench-site.json", "/other/a.html", "/runs/", "/runs",
     "/runs/none.html", "/%00", "/runs/a.html/x.html", "/etc/passwd"],
)  # fmt: skip
def test_it_gives_nothing_else(served: int, path: str) -> None:
    status, content = ask(served, path)
    assert status == 404 and b"secret" not in content and b"this is" not in content


def test_it_answers_no_other_name_and_takes_nothing(served: int) -> None:
    assert ask(served, "/", host="example.org")[0] == 403  # another site whose name leads here
    assert ask(served, "/", host=f"example.org:{served}")[0] == 403
    for method in ("POST", "PUT", "DELETE"):
        assert ask(served, "/", method=method)[0] == 501


def test_it_listens_on_the_loopback_alone_and_says_where_it_cannot(served: int, tmp_path: Path) -> None:
    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        other.connect(("127.0.0.2", served))  # as any other address of this host
    with (
        pytest.raises(UsageError, match=rf"^port {served}: .*; choose another with --port$"),
        serving(tmp_path, served),
    ):
        pass


def test_a_name_leads_nowhere_else() -> None:
    assert find_file(Path("site"), "runs/a.html") == Path("site/runs/a.html")
    assert find_file(Path("site"), "runs/..") is None and find_file(Path("site"), "") is None


def test_it_builds_again_while_runs_come_and_ends_tidily(tmp_path: Path) -> None:
    """An empty folder, then a run; Ctrl-C."""
    results, out = tmp_path / "results", tmp_path / "public"
    results.mkdir()
    words = [sys.executable, "-m", "hvbench", "site", str(results), "--out", str(out), "--serve", "--port", "0"]
    ignoring = (
        "import signal, sys, os; signal.signal(signal.SIGINT, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    started = [sys.executable, "-c", ignoring, *words]  # as a shell starts what is in the background
    with subprocess.Popen(started, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert "0 runs" in process.stdout.readline()
            port = int(re.fullmatch(r"http://127\.0\.0\.1:(\d+)/ until Ctrl-C\n", process.stdout.readline())[1])
            before = ask(port, "/data/built.js")
            assert before[0] == 200 and b"No run with a readable record yet" in ask(port, "/")[1]
            write_mine(tmp_path / "aside", 0).parent.rename(results / "mine")
            deadline = time.monotonic() + patience.SECONDS
            while b">mine</a></h2>" not in ask(port, "/")[1] and time.monotonic() < deadline:
                time.sleep(0.2)
            assert "1 runs of 1 suites on 1 machines" in process.stdout.readline()
            assert ask(port, "/data/built.js") != before
            busy = subprocess.run(words[:-3], capture_output=True, text=True, timeout=patience.SECONDS)
            assert busy.returncode == 5 and "in use by" in busy.stderr and busy.stderr.count("\n") == 1
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=patience.SECONDS) == 130
            assert process.stderr.read().strip() == ""
        finally:
            process.kill()
    assert not list(out.rglob("*.tmp"))
    again = subprocess.run(words[:-3], capture_output=True, text=True, timeout=patience.SECONDS)
    assert again.returncode == 0 and ", 0 of them written" in again.stdout

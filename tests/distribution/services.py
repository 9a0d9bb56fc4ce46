"""What a job of continuous integration meets, on this machine: steps run as GitHub runs them, and a service that keeps comments."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests import patience

TOKEN = re.compile(r"\s*(?:(?P<text>'[^']*')|(?P<name>[a-zA-Z_][\w.-]*)|(?P<sign>==|!=|&&|\|\|))")
SHELL = ("bash", "--noprofile", "--norc", "-eo", "pipefail")  # what GitHub documents for `shell: bash`


def evaluate(expression: str, contexts: Mapping[str, Any]) -> str:
    """The value of an expression of GitHub's: names, texts, `==`, `!=`, `&&` and `||`, from left to right; a name that is not there is ''."""
    place, value, sign = 0, "", "||"
    while place < len(expression.rstrip()):
        match = TOKEN.match(expression, place)
        assert match, f"not understood: {expression[place:]!r}"
        place = match.end()
        if match["sign"]:
            sign = match["sign"]
            continue
        found = match["text"][1:-1] if match["text"] else look_up(match["name"], contexts)
        same = {"==": value == found, "!=": value != found}
        value = (
            ("true" if same[sign] else "") if sign in same else (value or found) if sign == "||" else value and found
        )
    return value


def look_up(name: str, contexts: Mapping[str, Any]) -> str:
    """`steps.gate.outputs.folder` of nested tables."""
    found: Any = contexts
    for part in name.split("."):
        found = found.get(part, "") if isinstance(found, Mapping) else ""
    return str(found)


def substitute(text: Any, contexts: Mapping[str, Any]) -> str:
    """A text with the values of its `${{ … }}`."""
    return re.sub(r"\$\{\{(.*?)\}\}", lambda match: evaluate(match[1], contexts), str(text))


def read_assignments(path: Path) -> dict[str, str]:
    """`name=value` lines of a file such as GITHUB_OUTPUT."""
    return dict(line.split("=", 1) for line in path.read_text(encoding="utf-8").splitlines())


@dataclass
class Job:
    """A job of GitHub's: its folders, the event that it is for, and what its steps have left."""

    temporary: Path
    workspace: Path
    environment: Mapping[str, str]
    event: Mapping[str, Any]
    used: dict[str, Callable[[Mapping[str, str]], None]]  # action -> what it does here with its inputs
    log: str = ""
    steps: dict[str, Any] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    summary: str = ""

    def run_action(self, folder: Path, *, only: str | None = None, **inputs: str) -> int:
        """Run the steps of the composite action in a folder, or the one of that name, until one fails; the exit code of that one, or 0."""
        action = yaml.safe_load((folder / "action.yml").read_text(encoding="utf-8"))
        contexts = {"github": {"token": "secret", "event": self.event}, "steps": self.steps}
        assert inputs.keys() <= action["inputs"].keys()
        contexts["inputs"] = {
            name: inputs.get(name, substitute(one.get("default", ""), contexts))
            for name, one in action["inputs"].items()
        }
        assert all(contexts["inputs"][name] for name, one in action["inputs"].items() if one.get("required"))
        for step in action["runs"]["steps"]:
            if only not in (None, step["name"]) or not evaluate(step.get("if", "'true'"), contexts):
                continue
            if "uses" in step:
                given = {name: substitute(value, contexts) for name, value in step["with"].items()}
                self.used[step["uses"].partition("@")[0]](given)
            elif code := self._run(step, folder, contexts):
                return code
            self.ran.append(step["name"])
        self.outputs = {name: substitute(one["value"], contexts) for name, one in action["outputs"].items()}
        return 0

    def _run(self, step: Mapping[str, Any], folder: Path, contexts: Mapping[str, Any]) -> int:
        assert step["shell"] == "bash" and "${{" not in step["run"], "what an input says must not become a program"
        files = {name: self.temporary / name.lower() for name in ("GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_STEP_SUMMARY")}
        for path in files.values():
            path.write_text("")
        script = self.temporary / "step.sh"
        script.write_text(step["run"], encoding="utf-8")
        given = {name: substitute(value, contexts) for name, value in step.get("env", {}).items()}
        environment = {
            **self.environment,
            "RUNNER_TEMP": str(self.temporary),
            "RUNNER_OS": "Linux",
            "RUNNER_ARCH": "X64",
            "GITHUB_ACTIONS": "true",
            "GITHUB_ACTION_PATH": str(folder),
            "GITHUB_WORKSPACE": str(self.workspace),
            **{name: str(path) for name, path in files.items()},
            **given,
        }
        done = subprocess.run(
            [*SHELL, str(script)], cwd=self.workspace, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=patience.SECONDS,
        )  # fmt: skip
        self.log += done.stdout
        self.summary += files["GITHUB_STEP_SUMMARY"].read_text(encoding="utf-8")
        if "id" in step:
            self.steps[step["id"]] = {"outputs": read_assignments(files["GITHUB_OUTPUT"])}
        return done.returncode


class Comments(ThreadingHTTPServer):
    """GitHub's comments of pull request 7 of me/own, and GitLab's notes of merge request 7 of project 3, as their APIs keep them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.kept: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.token = "secret"

    @property
    def address(self) -> str:
        """Of its API."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    """One request to `Comments`."""

    server: Comments
    PLACES = re.compile(r"/(repos/me/own/issues(/7)?/comments|projects/3/merge_requests/7/notes)(/(?P<id>\d+))?")

    def do_GET(self) -> None:
        """The comments, or who asks."""
        self._answer()

    do_POST = do_PATCH = do_PUT = do_GET

    def _answer(self) -> None:
        place, _, query = self.path.partition("?")
        self.server.asked.append(f"{self.command} {place}")
        token = self.headers.get("PRIVATE-TOKEN") or self.headers.get("Authorization", "").removeprefix("Bearer ")
        is_gitlab = "PRIVATE-TOKEN" in self.headers
        match = self.PLACES.fullmatch(place)
        if token != self.server.token:
            return self._send(403, {"message": "Resource not accessible by integration"})
        if place == "/user" and is_gitlab:
            return self._send(200, {"id": 5})
        if not match:
            return self._send(404, {"message": "Not Found"})
        kept = self.server.kept
        if self.command == "GET":
            numbers = dict(part.split("=") for part in query.split("&"))
            size, page = int(numbers["per_page"]), int(numbers["page"])
            return self._send(200, kept[(page - 1) * size : page * size])
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"]
        if self.command == "POST":
            author = {"author": {"id": 5}} if is_gitlab else {"user": {"type": "Bot"}}
            kept.append({"id": 100 + len(kept), "body": body, **author})
            return self._send(201, kept[-1])
        assert self.command == ("PUT" if is_gitlab else "PATCH")
        (one,) = [each for each in kept if each["id"] == int(match["id"])]
        one["body"] = body
        return self._send(200, one)

    def _send(self, code: int, content: Any) -> None:
        data = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""


@contextmanager
def serving_comments() -> Iterator[Comments]:
    """A service that answers while the block runs."""
    with Comments() as service:
        thread = threading.Thread(target=service.serve_forever, daemon=True)
        thread.start()
        try:
            yield service
        finally:
            service.shutdown()
            thread.join()


def clean_environment(**variables: str) -> dict[str, str]:
    """This process's environment without what another CI, hvbench or a launcher has set."""
    hidden = ("GITHUB_", "RUNNER_", "CI_", "GITLAB_", "HVBENCH_", "HOROVOD_", "PYTHONPATH", "PYTEST_")
    return {name: value for name, value in os.environ.items() if not name.startswith(hidden)} | variables

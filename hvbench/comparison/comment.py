"""A text as the comment of the pull request (GitHub) or merge request (GitLab) that a job of continuous integration is for.

One comment a subject: the next one of the same subject takes its place. What the job is for is in the variables that both services set.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hvbench.errors import StorageError, UsageError
from hvbench.spec.messages import shorten

SECONDS = 30.0  # for one answer
MAX_CHARACTERS = 65_000  # GitHub takes 65,536
MAX_BYTES = 2**24
MAX_PAGES = 20
PAGE = 100  # comments, the most that both list at once
CUT = "\n\n…cut here: all of it is among the files that the job has kept."


@dataclass(frozen=True, kw_only=True)
class Request:
    """A pull or merge request of a service: the address of its comments, and how one of them is changed."""

    comments: str
    comment: str  # of one, before its id
    change_method: str
    headers: Mapping[str, str]
    author: str | None = None  # the address of who writes here; None: a bot, which a comment says of its author


def find_request(environment: Mapping[str, str]) -> Request:
    """The request that the job with these environment variables is for; raises UsageError."""
    if environment.get("GITHUB_ACTIONS") == "true":
        api, repository = _require(environment, "GITHUB_API_URL", "GITHUB_REPOSITORY")
        number = re.fullmatch(r"refs/pull/(\d+)/\w+", environment.get("GITHUB_REF", ""))
        if not number:
            raise UsageError(
                "comment: this job of GitHub Actions is for no pull request (GITHUB_REF is refs/pull/N/merge of one)"
            )
        (token,) = _require(environment, "GITHUB_TOKEN")
        issues = f"{api}/repos/{repository}/issues"
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/vnd.github+json"}
        return Request(
            comments=f"{issues}/{number[1]}/comments", comment=f"{issues}/comments", change_method="PATCH", headers=headers
        )  # fmt: skip
    if environment.get("GITLAB_CI") == "true":
        if not environment.get("CI_MERGE_REQUEST_IID"):
            raise UsageError("comment: this job of GitLab is for no merge request (CI_MERGE_REQUEST_IID is its number)")
        api, project, number, token = _require(
            environment, "CI_API_V4_URL", "CI_PROJECT_ID", "CI_MERGE_REQUEST_IID", "GITLAB_TOKEN"
        )
        notes = f"{api}/projects/{project}/merge_requests/{number}/notes"
        headers = {"PRIVATE-TOKEN": token}
        return Request(comments=notes, comment=notes, change_method="PUT", headers=headers, author=f"{api}/user")
    raise UsageError("comment: neither GITHUB_ACTIONS nor GITLAB_CI is true: this is no job of either")


def write_comment(request: Request, text: str, *, subject: str) -> str:
    """Write the comment of a subject, over an earlier one of the same author; `new` or `changed`. Raises StorageError."""
    mark = f"<!-- hvbench {re.sub(r'[^A-Za-z0-9_./]', '-', subject)} -->"
    text = text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + CUT
    body = {"body": f"{mark}\n{text}"}
    author = _ask(request, request.author).get("id") if request.author else None
    for comment in _list_comments(request):
        if str(comment.get("body", "")).startswith(mark) and _is_own(comment, author):
            _ask(request, f"{request.comment}/{comment['id']}", method=request.change_method, content=body)
            return "changed"
    _ask(request, request.comments, method="POST", content=body)
    return "new"


def _is_own(comment: Mapping[str, Any], author: Any) -> bool:
    """Whether this job may have written it: anybody can write the mark."""
    if author is None:
        return (comment.get("user") or {}).get("type") == "Bot"
    return (comment.get("author") or {}).get("id") == author


def _list_comments(request: Request) -> Iterator[Mapping[str, Any]]:
    """The comments of the request, page by page."""
    for page in range(1, MAX_PAGES + 1):
        found = _ask(request, f"{request.comments}?per_page={PAGE}&page={page}")
        yield from found
        if len(found) < PAGE:
            return


def _ask(request: Request, address: str, *, method: str = "GET", content: Mapping[str, Any] | None = None) -> Any:
    """The service's answer, from JSON; raises StorageError."""
    data = None if content is None else json.dumps(content).encode()
    headers = {**request.headers, "User-Agent": "hvbench", **({"Content-Type": "application/json"} if data else {})}
    try:
        asked = urllib.request.Request(address, data=data, headers=headers, method=method)
        with urllib.request.urlopen(asked, timeout=SECONDS) as answer:
            return json.loads(answer.read(MAX_BYTES))
    except urllib.error.HTTPError as error:
        said = shorten(error.read(1000).decode(errors="replace"), limit=200)
        hint = "; the job's token may not write comments" if error.code in (401, 403, 404) else ""
        raise StorageError(f"comment: {method} {address}: {error.code} {error.reason}: {said}{hint}") from None
    except (OSError, ValueError) as error:
        raise StorageError(f"comment: {method} {address}: {error}") from None


def _require(environment: Mapping[str, str], *names: str) -> list[str]:
    """The values of variables; raises UsageError for one that is missing."""
    for name in names:
        if not environment.get(name):
            raise UsageError(f"comment: the environment variable {name} is not set")
    return [environment[name] for name in names]

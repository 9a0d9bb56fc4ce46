"""Labelled texts that every machine has: snippets of the running interpreter's standard library, and what each of them is.

A row is a text and its class: `code` (what a function does, without its docstring), `comment` or `docstring`. As many of each are taken of a file, and
files in an order that mixes the packages, until there are ROWS rows. They are written into the cache once, as JSONL, and read from there as
anybody's file is. Imports only the standard library.
"""

from __future__ import annotations

import ast
import hashlib
import itertools
import json
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path

from hvbench.errors import DataError
from hvbench.io.atomic import write_text
from hvbench.io.cache import cache_root
from hvbench.training.files import TextFile, find_files

FORMAT = 1  # raised whenever the same library becomes other rows
ROWS = 6000
LEAST_LETTERS = 20  # of a snippet; shorter ones say little
CODE, COMMENT, DOCSTRING = KINDS = ("code", "comment", "docstring")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def snippets_file(*, cache: Path | None = None, most: int = ROWS) -> Path:
    """The JSONL file of at most so many rows in the cache, written where it is not there yet. Raises DataError."""
    files = find_files("stdlib").files
    seen = hashlib.sha256(f"{FORMAT} {most}".encode())
    for file in files:
        seen.update(f" {file.relative} {file.size_bytes}".encode())
    path = (cache or cache_root()) / "labelled" / f"snippets-{seen.hexdigest()[:16]}.jsonl"
    if not path.is_file():
        rows: list[dict[str, str]] = []
        for file in sorted(files, key=_mix):
            if len(rows) >= most:
                break
            found = find_snippets(Path(file.path).read_bytes())
            for texts in zip(*(found[kind] for kind in KINDS), strict=False):  # as many as there are of the rarest
                rows += [{"text": text, "label": kind} for kind, text in zip(KINDS, texts, strict=True)]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, "".join(json.dumps(row) + "\n" for row in rows[:most]))
        except OSError as error:
            raise DataError(
                f"the cache {str(path.parent)!r} cannot be used: {error.strerror or error}; set HVBENCH_CACHE to a local folder that can be written"
            ) from None
    return path


def find_snippets(source: bytes) -> dict[str, list[str]]:
    """Class -> its texts in a Python file, in their order; none of one that is no Python of this interpreter."""
    found: dict[str, list[str]] = {kind: [] for kind in KINDS}
    try:
        text = source.decode()
        with warnings.catch_warnings(action="ignore"):  # of escapes and comparisons in somebody else's code
            tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return found
    lines = text.splitlines()
    nodes = [node for node in ast.walk(tree) if isinstance(node, DOCUMENTED)]
    found[DOCSTRING] = [docstring for node in nodes if (docstring := ast.get_docstring(node))]
    found[CODE] = [_code_of(node, lines) for node in nodes if isinstance(node, ast.FunctionDef)]
    found[COMMENT] = _comments_of(lines)
    return {kind: list(filter(_is_wanted, texts)) for kind, texts in found.items()}


def _code_of(node: ast.FunctionDef, lines: Sequence[str]) -> str:
    """The body of a function without its docstring, comments and empty lines."""
    body = node.body[bool(ast.get_docstring(node)) :]
    if not body or body[0].lineno == node.lineno:  # all in one line
        return ""
    own = [line for line in lines[body[0].lineno - 1 : body[-1].end_lineno] if line.strip() and not _is_comment(line)]
    return textwrap.dedent("\n".join(own))


def _comments_of(lines: Sequence[str]) -> list[str]:
    """Comments that have their lines for themselves, those below each other as one, without their marks."""
    runs = itertools.groupby(lines, key=_is_comment)
    return ["\n".join(line.strip().lstrip("#").strip() for line in run) for is_comment, run in runs if is_comment]


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def _is_wanted(text: str) -> bool:
    """Whether there is enough of it, and all of it can be written: an escape may be NUL, or half a surrogate pair."""
    return len(text.strip()) >= LEAST_LETTERS and not any(
        letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in text
    )


def _mix(file: TextFile) -> bytes:
    return hashlib.sha256(file.relative.encode()).digest()

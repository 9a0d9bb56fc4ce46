"""Which hvbench this is: the revision of its checkout, and a digest of its source, which an installed wheel has too."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from hvbench.io.git import ask_git

PACKAGE = Path(__file__).resolve().parents[1]  # a worker in another environment finds it by a link
SUFFIXES = (".py", ".toml", ".jinja", ".css", ".js")  # what a program is made of
NOT_SOURCE = ("__pycache__", "suites")  # the shipped suites lie beside the package in a checkout


def read_source() -> None:
    """Keep digest and revision as they are now, for the rest of this process, which runs the source that it began with."""
    source_digest()
    source_revision()


@cache
def source_digest(package: Path = PACKAGE) -> str:
    """Digest, 12 hexadecimal digits, of all source files of the package: their paths and their content."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        inner = path.relative_to(package)
        if path.suffix in SUFFIXES and not set(inner.parts) & set(NOT_SOURCE) and path.is_file():
            content = path.read_bytes()
            digest.update(f"{inner.as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:12]


@cache
def source_revision(package: Path = PACKAGE) -> str | None:
    """Commit of the checkout that the package lies in, with `+changes` where its files differ from it; None for a wheel."""
    checkout = package.parent
    if not (checkout / ".git").exists():  # an installation within another project's checkout has that one's commits
        return None
    commit = ask_git(checkout, "rev-parse", "HEAD")
    changes = ask_git(checkout, "status", "--porcelain", "--untracked-files=normal", "--", package.name)
    if not commit:
        return None
    return f"{commit[:12]}+changes" if changes else commit[:12]

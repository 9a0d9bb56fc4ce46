"""Revisions in git worktrees; `hvbench.io.git` says what git must not run.

A worktree that is broken off while it is being made leaves nothing: git and what it has started are ended first, so that nobody
writes into a folder that is being removed.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from hvbench.errors import UsageError
from hvbench.io.git import run_git
from hvbench.spec.messages import shorten


def find_repository(folder: Path) -> Path:
    """The top folder of the git repository that `folder` lies in, links resolved; raises UsageError."""
    answer = ask("rev-parse", "--show-toplevel", at=folder)
    if answer.returncode:
        raise UsageError(f"rev=: {folder} lies in no git repository: {last_words(answer)}")
    return Path(answer.stdout.removesuffix("\n")).resolve()


def add_worktree(revision: str, path: Path, *, repository: Path) -> Path:
    """A worktree of the repository at `revision`, at `path`, made absolute; raises UsageError."""
    answer = ask("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}", at=repository)
    if answer.returncode:
        where = "here" if repository == Path() else str(repository)
        raise UsageError(f"rev={shorten(revision)}: no such revision in the git repository {where}")
    words = ("worktree", "add", "--force", "--detach", str(path.absolute()), answer.stdout.strip())
    try:
        made = ask(*words, at=repository)
    except BaseException:
        remove_worktree(path, repository=repository)
        raise
    if made.returncode:
        remove_worktree(path, repository=repository)
        raise UsageError(f"rev={shorten(revision)}: no worktree: {last_words(made)}")
    return path.absolute()


def remove_worktrees(path: Path) -> None:
    """Remove the worktrees below `path`, and what their repositories remember of them."""
    for folder in sorted(path.glob("*")) if path.is_dir() else []:
        common = ask("rev-parse", "--git-common-dir", at=folder)
        if common.returncode == 0:
            remove_worktree(folder, repository=folder / common.stdout.removesuffix("\n"))
        else:
            shutil.rmtree(folder, ignore_errors=True)
    if path.is_dir() and not any(path.iterdir()):
        path.rmdir()


def remove_worktree(path: Path, *, repository: Path) -> None:
    """Remove a worktree, also one that git had not finished and keeps locked."""
    shutil.rmtree(path, ignore_errors=True)
    ask("worktree", "remove", "--force", "--force", str(path.absolute()), at=repository)


def ask(*words: str, at: Path) -> subprocess.CompletedProcess[str]:
    """Run git in a folder; raises UsageError when there is none."""
    try:
        return run_git(*words, at=at)
    except FileNotFoundError:
        raise UsageError("rev=: git is not installed") from None


def last_words(answer: subprocess.CompletedProcess[str]) -> str:
    """Why git failed, in one line: its first line that says `fatal`, or else its last."""
    lines = [line.strip() for line in answer.stderr.splitlines() if line.strip()] or ["git failed"]
    return shorten(next((line for line in lines if line.startswith("fatal:")), lines[-1]), limit=200)

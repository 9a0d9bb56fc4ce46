"""Asking git about a folder: it runs nothing that a repository brings (hooks, monitors, submodules, LFS) and asks nobody anything."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

QUIET = (
    "core.hooksPath=/dev/null",  # a checkout would run post-checkout
    "core.fsmonitor=false",  # names a program that every look at the files would run
    "submodule.recurse=false",
    "filter.lfs.smudge=",  # files of LFS stay pointers: fetching them is a download
    "filter.lfs.process=",
    "filter.lfs.required=false",
)
OPTIONS = [word for setting in QUIET for word in ("-c", setting)]
ANSWER_SECONDS = 10.0


def run_git(*words: str, at: Path, timeout_seconds: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run git in a folder, and keep what it prints. Broken off, or out of time, all that it has started is ended with it.

    Raises OSError where there is no git, and subprocess.TimeoutExpired.
    """
    # Variables such as GIT_DIR, which git sets for its hooks, name another repository than that of the folder.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(at), *OPTIONS, *words]
    process = subprocess.Popen(
        command,
        env=environment | {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="surrogateescape",  # names of files may hold any bytes
        start_new_session=True,  # a Ctrl-C comes here first
    )
    with process:
        try:
            out, err = process.communicate(timeout=timeout_seconds)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def ask_git(folder: Path, *words: str) -> str | None:
    """What git answers, without the line's end; None where it cannot answer, or not in time."""
    try:
        done = run_git(*words, at=folder, timeout_seconds=ANSWER_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return None
    return None if done.returncode else done.stdout.removesuffix("\n")

"""What the kernel's files and other programs say of this host; None where they say nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def read_text(path: Path) -> str | None:
    """A file's text without the white space around it; None where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def ask(command: Sequence[str], *, timeout_seconds: float, environment: Mapping[str, str] | None = None) -> str | None:
    """What a program prints; None where there is none, or it fails or takes too long. `environment` None: this process's."""
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout

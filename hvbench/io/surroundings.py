"""What a user's shell may have set for other programs, and what would end hvbench by it, perhaps after it has measured.

The command line calls `settle` once, before anything else is imported. What processes inherit is settled with it.
"""

from __future__ import annotations

import contextlib
import io
import os
import resource
import sys
import tempfile
import warnings
from pathlib import Path

from hvbench.errors import StorageError, UsageError

USUAL_FILES = 1024  # that a process may have open: a host's usual limit, and the most that `select` takes
SOCKET_PATH_BYTES = 107  # of Linux, the end of the string left out
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


def settle() -> None:
    """Leave nothing in this process's surroundings that could make a print, a plot or an import fail.

    Raises:
        UsageError: the current folder is gone.
    """
    os.environ["MPLBACKEND"] = "agg"  # figures are files; matplotlib is not even imported with a backend unknown to it
    if "error" in os.environ.pop("PYTHONWARNINGS", ""):
        stop_raising_warnings()
    for name in ("COLUMNS", "LINES"):
        if not os.environ.get(name, "").isdigit() or not int(os.environ[name]):
            os.environ.pop(name, None)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # closed streams are None
            stream.reconfigure(errors="backslashreplace")
    raise_file_limit()
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UsageError("the current folder does not exist any more; change into one that does") from None


def stop_raising_warnings() -> None:
    """Python's own filters in place of those of PYTHONWARNINGS: a library's warning is no reason to lose a run."""
    warnings.resetwarnings()
    for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)
    sys.warnoptions.clear()


def raise_file_limit() -> None:
    """Allow as many open files as are usual, where the hard limit lets a process do so."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < USUAL_FILES:
        wanted = USUAL_FILES if hard == resource.RLIM_INFINITY else min(USUAL_FILES, hard)
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def make_socket_folder(prefix: str, *, name: str) -> Path:
    """A new folder of this user alone in which a socket `name` has a path that the kernel takes, wherever TMPDIR is.

    Raises StorageError.
    """
    problems = []
    bases = list(SHORT_FOLDERS)
    with contextlib.suppress(FileNotFoundError):  # none that can be written; the error says so below
        bases.insert(0, tempfile.gettempdir())
    for base in dict.fromkeys(bases):
        if len(os.fsencode(base)) + len(f"/{prefix}12345678/{name}") > SOCKET_PATH_BYTES:
            problems.append(f"{base}: its path is too long for a socket")
            continue
        try:
            return Path(tempfile.mkdtemp(prefix=prefix, dir=base))
        except OSError as error:
            problems.append(f"{base}: {error.strerror}")
    raise StorageError(f"no folder for a socket: {'; '.join(problems)}; set TMPDIR to a short one")

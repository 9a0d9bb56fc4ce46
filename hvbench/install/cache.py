"""The cache of built wheels: one folder per build key, with a lock, below $HVBENCH_CACHE or the user's cache folder.

    <cache>/horovod/<key>/lock, build.log, against.txt, horovod-*.whl

A wheel is renamed into its folder when it is complete. A build that was interrupted leaves only its folder `build`, which
the next build, holding the lock, removes.
"""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hvbench.errors import InstallError
from hvbench.io.cache import cache_root


def build_folder(key: str, root: Path | None = None) -> Path:
    """Make and return the folder of a build key; raise InstallError when it cannot be written."""
    folder = (root or cache_root()) / "horovod" / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    return folder


def cached_wheel(folder: Path) -> Path | None:
    """Return the finished wheel in a build's folder, or None."""
    return next(folder.glob("horovod-*.whl"), None)


@contextmanager
def locked(folder: Path, *, report: Callable[[str], None]) -> Iterator[None]:
    """Hold the folder's lock, waiting (and reporting so) while another process has it; a crash releases it too."""
    try:
        lock = (folder / "lock").open("w", encoding="utf-8")
    except OSError as error:
        raise _unwritable(folder, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("The same Horovod is being built by another process: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            raise _unwritable(folder, error) from error
        yield


def _unwritable(folder: Path, error: OSError) -> InstallError:
    return InstallError(f"the cache {folder} cannot be used ({error.strerror}): set HVBENCH_CACHE to another folder")

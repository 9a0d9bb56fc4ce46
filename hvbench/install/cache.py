"""Where built wheels stay: one folder a key, below $HVBENCH_CACHE or the user's cache folder, with a lock each.

    <cache>/horovod/<key>/lock, build.log, against.txt, horovod-*.whl

A wheel appears in its folder by one rename, complete or not at all. A build that was cut off leaves only its `build`
folder, which the next one, holding the lock, removes.
"""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hvbench.errors import InstallError
from hvbench.io.cache import cache_root


def build_folder(key: str, root: Path | None = None) -> Path:
    """Make and return the folder of that key; raise InstallError when it cannot be written."""
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
    """Hold the folder's lock, waiting (and saying so) while another process has it; it is freed even by a crash."""
    try:
        lock = (folder / "lock").open("w")
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

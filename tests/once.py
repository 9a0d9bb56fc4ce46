"""Folders that take minutes to make, made once for all processes of one pytest run.

pytest-xdist runs tests in several processes, each with session fixtures of its own. Tied to one process by a group, the
tests of a costly fixture keep that process busy to the end while the others have nothing left to do. Here the work is
cut into parts with a name, each leaves a folder, and whichever process needs one first makes it, under a lock. A process
that needs a part which another one is making makes the next part in the meantime.
"""

from __future__ import annotations

import contextlib
import fcntl
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest


class MadeOnce:
    """Name of a part -> the folder that `makers[name]` has filled; `makers` in the order in which they may be begun."""

    def __init__(self, root: Path, makers: Mapping[str, Callable[[Path], None]]) -> None:
        root.mkdir(exist_ok=True)
        self.root = root
        self.makers = makers

    def __getitem__(self, name: str) -> Path:
        """The part's folder, made now if nobody has; raises what its maker raised, RuntimeError where that was elsewhere."""
        while not self._is_ended(name) and not self._make(name, wait=False):
            if not self._make_another():
                self._make(name, wait=True)
        if self._error(name).exists():
            raise RuntimeError(f"{name} could not be made:\n{self._error(name).read_text()}")
        return self.root / name

    def _make_another(self) -> bool:
        """Make the next part that nobody is at; False where there is none."""
        for name in self.makers:
            with contextlib.suppress(Exception):  # of the tests that need that part
                if not self._is_ended(name) and self._make(name, wait=False):
                    return True
        return False

    def _make(self, name: str, *, wait: bool) -> bool:
        """Make the part unless it is there; False, with nothing done, where another process is at it."""
        with self._locked(name, wait=wait) as is_ours:
            if is_ours and not self._is_ended(name):
                begun = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=self.root))
                try:
                    self.makers[name](begun)
                except BaseException:  # a test's timeout, too: whoever else needs the part should not wait as long
                    self._error(name).write_text(traceback.format_exc())
                    raise
                begun.rename(self.root / name)
            return is_ours

    def _is_ended(self, name: str) -> bool:
        return (self.root / name).is_dir() or self._error(name).exists()

    def _error(self, name: str) -> Path:
        return self.root / f"{name}.error"

    @contextlib.contextmanager
    def _locked(self, name: str, *, wait: bool) -> Iterator[bool]:
        with (self.root / f"{name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True


def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this pytest run share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if own.name.startswith("popen-") else own  # pytest-xdist: popen-gw0, popen-gw1, ...

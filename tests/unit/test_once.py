"""Parts of costly fixtures: each is made once by whichever process asks first, and a failure is everybody's."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

import pytest

from tests import patience
from tests.once import MadeOnce


def make_counted(root: Path, names: str = "ab") -> MadeOnce:
    """Each part holds its name, and the root a line in `made` for each time that one was made."""

    def make(folder: Path, name: str) -> None:
        (folder / "name").write_text(name)
        with (root.parent / "made").open("a") as made:
            made.write(f"{name}\n")

    return MadeOnce(root, {name: lambda folder, name=name: make(folder, name) for name in names})


def test_what_one_has_made_the_other_reads(tmp_path: Path) -> None:
    one, other = (make_counted(tmp_path / "parts") for _ in range(2))
    assert (one["b"] / "name").read_text() == "b" == (other["b"] / "name").read_text()
    assert (tmp_path / "made").read_text() == "b\n"


def test_while_a_part_is_made_elsewhere_another_one_is_made(tmp_path: Path) -> None:
    parts = make_counted(tmp_path / "parts")
    with (tmp_path / "parts" / "a.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        asks = threading.Thread(target=parts.__getitem__, args=("a",), daemon=True)
        asks.start()
        while not (tmp_path / "parts" / "b").is_dir():
            asks.join(0.01)
        assert asks.is_alive() and not (tmp_path / "parts" / "a").exists()
    asks.join(patience.SECONDS)
    assert (tmp_path / "made").read_text() == "b\na\n"


def test_what_cannot_be_made_fails_for_everybody_at_once_and_costs_no_other_part(tmp_path: Path) -> None:
    tries = []

    def fail(folder: Path) -> None:
        tries.append(folder)
        raise ValueError("no")

    one, other = (MadeOnce(tmp_path / "parts", {"bad": fail, "good": lambda folder: None}) for _ in range(2))
    with pytest.raises(ValueError, match="no"):
        one["bad"]
    with pytest.raises(RuntimeError, match="ValueError: no"):
        other["bad"]
    assert len(tries) == 1 and other["good"].is_dir()

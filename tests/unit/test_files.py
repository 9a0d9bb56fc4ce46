"""Files that other processes read appear whole or not at all."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hvbench.io.atomic import write_bytes, write_json, write_text
from tests import patience


@pytest.mark.parametrize("durable", [True, False])
def test_what_is_written_is_read_back(tmp_path: Path, durable: bool) -> None:
    write_text(tmp_path / "a", "größer\n", durable=durable)
    write_json(tmp_path / "b", {"x": [1, None]}, durable=durable)
    write_bytes(tmp_path / "c", b"\x00\xff", durable=durable)
    assert (tmp_path / "a").read_text(encoding="utf-8") == "größer\n"
    assert json.loads((tmp_path / "b").read_text()) == {"x": [1, None]}
    assert (tmp_path / "c").read_bytes() == b"\x00\xff"


def test_nothing_but_the_file_is_left(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "1")
    write_text(tmp_path / "a", "2")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "2"


def test_others_may_read_it(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "1")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_a_value_that_json_cannot_hold_leaves_the_old_file(tmp_path: Path, value: object) -> None:
    write_json(tmp_path / "a", 1)
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "a", value)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert json.loads((tmp_path / "a").read_text()) == 1


def test_a_place_that_cannot_be_replaced_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "inside").touch()
    with pytest.raises(OSError):
        write_text(tmp_path / "a", "1")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_missing_folder_is_the_callers_mistake(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "missing" / "a", "1")


def test_a_very_long_name_still_fits_with_its_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    write_text(path, "1")
    assert path.read_text() == "1"


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    contents = {letter * 100_000 for letter in "xy"}
    write_text(path, "x" * 100_000)
    seen: set[str] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(100):
        for content in contents:
            write_text(path, content, durable=False)
    stop.set()
    reader.join()
    assert seen <= contents


def test_a_killed_writer_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    code = (
        "import os, signal, sys, hvbench.io.atomic as files\n"
        "os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)\n"  # dies just before the rename
        "files.write_text(__import__('pathlib').Path(sys.argv[1]), 'new')"
    )
    result = subprocess.run([sys.executable, "-c", code, str(path)], timeout=patience.SECONDS)
    assert result.returncode == -9
    assert path.read_text() == "old"
    assert not list(tmp_path.glob("*.json"))  # what it left is hidden and not taken for a record

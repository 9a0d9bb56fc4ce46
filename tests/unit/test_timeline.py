"""Horovod's timeline: what a killed worker leaves is closed to whole JSON, and nothing else is touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hvbench.launch.timeline import close_array, mend_timeline, timeline_settings

# As Horovod 0.28.1 writes it: the array is closed after every event, and opened again for the next.
WHOLE = (
    '[\n{"name": "process_name", "ph": "M", "pid": 0, "args": {"start_time_since_epoch_in_micros":17}},\n'
    '{"ph": "B", "name": "ALLREDUCE", "ts": 5, "pid": 1},'
    '{"ph": "E", "ts": 9, "pid": 1, "args": {"dtype": "float32", "shape": "[3, 4]"}}]'
)


@pytest.mark.parametrize("length", range(len(WHOLE) + 1))
def test_whatever_was_written_before_the_end_becomes_json_with_all_whole_events(length: int) -> None:
    text = WHOLE[:length]
    closed = close_array(text)
    events = json.loads(closed)
    assert events == json.loads(WHOLE)[: len(events)]
    ends = [WHOLE.index("}},\n") + 2, WHOLE.index("1},{") + 2, len(WHOLE) - 1]
    assert len(events) == sum(length >= end for end in ends)


def test_a_whole_timeline_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "generation0000.json"
    path.write_text(WHOLE)
    before = path.stat().st_mtime_ns
    mend_timeline(path)
    assert path.read_text() == WHOLE and path.stat().st_mtime_ns == before


def test_a_cut_timeline_is_mended_in_place(tmp_path: Path) -> None:
    path = tmp_path / "generation0000.json"
    path.write_text(WHOLE[:-20])
    mend_timeline(path)
    assert len(json.loads(path.read_text())) == 2


def test_no_timeline_is_no_trouble(tmp_path: Path) -> None:
    mend_timeline(None)
    mend_timeline(tmp_path / "missing.json")
    assert timeline_settings(None) == {} and list(tmp_path.iterdir()) == []


def test_what_is_no_timeline_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("no JSON at all")
    mend_timeline(path)
    assert path.read_text() == "no JSON at all"


def test_workers_are_told_the_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert timeline_settings(Path("run/timelines/a.json")) == {
        "HOROVOD_TIMELINE": str(tmp_path / "run/timelines/a.json")
    }
    assert (tmp_path / "run" / "timelines").is_dir()

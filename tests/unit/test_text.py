"""What of a text is read and what is left out, said wherever it matters; and that all launches of a run read the same."""

from __future__ import annotations

import codecs
import json
import os
from pathlib import Path
from typing import Any

import pytest

from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.facts import list_warnings
from hvbench.cli.display.plan import describe_plan
from hvbench.errors import DataError, UsageError
from hvbench.launch.requests import MeasureRequest
from hvbench.plan.jobs import Job
from hvbench.plan.skip import is_installed, reason_to_skip
from hvbench.records.store import RunFolder
from hvbench.registry import FRAMEWORKS
from hvbench.spec.messages import validate
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.spec.suite import apply_overrides, parse_suite
from hvbench.sweep.options import SweepOptions
from hvbench.sweep.prepare import prepare_sweep
from hvbench.sweep.tasks import Shared, make_task, name_text
from hvbench.training.corpus import check, prepare
from hvbench.training.decoding import NotTextError, to_utf8
from hvbench.training.files import format_bytes
from hvbench.worker.worker import find_text_change
from tests.unit.sample_records import make_rank, make_record
from tests.unit.test_sweep import Witness

PLAIN = "größer als naïve "
installed = pytest.mark.skipif(
    not all(map(is_installed, FRAMEWORKS)), reason="points of what is not installed are skipped"
)


@pytest.mark.parametrize(
    ("content", "encoding", "expected"),
    [
        (PLAIN.encode(), "utf-8", PLAIN),
        (codecs.BOM_UTF8 + PLAIN.encode(), "utf-8", PLAIN),  # the mark is none of the text
        (PLAIN.encode("utf-16"), "utf-8", PLAIN),  # a mark says what it is
        (codecs.BOM_UTF16_BE + PLAIN.encode("utf-16-be"), "iso8859-1", PLAIN),
        (PLAIN.encode("utf-32"), "utf-8", PLAIN),
        (PLAIN.encode("latin-1"), "iso8859-1", PLAIN),
        (PLAIN.encode("cp1252"), "cp1252", PLAIN),
        ("こんにちは".encode("shift_jis"), "shift_jis", "こんにちは"),
        (PLAIN.encode("utf-16-le"), "utf-16-le", PLAIN),
        (b"", "utf-8", ""),
        (PLAIN.encode("latin-1"), "utf-8", NotTextError("not utf-8")),
        (PLAIN.encode("utf-16-le"), "utf-8", NotTextError("NUL bytes")),  # without a mark
        (PLAIN.encode("utf-16-le"), "iso8859-1", NotTextError("NUL bytes")),
        (b"\x7fELF\0\0\1", "utf-8", NotTextError("NUL bytes")),
        (b"\x7fELF\0\0\1", "cp1252", NotTextError("NUL bytes")),
        (b"\x81\x8d", "cp1252", NotTextError("not cp1252")),
        (PLAIN.encode()[:3], "utf-8", NotTextError("not utf-8")),  # ends within a character
        (codecs.BOM_UTF16_LE + b"a", "utf-8", NotTextError("not utf-16-le")),  # half a unit
        (codecs.BOM_UTF16_LE + b"\x00\xd8", "utf-8", NotTextError("not utf-16-le")),  # half a pair
        (codecs.BOM_UTF8 + b"\xff", "utf-8", NotTextError("not utf-8")),
    ],
)
def test_a_file_is_text_in_its_marks_encoding_or_in_the_one_asked_for(
    content: bytes, encoding: str, expected: str | NotTextError
) -> None:
    if isinstance(expected, str):
        assert b"".join(to_utf8([content], encoding=encoding)).decode() == expected
    else:
        with pytest.raises(NotTextError, match=f"^{expected}$"):
            list(to_utf8([content], encoding=encoding))


@pytest.fixture
def mix(tmp_path: Path) -> Path:
    """Nine files in Latin-1, one in UTF-16 with its mark, one in UTF-8: one of eleven was read, and nothing said so."""
    folder = tmp_path / "mix"
    folder.mkdir()
    for number in range(9):
        (folder / f"latin{number}.txt").write_bytes((PLAIN * 100).encode("latin-1"))
    (folder / "wide.txt").write_bytes((PLAIN * 10).encode("utf-16"))
    (folder / "plain.txt").write_text(PLAIN * 100, encoding="utf-8")
    return folder


def count(text: str, files: int) -> int:
    return files * len(text.encode())


def test_what_is_left_out_is_counted_and_an_encoding_reads_it(mix: Path, tmp_path: Path) -> None:
    line = f"data = '{mix}': trains on 2 files, 2.2 kB; left out: 9 not utf-8 (15.3 kB); encoding = NAME reads files of"
    assert check(str(mix)).startswith(line)
    some = prepare(str(mix), vocab_size=256, cache=tmp_path / "cache")
    assert (some.files, some.text_bytes, some.loss) == (
        2,
        count(PLAIN * 10, 1) + count(PLAIN * 100, 1),
        check(str(mix)),
    )
    every = prepare(str(mix), vocab_size=256, encoding="latin-1", cache=tmp_path / "cache")
    assert (every.files, every.loss, check(str(mix), encoding="latin-1")) == (11, None, None)
    assert every.digest != some.digest


def test_the_same_text_in_another_encoding_is_the_same_corpus(tmp_path: Path) -> None:
    digests = set()
    for number, (encoding, mark) in enumerate(
        (("utf-8", b""), ("utf-8", codecs.BOM_UTF8), ("latin-1", b""), ("utf-16", b""))
    ):
        path = tmp_path / str(number) / "a.txt"
        path.parent.mkdir()
        path.write_bytes(mark + (PLAIN * 100).encode(encoding))
        asked = "latin-1" if encoding == "latin-1" else "utf-8"
        digests.add(prepare(str(path), vocab_size=256, encoding=asked, cache=tmp_path / "cache").tokens_digest)
    assert len(digests) == 1


SUITE = """
[point]
model = "tiny"
sequence_length = 8
micro_batch_size = 2
[measure]
steps = 2
"""


def suite_of(data: Path, *overrides: str) -> Any:
    return apply_overrides(parse_suite(SUITE, name="run", where="hvbench run"), [f"data='{data}'", *overrides])


@installed
def test_plan_sweep_and_report_say_what_is_left_out(mix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HVBENCH_CACHE", str(tmp_path / "cache"))
    words = "left out: 9 not utf-8 (15.3 kB)"
    assert words in describe_plan(suite_of(mix), np=2)
    assert words not in describe_plan(suite_of(mix, "encoding=latin-1"), np=2)
    witness = Witness()
    sweep = prepare_sweep(suite_of(mix), RunFolder(tmp_path / "run"), SweepOptions(), world_size=2, observer=witness)
    assert [message for _, message in witness.received if words in message]
    assert sweep.texts == json.loads((tmp_path / "run" / "run.json").read_text())["data"]
    facts = {"data_source": "data = 'mix'", "text_files": 2, "text_bytes": 2090, "text_bytes_left_out": 15_300}
    warnings = list_warnings(
        Run([make_record([make_rank(step_seconds=[1.0])], environment={**facts, "text_left_out": "9 not utf-8"})])
    )
    assert (
        "Not all of the text was read.",
        "data = 'mix': 2 files with 2090 bytes were read, 15300 bytes were not: 9 not utf-8.",
    ) in warnings
    assert not list_warnings(
        Run([make_record([make_rank(step_seconds=[1.0])], environment={**facts, "text_left_out": None})])
    )


@installed
def test_a_run_within_its_own_text_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`cd proj; hvbench run data=. repeats=2` trained on its own logs and records: three digests in one run."""
    project = tmp_path / "proj"
    project.mkdir()
    (project / "a.txt").write_text(PLAIN * 200)
    monkeypatch.chdir(project)
    monkeypatch.setenv("HVBENCH_CACHE", str(project / "cache"))
    alone = prepare(".", vocab_size=256).digest
    folder = RunFolder(project / "results" / "run" / "now")
    sweep = prepare_sweep(suite_of(Path(".")), folder, SweepOptions(), world_size=2, observer=Witness())
    (folder.logs_path / "generation0000-rank0.log").write_text("a line of a worker\n" * 50)
    (folder.records_path / "x.json").write_text("{}" * 100)
    (folder.path / "report.md").write_text("text " * 100)
    assert set(sweep.texts.values()) == {alone} == {prepare(".", vocab_size=256).digest}
    folder.close()
    (folder.path / ".lock").unlink()  # one that was copied has no lock
    later = prepare(".", vocab_size=256)
    assert later.digest == alone and "1 folder of a run of hvbench" in later.loss and "hvbench's cache" in later.loss
    (project / "notes.txt").write_text("what else is written there is text")
    assert prepare(".", vocab_size=256).digest != alone
    with pytest.raises(DataError, match="a run of hvbench"):
        check(str(folder.path))


class Ranks:
    """A runtime whose ranks read texts of these digests; this one is rank `rank`."""

    def __init__(self, *has_changed: bool, rank: int = 0) -> None:
        self.runtime, self.rank = self, rank
        self.flags = [float(each) for each in has_changed]

    def gather(self, value: float) -> list[float]:
        assert value == self.flags[self.rank]
        return self.flags


@pytest.mark.parametrize(
    ("digest", "readers", "words"),
    [
        ("as asked", Ranks(False, False), None),
        (None, Ranks(True, True), None),  # a run that did not note it
        ("of old", Ranks(True, True), "rank 0 reads digest DIGEST, run.json says of old"),
        ("of old", Ranks(False, True, rank=1), "rank 1 reads digest DIGEST, run.json says of old"),
        ("as asked", Ranks(False, True, rank=0), "rank 1 reads another digest, run.json says as asked"),
    ],
)
def test_every_launch_is_held_against_the_digest_of_its_run(
    digest: str | None, readers: Ranks, words: str | None, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text(PLAIN * 200)
    text = prepare(str(tmp_path / "a.txt"), vocab_size=256, cache=tmp_path / "cache")
    outcome = find_text_change(readers, text, digest=text.digest if digest == "as asked" else digest)
    if words is None:
        assert outcome is None
    else:
        assert (outcome["status"], outcome["phase"]) == ("failed", "data")
        expected = words.replace("DIGEST", text.digest).replace("as asked", text.digest)
        assert expected in outcome["message"] and "not trained" in outcome["message"] and "\n" not in outcome["message"]


def test_a_task_carries_the_digest_of_its_own_text() -> None:
    points = [
        Point(world_size=1),
        Point(world_size=1, vocab_size=300),
        validate(Point, {"world_size": 1, "data": "x", "encoding": "latin-1"}, where="test"),
    ]
    assert [name_text(point) for point in points] == [
        "stdlib, 4096 tokens",
        "stdlib, 300 tokens",
        "x, 4096 tokens, iso8859-1",
    ]
    texts = {name_text(point): f"digest {number}" for number, point in enumerate(points[:2])}
    tasks = [make_task(Job(point=point, repeat=0), Shared(settings=MeasureSettings(), texts=texts)) for point in points]
    found = [MeasureRequest.model_validate(task.job).data_digest for task in tasks]
    assert found == ["digest 0", "digest 1", None]


@pytest.mark.parametrize(
    ("name", "canonical"), [("utf8", "utf-8"), ("UTF-8", "utf-8"), ("latin-1", "iso8859-1"), ("Windows-1252", "cp1252")]
)
def test_an_encoding_has_one_name(name: str, canonical: str) -> None:
    point = validate(Point, {"data": "x", "encoding": name}, where="test")
    assert point.encoding == canonical
    assert point.point_id == validate(Point, {"data": "x", "encoding": canonical}, where="test").point_id


@pytest.mark.parametrize("name", ["klingon", "base64", "rot13", "", "undefined", "utf-8\0"])
def test_what_is_no_encoding_is_one_line(name: str) -> None:
    with pytest.raises(UsageError, match="encoding = ") as caught:
        validate(Point, {"encoding": name}, where="test")
    assert "\n" not in str(caught.value) and "Value error" not in str(caught.value)


def test_an_encoding_of_a_text_that_is_made_here_is_refused() -> None:
    for data in ("stdlib", "synthetic"):
        reason = reason_to_skip(Point(data=data, encoding="latin-1", world_size=1), world_size=1)
        assert reason == f"encoding iso8859-1 is for text of your own: that of {data} is known"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (16_200, "16.2 kB"), (175_000, "175 kB"), (3_100_000, "3.1 MB")],
)
def test_sizes_are_short(size: int, text: str) -> None:
    assert format_bytes(size) == text


def test_links_that_lead_nowhere_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(PLAIN * 20)
    for number in range(3):
        os.symlink(tmp_path / f"gone{number}", tmp_path / f"link{number}")
    assert "left out: 3 broken or circular link" in check(str(tmp_path))

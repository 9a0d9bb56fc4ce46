"""Files of labelled texts, line by line: JSONL, CSV and CoNLL's columns -> texts and labels, or what is wrong with them. Imports only the standard library."""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from hvbench.errors import DataError
from hvbench.spec.messages import shorten
from hvbench.training.decoding import MARK_BYTES, UTF8, find_mark
from hvbench.training.labelled.source import Source, list_names

MAX_LINE_BYTES = 1 << 26


class Fields:
    """What one file's rows are asked for, and how many of them do not have it."""

    def __init__(self, source: Source, path: Path) -> None:
        self.source = source
        self.path = path
        self.rows = 0
        self.has_second_text: bool | None = None  # as its first row has; None: not known yet
        self._found: list[str] = []
        self._wrong: dict[str, tuple[int, int]] = {}  # reason -> rows, line of the first

    def take(self, values: dict[str, Any], *, line: int) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """Texts and labels of a row; None where something of it is wrong."""
        if self.has_second_text is None:
            self._found = list(values)
            is_pair = self.source.needs_second_text or self.source.second_text_field in values
            self.has_second_text = is_pair and self.source.labels != "tags"
        self.rows += 1
        if self.source.labels == "tags":
            return self._take_words(values, line=line)
        names = [self.source.text_field, *([self.source.second_text_field] * self.has_second_text)]
        if not self.has_second_text and self.source.second_text_field in values:
            return self._refuse(f"a {self.source.second_text_field} where the first row has none", line)
        for name in names:
            if reason := _judge_text(values.get(name), name=name):
                return self._refuse(reason, line)
        given = values.get(self.source.label_field)
        if given in (None, ""):
            return self._refuse(f"no {self.source.label_field}", line)
        label = _to_number(given) if self.source.labels == "number" else _to_class(given)
        if label is None:
            wanted = "no finite number" if self.source.labels == "number" else "neither text nor a whole number"
            return self._refuse(f"a {self.source.label_field} that is {wanted}", line)
        return tuple(values[name] for name in names), (label,)

    def _take_words(self, values: dict[str, Any], *, line: int) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        text_field, label_field = self.source.text_field, self.source.label_field
        words, tags = values.get(text_field), values.get(label_field)
        for name, each in ((text_field, words), (label_field, tags)):
            if each is None:
                return self._refuse(f"no {name}", line)
            if not isinstance(each, list):
                return self._refuse(f"a {name} that is no list", line)
        if len(words) != len(tags):
            return self._refuse(f"{text_field} and {label_field} of different lengths", line)
        if not words:
            return self._refuse(f"an empty {text_field}", line)
        for word in words:
            if reason := _judge_text(word, name="word"):
                return self._refuse(reason, line)
        names = [_to_class(tag) for tag in tags]
        if None in names:
            return self._refuse(f"a tag in {label_field} that is neither text nor a whole number", line)
        return tuple(words), tuple(names)

    def refuse_encoding(self, line: int) -> None:
        """Count a line that is not in the encoding of the file."""
        self.rows += 1
        self._refuse("bytes that are not utf-8", line)

    def require_none_wrong(self) -> None:
        """Raise DataError where any row was refused: with the most frequent reason, and how many have it."""
        if not self._wrong:
            return
        reason, (count, line) = max(self._wrong.items(), key=lambda each: each[1][0])
        others = sum(each for each, _ in self._wrong.values()) - count
        raise DataError(
            f"{self.path}: {count} of {self.rows} rows {'have' if self.rows > 1 else 'has'} {reason} (first: line {line}"
            + (f"; {others} more are wrong otherwise" if others else "")
            + f"); {self._hint(reason)}"
        )

    def fail(self, what: str) -> DataError:
        """The error of a file that cannot be read on."""
        return DataError(f"{self.path}: {what}")

    def _refuse(self, reason: str, line: int) -> None:
        count, first = self._wrong.get(reason, (0, line))
        self._wrong[reason] = count + 1, first

    def _hint(self, reason: str) -> str:
        if reason.startswith("bytes"):
            return "one file has one encoding: encoding = NAME reads another one"
        if reason.startswith("no "):
            return f"fields found: {list_names(self._found)}; text_field, second_text_field and label_field name others"
        return "correct these rows or leave them out"


def _judge_text(text: Any, *, name: str) -> str | None:
    """What is wrong with a text, or None."""
    if text is None:
        return f"no {name}"
    if not isinstance(text, str):
        return f"a {name} that is not text"
    if not text.strip():
        return f"an empty {name}"
    if "\0" in text:
        return f"a NUL character in {name}"
    if _has_surrogate(text):
        return f"half a surrogate pair in {name}"
    return None


def _to_class(value: Any) -> str | None:
    """The name of a class; None where it is none."""
    if isinstance(value, bool | int):
        return str(value).lower() if isinstance(value, bool) else str(value)
    return (value.strip() or None) if isinstance(value, str) and not _has_surrogate(value) else None


def _has_surrogate(text: str) -> bool:
    """Whether a text, of JSON's escapes, has half a pair and so no encoding."""
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def _to_number(value: Any) -> str | None:
    """A finite number as text, the same for 1, 1.0 and "1"; None where it is none."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return repr(number) if math.isfinite(number) else None


def _read_json_lines(fields: Fields) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in _read_lines(fields):
        if line is None:
            fields.refuse_encoding(number)
            continue
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise fields.fail(
                f"line {number} is no JSON: {error.msg} at character {error.pos + 1}; JSONL has an object a line"
            ) from None
        except (ValueError, RecursionError) as error:
            raise fields.fail(f"line {number} cannot be read: {shorten(str(error), limit=100)}") from None
        if not isinstance(values, dict):
            raise fields.fail(f"line {number} is no JSON object, such as {{{_example(fields.source)}}}")
        yield number, values


def _example(source: Source) -> str:
    return f'"{source.text_field}": "…", "{source.label_field}": "…"'


def read_csv(fields: Fields) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of comma-separated values below a line of names (RFC 4180)."""
    csv.field_size_limit(MAX_LINE_BYTES)
    bad_lines: list[int] = []
    reader = csv.reader(_replace_bad_lines(_read_lines(fields), bad_lines.append), strict=True)
    try:
        names = next(reader, [])
        if bad_lines:
            raise fields.fail("line 1 is not utf-8; encoding = NAME reads another one")
        _require_columns(fields, names)
        for values in reader:
            if bad_lines:
                fields.refuse_encoding(bad_lines[0])
                bad_lines.clear()
            elif values and len(values) != len(names):
                raise fields.fail(
                    f"line {reader.line_num} has {len(values)} columns, the first line names {len(names)}; "
                    "a text with commas or line ends in it stands between double quotes"
                )
            elif values:
                yield reader.line_num, dict(zip(names, values, strict=True))
    except csv.Error as error:
        raise fields.fail(f"line {reader.line_num} is no CSV: {error}") from None


def _read_columns(fields: Fields) -> Iterator[tuple[int, dict[str, Any]]]:
    """Sentences of CoNLL's columns, each with the line of its first word."""
    source, begin = fields.source, 0
    words: list[str] = []
    tags: list[str] = []
    for number, line in itertools.chain(_read_lines(fields), [(0, "")]):
        if line is None:
            fields.refuse_encoding(number)
            continue
        columns = line.split()
        if not columns or columns[0] == "-DOCSTART-":
            if words:
                yield begin, {source.text_field: words, source.label_field: tags}
            words, tags = [], []
            continue
        if len(columns) < 2:
            raise fields.fail(
                f"line {number} has one column, no tag; a line is a word, maybe other columns, and the tag"
            )
        begin = begin if words else number
        words.append(columns[0])
        tags.append(columns[-1])


READERS = {".jsonl": _read_json_lines, ".csv": read_csv, ".conll": _read_columns}


def _replace_bad_lines(lines: Iterable[tuple[int, str | None]], note: Callable[[int], None]) -> Iterator[str]:
    for number, line in lines:
        if line is None:
            note(number)
        yield "\n" if line is None else line


def _require_columns(fields: Fields, names: list[str]) -> None:
    source = fields.source
    wanted = [source.text_field, *([source.second_text_field] * source.needs_second_text), source.label_field]
    missing = [name for name in wanted if name not in names]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if missing:
        raise fields.fail(
            f"no column {' and no '.join(missing)}; its first line names {list_names(names)}: "
            "text_field, second_text_field and label_field name others"
        )
    if twice:
        raise fields.fail(f"two columns are named {twice[0]!r}")


def _read_lines(fields: Fields) -> Iterator[tuple[int, str | None]]:
    """(number from 1, text) of each line; None for one that is not UTF-8 in a file that should be."""
    path, encoding = fields.path, fields.source.encoding
    try:
        with open(path, "rb") as stream:
            mark, found = find_mark(stream.read(MARK_BYTES), encoding=encoding)
        is_utf8 = found == UTF8
        with open(path, "rb") if is_utf8 else open(path, encoding=found, newline="\n") as stream:
            if is_utf8:
                stream.seek(len(mark))
            for number in itertools.count(1):
                line = stream.readline(MAX_LINE_BYTES + 1)
                if not line:
                    return
                if len(line) > MAX_LINE_BYTES:
                    raise fields.fail(f"line {number} is longer than {MAX_LINE_BYTES >> 20} MiB; a row has a line")
                if not is_utf8:
                    yield number, line.removeprefix("\ufeff") if number == 1 else line
                    continue
                try:
                    yield number, line.decode()
                except UnicodeDecodeError:
                    yield number, None
    except UnicodeError:
        raise fields.fail(f"not {found}, or not all of it; one file has one encoding: encoding = NAME") from None
    except OSError as error:
        raise fields.fail(f"cannot be read: {error.strerror}") from None

"""Finding, splitting, tokenising and caching training text, on real files; two tests read the real standard library."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from hvbench.errors import DataError
from hvbench.training.corpus import Corpus, check, prepare, require_enough
from hvbench.training.files import describe_left_out
from tests import patience

WORDS = "the loss of a model falls while it learns größer naïve 数据 def return self import range".split()


def write_text(path: Path, *, words: int = 2000, seed: int = 0) -> Path:
    chosen = random.Random(seed).choices(WORDS, k=words)
    lines = [" ".join(chosen[start : start + 12]) for start in range(0, words, 12)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_folder(root: Path, *, files: int = 60) -> Path:
    for number in range(files):
        write_text(root / f"part{number % 3}" / f"text{number:03}.txt", words=100, seed=number)
    return root


def as_bytes(corpus: Corpus) -> tuple[bytes, bytes]:
    return corpus.train.tobytes(), corpus.validation.tobytes()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that a user without privileges can reach; root's own temporary folders are closed."""
    root = Path(tempfile.mkdtemp(prefix="hvbench-test-"))
    root.chmod(0o777)
    yield root
    shutil.rmtree(root)


@pytest.fixture
def ordinary_user() -> Iterator[None]:
    """Permissions do not bind root, so root becomes somebody else for the test."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


# Splitting


def test_one_file_is_split_by_position(tmp_path: Path, cache: Path) -> None:
    path = write_text(tmp_path / "input.txt")
    train, validation = as_bytes(prepare(str(path), vocab_size=256, cache=cache))
    assert train + validation == path.read_bytes()
    assert len(validation) == pytest.approx(0.05 * path.stat().st_size, abs=4)


def test_a_position_split_cuts_no_character(tmp_path: Path, cache: Path) -> None:
    for length in range(100, 112):
        path = tmp_path / f"{length}.txt"
        path.write_text("数" * length, encoding="utf-8")
        train, validation = as_bytes(prepare(str(path), vocab_size=256, cache=cache))
        assert train.decode() + validation.decode() == path.read_text(encoding="utf-8")


def test_a_folder_is_split_by_file_in_sorted_order(tmp_path: Path, cache: Path) -> None:
    root = write_folder(tmp_path / "texts")
    corpus = prepare(str(root), vocab_size=256, cache=cache)
    train, validation = as_bytes(corpus)
    contents = [path.read_bytes() for path in sorted(root.rglob("*.txt"), key=lambda p: p.relative_to(root).as_posix())]
    held_out = [content for content in contents if content in validation]
    assert 0 < len(held_out) < 12
    assert validation == b"".join(held_out)
    assert train == b"".join(content for content in contents if content not in held_out)
    assert corpus.files == 60
    assert corpus.text_bytes == len(train) + len(validation) == sum(map(len, contents))


def test_a_folder_with_one_dominant_file_is_split_by_position(tmp_path: Path, cache: Path) -> None:
    """Whichever file the hash holds out, neither nearly all nor nearly none of the text may be validation."""
    for name in "abcdefghijklmnopqrstuvwxyz":
        root = tmp_path / name
        write_text(root / f"{name}.txt", words=3000)
        write_text(root / "small.txt", words=30)
        corpus = prepare(str(root), vocab_size=256, cache=cache)
        assert len(corpus.validation) == pytest.approx(0.05 * corpus.text_bytes, abs=4)


# Digest


def test_the_digest_depends_on_text_and_settings_not_on_the_folder(tmp_path: Path, cache: Path) -> None:
    first = write_folder(tmp_path / "here" / "texts")
    second = tmp_path / "there"
    shutil.copytree(first, second)
    digest = prepare(str(first), vocab_size=256, cache=cache).digest
    assert len(digest) == 16
    assert prepare(str(second), vocab_size=256, cache=cache).digest == digest
    assert prepare(str(second), vocab_size=300, cache=cache).digest != digest
    (second / "part0" / "text000.txt").rename(second / "part0" / "renamed.txt")
    renamed = prepare(str(second), vocab_size=256, cache=cache).digest
    assert renamed != digest
    with open(second / "part0" / "renamed.txt", "ab") as stream:
        stream.write(b"!")
    assert prepare(str(second), vocab_size=256, cache=cache).digest not in (digest, renamed)


def test_equal_bytes_cut_into_other_files_have_another_digest(tmp_path: Path, cache: Path) -> None:
    digests = set()
    for name, (first, second) in {"x": ("a" * 100, "b" * 100), "y": ("a" * 100 + "b", "b" * 99)}.items():
        root = tmp_path / name
        root.mkdir()
        (root / "1").write_text(first)
        (root / "2").write_text(second)
        digests.add(prepare(str(root), vocab_size=256, cache=cache).digest)
    assert len(digests) == 2


# Tokenising


@pytest.mark.parametrize(
    ("vocab_size", "dtype"), [(256, "uint8"), (257, "uint16"), (65536, "uint16"), (65537, "uint32")]
)
def test_tokens_have_the_smallest_dtype(tmp_path: Path, cache: Path, vocab_size: int, dtype: str) -> None:
    corpus = prepare(str(write_text(tmp_path / "input.txt")), vocab_size=vocab_size, cache=cache)
    assert corpus.train.dtype == corpus.validation.dtype == dtype
    assert corpus.vocab_size == vocab_size
    assert int(max(corpus.train.max(), corpus.validation.max())) < corpus.vocabulary_size <= vocab_size
    assert len(corpus.maps) == 2 and not corpus.train.flags.writeable


def test_bpe_tokens_decode_to_the_text(tmp_path: Path, cache: Path) -> None:
    path = write_text(tmp_path / "input.txt", words=5000)
    with open(path, "ab") as stream:
        stream.write("only held out: \x01 \U0001f600 ÿ\r\n\t end".encode())
    corpus = prepare(str(path), vocab_size=320, cache=cache)
    assert corpus.vocabulary_size == 320
    assert len(corpus.train) < path.stat().st_size / 2
    assert decode(corpus, cache) == path.read_bytes()


def decode(corpus: Corpus, cache: Path) -> bytes:
    """The text of both splits, by the cached vocabulary.

    Undoes GPT-2's byte alphabet: printable Latin-1 stands for itself, the other bytes for code points from 256 on.
    """
    path = cache / "corpus" / f"{corpus.digest}-{corpus.vocab_size}" / "vocabulary.json"
    vocabulary = json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
    letters = {number: token for token, number in vocabulary.items()}
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    values = {chr(byte): byte for byte in plain} | {chr(256 + index): byte for index, byte in enumerate(others)}
    tokens = [*corpus.train.tolist(), *corpus.validation.tolist()]
    return bytes(values[letter] for token in tokens for letter in letters[token])


def test_a_small_text_gets_a_smaller_vocabulary(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "input.txt"
    path.write_text("to be or not to be " * 20)
    corpus = prepare(str(path), vocab_size=50257, cache=cache)
    assert 256 < corpus.vocabulary_size < 300
    assert corpus.vocab_size == 50257


def test_long_lines_and_many_chunks_lose_nothing(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "input.txt"
    path.write_text("数据" * 60_000 + "\n" + "x" * 200_000 + " end of line\n" * 20_000, encoding="utf-8")
    train, validation = as_bytes(prepare(str(path), vocab_size=256, cache=cache))
    assert train + validation == path.read_bytes()
    assert decode(prepare(str(path), vocab_size=300, cache=cache), cache) == path.read_bytes()


def test_training_a_vocabulary_is_deterministic(tmp_path: Path) -> None:
    """In processes of their own (other hash seeds), with one thread and with several."""
    root = write_folder(tmp_path / "texts")
    program = (
        "import sys; from pathlib import Path; from hvbench.training.corpus import prepare\n"
        "corpus = prepare(sys.argv[1], vocab_size=400, cache=Path(sys.argv[2]))\n"
        "print(corpus.digest, corpus.tokens_digest)"
    )
    outputs = set()
    vocabularies = set()
    for number, parallel in enumerate(("true", "false", "true")):
        cache = tmp_path / f"cache{number}"
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": parallel}
        command = [sys.executable, "-c", program, str(root), str(cache)]
        outputs.add(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
        vocabularies.add(next(cache.rglob("vocabulary.json")).read_bytes())
    assert len(outputs) == len(vocabularies) == 1


def test_importing_and_checking_load_no_numpy(tmp_path: Path) -> None:
    path = write_text(tmp_path / "input.txt")
    program = (
        "import sys; from hvbench.training import corpus; corpus.check(sys.argv[1]); corpus.check('stdlib')\n"
        "print([name for name in ('numpy', 'tokenizers') if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(path)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == "[]"


# Synthetic and standard library


def test_synthetic_tokens_are_uniform_and_reproducible() -> None:
    check("synthetic")
    corpus = prepare("synthetic", vocab_size=300)
    again = prepare("synthetic", vocab_size=300)
    assert as_bytes(corpus) == as_bytes(again)
    assert corpus.digest == again.digest != prepare("synthetic", vocab_size=301).digest
    assert corpus.train.dtype == np.uint16
    counts = np.bincount(corpus.train, minlength=300)
    assert len(counts) == 300 and counts.min() > 0.95 * counts.mean() and counts.max() < 1.05 * counts.mean()
    assert "PCG64 seed 0" in corpus.source


def test_the_standard_library_is_a_corpus(cache: Path) -> None:
    check("stdlib")
    corpus = prepare("stdlib", vocab_size=256, cache=cache)
    assert corpus.text_bytes > 5_000_000 and corpus.files > 300
    assert 0.01 < len(corpus.validation) / corpus.text_bytes < 0.2
    text = b"".join(as_bytes(corpus))
    assert b"class OrderedDict(dict):" in text and b"class JSONDecoder" in text
    assert b"\nbuild_time_vars = {" not in text  # of the machine that built the interpreter
    assert b"class TestProgram" in text and b"class BaseTaskTests" not in text  # unittest, but not its tests


# Bad input


@pytest.fixture
def bad_inputs(tmp_path: Path) -> dict[str, tuple[str, str]]:
    """Name -> path and what the message must say."""
    (tmp_path / "empty.txt").touch()
    (tmp_path / "binary.bin").write_bytes(b"\x7fELF\0\0\1" * 100)
    (tmp_path / "latin1.txt").write_bytes("größer ".encode("latin-1") * 100)
    (tmp_path / "utf16.txt").write_bytes(("text " * 100).encode("utf-16-le"))  # without a mark
    (tmp_path / "folder").mkdir()
    (tmp_path / "binaries").mkdir()
    for number in range(3):
        (tmp_path / "binaries" / f"{number}.bin").write_bytes(b"\0" * 1000)
    (tmp_path / "hidden" / ".git").mkdir(parents=True)
    write_text(tmp_path / "hidden" / ".git" / "description")
    (tmp_path / "hidden" / "empty").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    expected = {
        "missing.txt": "no such file or folder",
        "empty.txt": "the file is empty",
        "binary.bin": "not a text file: with NUL bytes; text is utf-8",
        "latin1.txt": "not a text file: not utf-8; text is utf-8",
        "utf16.txt": "not a text file: with NUL bytes; text is utf-8",
        "folder": "no file with text in this folder",
        "binaries": "none of its 3 files is text",
        "hidden": "no file with text in this folder",
        "pipe": "must be a regular file or a folder",
        "circle": "symbolic links",
        "empty.txt/below": "Not a directory",
        "n" * 300: "name too long",
    }
    return {name[:20]: (str(tmp_path / name), words) for name, words in expected.items()}


def test_bad_input_is_an_error_of_one_line_in_check_and_in_prepare(
    bad_inputs: dict[str, tuple[str, str]], cache: Path
) -> None:
    for path, words in bad_inputs.values():
        for attempt in (check, partial(prepare, vocab_size=256, cache=cache)):
            with pytest.raises(DataError) as caught:
                attempt(path)
            message = str(caught.value)
            assert words in message and path in message
            assert "\n" not in message
    assert not cache.exists()


@pytest.mark.parametrize("data", ["/dev/null", "/dev/zero", "~no-such-user-here/text", "a\nname"])
def test_special_paths_are_refused(data: str) -> None:
    with pytest.raises(DataError) as caught:
        check(data)
    assert "\n" not in str(caught.value)


def test_binary_after_a_long_text_head_is_still_found(tmp_path: Path, cache: Path) -> None:
    path = write_text(tmp_path / "input.txt", words=40_000)
    with open(path, "ab") as stream:
        stream.write(b"\0")
    for attempt in (check, partial(prepare, vocab_size=256, cache=cache)):
        with pytest.raises(DataError, match="not a text file"):
            attempt(str(path))


def test_check_accepts_a_character_across_the_end_of_the_head(tmp_path: Path) -> None:
    path = tmp_path / "input.txt"
    path.write_text("." * ((1 << 16) - 1) + "数" * 100, encoding="utf-8")
    check(str(path))


def test_too_small_a_text_is_refused(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "input.txt"
    path.write_text("hello")
    with pytest.raises(DataError, match="5 bytes of text are too few"):
        prepare(str(path), vocab_size=256, cache=cache)


def test_too_small_a_vocabulary_is_refused() -> None:
    with pytest.raises(DataError, match="vocab_size = 255"):
        prepare("synthetic", vocab_size=255)


def test_a_folder_skips_and_counts_what_is_not_text(tmp_path: Path, cache: Path) -> None:
    root = write_folder(tmp_path / "texts")
    expected = prepare(str(root), vocab_size=256, cache=cache)
    (root / "image.png").write_bytes(b"\x89PNG\0" * 100)
    (root / "latin1.txt").write_bytes("größer".encode("latin-1"))
    (root / "empty.txt").touch()
    (root / ".hidden.txt").write_text("not seen")
    (root / "loop").symlink_to(root)
    (root / "dangling").symlink_to(root / "nowhere")
    os.mkfifo(root / "pipe")
    check(str(root))
    corpus = prepare(str(root), vocab_size=256, cache=cache)
    assert corpus.digest == expected.digest
    assert corpus.files == 60
    assert describe_left_out(corpus.left_out) == (
        "1 not utf-8 (6 bytes), 1 with NUL bytes (500 bytes), 1 broken or circular link, 1 link to a folder, "
        "1 pipe, socket or device"
    )


def test_linked_files_are_read(tmp_path: Path, cache: Path) -> None:
    path = write_text(tmp_path / "elsewhere" / "blob")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "input.txt").symlink_to(path)
    corpus = prepare(str(tmp_path / "texts"), vocab_size=256, cache=cache)
    assert b"".join(as_bytes(corpus)) == path.read_bytes()


def test_a_home_folder_is_expanded(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_text(tmp_path / "home" / "input.txt")
    monkeypatch.setenv("HOME", str(path.parent))
    check("~/input.txt")
    assert prepare("~/input.txt", vocab_size=256, cache=cache).text_bytes == path.stat().st_size


def test_a_folder_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with open(tmp_path / "huge.txt", "wb") as stream:
        stream.truncate((1 << 40) + 1)  # sparse: takes no room
    for data in (tmp_path, tmp_path / "huge.txt"):
        with pytest.raises(DataError, match="too large; allowed: 200,000 files and 1 TiB"):
            check(str(data))


def test_unreadable_text_is_an_error_that_names_it(open_folder: Path, ordinary_user: None) -> None:
    path = write_text(open_folder / "texts" / "input.txt")
    path.chmod(0)
    for data in (path, path.parent):
        with pytest.raises(DataError, match="Permission denied"):
            check(str(data))
    path.chmod(0o600)
    path.parent.chmod(0)
    for data in (path, path.parent, open_folder):
        with pytest.raises(DataError, match="Permission denied"):
            check(str(data))
    path.parent.chmod(0o700)
    shutil.rmtree(path.parent)


# Cache


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(write_text(tmp_path / "input.txt"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HVBENCH_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    digest = prepare(path, vocab_size=256).digest
    assert (tmp_path / "home/.cache/hvbench/corpus" / f"{digest}-256").is_dir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    prepare(path, vocab_size=256)
    assert (tmp_path / "xdg/hvbench/corpus" / f"{digest}-256").is_dir()
    monkeypatch.setenv("HVBENCH_CACHE", str(tmp_path / "own"))
    prepare(path, vocab_size=256)
    assert (tmp_path / "own/corpus" / f"{digest}-256").is_dir()


def test_a_second_call_builds_nothing(tmp_path: Path, cache: Path) -> None:
    path = str(write_text(tmp_path / "input.txt"))
    lines: list[str] = []
    first = prepare(path, vocab_size=300, cache=cache, report=lines.append)
    assert lines[0].startswith("training a BPE vocabulary of 300 on 0.0 MB of text")
    lines.clear()
    second = prepare(path, vocab_size=300, cache=cache, report=lines.append)
    assert lines == []
    assert as_bytes(first) == as_bytes(second) and first.tokens_digest == second.tokens_digest


@pytest.mark.parametrize("name", ["train.bin", "validation.bin", "meta.json"])
@pytest.mark.parametrize("damage", ["remove", "truncate", "empty", "flip"])
def test_a_damaged_cache_entry_is_rebuilt(tmp_path: Path, cache: Path, name: str, damage: str) -> None:
    path = str(write_text(tmp_path / "input.txt"))
    expected = as_bytes(prepare(path, vocab_size=300, cache=cache))
    victim = next(cache.rglob(name))
    content = victim.read_bytes()
    if damage == "remove":
        victim.unlink()
    elif damage == "flip":
        victim.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    else:
        victim.write_bytes(content[: len(content) // 2] if damage == "truncate" else b"")
    lines: list[str] = []
    assert as_bytes(prepare(path, vocab_size=300, cache=cache, report=lines.append)) == expected
    assert lines
    assert not list(cache.rglob("*.building*"))


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path, cache: Path) -> None:
    path = str(write_text(tmp_path / "input.txt"))
    digest = prepare(path, vocab_size=256, cache=cache).digest
    entry = cache / "corpus" / f"{digest}-256"
    shutil.rmtree(entry)
    left = entry.with_name(f"{entry.name}.building-{socket.gethostname()}")
    left.mkdir()
    (left / "train.bin").write_bytes(b"half")
    assert prepare(path, vocab_size=256, cache=cache).text_bytes == Path(path).stat().st_size
    assert not left.exists()


def test_processes_that_start_together_build_once(tmp_path: Path, cache: Path) -> None:
    path = write_text(tmp_path / "input.txt", words=100_000)
    program = (
        "import sys; from pathlib import Path; from hvbench.training.corpus import prepare\n"
        "sys.stdin.readline()\n"
        "corpus = prepare(sys.argv[1], vocab_size=500, cache=Path(sys.argv[2]), report=print)\n"
        "print(corpus.tokens_digest)"
    )
    command = [sys.executable, "-c", program, str(path), str(cache)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        outputs.append(process.communicate(timeout=patience.SECONDS)[0])
        assert process.returncode == 0
    assert len({output.splitlines()[-1] for output in outputs}) == 1
    assert sum("training a BPE vocabulary" in output for output in outputs) == 1


def test_a_cache_that_cannot_be_written_is_an_error_of_one_line(tmp_path: Path) -> None:
    path = str(write_text(tmp_path / "input.txt"))
    (tmp_path / "file").touch()
    for cache in (tmp_path / "file", Path("/proc/hvbench")):
        with pytest.raises(DataError, match=r"the cache .* cannot be used: .*; set HVBENCH_CACHE") as caught:
            prepare(path, vocab_size=256, cache=cache)
        assert "\n" not in str(caught.value)


def test_a_filled_cache_may_be_read_only(open_folder: Path, ordinary_user: None) -> None:
    path = str(write_text(open_folder / "input.txt"))
    cache = open_folder / "cache"
    expected = as_bytes(prepare(path, vocab_size=256, cache=cache))
    (cache / "corpus").chmod(0o500)
    assert as_bytes(prepare(path, vocab_size=256, cache=cache)) == expected
    with pytest.raises(DataError, match="Permission denied; set HVBENCH_CACHE"):
        prepare(path, vocab_size=300, cache=cache)
    (cache / "corpus").chmod(0o700)


def test_text_that_changes_while_it_is_tokenised_is_refused(tmp_path: Path, cache: Path) -> None:
    path = write_text(tmp_path / "input.txt")

    def append(line: str) -> None:
        with open(path, "a") as stream:
            stream.write("one more line\n")

    with pytest.raises(DataError, match="changed while it was read"):
        prepare(str(path), vocab_size=300, cache=cache, report=append)
    assert not list(cache.rglob("*.bin"))


# Enough text


def test_too_little_text_for_a_batch_is_an_error_with_numbers(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "input.txt"
    path.write_text("x" * 2000)  # 1900 training bytes, 100 held out
    corpus = prepare(str(path), vocab_size=256, cache=cache)
    require_enough(corpus, sequence_length=99, global_batch_size=19)  # (1900 - 1) // 99 = 19
    with pytest.raises(DataError, match="has 19 training samples of 99 tokens, the global batch needs 20"):
        require_enough(corpus, sequence_length=99, global_batch_size=20)
    with pytest.raises(DataError, match="holds out 100 tokens, one sample needs 101"):
        require_enough(corpus, sequence_length=100, global_batch_size=1)
    with pytest.raises(DataError, match="has 0 training samples"):
        require_enough(corpus, sequence_length=5000, global_batch_size=1)

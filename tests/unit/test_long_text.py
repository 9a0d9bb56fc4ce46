"""A text that is longer than the memory it may take: digested, split, encoded and read in pieces."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

TEXT_BYTES = 96 << 20
ALLOWED_BYTES = (
    24 << 20
)  # beyond what the interpreter and numpy need; blocks, chunks and their tokens take about 10 MiB

# Tokenises a text, then reads all of it once; says by how much the peak of its memory rose, and what it found.
PROGRAM = """
import json, sys
import numpy as np
from pathlib import Path
from hvbench.training.corpus import prepare
from hvbench.worker.memory import rss_bytes

def peak_bytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

before = peak_bytes()
corpus = prepare(sys.argv[1], vocab_size=256, cache=Path(sys.argv[2]))
built = peak_bytes() - before
again = prepare(sys.argv[1], vocab_size=256, cache=Path(sys.argv[2]))
total = sum(int(tokens[i : i + (1 << 20)].sum()) for tokens in (again.train, again.validation) for i in range(0, len(tokens), 1 << 20))
mapped = rss_bytes()
again.forget_pages()
print(json.dumps({
    "built": built, "mapped": mapped, "forgotten": mapped - rss_bytes(), "tokens": [len(again.train), len(again.validation)],
    "sum": total, "is_same": corpus.tokens_digest == again.tokens_digest,
}))
"""


def test_a_long_text_takes_blocks_of_memory(tmp_path: Path) -> None:
    line = b"the quick brown fox jumps over the lazy dog, and the dog does not mind at all\n"
    block = line * ((1 << 20) // len(line))
    with open(tmp_path / "text.txt", "wb") as stream:
        for _ in range(TEXT_BYTES // len(block)):
            stream.write(block)
    size = (tmp_path / "text.txt").stat().st_size
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "text.txt"), str(tmp_path / "cache")],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert found["is_same"] and sum(found["tokens"]) == size and found["tokens"][1] == size - size * 95 // 100
    assert found["sum"] == sum(line) * (size // len(line)), "every byte is there"
    assert found["built"] < ALLOWED_BYTES < size / 3
    assert found["forgotten"] > 0.9 * size, "what was read through the map is given back"

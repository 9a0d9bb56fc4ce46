"""What a sweep shows, when nobody reads it any more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SPEAK = """
import sys
from pathlib import Path
from hvbench.cli.display import Display
display = Display()
sys.stdin.read()
with display:
    for number in range(3):
        display.prepare(f"line {number}")
display.show("a result")
Path(sys.argv[1]).write_text("went on")
raise SystemExit(3)
"""


def test_a_reader_who_leaves_ends_nothing(tmp_path: Path) -> None:
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    process = subprocess.Popen([sys.executable, "-c", SPEAK, str(tmp_path / "proof")], **pipes)
    process.stdout.close()
    process.stderr.close()
    process.stdin.close()
    assert process.wait(60) == 3
    assert (tmp_path / "proof").read_text() == "went on"

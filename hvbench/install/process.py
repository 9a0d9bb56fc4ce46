"""Running one long command: its output goes to a log, its progress to the user, the log's relevant lines into an error."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hvbench.errors import InstallError

REPORT_SECONDS = 30.0  # between two lines of progress where there is no terminal to redraw one
TROUBLE = re.compile(
    r"\berror: (?!subprocess-exited)|CMake Error|undefined reference|cannot find -l|Killed|No space left"
)
PIP_TROUBLE = re.compile(r"ERROR:|error: ")


def run_logged(
    command: Sequence[str],
    what: str,
    *,
    log: Path,
    environment: dict[str, str],
    report: Callable[[str], None],
    status: Callable[[str], None] | None = None,
) -> None:
    """Run `command`, appending its output to `log`; raise InstallError with the lines that tell why if it fails.

    `status` gets a line to redraw twice a second (then an empty one); without it, `report` gets one every 30 s.
    An exception, Ctrl-C included, ends the command and everything it started.
    """
    with log.open("ab") as output:
        output.write(f"\n$ {' '.join(command)}\n".encode())
        output.flush()
        start = reported = time.monotonic()
        begin = output.tell()
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            while (code := _wait(process, seconds=0.5)) is None:
                line = f"{what}: {_progress(log, since=begin)}{_clock(time.monotonic() - start)}"
                if status:
                    status(line)
                elif time.monotonic() - reported >= REPORT_SECONDS:
                    reported = time.monotonic()
                    report(f"  {line}")
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            if status:
                status("")
    if code != 0:
        raise InstallError(f"{what} failed (exit code {code}):\n{last_words(log)}\nThe whole log: {log}")


def last_words(log: Path, *, before: int = 8, after: int = 3) -> str:
    """Return the lines around the last error of a compiler (else of pip, else the last lines) in `log`, indented."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    for pattern in (TROUBLE, PIP_TROUBLE):
        hits = [number for number, line in enumerate(lines) if pattern.search(line)]
        if hits:
            lines = lines[: hits[-1] + after]
            break
    return "\n".join(f"  {line.strip()[:160]}" for line in lines[-before - after :])


def _wait(process: subprocess.Popen[bytes], *, seconds: float) -> int | None:
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return None


def _progress(log: Path, *, since: int) -> str:
    """Return make's last percentage, like '37 %, ', or nothing when the log's end has none."""
    with log.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(since, end - 50_000))
        percentages = re.findall(rb"^\s*\[ *(\d+)%\]", file.read(), re.M)
    return f"{percentages[-1].decode()} %, " if percentages else ""


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"

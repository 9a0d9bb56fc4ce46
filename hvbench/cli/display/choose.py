"""Which display a sweep gets: `--json`, `--quiet`, a terminal, or anything else."""

from __future__ import annotations

from rich.console import Console

from hvbench.cli.display.lines import Display, Quiet


def choose_display(output: str) -> Display:
    """The display for `json`, `quiet`, or `auto`: the live view on a terminal that can move its cursor, else lines."""
    if output == "json":
        from hvbench.cli.display.events import Events

        return Events()
    if output == "quiet":
        return Quiet()
    console = Console(stderr=True)
    if console.is_terminal and not console.is_dumb_terminal:
        from hvbench.cli.display.live import Live

        return Live()
    return Display()

"""What one `hvbench ab` is asked: the suite, what is different in each arm, and how pairs are launched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hvbench.records.store import new_run_path


@dataclass(frozen=True, kw_only=True)
class AbOptions:
    """Choices of one `hvbench ab`, by the names of its options."""

    suite: str  # a name or a TOML file
    a: Sequence[str] = ()  # changes of arm a, as `hvbench.comparison.ab.arms` reads them
    b: Sequence[str] = ()
    overrides: Sequence[str] = ()  # key=value, for both arms
    np: int | None = None  # ranks; None: the default of `hvbench sweep`
    budget_seconds: float | None = None  # for all pairs; None: the policy's
    seed: int | None = None  # of the order of the arms; None: drawn
    turns: bool | None = None  # whether the launches of a pair take turns; None: where they can
    all_pairs: bool = False  # launch all pairs, even when the verdict is clear before
    out: Path | None = None
    command: str = "hvbench ab"  # as it was typed, for ab.json

    def arguments(self, file: Path, overrides: Sequence[str]) -> tuple[str, ...]:
        """What `hvbench sweep` is called with, to run the suite in `file` with `overrides`."""
        words = [word for text in overrides for word in ("-s", text)]
        return (str(file.absolute()), *(["--np", str(self.np)] if self.np else []), *words)

    def run_path(self, root: Path, suite_name: str) -> Path:
        """The folder of the comparison: `out`, or a new one below `root`."""
        return self.out or new_run_path(root / "ab", suite_name)

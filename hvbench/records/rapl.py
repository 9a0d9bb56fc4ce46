"""What the host's processors have drawn, as the kernel counts it (Running Average Power Limit); nothing where it does not show it.

Virtual machines seldom do, and many kernels show it to root alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hvbench.records.reading import read_text


@dataclass(frozen=True, kw_only=True)
class Package:
    """One processor package's counter of energy; AMD's has the same name as Intel's."""

    folder: Path
    range_joules: float  # where it begins anew

    def energy_joules(self) -> float | None:
        """The counter now; None where it cannot be read."""
        return _read_joules(self.folder / "energy_uj")

    def drawn_joules(self, before: float, now: float) -> float:
        """What was drawn between two readings, less than a whole range."""
        return (now - before) % self.range_joules


def find_packages(root: Path = Path("/")) -> list[Package]:
    """The packages whose counters can be read: not their parts, nor the whole machine (`psys`), which contains them."""
    packages = []
    for folder in sorted((root / "sys/class/powercap").glob("intel-rapl:*")):
        is_package = (read_text(folder / "name") or "").startswith("package")
        limit = _read_joules(folder / "max_energy_range_uj")
        if is_package and limit and _read_joules(folder / "energy_uj") is not None:
            packages.append(Package(folder=folder, range_joules=limit))
    return packages


def _read_joules(path: Path) -> float | None:
    text = read_text(path) or ""
    return int(text) / 1e6 if text.isdigit() else None

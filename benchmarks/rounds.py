"""The rounds that `benchmarks/peers.py` keeps of one precision: read, continued, written after each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.ratios import Launch, check_equal_work, to_markdown
from hvbench.errors import StorageError, UsageError
from hvbench.io.atomic import write_json, write_text
from hvbench.records.environment import describe_environment, package_version

PACKAGES = ("torch", "tensorflow-cpu", "tensorflow", "keras", "transformers", "keras-hub", "numpy")


class Rounds:
    """`launches.json` (raw samples) and `table.md` of one folder; rounds of an earlier session are continued."""

    def __init__(self, folder: Path, asked: Mapping[str, Any], *, anew: bool = False) -> None:
        """Args: `asked` is what the rounds have in common; `anew` forgets those of the folder.

        Raises UsageError where the folder holds rounds of something else, or of another machine.
        """
        self.folder = folder
        self.asked = dict(asked)
        self.environment = describe_environment()
        self.packages = {name: version for name in PACKAGES if (version := package_version(name))}
        self.launches: list[Launch] = [] if anew or not self.path.exists() else self._read()

    @property
    def path(self) -> Path:
        """The file of raw samples."""
        return self.folder / "launches.json"

    def count(self, length: int) -> int:
        """How many rounds of a sequence length are complete."""
        return len({launch["round"] for launch in self.launches if launch["sequence_length"] == length})

    @property
    def table(self) -> str:
        """All tables, in Markdown."""
        return to_markdown(self.launches, self.asked["contenders"])

    def add(self, launches: Sequence[Launch]) -> None:
        """Keep one more round of a length; ValueError where the contenders' work was not equal, StorageError where it cannot be written."""
        number = self.count(launches[0]["sequence_length"])
        self.launches += [{**launch, "round": number} for launch in launches]
        check_equal_work(self.launches)
        facts = {"in_turns": True, "environment": self.environment, "packages": self.packages}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {"asked": self.asked, **facts, "launches": self.launches})
            write_text(self.folder / "table.md", self.table)
        except OSError as error:
            raise StorageError(f"{self.folder}: cannot be written: {error.strerror}") from None

    def _read(self) -> list[Launch]:
        other = "name another --out, or replace them with --anew"
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            known = {**kept["asked"], **kept["packages"], "cpu_model": kept["environment"]["cpu_model"]}
            launches, in_turns = list(kept["launches"]), kept.get("in_turns", False)
        except (OSError, ValueError, KeyError, TypeError):
            raise UsageError(f"{self.path}: not what this program writes; {other}") from None
        if not in_turns:
            raise UsageError(f"{self.path}: contenders that were launched one after the other; {other}")
        wanted = {**self.asked, **self.packages, "cpu_model": self.environment["cpu_model"]}
        for name in {**known, **wanted}:
            if known.get(name) != wanted.get(name):
                raise UsageError(f"{self.path}: rounds of {name} {known.get(name)}, not {wanted.get(name)}; {other}")
        return launches

"""The folder of a site: pages are written where they changed, atomically, and what no build would write any more is deleted."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from types import TracebackType
from typing import TextIO

from hvbench import __version__
from hvbench.analysis.report.page import render as report_page
from hvbench.errors import UsageError
from hvbench.io.atomic import explaining_write_errors, write_json, write_text
from hvbench.io.folders import OTHER_FOLDER, lock_folder, remove_abandoned
from hvbench.io.untrusted import refuse_links
from hvbench.site.collect import MARKER
from hvbench.site.render import TEMPLATES

FOLDERS = ("data", "machines", "pairs", "points", "runs", "suites")
CACHE = ".cache"  # summaries between builds: no part of what is published
GENERATED = re.compile(r"([a-z0-9-]+-)?[0-9a-f]{8}(-[a-z0-9_-]+)?\.(html|js)")
BUILT = "data/built.js"
SCHEMA_VERSION = 1


class SiteFolder:
    """A folder that holds a site and nothing else; locked against other builds while it is open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.written = 0  # files of the newest build
        self.largest_bytes = 0
        self._lock: TextIO | None = None
        self._names: set[str] = set()
        self._digest = hashlib.sha256()

    def __enter__(self) -> SiteFolder:
        """Raises UsageError where the folder has something else in it, and StorageError where it cannot be written."""
        require_site(self.path)
        refuse_links(self.path, names=(*FOLDERS, CACHE, MARKER))
        with explaining_write_errors(self.path, hint=OTHER_FOLDER):
            for name in (*FOLDERS, CACHE):
                (self.path / name).mkdir(parents=True, exist_ok=True)
        self._lock = lock_folder(self.path)
        folders = [self.path, *(self.path / name for name in (*FOLDERS, CACHE))]
        with explaining_write_errors(self.path, hint=OTHER_FOLDER):
            remove_abandoned(folders)
            write_json(
                self.path / MARKER, {"schema_version": SCHEMA_VERSION, "hvbench_version": __version__}, durable=False
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock:
            self._lock.close()

    @property
    def cache(self) -> Path:
        """Where summaries are kept."""
        return self.path / CACHE

    @property
    def names(self) -> frozenset[str]:
        """The files of the newest build."""
        return frozenset(self._names)

    def begin(self) -> None:
        """A new build: nothing has been written yet."""
        self.written, self.largest_bytes = 0, 0
        self._names, self._digest = set(), hashlib.sha256()

    def write(self, name: str, text: str) -> None:
        """Write a file unless it has this text already; raises StorageError."""
        content = text.encode(errors="replace")
        self._names.add(name)
        self._digest.update(name.encode() + hashlib.sha256(content).digest())
        self.largest_bytes = max(self.largest_bytes, len(content))
        path = self.path / name
        with explaining_write_errors(path, hint=OTHER_FOLDER):
            if not (path.is_file() and not path.is_symlink() and path.read_bytes() == content):
                write_text(path, text, durable=False)
                self.written += 1

    def write_assets(self) -> None:
        """Styles and scripts, which all pages share: those of the report's page, and our own."""
        styles = (report_page.FOLDER / "page.css").read_text(encoding="utf-8") + report_page.style_frameworks()
        self.write("report.css", styles)
        self.write("report.js", (report_page.FOLDER / "page.js").read_text(encoding="utf-8"))
        for name in ("site.css", "site.js"):
            self.write(name, (TEMPLATES / name).read_text(encoding="utf-8"))

    def end(self) -> None:
        """Say that there is a new build where there is, and delete the pages of what is not there any more; raises StorageError."""
        self.write(BUILT, f"hvbenchBuilt({json.dumps(self._digest.hexdigest()[:12])});\n")
        with explaining_write_errors(self.path):
            for folder in FOLDERS:
                for path in (self.path / folder).iterdir():
                    if f"{folder}/{path.name}" not in self._names and GENERATED.fullmatch(path.name):
                        path.unlink()


def require_site(path: Path) -> None:
    """Raise UsageError where `path` has content and is no site: nothing of a user's may be overwritten."""
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path}: not a folder; choose a new or empty one with --out")
    if not path.is_dir() or (path / MARKER).is_file():
        return
    foreign = sorted(entry.name for entry in path.iterdir())
    if foreign:
        raise UsageError(
            f"{path}: is not empty and is no site of hvbench (it has {foreign[0]} and no {MARKER}); nothing was touched: choose a "
            f"new or empty folder with --out"
        )

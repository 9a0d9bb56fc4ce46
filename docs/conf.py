"""Sphinx: the pages beside this file, and references generated from the program itself. Build them with `make docs`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from hvbench import __version__  # noqa: E402
from hvbench.analysis.frame.columns import POINT_COLUMNS  # noqa: E402
from hvbench.analysis.report.listing import render_topic_list  # noqa: E402
from hvbench.spec.reference import render_reference  # noqa: E402
from hvbench.spec.schema import suite_schema  # noqa: E402

project = "hvbench"
author = copyright = "hvbench contributors"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"hvbench {__version__}"
html_extra_path = ["_generated/suite.schema.json"]
exclude_patterns = ["_build", "_generated/*.md"]
# Pages link to files of the repository, which are no pages.
suppress_warnings = ["myst.xref_missing"]


def write_suite_reference(folder: Path) -> None:
    """Every field of a point and every setting, and the schema that editors check a suite with."""
    (folder / "suite.md").write_text(render_reference(), encoding="utf-8")
    (folder / "suite.schema.json").write_text(json.dumps(suite_schema(), indent=2) + "\n", encoding="utf-8")


def write_column_reference(folder: Path) -> None:
    """The columns of `hvbench.load` and of `tables/launches.csv`."""
    lines = ["| column | unit | meaning |", "| :--- | :--- | :--- |"]
    lines += [f"| `{one.name}` | {one.unit} | {one.meaning} |" for one in POINT_COLUMNS]
    (folder / "columns.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_topic_reference(folder: Path) -> None:
    """What each part of a report answers, and what a run must hold for it."""
    (folder / "topics.md").write_text(render_topic_list(), encoding="utf-8")


generated = HERE / "_generated"
generated.mkdir(exist_ok=True)
write_suite_reference(generated)
write_column_reference(generated)
write_topic_reference(generated)

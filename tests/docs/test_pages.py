"""The documentation builds without a warning, its references cover the program, and its notebook runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import jsonschema
import nbformat
import pytest
from nbclient import NotebookClient

from hvbench import errors
from hvbench.analysis.topics.catalogue import TOPICS
from hvbench.cli.group import hvbench as command_line
from hvbench.spec.point import Point
from hvbench.spec.schema import suite_schema
from hvbench.spec.script import Script
from hvbench.spec.settings import MeasureSettings
from hvbench.spec.suite import list_suites
from tests.unit.test_house_rules import FLOW

ROOT = Path(__file__).parents[2]
PYTORCH = ROOT / "hvbench" / "frameworks" / "pytorch"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    words = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", str(ROOT / "docs"), str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_command_has_its_place_in_the_reference(pages: Path) -> None:
    text = (pages / "reference" / "command-line.html").read_text(encoding="utf-8")
    assert [name for name in command_line.commands if f'id="hvbench-{name}"' not in text] == []


def test_every_field_of_a_suite_is_in_the_reference(pages: Path) -> None:
    text = (pages / "reference" / "suite-file.html").read_text(encoding="utf-8")
    fields = [*Point.model_fields, *MeasureSettings.model_fields, *Script.model_fields]
    assert [name for name in fields if f">{name}<" not in text] == []
    assert json.loads((pages / "suite.schema.json").read_text(encoding="utf-8")) == suite_schema()


def test_every_topic_of_a_report_is_in_the_reference(pages: Path) -> None:
    text = (pages / "reference" / "topics.html").read_text(encoding="utf-8")
    assert [topic.name for topic in TOPICS if topic.name not in text] == []


def test_the_guide_to_frameworks_lists_every_file_of_one() -> None:
    guide = (ROOT / "docs" / "frameworks.md").read_text(encoding="utf-8")
    files = {path.relative_to(PYTORCH).parts[0] for path in PYTORCH.rglob("*.py")}
    assert set(re.findall(r"^\| `([\w.]+)/?` \|", guide, re.M)) == files


def test_architecture_has_every_folder_in_the_order_of_the_flow() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert ["errors", "registry", *re.findall(r"^\| `(\w+)/` \|", page, re.M)] == list(FLOW)


def test_the_declaration_that_architecture_walks_through_is_the_one_in_the_source() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    source = (ROOT / "hvbench" / "spec" / "compression.py").read_text(encoding="utf-8")
    assert textwrap.indent(shown, "    ") in source


def test_the_page_of_exit_codes_has_those_of_every_error() -> None:
    page = (ROOT / "docs" / "reference" / "exit-codes.md").read_text(encoding="utf-8")
    family = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)]
    codes = [int(code) for code in re.findall(r"^\| (\d+) \|", page, re.M)]
    assert codes == sorted({0, *(each.exit_code for each in family)})


def test_the_schema_takes_every_shipped_suite() -> None:
    jsonschema.Draft202012Validator.check_schema(suite_schema())
    check = jsonschema.Draft202012Validator(suite_schema())
    for path in list_suites():
        assert [error.message for error in check.iter_errors(tomllib.loads(path.read_text(encoding="utf-8")))] == []


@pytest.mark.parametrize(
    "text",
    ['[point]\nprecison = "fp32"', "[axes]\nmicro_batch_size = []", "[point]\nmicro_batch_size = 0", "[[exclude]]", "steps = 3",
     "[measure]\nrepeats = 0", '[axes]\nframework = ["jax"]'],
)  # fmt: skip
def test_the_schema_refuses_what_hvbench_refuses(text: str) -> None:
    check = jsonschema.Draft202012Validator(suite_schema())
    assert list(check.iter_errors(tomllib.loads(text)))


# Jupyter's own machinery warns of what it will change one day.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_the_notebook_runs() -> None:
    notebook = nbformat.read(ROOT / "docs" / "notebooks" / "quickstart.ipynb", as_version=4)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(ROOT / "docs" / "notebooks")}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [output for output in outputs if output.output_type == "error"] == []
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any("tokens/s" in str(output) for output in outputs)

"""What Python programs may call: `hvbench.load`, `run_point` and `compare` do what their docstrings show."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import hvbench
from hvbench.errors import MissingData, UsageError
from tests.doctests import run_examples

ROOT = Path(__file__).parents[2]
FUNCTIONS = [name for name in hvbench.__all__ if not name.startswith("__")]


def test_the_public_functions_are_those_that_are_promised() -> None:
    assert FUNCTIONS == ["compare", "load", "run_point"]


@pytest.mark.parametrize("name", ["load", "compare"])
def test_the_examples_are_true(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    run_examples(getattr(hvbench, name))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_says_what_goes_in_what_comes_out_and_what_can_fail(name: str) -> None:
    function = getattr(hvbench, name)
    text = inspect.getdoc(function)
    assert all(f"\n{section}:\n" in text for section in ("Args", "Returns", "Raises", "Example"))
    arguments = text.partition("\nArgs:\n")[2].partition("\nReturns:\n")[0]
    names = [line.strip().partition(":")[0] for line in arguments.splitlines() if line[:4] == "    " != line[4:8]]
    assert [name.lstrip("*") for name in names if name] == list(inspect.signature(function).parameters)
    assert f"`hvbench.{name}`" in (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")


def test_a_comparison_says_in_its_attributes_what_a_table_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    frame = hvbench.compare("results/reference/quickstart", by="framework")
    assert frame.attrs["is_comparable"] is True and frame.attrs["problems"] == []
    assert frame.attrs["verdict"][0].startswith("tensorflow against pytorch, step time of 5 points: ")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"precison": "bf16"}, 'hvbench.run_point: unknown field "precison" (did you mean "precision"?); allowed: '),
        ({"steps": 0}, "hvbench.run_point: steps = 0: must be greater than or equal to 1"),
        ({"framework": "jax"}, "hvbench.run_point: framework = \"jax\": must be 'pytorch' or 'tensorflow'"),
        ({"np": 0}, "--np 0: must be between 1 and "),
        ({"data": "/no/such/place"}, "data = '/no/such/place': no such file or folder; "),
    ],
)
def test_a_wrong_point_is_refused_in_one_line(fields: dict, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HVBENCH_HOSTS", raising=False)
    with pytest.raises(UsageError) as refused:
        hvbench.run_point(**fields)
    assert str(refused.value).startswith(message) and "\n" not in str(refused.value)


def test_a_launcher_starts_no_point_from_python(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SIZE", "2"), ("LOCAL_SIZE", "2"), ("RANK", "0")):
        monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", value)
    with pytest.raises(UsageError, match="launches its own ranks"):
        hvbench.run_point()


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one run: name a second one"):
        hvbench.compare(ROOT / "results" / "reference" / "quickstart")
    with pytest.raises(MissingData, match="there is none below"):
        hvbench.compare("smoke@latest", "smoke@baseline", root=tmp_path)

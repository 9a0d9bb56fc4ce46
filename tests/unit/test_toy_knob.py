"""A knob is declared in one place: a field added to one part of a point is everywhere that fields of a point are."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

# The toy is added before anything else of hvbench is imported: what it is in follows from its declaration alone.
PROGRAM = """
import json, typing
from pydantic import Field
import hvbench.spec.batch as batch
import hvbench.spec.settings as settings_module  # imports no Point
from hvbench.spec.knob import Count, Knob

class BatchPart(batch.BatchPart):
    toy_samples: typing.Annotated[
        Count | None,
        Knob(
            label="toys", in_words="toy {}".format, unit="samples", column=7, is_of_launch=True, variable="HOROVOD_TOY", searched=(None, 1, 2),
            impossible=lambda point: "13 toys bring bad luck" if point.toy_samples == 13 else None,
            unavailable=lambda point, site: "no toys for so many ranks" if (point.toy_samples or 0) > site.world_size else None,
        ),
    ] = Field(None, description="samples that are only toys")

    loud: bool = Field(False, description="a knob that declares no more")

batch.BatchPart = BatchPart
from hvbench.spec.point import Point

from click.testing import CliRunner
from hvbench.analysis.frame.axes import AXES, LEADING_AXES
from hvbench.analysis.frame.columns import POINT_COLUMNS
from hvbench.analysis.show.panels import describe_value
from hvbench.analysis.show.cells import HEADERS
from hvbench.cli import hvbench
from hvbench.plan.jobs import horovod_variables, make_plan, worker_group
from hvbench.spec.labels import distinguish
from hvbench.spec.reference import render_reference
from hvbench.spec.schema import suite_schema
from hvbench.spec.settings import MeasureSettings
from hvbench.spec.suite import apply_overrides, parse_suite
from hvbench.sweep.tune import CHOICES, propose

def run(*words):
    result = CliRunner().invoke(hvbench, words)
    return result.output + str(result.exception or "")

def answer(proposal):
    proposal[1](1.0)
    return proposal

points = [Point(model="tiny", world_size=2, toy_samples=toys) for toys in (None, 1, 2, 3, 13)]
overridden = apply_overrides(parse_suite("", name="toy", where="toy"), ["toy_samples=1,2", "loud=true"]).points()
print(json.dumps({
    "without": Point(gemm="default").point_id,
    "ids": len({point.point_id for point in points}),
    "help": run("plan", "--fields"),
    "schema": suite_schema()["anyOf"][0]["properties"]["point"]["properties"]["toy_samples"],
    "axes_schema": "toy_samples" in suite_schema()["anyOf"][0]["properties"]["axes"]["properties"],
    "reference": render_reference(),
    "told": list(distinguish(points[:2]).values()),
    "columns": {column.name: [column.kind, column.unit, column.meaning] for column in POINT_COLUMNS},
    "leading": LEADING_AXES[-1], "axes": list(AXES), "header": HEADERS["toy_samples"],
    "words": [describe_value(name, value, emulated=frozenset()) for name, value in (("toy_samples", 3), ("loud", True))],
    "groups": len({worker_group(point) for point in points}),
    "variables": horovod_variables(points[2]),
    "skipped": {each.point.toy_samples: each.reason for each in make_plan(points, MeasureSettings(), world_size=2).skipped},
    "overridden": [[point.toy_samples, point.loud] for point in overridden],
    "searched": CHOICES["toy_samples"],
    "proposed": sorted({str(point.toy_samples) for (point, tell), _ in zip(
        map(answer, propose(Point(model="tiny", world_size=2), knobs=("toy_samples",), seed=0)), range(12))}),
    "not_searched": run("tune", "--knob", "toy_samples,loud", "--np", "2"),
    "refused": run("plan", "smoke", "-s", "toy_sample=1", "--np", "1"),
}))
"""


@pytest.fixture(scope="module")
def toy() -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_toy_is_a_field_of_a_point_and_renames_none_that_leaves_it_out(toy: dict[str, Any]) -> None:
    assert toy["without"] == "pytorch-small-b8x1-fp32-none-af79328e"
    assert toy["ids"] == 5


def test_help_schema_and_reference_list_a_toy(toy: dict[str, Any]) -> None:
    assert "  toy_samples                  None         samples that are only toys\n" in toy["help"]
    assert toy["schema"]["anyOf"][0] == {"type": "integer", "minimum": 1, "maximum": 1_000_000} and toy["axes_schema"]
    row = "| `toy_samples` | integer from 1 to 1e+06, or left out |  | samples | samples that are only toys |"
    assert row in toy["reference"].partition("### Batch")[2].partition("###")[0]


def test_labels_and_columns_have_a_toy(toy: dict[str, Any]) -> None:
    assert toy["told"] == [" toy_samples=default", " toy_samples=1"]
    assert toy["columns"]["toy_samples"] == ["int", "samples", "samples that are only toys"]
    assert toy["columns"]["loud"] == ["bool", "", "a knob that declares no more"]
    assert toy["leading"] == "toy_samples" and toy["header"] == "toys"
    assert toy["axes"].index("loud") > toy["axes"].index("toy_samples")
    assert toy["words"] == ["toy 3", "loud True"]


def test_workers_and_reasons_to_skip_know_a_toy(toy: dict[str, Any]) -> None:
    assert toy["groups"] == 5 and toy["variables"] == {"HOROVOD_TOY": "2"}
    assert toy["skipped"] == {"3": "no toys for so many ranks", "13": "13 toys bring bad luck"}


def test_the_command_line_sets_a_toy(toy: dict[str, Any]) -> None:
    assert toy["overridden"] == [[1, True], [2, True]]
    assert 'unknown key "toy_sample" (did you mean "toy_samples"?)' in toy["refused"]


def test_a_search_tries_the_values_of_a_toy(toy: dict[str, Any]) -> None:
    assert toy["searched"] == [None, 1, 2] and toy["proposed"] == ["1", "2", "None"]
    assert (
        "'loud' is not one of " in toy["not_searched"] and "toy_samples" in toy["not_searched"].partition("one of")[2]
    )

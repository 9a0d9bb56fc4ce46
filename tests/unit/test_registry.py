"""Facts about frameworks that are known without importing them, and their defaults."""

from __future__ import annotations

import dataclasses
import gc
import importlib
import subprocess
import sys
from typing import Any

import pytest

from hvbench.analysis.report.page.render import style_frameworks
from hvbench.analysis.show.panels import FREE_LOOKS, STYLES, choose_styles
from hvbench.analysis.topics.breakdown.plot import PART_COLOURS
from hvbench.frameworks import uncollected, without
from hvbench.parity.stamp import find_pairs
from hvbench.plan.jobs import Job, Plan
from hvbench.registry import FRAMEWORKS, Framework, Kept, KeptBlock, describe_framework
from hvbench.spec.model import FAMILIES
from hvbench.spec.point import Point
from tests import patience


def test_a_framework_is_a_folder_with_a_step() -> None:
    assert FRAMEWORKS[0] == "pytorch" and {"pytorch", "tensorflow"} <= set(FRAMEWORKS)
    assert list(FRAMEWORKS[1:]) == sorted(FRAMEWORKS[1:])


def test_what_the_twins_say_of_themselves() -> None:
    assert [describe_framework(name).title for name in ("pytorch", "tensorflow")] == ["PyTorch", "TensorFlow"]
    assert [describe_framework(name).module for name in ("pytorch", "tensorflow")] == ["torch", "tensorflow"]


def test_a_framework_without_a_look_gets_one_that_nothing_else_has() -> None:
    known = {name: describe_framework(name) for name in ("pytorch", "tensorflow")}
    styles = choose_styles(
        known | {f"new{number}": Framework(title="New", module="new") for number in range(len(FREE_LOOKS))}
    )
    assert len(styles) == 2 + len(FREE_LOOKS)
    for part in ("colour", "page_colour", "dark_page_colour", "marker", "line"):
        values = [getattr(style, part) for style in styles.values()]
        assert len(set(values)) == len(values), part
    assert not {style.colour.lower() for style in styles.values()} & {
        colour.lower() for colour in PART_COLOURS.values()
    }


@pytest.mark.parametrize(("part", "paper"), [("page_colour", "#ffffff"), ("dark_page_colour", "#171b21")])
def test_every_look_is_seen_on_a_page(part: str, paper: str) -> None:
    """WCAG 2.2, 1.4.11: 3 : 1 for what carries meaning and is no text."""
    for look in (*FREE_LOOKS, *STYLES.values()):
        light, dark = sorted(map(luminance, (getattr(look, part), paper)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 3, look


def luminance(colour: str) -> float:
    """Relative luminance of an sRGB colour (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_a_page_has_the_colours_of_every_framework() -> None:
    rules = style_frameworks()
    assert all(f"--{name}: {style.page_colour};" in rules and f".{name} {{" in rules for name, style in STYLES.items())


def test_memory_of_a_framework_without_facts_is_the_larger_of_the_twins() -> None:
    kept = [describe_framework(name).kept for name in ("pytorch", "tensorflow")]
    for field in dataclasses.fields(Kept):
        usual, *twins = (getattr(each, field.name) for each in (Kept(), *kept))
        if field.name == "feedback_copies":
            assert usual == {name: max(each[name] for each in twins) for name in usual}
        elif field.name != "blocks":
            assert usual == max(twins), field.name
    for family in FAMILIES:
        for field in dataclasses.fields(KeptBlock):
            usual, *twins = (getattr(each.blocks[family], field.name) for each in (Kept(), *kept))
            assert usual == tuple(map(max, zip(*twins, strict=True))), (family, field.name)


def test_a_plan_compares_the_first_of_its_frameworks_with_the_others() -> None:
    jobs = [Job(point=Point(framework=name, model="tiny", world_size=1), repeat=0) for name in reversed(FRAMEWORKS)]
    pairs = find_pairs(Plan(jobs=jobs, skipped=[], done=[]))
    assert [[point.framework for point in pair] for pair in pairs] == [
        [FRAMEWORKS[0], other] for other in FRAMEWORKS[1:]
    ]


def test_packages_are_hidden_from_an_import_and_restored_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    before = sys.modules["dataclasses"]
    with without(["wave", "dataclasses"]):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("wave")
        assert sys.modules["dataclasses"] is before, "what is there stays"
    assert importlib.import_module("wave").open


def test_what_a_framework_is_made_of_stays_out_of_garbage_collections_and_what_comes_after_does_not() -> None:
    before = gc.get_freeze_count()
    try:
        with uncollected():
            assert not gc.isenabled()
            kept: list[Any] = [[] for _ in range(100)]
        assert gc.isenabled() and gc.get_freeze_count() >= before + 100
        assert not any(each is kept for each in gc.get_objects())
        later: list[Any] = []
        assert any(each is later for each in gc.get_objects())
    finally:
        gc.unfreeze()


def test_a_worker_of_tensorflow_has_neither_pandas_nor_matplotlib() -> None:
    words = "import sys; from hvbench.frameworks import load_framework; load_framework('tensorflow', 'trainer'); "
    words += "print(sorted({'tensorflow', 'horovod.tensorflow', 'pandas', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, timeout=patience.SECONDS)
    assert done.stdout.strip() == "['horovod.tensorflow', 'tensorflow']", done.stderr

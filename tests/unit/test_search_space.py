"""What `hvbench search` is asked: ranges and lists, what of them makes a point, and one line for everything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hvbench.cli.group import hvbench
from hvbench.errors import UsageError
from hvbench.spec.point import Point
from hvbench.sweep.search.ask import SETTINGS, list_spaces, read_asked, read_dimensions
from hvbench.sweep.search.goals import GOALS, read_goals
from hvbench.sweep.search.proposals import Proposals, make_sampler
from hvbench.sweep.search.space import Choices, Range, Space, read_space, split_words

BASE = {"framework": "pytorch", "model": "tiny", "micro_batch_size": 8}
WHERE = "space.toml: [search]"
STEPS = (GOALS["steps"],)
MEASURED = ("target_loss=3.5", "evaluate_every=5", "steps=50")


def space(**given: Any) -> Space:
    return read_space(given, world_size=2, where=WHERE)


def make(found: Space, **values: Any) -> Point | None:
    return found.make_point(Point(**BASE, world_size=2), BASE, values)


def test_ranges_and_lists_are_read() -> None:
    found = space(
        learning_rate="log:1e-4..1e-1", dropout="0..0.3", lr_warmup_steps="0..50", optimizer=["adamw", "lamb"],
        beta2=[0.9, 0.99], global_batch="16..100",
    )  # fmt: skip
    assert found.dimensions == {
        "learning_rate": Range(low=1e-4, high=1e-1, is_log=True),
        "dropout": Range(low=0.0, high=0.3),
        "lr_warmup_steps": Range(low=0, high=50, is_whole=True),
        "optimizer": Choices(values=("adamw", "lamb")),
        "beta2": Choices(values=(0.9, 0.99)),
        "global_batch": Choices(values=(16, 32, 64)),
    }
    assert [each.is_scale for each in found.dimensions.values() if isinstance(each, Choices)] == [False, True, True]
    assert space(**found.describe()) == found, "as it would stand in a file"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "nothing to search: give -s FIELD=A..B, or a file with a table [search]"),
        ({"learning_rate": "log:1e-1..1e-4"}, 'learning_rate = "log:1e-1..1e-4": its begin is above its end'),
        ({"learning_rate": "log:0..1e-1"}, 'learning_rate = "log:0..1e-1": 0 has no logarithm: begin above 0'),
        ({"dropout": "log:-1..0.1"}, 'dropout = "log:-1..0.1": -1 has no logarithm: begin above 0'),
        ({"dropout": "0.1..0.1"}, 'dropout = "0.1..0.1": one value is no search: set it in [point]'),
        ({"dropout": "0..inf"}, 'dropout = "0..inf": its ends must be finite'),
        ({"dropout": "a..b"}, 'dropout = "a..b": must be two numbers with two dots between them, such as log:1e-4..1e-1'),
        ({"dropout": "0..1..2"}, 'dropout = "0..1..2": must be two numbers with two dots between them, such as log:1e-4..1e-1'),
        ({"dropout": "log:0.1"}, 'dropout = "log:0.1": must be two numbers with two dots between them, such as log:1e-4..1e-1'),
        ({"lr_warmup_steps": "0..1.5"}, 'lr_warmup_steps = "0..1.5": must be whole numbers'),
        ({"dropout": 0.1}, 'dropout = 0.1: must be a range, "A..B" or "log:A..B", or a list of values'),
        ({"dropout": [0.1]}, "dropout = [0.1]: one value is no search: set dropout in [point]"),
        ({"optimizer": "adamw..lamb"}, 'optimizer = "adamw..lamb": a range is of numbers; give a list of values'),
        ({"learning_rat": "0..1"}, 'unknown field "learning_rat" (did you mean "learning_rate"?); allowed: '),
        ({"steps": "10..20"}, "steps is how launches are measured, which all share: set it to one value"),
        ({"framework": ["pytorch", "tensorflow"]}, "framework cannot be searched: the frameworks share one search"),
        ({"seed": "0..9"}, "seed cannot be searched: what is found has to hold for other seeds"),
        ({"vocab_size": [256, 512]}, "vocab_size cannot be searched: losses of different values cannot be compared"),
        ({"data": ["a", "b"]}, "data cannot be searched: it is text, and losses of different values cannot be compared"),
        ({"global_batch": "16..64", "micro_batch_size": [4, 8]}, "global_batch sets micro_batch_size: search one of them"),
        ({"global_batch": "3..5"}, 'global_batch = "3..5": fewer than two of its sizes, doubling from the first, are multiples of 2 ranks'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        space(**given)
    text = str(caught.value)
    assert text.startswith(f"{WHERE}: {message}") and "\n" not in text


@pytest.mark.parametrize(
    "given", [{"optimizer": ["adamw", "adam"]}, {"dropout": "0..2"}, {"beta2": [0.9, "x"]}, {"dropout": []}]
)
def test_values_that_a_field_cannot_have_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=rf"^{WHERE[:10]}"):
        space(**given)


def test_values_make_a_point_with_what_a_rule_sets_by_itself() -> None:
    found = space(optimizer=["adamw", "lamb"], learning_rate="log:1e-4..1e-1", global_batch="16..64")
    point = make(found, optimizer="lamb", learning_rate=0.05, global_batch=64)
    assert (point.optimizer, point.learning_rate, point.micro_batch_size, point.world_size) == ("lamb", 0.05, 32, 2)
    assert point.beta2 == 0.999, "LAMB's paper"
    assert found.values_of(point) == {"optimizer": "lamb", "learning_rate": 0.05, "global_batch": 64}


def test_a_batch_that_no_micro_batch_makes_is_no_point() -> None:
    found = space(global_batch="16..64", gradient_accumulation_steps=[1, 3])
    assert make(found, global_batch=32, gradient_accumulation_steps=3) is None
    assert make(found, global_batch=32, gradient_accumulation_steps=1).micro_batch_size == 16


def test_fields_without_effect_make_no_other_point() -> None:
    found = space(schedule=["cosine", "plateau"], plateau_factor="0.1..0.9")
    points = [make(found, schedule="cosine", plateau_factor=factor) for factor in (0.2, 0.8)]
    assert points[0] == points[1] and points[0].plateau_factor == Point.model_fields["plateau_factor"].default
    assert make(found, schedule="plateau", plateau_factor=0.2).plateau_factor == 0.2
    assert found.values_of(points[0])["schedule"] == "cosine"


def test_a_point_outside_of_the_space_has_no_values() -> None:
    found = space(learning_rate="log:1e-2..1e-1")
    assert found.values_of(make(found)) is None, "the default of 1e-3"


def test_words_are_searched_or_fixed() -> None:
    searched, fixed, names = split_words(
        [
            "learning_rate=log:1e-4..1e-1",
            "optimizer=adamw,lamb",
            "beta2=0.9,0.99",
            "model=tiny",
            "framework=pytorch,tensorflow",
            "data=../text",
        ]
    )
    assert searched == {"learning_rate": "log:1e-4..1e-1", "optimizer": ["adamw", "lamb"], "beta2": [0.9, 0.99]}
    assert fixed == ["model=tiny", "framework=pytorch,tensorflow", "data=../text"]
    assert names == ["model", "framework", "data"]


def test_a_word_fixes_what_the_file_searches(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[point]\nmodel = "tiny"\n[search]\nlearning_rate = "log:1e-4..1e-1"\ndropout = "0..0.3"\n')
    asked = read_asked(str(path), ["dropout=0.1", *MEASURED], goals=STEPS)
    assert list(asked.searched) == ["learning_rate"] and asked.suite.base == {"model": "tiny", "dropout": 0.1}
    measure = asked.suite.measure
    assert measure.stop_at_target and all(getattr(measure, name) == value for name, value in SETTINGS.items())
    assert asked.suite.name == "mine"


@pytest.mark.parametrize(
    ("name", "words", "goal", "message"),
    [
        (None, ["dropout=0,0.1", "evaluate_every=5"], "seconds", "hvbench search: goal seconds needs target_loss: "),
        (None, ["dropout=0,0.1"], "loss", "hvbench search: goal loss needs evaluations: set evaluate_every"),
        (None, ["dropout=0,0.1", *MEASURED], "speed", "--goal speed: speed is no goal; allowed: steps, tokens, seconds, joules, throughput, loss"),
        (None, ["dropout=0,0.1", *MEASURED], "loss,loss", "--goal loss,loss: one goal, or two different ones"),
        ("tine", [], "steps", 'no space named "tine" (did you mean "tiny"?); known: '),
        ("memory", [], "steps", "searches the largest"),
        ("optimizers", [], "steps", "optimizer is an axis: a search begins from one point; give -s optimizer=A,B to search it"),
        (None, ["plateau_factor=0.1,0.5", *MEASURED], "steps", 'plateau_factor = 0.5 has no effect without schedule plateau'),
        (None, ["dropout", *MEASURED], "steps", "must be key=value"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_one_line(name: str | None, words: list[str], goal: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        asked = read_asked(name, words, goals=read_goals(goal))
        read_dimensions(asked, world_size=2)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(list_spaces()))
def test_shipped_spaces_are_in_order_and_say_how_long_they_take(name: str) -> None:
    asked = read_asked(name, [], goals=STEPS)
    found = read_dimensions(asked, world_size=2)
    point = asked.suite.points()[0].model_copy(update={"world_size": 2})
    default = found.make_point(point, asked.suite.base, {})
    assert default == point, "nothing that is set is without effect"
    assert "--budget" in list_spaces()[name].read_text() and asked.suite.question


def test_the_budget_has_room_for_a_launch_at_least(tmp_path: Path) -> None:
    words = ["search", "--np", "2", "--budget", "1s", "-s", "dropout=0,0.1", "-s", "model=tiny"]
    words += [word for each in MEASURED for word in ("-s", each)]
    result = CliRunner().invoke(hvbench, [*words, "--out", str(tmp_path / "run")])
    assert isinstance(result.exception, UsageError) and result.exception.exit_code == 2
    assert str(result.exception).startswith("--budget of 1 s is shorter than one launch of the default, about ")
    assert not (tmp_path / "run").exists(), "nothing is left of a mistake"


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2"])
def test_proposals_lie_in_the_space_and_can_be_repeated(sampler: str) -> None:
    found = space(
        learning_rate="log:1e-4..1e-1", lr_warmup_steps="0..50", optimizer=["adamw", "lamb"], beta2=[0.9, 0.99]
    )

    def propose() -> list[dict[str, Any]]:
        proposals = Proposals(found, goals=1, sampler=make_sampler(sampler, seed=3))
        proposals.learn({"learning_rate": 0.01, "lr_warmup_steps": 5, "optimizer": "lamb", "beta2": 0.9}, [5.0])
        seen = []
        for number in range(15):
            proposal = proposals.ask()
            seen.append(proposal.values)
            proposals.tell(proposal, None if number == 3 else [abs(proposal.values["learning_rate"] - 0.02)])
        return seen

    seen = propose()
    assert all(found.dimensions[name].holds(value) for values in seen for name, value in values.items())
    assert seen == propose() and len({values["learning_rate"] for values in seen}) > 10, "crossing may keep a value"

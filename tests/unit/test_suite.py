"""A suite file: how it expands to points, and that every mistake in one is an error of one line."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hvbench.errors import UsageError
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.spec.suite import (
    MAX_FILE_BYTES,
    Suite,
    apply_overrides,
    apply_scale,
    find_suite,
    list_suites,
    load_suite,
    parse_suite,
    require_unique,
    suite_folders,
)

EXAMPLE = """
question = "What does bf16 buy?"
[point]
model = "tiny"
[axes]
framework = ["pytorch", "tensorflow"]
precision = ["fp32", "bf16"]
micro_batch_size = [4, 8]
[[exclude]]
precision = "fp32"
micro_batch_size = 8
[measure]
steps = 7
"""


def parse(text: str) -> Suite:
    return parse_suite(text, name="example", where="example.toml")


def refuse(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse(text).points()
    message = str(caught.value)
    assert message.startswith("example.toml: ") and message.isprintable()
    return message.removeprefix("example.toml: ")


def refuse_override(*overrides: str, suite: str = EXAMPLE) -> str:
    with pytest.raises(UsageError) as caught:
        apply_overrides(parse(suite), overrides).points()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


# What a suite means


def test_axes_expand_to_their_product_in_the_order_of_the_file_without_the_excluded() -> None:
    points = parse(EXAMPLE).points()
    assert [(point.framework, point.precision, point.micro_batch_size) for point in points] == [
        ("pytorch", "fp32", 4),
        ("pytorch", "bf16", 4),
        ("pytorch", "bf16", 8),
        ("tensorflow", "fp32", 4),
        ("tensorflow", "bf16", 4),
        ("tensorflow", "bf16", 8),
    ]
    assert {point.model for point in points} == {"tiny"}


def test_the_rest_of_the_file_is_kept() -> None:
    suite = parse(EXAMPLE)
    assert (suite.name, suite.question) == ("example", "What does bf16 buy?")
    assert suite.measure == MeasureSettings(steps=7)


def test_an_empty_suite_is_one_default_point() -> None:
    assert parse("").points() == [Point()]


def test_an_axis_wins_over_the_base() -> None:
    points = parse('point = {model = "tiny", seed = 9}\naxes = {seed = [1, 2]}').points()
    assert [point.seed for point in points] == [1, 2]


def test_a_model_axis_brings_each_models_own_sizes() -> None:
    points = parse('axes = {model = ["tiny", "small"]}').points()
    assert [(point.num_layers, point.vocab_size) for point in points] == [(2, 256), (4, 4096)]


def test_an_exclusion_may_name_what_the_base_or_the_preset_set() -> None:
    text = 'point = {model = "tiny"}\naxes = {seed = [1, 2]}\nexclude = [{seed = 1, num_layers = 2}]'
    assert [point.seed for point in parse(text).points()] == [2]


def test_a_later_version_of_a_value_counts_as_the_same_in_an_exclusion() -> None:
    text = "axes = {learning_rate = [1.0, 2.0]}\nexclude = [{learning_rate = 1}]"
    assert [point.learning_rate for point in parse(text).points()] == [2.0]


# Mistakes in a file: each is one line with the key, what was found and what is allowed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[pont]",
            'unknown key "pont" (did you mean "point"?); allowed: question, compares, script, point, axes, together, exclude, search, measure, scale',
        ),
        ("point = 3", "point = 3: must be a table, [point]"),
        ("axes = []", "axes = []: must be a table, [axes]"),
        ("exclude = {}", "exclude = {}: must be a list of tables, [[exclude]]"),
        ("question = 3", "question = 3: must be text"),
        ("compares = 3", "compares = 3: must be a list of axes"),
        (
            'compares = ["precison"]\n[axes]\nprecision = ["fp32", "bf16"]',
            """compares = ['precison']: "precison" is no axis of this suite (did you mean "precision"?); its axes: precision""",
        ),
        ("compares = [1]", "compares = [1]: 1 is no axis of this suite; its axes: none"),
        ('point = {framework = "jax"}', "[point]: framework = \"jax\": must be 'pytorch' or 'tensorflow'"),
        ("point = {micro_batch_size = 0}", "[point]: micro_batch_size = 0: must be greater than or equal to 1"),
        ('point = {micro_batch_size = "4"}', '[point]: micro_batch_size = "4": must be a valid integer'),
        ("point = {micro_batch_size = true}", "[point]: micro_batch_size = true: must be a valid integer"),
        ("point = {learning_rate = nan}", "[point]: learning_rate = NaN: must be a finite number"),
        ("point = {learning_rate = -inf}", "[point]: learning_rate = -Infinity: must be a finite number"),
        ("point = {seed = 2020-01-01}", '[point]: seed = "date": must be a valid integer'),
        (r'point = {data = "a\nb"}', r'[point]: data = "a\nb": must be text without control characters'),
        (
            'point = {model = ["tiny"]}',
            "[point]: model = ['tiny']: must be 'tiny', 'small', 'gpt2', 'gpt2-medium', 'llama-tiny', 'llama-1b', 'bert-tiny' or 'bert-base'",
        ),
        ("axes = {precision = []}", "[axes] precision = []: an axis needs at least one value"),
        ('axes = {precision = "bf16"}', '[axes] precision = "bf16": must be a list, for example precision = ["bf16"]'),
        ("axes = {seed = [1, 2, 1]}", "[axes] seed: 1 is listed twice"),
        ("axes = {learning_rate = [1, 1.0]}", "[axes] learning_rate: 1.0 is listed twice"),
        (
            'axes = {precision = ["fp32", "fp8"]}',
            "[axes]: precision = \"fp8\": must be 'fp32', 'tf32', 'bf16' or 'fp16'",
        ),
        ("axes = {seed = [[1]]}", "[axes]: seed = [1]: must be a valid integer"),
        ("axes = {learning_rate = [nan]}", "[axes]: learning_rate = NaN: must be a finite number"),
        ("exclude = [{}]", "[[exclude]] number 1: {}: must be a table with at least one key"),
        ("exclude = [{seed = 1}, 3]", "[[exclude]] number 2: 3: must be a table with at least one key"),
        (
            'exclude = [{precision = "x"}]',
            "[[exclude]] number 1: precision = \"x\": must be 'fp32', 'tf32', 'bf16' or 'fp16'",
        ),
        ('measure = {turns = "on"}', "[measure]: turns = \"on\": must be 'auto', true or false"),
        ("measure = {turns = 1}", "[measure]: turns = 1: must be 'auto', true or false"),
        ("measure = {turns = 0.0}", "[measure]: turns = 0.0: must be 'auto', true or false"),
        ("measure = {steps = 0}", "[measure]: steps = 0: must be greater than or equal to 1"),
        ("measure = {steps = 2.5}", "[measure]: steps = 2.5: must be a valid integer"),
        (
            "point = {seed = 0x" + "f" * 5000 + "}",
            "[point]: seed = a number with thousands of digits: must be less than 2147483648",
        ),
    ],
)
def test_a_mistake_is_told_in_one_line(text: str, message: str) -> None:
    assert refuse(text) == message


@pytest.mark.parametrize(
    ("text", "start"),
    [
        (
            "point = {microbatch_size = 4}",
            '[point]: unknown key "microbatch_size" (did you mean "micro_batch_size"?); allowed: framework, model, ',
        ),
        ("axes = {precison = [1]}", '[axes]: unknown key "precison" (did you mean "precision"?); allowed: framework, '),
        (
            "exclude = [{sed = 1}]",
            '[[exclude]] number 1: unknown key "sed" (did you mean "seed"?); allowed: framework, ',
        ),
        (
            "measure = {step = 1}",
            '[measure]: unknown key "step" (did you mean "steps"?); allowed: warmup_steps, steps, ',
        ),
        (r'point = {"a\nb" = 1}', r'[point]: unknown key "a\nb"; allowed: framework, '),
    ],
)
def test_an_unknown_key_is_met_with_the_closest_known_one(text: str, start: str) -> None:
    assert refuse(text).startswith(start)


@pytest.mark.parametrize("text", ["[point", "a b", "\x00", "x = 1\nx = 2", "x = " + "[" * 3000, "x = " + "9" * 5000])
def test_malformed_toml_is_told_in_one_line(text: str) -> None:
    assert refuse(text).startswith("not valid TOML: ")


def test_malformed_toml_is_located() -> None:
    assert "line 2" in refuse("[point]\nseed = \n")


def test_an_exclusion_of_everything_is_a_mistake() -> None:
    text = 'axes = {precision = ["fp32", "bf16"]}\nexclude = [{model = "small"}]'
    assert refuse(text) == "no point is left; [[exclude]] drops all 2 combinations"


def test_too_many_combinations_are_refused_before_they_are_built() -> None:
    values = list(range(1, 1001))
    message = refuse(f"axes = {{seed = {values}, micro_batch_size = {values}, lr_warmup_steps = {values}}}")
    assert message == "[axes]: more than 10000 combinations; split the question into several suites"


def test_the_same_point_twice_is_refused() -> None:
    """A product of distinct values cannot repeat a point, so the check is asked directly."""
    with pytest.raises(UsageError, match=r"^here: the point pytorch-small-\S+ comes up twice$"):
        require_unique([Point(), Point(seed=1), Point()], where="here")


# Files and names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "not UTF-8 text; a suite is a short TOML file"),
        (b"#" * (MAX_FILE_BYTES + 1), "larger than 65536 bytes; a suite is a short TOML file"),
        (b"\x7fELF\x00\x01", 'not valid TOML: "Invalid statement (at line 1, column 1)"'),
    ],
)
def test_a_file_that_is_no_suite_is_told_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        load_suite(path)
    assert str(caught.value) == f"{path}: {message}"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("token = 'abc'")
    (tmp_path / "a.toml").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(UsageError, match="a.toml: a link; a suite is a short TOML file$"):
        load_suite(tmp_path / "a.toml")


@pytest.mark.parametrize("name", ["...toml", "..toml", ".hidden.toml", "a\x1b[2J.toml", "a\nb.toml", "\u202egnp.toml"])
def test_a_name_that_leads_elsewhere_or_cannot_be_shown_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("")
    with pytest.raises(UsageError, match="a suite's name is printable and starts with no dot$"):
        load_suite(tmp_path / name)


@pytest.mark.parametrize("question", ["\\u001b[2J", "a\\nb", "\\u202e", "x" * 1001])
def test_a_question_is_one_printable_line(question: str) -> None:
    with pytest.raises(UsageError, match='question = ".*: must be one printable line of at most 1000 characters$'):
        parse_suite(f'question = "{question}"', name="a", where="here")


def test_what_would_take_for_ever_is_refused() -> None:
    seeds = list(range(1, 2001))
    for text, message in (
        ("[[exclude]]\nseed = 1\n" * 101, "more than 100 tables [[exclude]]"),
        (f"[axes]\nseed = {seeds}\n[measure]\nrepeats = 100", "more than 100000 launches"),
        ("a." * 201 + "b = 1", "has a line with more than 200 dots"),
    ):
        with pytest.raises(UsageError, match=re.escape(message)):
            parse_suite(text, name="a", where="here").points()


def test_a_file_of_the_largest_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(b"#" * MAX_FILE_BYTES)
    assert load_suite(path).points() == [Point()]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.toml", "cannot be read: No such file or directory"),
        ("folder.toml", "not a regular file; a suite is a short TOML file"),
        (
            "pipe.toml",
            "not a regular file; a suite is a short TOML file",
        ),  # nobody writes to it: it must not be waited for
        ("n" * 300 + ".toml", "cannot be read: File name too long"),
    ],
)
def test_a_path_that_is_no_file_is_told_in_one_line(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "folder.toml").mkdir()
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(UsageError) as caught:
        load_suite(tmp_path / name)
    assert str(caught.value) == f"{tmp_path / name}: {reason}"


@pytest.mark.parametrize("path", list_suites(), ids=lambda path: path.stem)
def test_every_shipped_suite_expands_and_asks_a_question_in_both_frameworks(path: Path) -> None:
    suite = load_suite(path)
    assert suite.question.endswith("?") and suite.question.isprintable()
    assert {point.framework for point in suite.points()} == {"pytorch", "tensorflow"}


def test_the_suites_of_the_working_folder_hide_shipped_ones_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = {path.stem for path in list_suites()}
    monkeypatch.chdir(tmp_path)
    assert {path.stem for path in list_suites()} == shipped
    (tmp_path / "suites").mkdir()
    for name in ("smoke", "mine"):
        (tmp_path / "suites" / f"{name}.toml").touch()
    assert find_suite("smoke") == tmp_path.resolve() / "suites" / "smoke.toml"
    assert {path.stem for path in list_suites()} == shipped | {"mine"}
    assert suite_folders()[0] == tmp_path.resolve() / "suites"


def test_an_unknown_name_is_met_with_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        find_suite("smok")
    message = str(caught.value)
    assert message.startswith('no suite named "smok" (did you mean "smoke"?); known: ')
    assert message.endswith(", or a path ending in .toml")


@pytest.mark.parametrize("name", ["", "../suites/smoke", "x" * 5000, "a\nb"])
def test_any_other_name_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_suite(name)
    assert str(caught.value).isprintable()


# Overrides: -s key=value


def values_of(field: str, *overrides: str) -> list[Any]:
    return list(dict.fromkeys(getattr(point, field) for point in apply_overrides(parse(EXAMPLE), overrides).points()))


def test_one_value_fixes_a_field_and_removes_its_axis() -> None:
    assert values_of("precision", "precision=bf16") == ["bf16"]


def test_several_values_make_an_axis() -> None:
    assert values_of("seed", "seed=1,2,3") == [1, 2, 3]


def test_several_values_replace_an_axis() -> None:
    assert values_of("precision", "precision=bf16,fp16") == ["bf16", "fp16"]


def test_a_later_override_wins() -> None:
    assert values_of("seed", "seed=1,2", "seed=3") == [3]


def test_a_measurement_setting_is_overridden_like_a_field() -> None:
    suite = apply_overrides(parse(EXAMPLE), ["steps=3", "target_loss=2", "evaluate_every=1", "timeout_seconds=1.5"])
    assert suite.measure == MeasureSettings(steps=3, target_loss=2.0, evaluate_every=1, timeout_seconds=1.5)


def test_a_value_is_read_as_toml_where_the_field_is_no_text() -> None:
    assert values_of("learning_rate", "learning_rate=1e-4") == [1e-4]
    assert values_of("schedule_steps", "schedule_steps=1_000") == [1000]


def test_text_is_taken_as_it_is() -> None:
    assert values_of("data", "data=1979-05-27") == ["1979-05-27"]
    assert values_of("data", "data=a=b") == ["a=b"]


def test_the_suite_itself_is_not_changed() -> None:
    suite = parse(EXAMPLE)
    before = suite.points()
    apply_overrides(suite, ["precision=bf16", "steps=1"])
    assert suite.points() == before


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("precision", '-s "precision": must be key=value or key=value,value'),
        ("precision=", '-s "precision=": must be key=value or key=value,value'),
        (
            "a/own.toml",
            '-s "a/own.toml": must be key=value or key=value,value; a suite is launched by hvbench sweep a/own.toml',
        ),
        (
            "train.py",
            '-s "train.py": must be key=value or key=value,value; your own training is launched by a suite, a TOML file with a '
            "[script] (docs/own-training.md)",
        ),
        ("precision=fp8", "-s \"precision=fp8\": precision = \"fp8\": must be 'fp32', 'tf32', 'bf16' or 'fp16'"),
        ("framework=jax", "-s \"framework=jax\": framework = \"jax\": must be 'pytorch' or 'tensorflow'"),
        ("micro_batch_size=0", '-s "micro_batch_size=0": micro_batch_size = 0: must be greater than or equal to 1'),
        ("micro_batch_size=true", '-s "micro_batch_size=true": micro_batch_size = true: must be a valid integer'),
        ("micro_batch_size=4,", '-s "micro_batch_size=4,": micro_batch_size = "": must be a valid integer'),
        (
            "micro_batch_size=4\nx = 1",
            r'-s "micro_batch_size=4\nx = 1": micro_batch_size = "4\nx = 1": must be a valid integer',
        ),
        ("learning_rate=nan", '-s "learning_rate=nan": learning_rate = NaN: must be a finite number'),
        ("learning_rate=inf", '-s "learning_rate=inf": learning_rate = Infinity: must be a finite number'),
        ("seed=1,1", '-s "seed=1,1" seed: 1 is listed twice'),
        ("steps=1,2", '-s "steps=1,2": steps is a setting of the measurement, not an axis: give one value'),
        ("steps=many", '-s "steps=many": steps = "many": must be a valid integer'),
        ("data=\x07", r'-s "data=\u0007": data = "\u0007": must be text without control characters'),
    ],
)
def test_a_mistake_in_an_override_is_told_in_one_line(override: str, message: str) -> None:
    assert refuse_override(override) == message


@pytest.mark.parametrize("override", ["step=3", "=3", "Seed=3", "point.seed=3"])
def test_an_unknown_override_is_met_with_fields_and_settings(override: str) -> None:
    message = refuse_override(override)
    assert f'unknown key "{override.partition("=")[0]}"' in message
    assert "allowed: framework, " in message and message.endswith(", timeout_seconds")


@pytest.mark.parametrize("value", ["9" * 5000, "0x" + "f" * 5000, "[" * 5000])
def test_an_absurdly_long_value_is_refused_in_a_short_line(value: str) -> None:
    assert len(refuse_override(f"seed={value}")) < 300


def test_overrides_cannot_multiply_to_too_many_combinations() -> None:
    values = ",".join(map(str, range(1, 201)))
    message = refuse_override(f"seed={values}", f"micro_batch_size={values}")
    assert message == "example.toml: more than 10000 combinations; split the question into several suites"


# Anything at all: nothing but a UsageError ever comes out

ANY_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
FIELD = st.sampled_from([*Point.model_fields, *MeasureSettings.model_fields]) | st.text(max_size=6)
TABLE = st.dictionaries(FIELD, ANY_VALUE | st.lists(ANY_VALUE, max_size=3), max_size=4)
SUITE_VALUES = st.fixed_dictionaries(
    {},
    optional={
        "question": ANY_VALUE,
        "compares": st.lists(FIELD | ANY_VALUE, max_size=2) | ANY_VALUE,
        "point": TABLE | ANY_VALUE,
        "axes": TABLE | ANY_VALUE,
        "exclude": st.lists(TABLE | ANY_VALUE, max_size=2) | ANY_VALUE,
        "measure": TABLE | ANY_VALUE,
    },
)


def to_toml(value: Any) -> str:
    """TOML of `value`, tables inline; None, which TOML lacks, as an empty text."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quote(key)} = {to_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return hex(value) if value >= 0 else str(value)
    return quote(value) if isinstance(value, str) else '""' if value is None else str(value)


def quote(text: str) -> str:
    return '"' + "".join(f"\\U{ord(character):08x}" for character in text) + '"'


def expect_points_or_usage_error(text: str) -> None:
    try:
        points = parse(text).points()
    except UsageError as error:
        assert str(error).isprintable()
    else:
        assert points and all(isinstance(point, Point) for point in points)


@settings(max_examples=150, deadline=None)
@given(st.text() | st.text(alphabet="[]{}=.,\"'#\n \\0123456789aeinoptx_-"))
def test_arbitrary_text_gives_points_or_a_usage_error(text: str) -> None:
    expect_points_or_usage_error(text)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SUITE_VALUES)
@example({"axes": {"seed": [16**5000]}})
@example({"exclude": [{"learning_rate": 10**400}]})
def test_arbitrary_values_give_points_or_a_usage_error(values: dict[str, Any]) -> None:
    expect_points_or_usage_error("\n".join(f"{key} = {to_toml(value)}" for key, value in values.items()))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.builds("{}={}".format, FIELD, st.text(max_size=12)) | st.text(max_size=12), max_size=3))
def test_arbitrary_overrides_give_points_or_a_usage_error(overrides: list[str]) -> None:
    try:
        apply_overrides(parse("point = {model = 'tiny'}"), overrides).points()
    except UsageError as error:
        assert str(error).isprintable()


# Scales

SCALED = """
question = "?"
exclude = [{micro_batch_size = 2}]
[point]
model = "tiny"
[axes]
framework = ["pytorch", "tensorflow"]
micro_batch_size = [1, 2, 4]
[measure]
steps = 5
repeats = 2
[scale.big]
point = {model = "small", framework = "pytorch"}
axes = {micro_batch_size = [2, 8], seed = [0, 1]}
exclude = [{micro_batch_size = 8, seed = 1}]
measure = {steps = 50}
[scale.same.measure]
steps = 6
"""


def test_a_scale_changes_what_it_names_and_nothing_else() -> None:
    suite = parse(SCALED)
    assert [point.micro_batch_size for point in suite.points()] == [1, 4, 1, 4]
    big = apply_scale(suite, "big")
    assert [(p.framework, p.model, p.micro_batch_size, p.seed) for p in big.points()] == [
        ("pytorch", "small", 2, 0), ("pytorch", "small", 2, 1), ("pytorch", "small", 8, 0),
    ]  # fmt: skip
    assert (big.measure.steps, big.measure.repeats) == (50, 2)
    same = apply_scale(suite, "same")
    assert same.points() == suite.points() and same.measure.steps == 6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("[scale.big.point]\nmicro = 1", '[scale.big.point]: unknown key "micro"'),
        ("[scale.big.axes]\nmicro_batch_size = []", "[scale.big.axes] micro_batch_size = []"),
        ("[scale.big.measure]\nsteps = 0", "[scale.big.measure]: steps = 0"),
        ("[scale.big]\nquestion = 'a'", '[scale.big]: unknown key "question"'),
        ("[scale.big]\npoint = 1", "must be a table, [scale.big.point]"),
        ("[scale]\nbig = 1", "scale.big = 1: must hold tables"),
        ("scale = 1", "must be a table, [scale]"),
    ],
)
def test_a_mistake_in_a_scale_shows_when_the_file_is_read(change: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(change)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_scale_is_told_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match='no scale "bgi" .did you mean "big"..: it has big, same'):
        apply_scale(parse(SCALED), "bgi")
    with pytest.raises(UsageError, match='no scale "big": it has none'):
        apply_scale(parse(""), "big")


# Axes that go together

TOGETHER = """
question = "?"
[point]
model = "tiny"
[axes]
framework = ["pytorch", "tensorflow"]
[[together]]
sequence_length = [16, 32, 64]
micro_batch_size = [4, 2, 1]
"""


def shapes(suite: Suite) -> list[tuple[int, int]]:
    return list(dict.fromkeys((point.sequence_length, point.micro_batch_size) for point in suite.points()))


def test_axes_that_go_together_are_no_product() -> None:
    suite = parse(TOGETHER)
    assert shapes(suite) == [(16, 4), (32, 2), (64, 1)] and len(suite.points()) == 6
    assert suite.all_axes.keys() == {"framework", "sequence_length", "micro_batch_size"}
    assert parse(f'compares = ["sequence_length"]\n{TOGETHER}').compares == ["sequence_length"]


def test_choosing_values_of_one_axis_keeps_what_goes_with_them() -> None:
    assert shapes(apply_overrides(parse(TOGETHER), ["sequence_length=64"])) == [(64, 1)]
    assert shapes(apply_overrides(parse(TOGETHER), ["micro_batch_size=4,1"])) == [(16, 4), (64, 1)]
    assert refuse_override("sequence_length=48", suite=TOGETHER) == (
        '-s "sequence_length=48": sequence_length goes together with micro_batch_size in this suite: 48 is none of 16, 32, 64'
    )
    scaled = parse(TOGETHER + "[scale.one.point]\nsequence_length = 8\n")
    assert shapes(apply_scale(scaled, "one")) == [(8, 8)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[4, 2, 1]", "[4, 2]", "its axes must have as many values as each other: sequence_length 3, micro_batch_size 2"),
        ("[4, 2, 1]", "4", "micro_batch_size = 4: must be a list of values"),
        ("[4, 2, 1]", "[]", "micro_batch_size = []: must be a list of values"),
        ("[4, 2, 1]", "[4, 2, 0]", "micro_batch_size = 0: must be greater than or equal to 1"),
        ("micro_batch_size", "micro_batch", 'unknown key "micro_batch"'),
        ("micro_batch_size = [4, 2, 1]", "", "{'sequence_length': [16, 32, 64]}: must be a table of two axes or more, whose values go together"),
        ("[axes]", "[axes]\nmicro_batch_size = [1]", "sets micro_batch_size, and [axes] does, too"),
        ('model = "tiny"', "micro_batch_size = 1", "sets micro_batch_size, and [point] does, too"),
    ],
)  # fmt: skip
def test_a_mistake_in_what_goes_together_is_told_in_one_line(old: str, new: str, message: str) -> None:
    said = refuse(TOGETHER.replace(old, new, 1))
    assert said.startswith("[[together]] number 1") and message in said

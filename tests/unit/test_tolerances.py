"""The table of tolerances follows from what was measured and from the formats' roundoff, and stays sharp."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from hvbench.parity.compare import OFF_TERMS, cancellation, compare_traces, wire_error
from hvbench.parity.norms import l2_norm, wire_spacing
from hvbench.parity.tolerances import Entry, Tolerances, check_updates, find_tolerances, read_table, tolerances_for
from hvbench.parity.trace import wire_rounding
from hvbench.spec.compression import COMPRESSIONS
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.optimizer import OPTIMIZERS
from hvbench.spec.point import Point

ENTRIES = read_table().entries
SPACING = {"fp16": 2.0**-10, "bf16": 2.0**-7}  # of a format, relative to a number
UNCOMPRESSED_GRADIENTS = {
    (row.model, row.precision, row.arithmetic): row.allowed.gradients for row in ENTRIES if row.compression == "none"
}

each_entry = pytest.mark.parametrize(
    "row", ENTRIES, ids=lambda row: f"{row.model}-{row.precision}-{row.arithmetic}-{row.compression}"
)


COMBINATIONS = [
    (model, precision, compression, is_native)
    for model, precision, compression, is_native in itertools.product(
        ("small", "large"), PRECISIONS, COMPRESSIONS, (False, True)
    )
    if (is_native or precision != "tf32") and not (precision == "fp16" and COMPRESSIONS[compression].feeds_back)
]
each_combination = pytest.mark.parametrize(("model", "precision", "compression", "is_native"), COMBINATIONS)
SIZES = {"small": "tiny", "large": "small"}  # of models, to ones that have them


def allowed_for(model: str, precision: str, compression: str, optimizer: str, *, is_native: bool) -> Tolerances:
    point = Point(model=SIZES[model], precision=precision, compression=compression, optimizer=optimizer, world_size=2)
    return tolerances_for(point, is_native=is_native)


def rounds_where(precision: str, row: str) -> bool:
    """Whether products of a precision have all the roundings of a row's."""
    return row in ("fp32", {"tf32": "fp16"}.get(precision, precision))


def test_no_combination_has_two_entries() -> None:
    keys = [(row.model, row.precision, row.arithmetic, row.compression) for row in ENTRIES]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("knobs", "updates"),
    [
        ({"model": "tiny"}, 20),
        ({"model": "tiny", "micro_batch_size": 64, "gradient_accumulation_steps": 4, "world_size": 8}, 20),
        ({"model": "tiny", "sequence_length": 8192}, 3),
        ({"model": "small"}, 3),
    ],
)
def test_a_check_trains_few_updates_where_each_is_long(knobs: dict, updates: int) -> None:
    assert check_updates(Point(**{"world_size": 1} | knobs)) == updates


@each_combination
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_twice_is_allowed_of_whatever_was_measured_of_a_part(
    model: str, precision: str, compression: str, is_native: bool, optimizer: str
) -> None:
    """In every combination, whichever way its tolerances are looked up: fewer roundings of the same kinds make fewer errors."""
    allowed = vars(allowed_for(model, precision, compression, optimizer, is_native=is_native))
    parts = [
        row
        for row in ENTRIES
        if row.model == model
        and rounds_where(precision, row.precision)
        and row.compression in ("none", compression)
        and (is_native or row.arithmetic != "native")
    ]
    assert parts
    for row in parts:
        assert {name: value for name, value in row.measured.items() if allowed[name] < 2 * value} == {}, row
    for measured in read_table().vectors_measured if optimizer in ("adafactor", "lars") else ():
        is_part = measured["model"] == model and rounds_where(precision, measured["precision"])
        if is_part and measured["compression"] in ("none", compression):
            assert allowed["update_length"] >= 2 * measured["update_length"], measured


@each_combination
def test_more_roundings_are_allowed_no_less(model: str, precision: str, compression: str, is_native: bool) -> None:
    for optimizer in ("adamw", "lars"):
        allowed = vars(allowed_for(model, precision, compression, optimizer, is_native=is_native))
        for fewer in (
            allowed_for(model, precision, "none", optimizer, is_native=is_native),
            allowed_for(model, "fp32", compression, optimizer, is_native=is_native),
            allowed_for(model, "fp16" if precision == "tf32" else precision, compression, optimizer, is_native=False),
        ):
            assert {name: value for name, value in vars(fewer).items() if allowed[name] < value} == {}


def test_every_vector_optimizer_was_measured_in_the_formats_that_it_is_widened_for() -> None:
    table = read_table()
    assert {each["compression"] for each in table.vectors_measured} <= table.vector_update_length.keys()
    assert table.vector_update_length.keys() == COMPRESSIONS.keys()
    assert set(table.vector_optimizers) <= OPTIMIZERS.keys()


@each_entry
def test_allowed_is_at_least_twice_what_was_measured(row: Entry) -> None:
    allowed = vars(row.allowed)
    assert row.measured.keys() <= allowed.keys()
    for name, value in row.measured.items():
        assert allowed[name] >= 2 * value, name


@each_entry
def test_allowed_is_not_loose(row: Entry) -> None:
    """No tolerance of a quantity that was measured is above twenty times the measurement, rounded up to 1, 2 or 5."""
    bounds = {name: 20 * value for name, value in row.measured.items()}
    if row.compression in SPACING:
        bounds["gradients"] = max(bounds.get("gradients", 0.0), 4 * derived_gradients(row))
    assert {name: value for name, value in bounds.items() if getattr(row.allowed, name) > max(value, 2e-6)} == {}


def derived_gradients(row: Entry) -> float:
    """What rounding on the wire makes of gradients that differ by the tolerance of the same row without compression.

    An element that differs by d rounds to the other side of a boundary with probability d / s, and then differs by a
    whole step s of the format: the mean square of the error is d s. Each element is rounded twice.
    """
    before = UNCOMPRESSED_GRADIENTS[row.model, row.precision, row.arithmetic]
    return math.sqrt(before**2 + 2 * before * SPACING[row.compression])


@pytest.mark.parametrize(
    "row",
    [row for row in ENTRIES if row.precision == "fp32" and row.compression in SPACING],
    ids=lambda row: f"{row.model}-{row.compression}",
)
def test_gradients_on_the_wire_follow_from_those_before_it(row: Entry) -> None:
    assert derived_gradients(row) <= row.allowed.gradients <= 4 * derived_gradients(row)


def test_the_spacing_of_the_wires_formats() -> None:
    for value in (1.0, 1.5, -1.5, 3e-5, 6e-8, 0.0, 65000.0, 1e-3):
        assert wire_spacing(value, compression="fp16") == float(np.spacing(np.float16(abs(value))))
    assert wire_spacing(1.0, compression="bf16") == 2.0**-7
    assert wire_spacing(-1.99, compression="bf16") == 2.0**-7
    assert wire_spacing(0.5, compression="bf16") == 2.0**-8


EXACT = {"logits": 0.0, "loss": 0.0, "updates": 0.0, "update_length": 0.0, "key_bias_updates": 0.0}


def gradient_errors(wrong: np.ndarray, right: np.ndarray, *, compression: str) -> bool:
    """Whether two gradients on the wire count as the same."""
    traces = []
    for value in (wrong, right):
        point = Point(model="tiny", world_size=2, compression=compression)
        constant = {name: np.ones(1) for name in ("loss", "gradient_norm")} | {"logits": np.ones(2)}
        marks = {"overflows": np.array(0), "skipped": np.zeros(1, bool)}
        traces.append(constant | marks | {"gradient/gain": value, "wire/gain": wire_rounding(point, value, scale=1.0)})
    gradients = find_tolerances(model="small", precision="fp32", compression=compression, is_native=False).gradients
    return all(each.is_within for each in compare_traces(*traces, tolerances=Tolerances(**EXACT, gradients=gradients)))


def test_one_element_that_rounds_to_the_other_side_is_no_mistake() -> None:
    """In a small tensor it may be half a percent, whichever element it is."""
    right = np.random.default_rng(0).standard_normal(32)
    for element in range(32):
        wrong = right.copy()
        wrong[element] += wire_spacing(right[element], compression="bf16")
        assert gradient_errors(wrong, right, compression="bf16")
        assert not gradient_errors(wrong, right, compression="none")


def test_an_element_that_another_rank_would_have_sent_is_no_mistake_with_products_in_16_bits() -> None:
    right = np.zeros(96)
    right[[3, 40]] = 2.0, -2.1  # of each of two ranks the largest of a small tensor
    wrong = np.zeros(96)
    wrong[[5, 40]] = 2.0, -2.1
    distance = l2_norm(wrong - right)
    for precision, is_allowed in (("bf16", True), ("fp32", False)):
        point = Point(model="tiny", world_size=2, compression="topk", precision=precision)
        assert (wire_rounding(point, right, scale=1.0) >= distance) == is_allowed
        assert wire_rounding(point, np.zeros(3), scale=1.0) == 0.0


def test_int8_rounds_to_shares_of_the_largest() -> None:
    point = Point(model="tiny", world_size=2, compression="int8")
    assert wire_rounding(point, np.array([0.1, -25.4]), scale=2.0) == pytest.approx(2 * 0.2 / 2)


@pytest.mark.parametrize("elements", [32, 10_000])
@pytest.mark.parametrize("compression", ["fp16", "bf16"])
def test_a_mistake_shows_through_the_wires_rounding(compression: str, elements: int) -> None:
    right = np.random.default_rng(1).standard_normal(elements)
    share = {"bf16": 2e-2, "fp16": 2e-3}[compression] / (elements / 32) ** 0.5
    assert not gradient_errors((1 + share) * right, right, compression=compression)
    assert not gradient_errors(
        np.where(np.arange(elements) < elements // 4, -right, right), right, compression=compression
    )
    assert not gradient_errors(right[::-1], right, compression=compression)


def test_what_one_element_may_do_vanishes_in_large_tensors() -> None:
    for elements in (32, 1024, 32768):
        value = np.random.default_rng(2).standard_normal(elements)
        wire = wire_rounding(Point(model="tiny", world_size=2, compression="bf16"), value, scale=1.0)
        assert wire == 2 * wire_spacing(float(np.abs(value).max()), compression="bf16")
        assert wire_error({"gradient/x": value, "wire/x": wire}, "gradient/x") == wire / l2_norm(value)
        assert wire / l2_norm(value) < 0.1 / elements**0.5


def test_a_ring_rounds_every_partial_sum() -> None:
    value, two, four = np.ones(8), *(Point(model="tiny", world_size=size, compression="fp16") for size in (2, 4))
    assert wire_rounding(four, value, scale=1.0) == 2 * wire_rounding(two, value, scale=1.0) == 4 * 2.0**-10
    assert wire_rounding(two, 1024 * value, scale=1024.0) == wire_rounding(two, value, scale=1.0)
    small = two.model_copy(update={"gradient_predivide": 1e6})
    assert wire_rounding(small, value, scale=1.0) == 2 * 1e6 * 2.0**-24, "subnormal numbers have steps of one size"
    assert wire_rounding(two.model_copy(update={"world_size": 1}), value, scale=1.0) == 0.0


def test_only_what_is_far_shorter_than_its_terms_is_judged_by_them() -> None:
    trace = {"gradient/a": np.array([3.0, 4.0])}
    assert cancellation(trace, "gradient/a") == 0.0, "a trace that does not say it"
    assert cancellation({**trace, "terms/a": np.array(500.0)}, "gradient/a") == 100.0
    assert cancellation({**trace, "terms/a": np.array(np.inf)}, "gradient/a") == 0.0, "overflowed"
    assert cancellation({"gradient/a": np.zeros(2), "terms/a": np.array(1.0)}, "gradient/a") == 0.0
    fp32 = find_tolerances(model="small", precision="fp32", compression="none", is_native=True)
    assert OFF_TERMS * fp32.gradients <= 2.1 * 2.0**-24, "two roundings of the terms"

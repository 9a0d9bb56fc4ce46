"""The table of tolerances follows from what was measured and from the formats' roundoff, and stays sharp."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from hvbench.parity.compare import compare_traces, wire_error
from hvbench.parity.norms import l2_norm, wire_spacing
from hvbench.parity.tolerances import Entry, Tolerances, find_tolerances, read_table, tolerances_for
from hvbench.parity.trace import wire_rounding
from hvbench.spec.point import Point

ENTRIES = read_table().entries
SPACING = {"fp16": 2.0**-10, "bf16": 2.0**-7}  # of a format, relative to a number
UNCOMPRESSED_GRADIENTS = {
    (row.model, row.precision, row.arithmetic): row.allowed.gradients for row in ENTRIES if row.compression == "none"
}

each_entry = pytest.mark.parametrize(
    "row", ENTRIES, ids=lambda row: f"{row.model}-{row.precision}-{row.arithmetic}-{row.compression}"
)


def test_every_combination_has_one_entry() -> None:
    for model, precision, compression, is_native in itertools.product(
        ("small", "large"), ("fp32", "bf16", "fp16"), ("none", "fp16", "bf16"), (False, True)
    ):
        find_tolerances(model=model, precision=precision, compression=compression, is_native=is_native)
    keys = [(row.model, row.precision, row.arithmetic, row.compression) for row in ENTRIES]
    assert len(set(keys)) == len(keys) == 2 * (3 + 6 + 6)


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
    if row.compression != "none":
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
    [row for row in ENTRIES if row.precision == "fp32" and row.compression != "none"],
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


@pytest.mark.parametrize("optimizer", ["adafactor", "lars"])
def test_optimizers_that_mostly_move_vectors_are_allowed_more_with_native_products_too(optimizer: str) -> None:
    usual, vectors = (Point(model="tiny", precision="fp16", optimizer=name) for name in ("adamw", optimizer))
    for is_native in (False, True):
        assert tolerances_for(vectors, is_native=is_native).update_length >= 2 * 2.5e-5
        assert (
            tolerances_for(vectors, is_native=is_native).update_length
            == 5 * tolerances_for(usual, is_native=is_native).update_length
        )

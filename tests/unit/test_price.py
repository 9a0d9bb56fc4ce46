"""The price of an answer: rounds, minutes and the command, from what a run's own rounds took."""

from __future__ import annotations

import pytest

from hvbench.analysis.contrasts.points import contrast_points
from hvbench.analysis.contrasts.price import command_to_continue, price_of, seconds_of_round
from hvbench.analysis.frame.run import Run
from hvbench.analysis.stats.estimates import summary_rows
from tests.unit.sample_records import make_rank, make_record


@pytest.mark.parametrize(
    ("begun", "expected"),
    [
        ("hvbench sweep quickstart", "hvbench sweep quickstart --resume -s repeats=7"),
        ("__main__.py sweep batch --np 2", "hvbench sweep batch --np 2 --resume -s repeats=7"),
        ("hvbench sweep x -s repeats=3 -s steps=9", "hvbench sweep x -s steps=9 --resume -s repeats=7"),
        ("hvbench sweep x --set repeats=3 --set=repeats=4 -srepeats=5", "hvbench sweep x --resume -s repeats=7"),
        ("hvbench sweep x --resume --fresh --out a", "hvbench sweep x --out a --resume -s repeats=7"),
        ("hvbench run precision=bf16 repeats=3", "hvbench run precision=bf16 --resume -s repeats=7"),
        ("hvbench sweep 'a b; rm'", "hvbench sweep 'a b; rm' --resume -s repeats=7"),
        ("hvbench tune", None),
        ("hvbench sweep 'x", None),
        ("hvbench sweep x\n-y", None),
        ("", None),
        (None, None),
        (3, None),
    ],
)
def test_the_command_goes_on_with_the_run(begun: object, expected: str | None) -> None:
    assert command_to_continue({"command": begun}, repeats=7) == expected


def test_a_run_that_resume_would_not_find_is_named() -> None:
    for begun in ("hvbench sweep x", "hvbench sweep x --out elsewhere", "hvbench sweep x --out=elsewhere"):
        found = command_to_continue({"command": begun}, repeats=7, folder="results/x/1")
        assert found.count("--out") == 1


def make_run(gaps: list[tuple[int, float]]) -> Run:
    """Rounds of two frameworks whose launches start at (second, duration) and, side by side, at the same second."""
    records = []
    for repeat, (start, duration) in enumerate(gaps):
        for framework, steps in (("pytorch", [0.1, 0.10, 0.11]), ("tensorflow", [0.1, 0.12, 0.13])):
            scaled = [one * (1 + 0.02 * (repeat % 2)) for one in steps] if framework == "pytorch" else steps
            record = make_record([make_rank(step_seconds=scaled)], repeat=repeat, framework=framework)
            at = f"2026-11-26T10:{start // 60:02d}:{start % 60:02d}+00:00"
            records.append(record.model_copy(update={"started_at": at, "duration_seconds": duration}))
    return Run(records, {"command": "hvbench sweep x"})


def test_launches_side_by_side_count_once() -> None:
    assert seconds_of_round(make_run([(0, 30.0), (60, 40.0), (120, 50.0)])) == pytest.approx(40.0)
    assert seconds_of_round(Run([])) != seconds_of_round(Run([]))  # no round: NaN


def test_a_price_is_what_is_missing() -> None:
    run = make_run([(0, 30.0), (60, 30.0)])
    rows = {row["framework"]: row for row in summary_rows(run)}
    family = contrast_points(run, [(rows["tensorflow"], rows["pytorch"])])
    price = price_of(run, family)
    assert price
    assert price.rounds == price.rounds_in_all - 2
    assert price.minutes == pytest.approx(price.rounds * 0.5)
    assert price.command == f"hvbench sweep x --resume -s repeats={price.rounds_in_all}"
    assert price_of(run, family, difference=0.9).rounds <= price.rounds

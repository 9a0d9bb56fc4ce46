"""The first sentence of a report answers the suite's question: which topic speaks first, and what it is about."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.answer import find_answer
from hvbench.analysis.topics import catalogue
from tests.unit import toy_topic
from tests.unit.sample_records import make_launch, make_quickstart

POINTS = [
    {"framework": framework, "precision": precision, "micro_batch_size": batch}
    for framework in ("pytorch", "tensorflow")
    for precision in ("fp32", "bf16")
    for batch in (2, 8)
]


@pytest.mark.parametrize(
    ("request_", "compared"),
    [
        ({"compares": ["precision"]}, ["precision"]),
        ({}, ["micro_batch_size", "precision"]),
        ({"compares": []}, ["micro_batch_size", "precision"]),
        ({"compares": ["compression"]}, ["micro_batch_size", "precision"]),  # it does not vary
        ({"compares": ["framework"]}, ["micro_batch_size", "precision"]),  # which is compared in every run
        *(
            ({"compares": damaged}, ["micro_batch_size", "precision"])
            for damaged in (3, None, "precision", [{}, ["x"]])
        ),
    ],
)
def test_a_suite_names_the_axes_that_its_question_compares(request_: dict, compared: list[str]) -> None:
    assert Run([make_launch(point) for point in POINTS], request_).compared_axes == compared


@pytest.mark.parametrize("is_first", [True, False])
def test_the_topic_that_answers_speaks_before_all_others(is_first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = replace(toy_topic.TOPIC, precedence=-1, answers=lambda _: is_first)
    monkeypatch.setattr(catalogue, "TOPICS", [*catalogue.TOPICS, toy])
    found = find_answer(Run(make_quickstart(repeats=2)))
    assert (found.headlines[0].topic == "toy") is is_first

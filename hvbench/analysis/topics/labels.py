"""How good predictions of labels are: metrics of the validation split after the last step, and of the test split, over all classes and of each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from hvbench.analysis.frame.run import Run
from hvbench.analysis.frame.samples import Evaluated, evaluation_of_test, evaluations_of
from hvbench.analysis.show.cells import NOT_AVAILABLE, format_number
from hvbench.analysis.show.record_table import Column, RecordLayout, Row, tabulate_records
from hvbench.analysis.show.tables import Table
from hvbench.analysis.topics.topic import Need, Topic
from hvbench.records.record import Record
from hvbench.training.metrics import ClassCounts, add_counts

# Heading -> name of `hvbench.analysis.frame.samples.label_metrics`, or of a field of an evaluation.
METRICS = {"accuracy": "accuracy", "F1": "f1", "Matthews": "matthews", "Pearson": "pearson", "loss": "validation_loss"}
OF_A_CLASS = {"precision": "precisions", "recall": "recalls", "F1": "f1s"}  # heading -> attribute of ClassCounts
SPLITS = ("validation", "test")
NAME_LENGTH = 40  # of a class, in a cell


def has_label_metrics(record: Record) -> bool:
    """Whether a launch that ended in `ok` evaluated predictions of labels."""
    return record.outcome.status == "ok" and any(one.metrics for one in evaluations_of(record))


def has_any(run: Run) -> bool:
    """Whether any launch did."""
    return any(map(has_label_metrics, run.records))


def read_split(record: Record, split: str) -> Evaluated | None:
    """The last evaluation of the validation split, or that of the test split; None where there is none."""
    return evaluations_of(record)[-1] if split == "validation" else evaluation_of_test(record)


def read_metric(one: Evaluated | None, name: str) -> float:
    """One value of an evaluation; NaN where it has none."""
    value = None if one is None else one.metrics.get(name, getattr(one, name, None))
    return math.nan if value is None else float(value)


def label_tables(run: Run) -> list[Table]:
    """A row a point, with the metrics that any launch has; and where classes were predicted a row each of a point's classes."""
    wanted = [record for record in run.records if has_label_metrics(record)]
    shown = [
        (split, heading)
        for split in SPLITS
        for heading, name in METRICS.items()
        if any(not math.isnan(read_metric(read_split(record, split), name)) for record in wanted)
    ]
    tables = [tabulate_records(run, lay_out_metrics(shown))]
    if any(map(has_classes, wanted)):
        splits = [split for split in SPLITS if any(read_split(record, split) for record in wanted)]
        tables.append(tabulate_records(run, lay_out_classes(splits)))
    return tables


def lay_out_metrics(shown: Sequence[tuple[str, str]]) -> RecordLayout:
    """Means over launches of these splits' metrics."""

    def fill(same: Sequence[Record]) -> Iterable[Row]:
        values = {
            f"{split}_{METRICS[heading].removeprefix('validation_')}": float(
                np.mean([read_metric(read_split(record, split), METRICS[heading]) for record in same])
            )
            for split, heading in shown
        }
        return [({"n": len(same)} | values, [str(len(same)), *map(show_number, values.values())])]

    return RecordLayout(
        name="labels",
        title="Predictions of labels",
        notes=(
            "Means over n launches, of the last evaluation of the validation split and of the test split, which is read once, after the last "
            "step (with keep_best by the parameters of the evaluation with the lowest loss). F1: the mean over classes (macro); Matthews: Matthews' "
            "correlation coefficient of any number of classes; Pearson: of numbers. Of tags each word counts once. Precision, recall and micro F1 are "
            "columns of launches.csv.",
        ),
        columns=(Column(header="n"), *(Column(header=f"{split} {heading}") for split, heading in shown)),
        is_wanted=has_label_metrics,
        fill=fill,
    )


def has_classes(record: Record) -> bool:
    """Whether a launch predicted classes or tags."""
    return has_label_metrics(record) and evaluations_of(record)[-1].counts is not None


def lay_out_classes(splits: Sequence[str]) -> RecordLayout:
    """Precision, recall and F1 of each class in these splits."""
    return RecordLayout(
        name="classes",
        title="Predictions of each class",
        notes=(
            "Of the same evaluations as above, samples of all launches together (of tags: words). Precision: right predictions of the class / predictions of it; "
            "recall: right ones / its samples; F1: 2 · right ones / (predictions + samples). A ratio without a denominator is 0.",
        ),
        columns=(
            Column(header="class", is_number=False),
            *(Column(header=f"{split} {heading}") for split in splits for heading in ("samples", *OF_A_CLASS)),
        ),
        is_wanted=has_classes,
        fill=lambda same: fill_classes(same, splits),
    )


def fill_classes(same: Sequence[Record], splits: Sequence[str]) -> Iterable[Row]:
    """A row a class of a point's launches."""
    counts = {split: add_launches(same, split) for split in splits}
    for number in range(len(counts["validation"].hits)):
        name = name_class(same[0], number)
        values: dict[str, Any] = {}
        for split, found in counts.items():
            values[f"{split}_samples"] = found and int(found.occurrences[number])
            for heading, attribute in OF_A_CLASS.items():
                values[f"{split}_{heading.lower()}"] = (
                    math.nan if found is None else float(getattr(found, attribute)[number])
                )
        yield {"class": name} | values, [name, *map(show_number, values.values())]


def add_launches(same: Sequence[Record], split: str) -> ClassCounts | None:
    """The counts of a split over all launches of a point; None where it has none."""
    found = [one.counts for record in same if (one := read_split(record, split)) and one.counts is not None]
    return add_counts(each for each in found if len(each.hits) == len(found[0].hits)) if found else None


def name_class(record: Record, number: int) -> str:
    """What a class is called, its number where the record does not say it."""
    names = record.environment.get("class_names")
    name = names[number] if isinstance(names, list) and number < len(names) else number
    return "".join(letter if letter.isprintable() else "?" for letter in str(name))[:NAME_LENGTH]


def show_number(value: float | None) -> str:
    """A count, or a metric to three places."""
    if value is None or math.isnan(value):
        return NOT_AVAILABLE
    return f"{value:,}" if isinstance(value, int) else format_number(value, decimals=3)


TOPIC = Topic(
    name="Labels",
    question="How good are the predictions of labels?",
    needs=Need(words="evaluations of an objective with labels", is_met=has_any),
    tables=label_tables,
)

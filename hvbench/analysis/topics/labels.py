"""How good predictions of labels are: metrics of the validation split after the last step, and of the test split, over all classes and of each, and of
the entities that tags mark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hvbench.analysis.frame.run import Run
from hvbench.analysis.frame.samples import Evaluated, evaluation_of_test, evaluations_of
from hvbench.analysis.show.cells import NOT_AVAILABLE, format_number
from hvbench.analysis.show.record_table import Column, RecordLayout, Row, tabulate_records
from hvbench.analysis.show.tables import Table
from hvbench.analysis.topics.topic import Need, Topic
from hvbench.records.record import Record
from hvbench.training.entities import entity_types
from hvbench.training.metrics import ClassCounts, add_counts

# Heading -> name of `hvbench.analysis.frame.samples.label_metrics`, or of a field of an evaluation.
METRICS = {
    "accuracy": "accuracy",
    "F1": "f1",
    "Matthews": "matthews",
    "entity F1": "entity_f1",
    "Pearson": "pearson",
    "loss": "validation_loss",
}
OF_A_CLASS = {"precision": "precisions", "recall": "recalls", "F1": "f1s"}  # heading -> attribute of ClassCounts
SPLITS = ("validation", "test")
NAME_LENGTH = 40  # of a class, in a cell


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What is counted one by one, and has a table with a row each."""

    name: str
    title: str
    note: str
    heading: str
    counted: str
    counts: str  # attribute of an evaluation
    list_names: Callable[[Record], list[str]]


KINDS = (
    Kind(
        name="classes",
        title="Predictions of each class",
        note="Of the same evaluations as above, samples of all launches together (of tags: words). Precision: right predictions of the class / predictions of it; "
        "recall: right ones / its samples; F1: 2 · right ones / (predictions + samples). A ratio without a denominator is 0.",
        heading="class",
        counted="samples",
        counts="counts",
        list_names=lambda record: list_classes(record),
    ),
    Kind(
        name="entities",
        title="Predictions of each type of entity",
        note="An entity is what B- and I- tags of one type mark (as CoNLL's conlleval reads them); it is right where its type, its first and its last word are. "
        "Precision: right predictions of the type / predictions of it; recall: right ones / its entities; F1: 2 · right ones / (predictions + entities).",
        heading="type",
        counted="entities",
        counts="entities",
        list_names=lambda record: entity_types(list_classes(record)),
    ),
)


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
    """A row a point, with the metrics that any launch has; where classes were predicted a row each of a point's classes, and of its types of entities."""
    wanted = [record for record in run.records if has_label_metrics(record)]
    shown = [
        (split, heading)
        for split in SPLITS
        for heading, name in METRICS.items()
        if any(not math.isnan(read_metric(read_split(record, split), name)) for record in wanted)
    ]
    tables = [tabulate_records(run, lay_out_metrics(shown))]
    splits = [split for split in SPLITS if any(read_split(record, split) for record in wanted)]
    for kind in KINDS:
        if any(has_kind(record, kind) for record in wanted):
            tables.append(tabulate_records(run, lay_out_kind(kind, splits)))
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
            "correlation coefficient of any number of classes; entity F1: of entities of all types together (micro), as CoNLL counts them; Pearson: of "
            "numbers. Of tags each word counts once. Precision, recall and micro F1 are columns of launches.csv.",
        ),
        columns=(Column(header="n"), *(Column(header=f"{split} {heading}") for split, heading in shown)),
        is_wanted=has_label_metrics,
        fill=fill,
    )


def has_kind(record: Record, kind: Kind) -> bool:
    """Whether a launch counted predictions of this kind."""
    return has_label_metrics(record) and getattr(evaluations_of(record)[-1], kind.counts) is not None


def lay_out_kind(kind: Kind, splits: Sequence[str]) -> RecordLayout:
    """Precision, recall and F1 of each class, or type of entity, in these splits."""
    return RecordLayout(
        name=kind.name,
        title=kind.title,
        notes=(kind.note,),
        columns=(
            Column(header=kind.heading, is_number=False),
            *(Column(header=f"{split} {heading}") for split in splits for heading in (kind.counted, *OF_A_CLASS)),
        ),
        is_wanted=lambda record: has_kind(record, kind),
        fill=lambda same: fill_kind(same, kind, splits),
    )


def fill_kind(same: Sequence[Record], kind: Kind, splits: Sequence[str]) -> Iterable[Row]:
    """A row a class, or type, of a point's launches."""
    counts = {split: add_launches(same, kind, split) for split in splits}
    names = kind.list_names(same[0])
    for number in range(len(counts["validation"].hits)):
        name = name_class(names, number)
        values: dict[str, Any] = {}
        for split, found in counts.items():
            values[f"{split}_{kind.counted}"] = found and int(found.occurrences[number])
            for heading, attribute in OF_A_CLASS.items():
                values[f"{split}_{heading.lower()}"] = (
                    math.nan if found is None else float(getattr(found, attribute)[number])
                )
        yield {kind.heading: name} | values, [name, *map(show_number, values.values())]


def add_launches(same: Sequence[Record], kind: Kind, split: str) -> ClassCounts | None:
    """The counts of a split over all launches of a point; None where it has none."""
    evaluations = [one for record in same if (one := read_split(record, split))]
    found = [counts for one in evaluations if (counts := getattr(one, kind.counts)) is not None]
    return add_counts(each for each in found if len(each.hits) == len(found[0].hits)) if found else None


def list_classes(record: Record) -> list[str]:
    """The names of a launch's classes or tags; none where the record does not say them."""
    names = record.environment.get("class_names")
    return list(map(str, names)) if isinstance(names, list) else []


def name_class(names: Sequence[str], number: int) -> str:
    """What a class is called, its number where it has no name."""
    name = names[number] if number < len(names) else number
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

"""The largest value that fits under a memory limit, as a search found it: what of each configuration, and what each choice changes about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from hvbench.analysis.frame.axes import AXES, axis_values, order_values
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import NOT_AVAILABLE, Row, format_number, show_spread
from hvbench.analysis.show.panels import (
    STYLES,
    Cell,
    add_legend,
    describe_value,
    draw_panels,
    emulated_precisions,
    legend_mark,
    list_frameworks,
    place_beside,
    shift_points,
    wrap_label,
)
from hvbench.analysis.show.sentences import Draft, Sentence
from hvbench.analysis.show.tables import Table, are_numbers, describe_constants, head_axes, show_axes
from hvbench.analysis.stats.estimates import summary_rows, with_interval
from hvbench.analysis.topics.questions import searched_field
from hvbench.analysis.topics.topic import Need, Topic
from hvbench.records.environment import native_fact
from hvbench.records.record import Record
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.search import DOES_NOT_FIT, FITS, Found
from hvbench.spec.sizes import show_memory
from hvbench.training.memory import estimate_largest

NAME = "largest"
RATE = with_interval("tokens_per_second")
MEBIBYTE = 2**20
FIELDS = {
    "micro_batch_size": "micro-batch",
    "sequence_length": "sequence length",
    "num_layers": "number of blocks",
}  # that can be searched, and their names
UNITS = {"micro_batch_size": "samples", "sequence_length": "tokens", "num_layers": "blocks"}
AT_MOST = {
    "num_layers": 4096
}  # of what the estimate is asked for, else a million: it lists the parameters of each block


@dataclass(frozen=True, kw_only=True)
class Largest:
    """One configuration: the values that were tried of what is searched, and what is known of the largest that fits."""

    values: Mapping[str, Any]  # of the axes, without what is searched
    found: Found
    launches: int
    row: Row | None  # of the summary, of the largest
    peak_bytes: int | None  # of the largest
    estimate: int | None  # what the estimate of memory says is the largest
    limit_bytes: int | None
    is_emulated: bool

    @property
    def is_open(self) -> bool:
        """Whether nothing larger was tried that did not fit."""
        return self.found.too_large is None


def was_searched(run: Run) -> bool:
    """Whether the run is a search, with a launch that says something."""
    return searched_field(run) is not None and bool(run.derive(find_largest))


def find_largest(run: Run) -> list[Largest]:
    """Every configuration that was searched, in table order."""
    name = searched_field(run)
    groups: dict[str, list[Record]] = {}
    for record in run.records:
        if not record.is_script and record.outcome.status in (FITS, DOES_NOT_FIT):
            groups.setdefault(record.point.model_copy(update={name: 1}).point_id, []).append(record)
    rows = {row["point_id"]: row for row in summary_rows(run)}
    found = [_describe_group(records, str(name), rows) for records in groups.values()]
    axes = ["framework", *(axis for axis in run.other_axes if axis != name)]
    places = {axis: order_values(axis, [each.values[axis] for each in found]) for axis in axes}
    return sorted(found, key=lambda each: [places[axis].index(each.values[axis]) for axis in axes])


def _describe_group(records: Sequence[Record], name: str, rows: Mapping[str, Row]) -> Largest:
    outcomes: dict[int, list[str]] = {}
    for record in records:
        outcomes.setdefault(getattr(record.point, name), []).append(record.outcome.status)
    found, first = Found(outcomes=outcomes), records[0]
    largest = [record for record in records if getattr(record.point, name) == found.largest]
    peaks = [rank.peak_rss_bytes for record in largest for rank in record.ranks]
    limit = first.measure.memory_limit_bytes
    return Largest(
        values={axis: value for axis, value in axis_values(first.point).items() if axis != name},
        found=found,
        launches=len(records),
        row=rows.get(largest[0].point_id) if largest else None,
        peak_bytes=max(peaks, default=None),
        estimate=None if limit is None else _estimate(first, name, limit),
        limit_bytes=limit,
        is_emulated=any(bool(rows[record.point_id]["is_emulated"]) for record in records),
    )


def _estimate(record: Record, name: str, limit_bytes: int) -> int:
    is_native = record.environment.get(native_fact(PRECISIONS[record.point.precision].compute_dtype)) is True
    return estimate_largest(
        record.point, name, limit_bytes=limit_bytes, is_native=is_native, at_most=AT_MOST.get(name, 1_000_000)
    )


# The table


def largest_tables(run: Run) -> list[Table]:
    """The one table."""
    return [largest_table(run)]


def largest_table(run: Run) -> Table:
    """One row per configuration: what fits, what does not, what it needs, how fast it is, and what the estimate had said."""
    name, found = str(searched_field(run)), run.derive(find_largest)
    axes = [axis for axis in run.other_axes if axis != name]
    title = f"largest {FIELDS[name]}"
    header = (
        "framework", *head_axes(axes), "launches", title, "next that does not fit", "peak memory (MiB)", "tokens/s", "n", "by the estimate",
        "estimate / found - 1 (%)",
    )  # fmt: skip
    cells = [
        [
            str(each.values["framework"]), *show_axes(axes, {**each.values, "is_emulated": each.is_emulated}), str(each.launches),
            _show(each.found.largest), _show(each.found.too_large),
            NOT_AVAILABLE if each.peak_bytes is None else format_number(each.peak_bytes / MEBIBYTE, decimals=0),
            NOT_AVAILABLE if each.row is None else show_spread("tokens_per_second")(each.row),
            "0" if each.row is None else str(each.row["launches_ok"]),
            _show(each.estimate), _show_error(each),
        ]
        for each in found
    ]  # fmt: skip
    limit = next((show_memory(each.limit_bytes) for each in found if each.limit_bytes), "the device's memory")
    return Table(
        name=NAME,
        title=f"The {title} that fits",
        constants={"limit of a worker": limit} | describe_constants(run.points, without=("framework", name)),
        notes=(
            "Found by bisection; every launch had workers of its own, and one that ran out of memory decides. Limit and peak are of resident memory, of "
            "any rank; the estimate is that of hvbench plan, from the point alone. Peaks of one point scatter from launch to launch, by a tenth "
            "where an allocator leaves gaps, and what is found with them. n launches of the largest; of one there is no interval. "
            f"Parity was checked with the default of the {FIELDS[name]}.",
        ),
        data=pd.DataFrame([_raw(each, name) for each in found]),
        header=header,
        is_number=(False, *are_numbers(axes, run.points), *(True,) * 8),
        is_brief=(*(True,) * (len(axes) + 6), False, True, False),
        cells=cells,
    )


def _show(value: int | None) -> str:
    return NOT_AVAILABLE if value is None else f"{value:,}"


def _show_error(each: Largest) -> str:
    if not each.found.largest or each.estimate is None:
        return NOT_AVAILABLE
    return f"{100 * (each.estimate / each.found.largest - 1):+.0f}"


def _raw(each: Largest, name: str) -> dict[str, Any]:
    return {
        **{axis: each.values[axis] for axis in AXES if axis != name},
        "launches": each.launches,
        f"largest_{name}": each.found.largest,
        f"too_large_{name}": each.found.too_large,
        "estimated_largest": each.estimate,
        "memory_limit_bytes": each.limit_bytes,
        "peak_rss_bytes": each.peak_bytes,
        **{name: None if each.row is None else each.row[name] for name in RATE},
        "launches_ok": 0 if each.row is None else each.row["launches_ok"],
    }


# The plot


def plot_search(run: Run) -> dict[str, Figure]:
    """Every value that was tried, by configuration: what fitted, what did not, and what the estimate had said."""
    name, found = str(searched_field(run)), run.derive(find_largest)
    axes = [axis for axis in run.other_axes if axis != name]
    emulated, frameworks = emulated_precisions(run.points), list_frameworks(run.points)
    labels = {_key(each, axes): _label(each, axes, emulated) for each in found}
    places = {key: place for place, key in enumerate(labels)}
    width = max(5.0, 1.2 * len(places))
    with draw_panels([[Cell(title="", chosen={})]], width=width, height=3.2) as (figure, [(panel, _)]):
        for each in found:
            framework = str(each.values["framework"])
            style = STYLES[framework]
            side = 14 * place_beside(frameworks.index(framework), of=len(frameworks))
            look = {
                "color": style.colour,
                "transform": shift_points(panel.transData, panel, x=side),
                "linestyle": "none",
            }
            place = places[_key(each, axes)]
            fits = [value for value, ends in each.found.outcomes.items() if DOES_NOT_FIT not in ends]
            lost = [value for value, ends in each.found.outcomes.items() if DOES_NOT_FIT in ends]
            panel.plot([place] * len(fits), fits, marker=".", markersize=4, **look)
            panel.plot([place] * len(lost), lost, marker="x", markersize=6, **look)
            if each.found.largest is not None:
                panel.plot([place], [each.found.largest], marker=style.marker, markersize=7, **look)
            if each.estimate:
                panel.plot([place], [each.estimate], marker="_", markersize=14, **look)
        panel.set_xticks(range(len(labels)), list(labels.values()), fontsize=8)
        panel.set_xlim(-0.6, len(labels) - 0.4)
        highest = max(value for each in found for value in (*each.found.outcomes, each.estimate or 0))
        panel.set_ylim(0, 1.08 * highest)  # marks that are shifted do not count by themselves
        panel.grid(axis="x", visible=False)
        figure.supylabel(f"{FIELDS[name]} ({UNITS[name]})")
        limit = next((f" under {show_memory(each.limit_bytes)} a worker" for each in found if each.limit_bytes), "")
        figure.suptitle(
            f"Which {FIELDS[name]} is the largest that fits{limit}?\nlarge marks: the largest; dots: others that fit"
        )
        extra = [
            legend_mark("ran out of memory", marker="x"),
            legend_mark("by the estimate", marker="_", markersize=12),
        ]
        add_legend(figure, frameworks, extra)
    return {"largest": figure}


def _key(each: Largest, axes: Sequence[str]) -> tuple[Any, ...]:
    return tuple(each.values[axis] for axis in axes)


def _label(each: Largest, axes: Sequence[str], emulated: frozenset[str]) -> str:
    return "\n".join(wrap_label(describe_value(axis, each.values[axis], emulated=emulated)) for axis in axes)


# The sentence


def describe_largest(run: Run) -> list[Sentence]:
    """The largest value of each framework, what each choice changes about it, and how far the estimate was off."""
    name, found = str(searched_field(run)), [each for each in run.derive(find_largest) if each.found.largest]
    if not found:
        return []
    draft, axes = Draft(), [axis for axis in run.other_axes if axis != name]
    emulated = emulated_precisions(run.points)
    best = [max(same, key=lambda each: each.found.largest or 0) for same in _by_framework(found).values()]
    limit = next((draft.label(show_memory(each.limit_bytes)) for each in found if each.limit_bytes), None)
    where = f"under {limit} a worker" if limit else "in the device's memory"
    sizes = [_say_best(draft, each, axes, emulated) for each in best]
    parts = [f"{where} the largest {FIELDS[name]} is {' and '.join(sizes)}"]
    parts += [text for axis in axes for text in _say_axis(draft, found, axis, emulated)]
    if ratios := [each.estimate / each.found.largest for each in found if each.estimate and not each.is_open]:
        span = _span(draft, ratios, "estimate_ratio")
        parts.append(f"the estimate from the point alone is {span} times that")
    return [draft.finish(NAME, f"{'; '.join(parts)}.")]


def _by_framework(found: Sequence[Largest]) -> dict[str, list[Largest]]:
    groups: dict[str, list[Largest]] = {}
    for each in found:
        groups.setdefault(str(each.values["framework"]), []).append(each)
    return groups


def _say_best(draft: Draft, each: Largest, axes: Sequence[str], emulated: frozenset[str]) -> str:
    words = ", ".join(describe_value(axis, each.values[axis], emulated=emulated) for axis in axes)
    value = draft.quote(f"{each.found.largest:,}", float(each.found.largest or 0), "largest")
    least = "at least " if each.is_open else ""
    return (
        f"{least}{value} in {STYLES[str(each.values['framework'])].label}{f' ({draft.label(words)})' if words else ''}"
    )


def _say_axis(draft: Draft, found: Sequence[Largest], axis: str, emulated: frozenset[str]) -> list[str]:
    """`block recomputed fits 1.3 to 1.9 times as much as all activations kept`, of every value of an axis against its first."""
    first, *others = order_values(axis, [each.values[axis] for each in found])
    said = []
    for other in others:
        base = {_rest(each, axis): each.found.largest for each in found if each.values[axis] == first}
        ratios = [
            each.found.largest / base[_rest(each, axis)]
            for each in found
            if each.values[axis] == other and _rest(each, axis) in base
        ]
        if ratios:
            one, two = (draft.label(describe_value(axis, value, emulated=emulated)) for value in (other, first))
            said.append(f"{one} fits {_span(draft, ratios, 'largest_ratio')} times as much as {two}")
    return said


def _rest(each: Largest, axis: str) -> tuple[Any, ...]:
    return tuple(value for name, value in each.values.items() if name != axis)


def _span(draft: Draft, values: Sequence[float], kind: str) -> str:
    texts: dict[str, float] = {}
    for value in (min(values), max(values)):
        texts.setdefault(f"{value:.2f}", value)
    return " to ".join(draft.quote(text, value, kind) for text, value in texts.items())


TOPIC = Topic(
    name="Largest that fits",
    question="Which micro-batch, or length, is the largest that fits under the memory limit, and did the estimate know?",
    needs=Need(words="a suite with a [search]", is_met=was_searched),
    tables=largest_tables,
    plots=plot_search,
    sentences=describe_largest,
    precedence=6,
    answers=was_searched,
)

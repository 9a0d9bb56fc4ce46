"""The model of step time against bandwidth finds what made the times, and where compression breaks even."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hvbench.analysis.frame.frames import point_frame
from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.answer import find_answer
from hvbench.analysis.show.panels import render_figure
from hvbench.analysis.topics.links.bandwidth import show_bandwidth
from hvbench.analysis.topics.links.model import (
    LinkModel,
    break_even_from_afar,
    link_models,
    machine_models,
    predict_held_out,
)
from hvbench.analysis.topics.links.plot import plot_links
from hvbench.analysis.topics.links.sentences import describe_break_evens, describe_machine_break_evens
from hvbench.analysis.topics.links.table import links_table
from hvbench.analysis.topics.links.topic import link_tables
from hvbench.records.record import Record
from tests.unit.sample_records import make_rank, make_record

LINKS = (50_000_000, 100_000_000, 200_000_000, 400_000_000, 1_000_000_000, 4_000_000_000)
LOCAL = {"none": 0.300, "fp16": 0.370}
HIDDEN = {"none": 0.080, "fp16": 0.120}
WIRE = 1.08


def truth(compression: str, link: float, payload_bytes: float) -> float:
    """Two ranks: all of the payload crosses each link."""
    return LOCAL[compression] + max(0.0, WIRE * 8 * payload_bytes / link - HIDDEN[compression])


def make_records(*, noise: float = 0.01, repeats: int = 3, links: tuple[int, ...] = LINKS) -> list[Record]:
    random = np.random.default_rng(3)
    records = []
    for repeat in range(repeats):
        for compression in LOCAL:
            for link in links:
                fields = {"model": "small", "compression": compression, "link_bits_per_second": link, "world_size": 2}
                payload = make_record(**fields).model.allreduce_bytes_per_step
                seconds = truth(compression, link, payload) * math.exp(noise * random.standard_normal())
                ranks = [make_rank(rank, step_seconds=[9.0, *[seconds] * 4]) for rank in range(2)]
                records.append(make_record(ranks, repeat=repeat, **fields))
    return records


def payloads_of(records: list[Record]) -> dict[str, float]:
    return {record.point_id: record.model.allreduce_bytes_per_step for record in records}


def model_of(records: list[Record]) -> LinkModel:
    (model,) = link_models(point_frame(records), payloads_of(records))
    return model


def true_break_even(model: LinkModel) -> float:
    """Where 0.300 + wire - 0.080 = 0.370 + wire / 2 - 0.120 while both wait for the wire: wire = 0.060, below hidden;
    so fp16 hides its wire there, and 0.300 + wire - 0.080 = 0.370."""
    return WIRE * 8 * model.payload_bytes["none"] / 0.150


def test_the_parameters_are_found_again() -> None:
    model = model_of(make_records(noise=0.0))
    assert model.wire == pytest.approx(WIRE, rel=0.02)
    assert model.local_seconds == pytest.approx(LOCAL, rel=0.02)
    assert model.hidden_seconds == pytest.approx(HIDDEN, rel=0.1)
    assert model.launches == 3 * 2 * len(LINKS) and model.links == (LINKS[0], LINKS[-1])


def test_the_break_even_is_found_with_an_interval_that_holds_it() -> None:
    model = model_of(make_records())
    span = model.break_even_span("fp16")
    assert span.centre == pytest.approx(true_break_even(model), rel=0.1)
    assert span.low < true_break_even(model) < span.high
    assert span.high / span.low < 1.6


def test_it_is_found_from_other_links_within_15_percent() -> None:
    records = make_records()
    (row,) = break_even_from_afar(point_frame(records), payloads_of(records)).to_dict("records")
    assert row["break_even_bits_per_second"] == pytest.approx(true_break_even(model_of(records)), rel=0.1)
    assert abs(row["relative_error"]) < 0.15


def test_a_held_out_link_is_predicted() -> None:
    records = make_records()
    held = predict_held_out(point_frame(records), payloads_of(records))
    assert set(held["link_bits_per_second"]) == set(LINKS[1:-1]) and len(held) == 2 * (len(LINKS) - 2)
    assert held["relative_error"].abs().median() < 0.05


def test_more_ranks_put_more_on_each_link() -> None:
    model = model_of(make_records(noise=0.0))
    two, many = (model.step_seconds("none", bits_per_second=1e8, world_size=n) for n in (2, 64))
    wire = model.wire * 8 * model.payload_bytes["none"] / 1e8
    assert many - two == pytest.approx(wire * (2 * 63 / 64 - 1))
    assert model.describe_reach(world_size=64, bits_per_second=4e10) == "32 times the ranks, 10 times beyond the links"
    assert model.describe_reach(world_size=2, bits_per_second=1e8) == ""


def test_of_what_is_gathered_every_rank_gets_all_others_bytes() -> None:
    model = model_of(make_records(noise=0.0))
    sent = {"none": 16e6, "topk": 4e6}
    local, hidden = {"none": 0.1, "topk": 0.2}, {"none": 0.0, "topk": 0.0}
    model = LinkModel(
        **{**vars(model), "wire": 1.0, "payload_bytes": sent, "local_seconds": local, "hidden_seconds": hidden}
    )
    assert model.break_even("topk") == pytest.approx(8 * (16e6 - 4e6) / 0.1)  # two ranks: both cross each link once
    assert model.break_even("topk", world_size=4) == pytest.approx(8 * (1.5 * 16e6 - 3 * 4e6) / 0.1)
    assert model.break_even("topk", world_size=8) == 0.0  # 7 x 4 MB are as many as 2 x 7 / 8 x 16 MB


def test_compression_may_always_win_or_never() -> None:
    model = model_of(make_records(noise=0.0))
    cheap = {"none": 0.3, "fp16": 0.29}
    assert LinkModel(**{**vars(model), "local_seconds": cheap}).break_even("fp16") == math.inf
    same = {"none": 1e6, "fp16": 1e6}
    assert LinkModel(**{**vars(model), "payload_bytes": same}).break_even("fp16") == 0.0


def test_one_launch_a_link_has_no_interval_and_one_link_no_model() -> None:
    span = model_of(make_records(repeats=1)).break_even_span("fp16")
    assert span.centre > 0 and math.isnan(span.low) and math.isnan(span.high)
    records = make_records(links=LINKS[:1])
    assert link_models(point_frame(records), payloads_of(records)) == []


def test_the_report_opens_with_the_break_even_and_its_interval() -> None:
    records = make_records()
    (finding,) = describe_break_evens(Run(records))
    span = model_of(records).break_even_span("fp16")
    assert (
        f"PyTorch breaks even at {show_bandwidth(span.centre)} (95 % interval {show_bandwidth(span.low)} to"
        in finding.text
    )
    assert f"n = {len(records)}" in finding.text
    assert find_answer(Run(records)).headlines[0] == finding
    assert describe_break_evens(Run([])) == []


def test_the_table_says_by_how_much_compression_wins_and_what_the_wire_adds() -> None:
    records = make_records(noise=0.0)
    table = links_table(Run(records))
    rows = {(row["compression"], row["link_bits_per_second"]): row for row in table.data.to_dict("records")}
    payloads = {record.point.compression: record.model.allreduce_bytes_per_step for record in records}
    slow, fast = LINKS[0], LINKS[-1]
    steps = {key: truth(*key, payloads[key[0]]) for key in rows}
    won = rows["fp16", slow]["uncompressed_to_compressed"]
    assert won == pytest.approx(steps["none", slow] / steps["fp16", slow])
    assert rows["fp16", fast]["uncompressed_to_compressed"] < 1
    assert rows["none", slow]["exposed_seconds"] == pytest.approx(steps["none", slow] - steps["none", fast])
    assert link_tables(Run(make_records(links=LINKS[:1]))) == []


@pytest.mark.parametrize("links", [LINKS, (200_000_000, 1_000_000_000)], ids=["many", "two"])
def test_ticks_of_the_plot_are_bandwidths(links: tuple[int, ...]) -> None:
    figure = plot_links(Run(make_records(links=links)))
    render_figure(figure, kind="png")
    (panel,) = figure.axes
    names = [tick.get_text() for tick in panel.get_xticklabels(which="both") if tick.get_text()]
    assert len(names) >= 2 and all(name.endswith("bit/s") for name in names)
    assert len(set(names)) == len(names)


def test_a_plot_without_compressions_does_not_ask_about_them() -> None:
    records = [record for record in make_records() if record.point.compression == "none"]
    assert plot_links(Run(records)).get_suptitle().startswith("How long is a step on links of which bandwidth?")
    assert "compression cost more" in plot_links(Run(make_records())).get_suptitle()


STEPS = {"none": 0.100, "fp16": 0.130, "topk": 0.110, "powersgd": 0.1005, "int8": 0.099}  # on one machine


def make_machine_records(*, noise: float = 0.01, repeats: int = 6) -> list[Record]:
    """Launches without a shaped link; those of a round share what makes the machine slower."""
    random = np.random.default_rng(5)
    records = []
    for repeat in range(repeats):
        drift = math.exp(10 * noise * random.standard_normal())
        for compression, step in STEPS.items():
            seconds = drift * step * math.exp(noise * random.standard_normal())
            ranks = [make_rank(rank, step_seconds=[9.0, *[seconds] * 4]) for rank in range(2)]
            records.append(make_record(ranks, repeat=repeat, model="small", compression=compression, world_size=2))
    return records


def machine_model_of(records: list[Record]) -> LinkModel:
    (model,) = machine_models(point_frame(records), payloads_of(records))
    return model


@pytest.mark.parametrize("world_size", [2, 4, 16])
def test_at_the_break_even_of_one_machine_both_steps_are_as_long(world_size: int) -> None:
    model = machine_model_of(make_machine_records())
    for compression in set(STEPS) - {"none"}:
        found = model.break_even(compression, world_size=world_size)
        where = {"world_size": world_size, "bits_per_second": found}
        if 0 < found < math.inf:
            plain, packed = (model.step_seconds(name, **where) for name in ("none", compression))
            assert plain == pytest.approx(packed, rel=1e-6)
            slower, faster = ({**where, "bits_per_second": share * found} for share in (0.9, 1.1))
            assert model.gain_seconds(compression, **slower) > 0 > model.gain_seconds(compression, **faster)


def test_a_break_even_of_one_machine_is_that_of_its_steps_and_bytes() -> None:
    records = make_machine_records(noise=0.0)
    model, bytes_of = (
        machine_model_of(records),
        {each.point.compression: each.model.allreduce_bytes_per_step for each in records},
    )
    for compression in ("fp16", "topk", "powersgd"):  # of two ranks all that is handed over crosses each link once
        expected = 8 * (bytes_of["none"] - bytes_of[compression]) / (STEPS[compression] - STEPS["none"])
        assert model.break_even(compression) == pytest.approx(expected, rel=1e-6)
    assert model.break_even("int8") == math.inf  # no longer a step, and fewer bytes
    assert (
        model.describe_reach(bits_per_second=1e9, world_size=4) == "2 times the ranks, a link, where none was measured"
    )


def test_its_interval_holds_it_whatever_moves_all_launches_of_a_round() -> None:
    exact = machine_model_of(make_machine_records(noise=0.0))
    model = machine_model_of(make_machine_records())
    for compression in ("fp16", "topk"):
        span = model.break_even_span(compression)
        assert span.low < exact.break_even(compression) < span.high
    assert (
        model.break_even_span("fp16").high / model.break_even_span("fp16").low < 1.6
    )  # rounds differ by 10 %, launches by 1 %
    assert math.isinf(model.break_even_span("powersgd").high), (
        "half a per cent more cannot be told from none by 1 % of noise"
    )
    alone = machine_model_of(make_machine_records(repeats=1)).break_even_span("fp16")
    assert alone.centre > 0 and math.isnan(alone.low) and math.isnan(alone.high)


def test_a_report_of_one_machine_names_the_break_even_of_each_compression() -> None:
    records = make_machine_records()
    model, sentences = machine_model_of(records), describe_machine_break_evens(Run(records))
    assert len(sentences) == len(STEPS) - 1
    said = {
        name: next(each.text for each in sentences if f" {name} on the wire " in each.text)
        for name in STEPS
        if name != "none"
    }
    span = model.break_even_span("fp16")
    ends = " to ".join(show_bandwidth(end) for end in (span.low, span.high))
    assert said["fp16"].startswith(
        f"Below {show_bandwidth(span.centre)} in PyTorch (95 % interval {ends}, n = {len(records)}) fp16 on the wire"
    )
    assert said["int8"].startswith("On every link in PyTorch (95 % interval ")
    assert [each for each in model.local_seconds if each not in said] == ["none"]


def test_what_ran_without_the_uncompressed_all_reduce_or_alone_has_no_break_even() -> None:
    records = make_machine_records(repeats=2)
    compressed = [record for record in records if record.point.compression != "none"]
    assert machine_models(point_frame(compressed), payloads_of(compressed)) == []
    linked = make_records(repeats=1)
    assert machine_models(point_frame(linked), payloads_of(linked)) == []

"""The model of step time against bandwidth finds what made the times, and where compression breaks even."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hvbench.analysis.frame.frames import point_frame
from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.answer import find_answer
from hvbench.analysis.topics.links.bandwidth import show_bandwidth
from hvbench.analysis.topics.links.model import LinkModel, break_even_from_afar, link_models, predict_held_out
from hvbench.analysis.topics.links.sentences import describe_break_evens
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

"""Whether two frameworks' figures may be compared: stamps of the check before the sweep, joined with the losses."""

from __future__ import annotations

import csv
import io

import pytest

from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.facts import list_warnings
from hvbench.analysis.report.markdown import render_warnings
from hvbench.analysis.show.render import render_csv, render_markdown, render_text
from hvbench.analysis.topics.parity.stamps import (
    OTHER_WORK,
    UNPROVEN,
    WITH_DROPOUT,
    judge,
    list_configurations,
    verdict_of,
)
from hvbench.analysis.topics.parity.table import parity_table
from hvbench.analysis.topics.throughput.table import throughput_table
from hvbench.records.record import ParityStamp, Record
from tests.unit.sample_records import make_rank, make_record, make_red_stamp, make_stamp

FRAMEWORKS = ("pytorch", "tensorflow")
GREEN = make_stamp()
RED = make_red_stamp()
FAILED = make_stamp(is_proven=False, problem="tensorflow timeout: not finished", worst=None)


def launch(
    framework: str, stamp: ParityStamp | None = GREEN, *, loss: float = 5.0, repeat: int = 0, **fields
) -> Record:
    rank = make_rank(step_seconds=[0.1, 0.1], loss=[loss, loss])
    return make_record([rank], framework=framework, repeat=repeat, parity=stamp, **fields)


def both(stamp: ParityStamp | None = GREEN, **fields) -> list[Record]:
    return [launch(framework, stamp, **fields) for framework in FRAMEWORKS]


def test_green_stamps_and_equal_losses_are_one_sentence_with_figures() -> None:
    run = Run([*both(), *both(precision="bf16")])
    verdict = verdict_of(run)
    assert verdict.is_proven
    assert "2 configurations trained 3 updates in both frameworks" in verdict.text
    assert "rank0/update/final_norm.gain 4.0e-06, allowed 1e-05" in verdict.text
    assert "bf16 0.0e+00 (allowed 3e-04)" in verdict.text
    assert list_warnings(run) == []


def test_a_red_stamp_is_a_banner_that_names_the_configuration_and_the_quantity() -> None:
    run = Run([*both(), *both(RED, gradient_accumulation_steps=2)])
    verdict = verdict_of(run)
    assert not verdict.is_proven
    assert "1 of 2 configurations: accumulation 2 (rank0/gradient/block0.mlp.up.weight 1.0e+00, allowed 1e-06)" in (
        verdict.text
    )
    (banner,) = render_warnings(run)
    assert banner.startswith("**The frameworks were NOT proven to do the same work: do not compare their speed.**")


def test_one_red_launch_among_green_ones_is_enough() -> None:
    records = [*both(), launch("pytorch", RED, repeat=1), launch("tensorflow", repeat=1)]
    assert [configuration.verdict for configuration in list_configurations(Run(records))] == ["not proven"]


def test_a_missing_stamp_is_unproven_even_if_the_losses_agree() -> None:
    for records in (both(None), [launch("pytorch"), launch("tensorflow", None)]):
        verdict = verdict_of(Run(records))
        assert not verdict.is_proven and "No check was made before the sweep of 1 of 1 configuration" in verdict.text
        assert "fp32 0.0e+00" in verdict.text


def test_losses_that_differ_are_unproven_even_if_the_stamps_are_green() -> None:
    verdict = verdict_of(Run([launch("pytorch"), launch("tensorflow", loss=5.1)]))
    assert not verdict.is_proven and "The losses of the measured steps differ." in verdict.text


def test_a_check_that_failed_says_why() -> None:
    assert "the only configuration (tensorflow timeout: not finished)" in verdict_of(Run(both(FAILED))).text


@pytest.mark.parametrize("stamp", [None, FAILED], ids=["no check", "a check that failed"])
def test_what_was_not_compared_is_not_called_different(stamp: ParityStamp | None) -> None:
    run = Run(both(stamp))
    assert verdict_of(run).title == UNPROVEN and not verdict_of(run).is_proven
    (banner,) = render_warnings(run)
    assert "NOT" not in banner and "found a difference" not in banner
    assert "NOT the same work" not in str(throughput_table(run).cells)


def test_the_worst_of_several_stamps_decides() -> None:
    def verdict(*stamps: ParityStamp | None) -> str:
        return judge(stamps)[0]

    assert verdict(FAILED, RED, GREEN) == verdict(GREEN, RED, FAILED) == "not proven"
    assert verdict(GREEN, FAILED) == verdict(FAILED, None) == "not compared"
    assert verdict(GREEN, None) == verdict() == "unchecked"
    assert verdict(GREEN, GREEN) == "proven"
    titles = [verdict_of(Run([*both(FAILED), *both(stamp, seed=1)])).title for stamp in (GREEN, RED)]
    assert titles == [UNPROVEN, OTHER_WORK]


def test_only_what_ended_well_in_both_frameworks_is_compared() -> None:
    alone = make_record(status="oom", framework="tensorflow", precision="bf16", parity=RED, world_size=1)
    assert verdict_of(Run([*both(), launch("pytorch", RED, precision="bf16"), alone])).is_proven
    never = verdict_of(Run([launch("pytorch"), launch("tensorflow", seed=1)]))
    assert not never.is_proven and "No configuration ended in ok in more than one framework" in never.title


def test_one_framework_needs_no_verdict() -> None:
    assert verdict_of(Run([launch("pytorch", None), launch("pytorch", None, seed=1)])) is None
    assert verdict_of(Run([])) is None and render_warnings(Run([])) == []


def test_a_choice_of_one_framework_belongs_to_the_same_configuration() -> None:
    records = [*both(), launch("pytorch", RED, gemm="onednn")]
    (configuration,) = list_configurations(Run(records))
    assert configuration.verdict == "not proven" and len(configuration.records) == 3


def test_many_configurations_are_counted_and_not_all_named() -> None:
    records = [record for seed in range(9) for record in both(RED, seed=seed)]
    text = verdict_of(Run(records)).text
    assert "9 of 9 configurations: " in text and "; 4 more." in text


def test_the_table_has_a_row_per_configuration_and_framework() -> None:
    records = [*both(), *both(repeat=1), *both(RED, precision="bf16"), *both(None, precision="fp16")]
    table = parity_table(Run(records))
    assert table.header == (
        "framework", "precision", "logits", "loss", "gradients", "updates", "overflows", "n", "verdict",
    )  # fmt: skip
    rows = {(row[0], row[1]): row for row in table.cells}
    assert len(rows) == 6
    assert rows["pytorch", "fp32"][2:] == [
        "1.0e-07 ≤ 5e-07", "2.0e-07 ≤ 5e-07", "3.0e-07 ≤ 1e-06", "4.0e-06 ≤ 1e-05", "0", "2", "proven",
    ]  # fmt: skip
    assert rows["tensorflow", "bf16"][4] == "1.0e+00 > 1e-06"
    assert rows["tensorflow", "bf16"][-1].startswith("not proven (rank0/gradient/block0.mlp.up.weight 1.0e+00")
    assert rows["pytorch", "fp16"][2:] == ["–", "–", "–", "–", "–", "0", "unchecked"]
    raw = list(csv.DictReader(io.StringIO(render_csv(table))))
    assert raw[0]["gradient_relative_error"] == "3e-07" and raw[0]["launches_stamped"] == "2"


def test_a_red_point_is_marked_in_the_throughput_table() -> None:
    table = throughput_table(Run([*both(), *both(RED, precision="bf16"), *both(None, precision="fp16")]))
    column = table.header.index("precision")
    marked = {row[column] for row in table.cells if row[-1] == "ok, NOT the same work"}
    assert marked == {"bf16"} and {row[-1] for row in table.cells if row[column] != "bf16"} == {"ok"}


def test_hostile_stamps_stay_inside_their_line() -> None:
    hostile = "a|b\n<script>x</script> \x1b[31m # [e](http://f)"
    records = both(make_stamp(is_proven=False, problem=hostile, counterpart=hostile))
    for text in (*render_warnings(Run(records)), render_markdown(parity_table(Run(records)))):
        assert "<script" not in text and "\x1b" not in text and "[e](" not in text
    assert "\x1b" not in render_text(parity_table(Run(records)))
    (banner,) = render_warnings(Run(records))
    assert "\n" not in banner


def test_no_records_make_an_empty_table() -> None:
    assert parity_table(Run([])).cells == []


def test_with_dropout_the_stamps_count_and_the_text_says_what_they_do_not_show() -> None:
    records = [launch("pytorch", dropout=0.1), launch("tensorflow", loss=5.1, dropout=0.1)]
    verdict = verdict_of(Run(records))
    assert verdict.is_proven and verdict.text.endswith(WITH_DROPOUT)
    assert WITH_DROPOUT not in verdict_of(Run(both())).text

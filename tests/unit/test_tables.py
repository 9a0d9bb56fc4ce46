"""Tables: which columns they have, how they read, and that nothing in a record can break out of a cell."""

from __future__ import annotations

import csv
import io

import pytest

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import format_number
from hvbench.analysis.show.render import render_csv, render_markdown, render_text
from hvbench.analysis.show.text import clean_text, escape_markdown
from hvbench.analysis.topics.convergence.table import convergence_table
from hvbench.analysis.topics.throughput.table import throughput_table
from tests.unit.sample_records import make_convergence, make_launch, make_quickstart, make_record

HOSTILE = "a|b\n<script>x</script> *c* `d` [e](http://f) $g$ @h \x1b[31m\u202e"


def test_varying_axes_lead_and_the_rest_is_said_once() -> None:
    table = throughput_table(Run(make_quickstart()))
    assert table.header[:6] == ("framework", "micro-batch", "accumulation", "precision", "compression", "n")
    assert table.constants["model"] == "small"
    assert "precision" not in table.constants
    assert len(table.cells) == 32


def test_what_all_points_share_is_said_where_it_changes_something() -> None:
    """A field that another one leaves without effect is nothing that two runs may differ in."""

    def shared(**fields: object) -> set[str]:
        records = [make_record(framework=framework, **fields) for framework in ("pytorch", "tensorflow")]
        return set(throughput_table(Run(records)).constants)

    usual, lora, labels = shared(), shared(adaptation="lora"), shared(objective="classification")
    assert not usual & {"lora_rank", "adapter_size", "rope_theta", "num_classes", "attention_mask", "momentum"}
    assert usual >= {"adaptation", "activation", "beta1", "loss_chunk_tokens", "data"}
    assert lora - usual == {"lora_rank", "lora_alpha", "lora_targets"} and usual < lora
    assert labels - usual == {"num_classes", "attention_mask"} and usual - labels == {"loss_chunk_tokens"}
    mixed = [make_record(framework="pytorch", objective=name) for name in ("causal_lm", "classification")]
    assert "num_classes" in throughput_table(Run(mixed)).constants, "of one of them it says something"


def test_one_launch_says_so_instead_of_an_interval() -> None:
    table = throughput_table(Run(make_quickstart()))
    assert {row[table.header.index("95 % interval")] for row in table.cells} == {"n=1"}
    assert "95 % interval (ms)" not in table.header


def test_every_row_of_repeated_launches_has_n_and_an_interval() -> None:
    table = throughput_table(Run(make_quickstart(repeats=3)))
    for row in table.cells:
        assert row[table.header.index("n")] == "3"
        for name in ("95 % interval", "95 % interval (ms)"):
            low, high = (float(end.replace(",", "")) for end in row[table.header.index(name)].split(" to "))
            assert low < high


def test_a_lost_point_shows_its_status_and_reason_and_no_number() -> None:
    lost = make_record(status="oom", phase="first_step", message="no memory", model="small", micro_batch_size=64)
    table = throughput_table(Run([make_launch({"framework": "pytorch"}), lost]))
    row = next(row for row in table.cells if row[-1] != "ok")
    assert row[-1] == "oom (first_step: no memory)"
    assert row[table.header.index("tokens/s")] == "–"


def test_convergence_says_when_the_target_was_not_reached() -> None:
    table = convergence_table(Run(make_convergence(target_loss=1.0)))
    column = table.header.index("training seconds to target")
    assert [row[column] for row in table.cells] == ["not reached", "not reached"]
    reached = convergence_table(Run(make_convergence(target_loss=4.0)))
    assert [row[reached.header.index("steps to target")] for row in reached.cells] == ["80", "80"]
    assert [row[reached.header.index("tokens to target")] for row in reached.cells] == ["163,840", "163,840"]


def test_convergence_without_evaluations_has_no_empty_columns() -> None:
    table = convergence_table(Run(make_quickstart()))
    assert not any("target" in name or "validation" in name for name in table.header)


def test_csv_has_raw_values_with_units_in_the_names() -> None:
    rows = list(csv.DictReader(io.StringIO(render_csv(throughput_table(Run(make_quickstart(repeats=2)))))))
    assert len(rows) == 32
    assert float(rows[0]["tokens_per_second_low"]) < float(rows[0]["tokens_per_second"])
    assert rows[0]["model_flops_utilization"] == ""
    assert rows[0]["launches_ok"] == "2"


def test_hostile_text_stays_inside_its_cell() -> None:
    run = Run([make_record(status="failed", message=HOSTILE), make_launch({"framework": "pytorch"})])
    markdown = render_markdown(throughput_table(run))
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert "<script" not in markdown and "\x1b" not in markdown and "[e](" not in markdown
    text = render_text(throughput_table(run))
    assert "\x1b" not in text and "\u202e" not in text


def test_csv_text_is_never_a_formula() -> None:
    run = Run([make_record(status="failed", message="=cmd()")])
    row = next(csv.DictReader(io.StringIO(render_csv(throughput_table(run)))))
    assert row["reason"] == "'=cmd()"


def test_escaped_markdown_keeps_plain_names() -> None:
    assert escape_markdown("micro_batch_size gpt2-medium 1e-4") == "micro_batch_size gpt2-medium 1e-4"
    assert escape_markdown("_x_ a|b") == "\\_x\\_ a\\|b"


def test_clean_text_is_one_short_line() -> None:
    assert clean_text("a\r\n\tb\x00\u2028c") == "a b c"
    assert len(clean_text("x" * 10_000, limit=50)) == 50


@pytest.mark.parametrize(
    ("value", "text"), [(12345.6, "12,346"), (999.96, "1,000"), (145.0, "145.0"), (0.54251, "0.5425"), (0.0, "0.000")]
)
def test_numbers_have_four_digits(value: float, text: str) -> None:
    assert format_number(value) == text


def test_no_records_still_make_tables() -> None:
    for table in (throughput_table(Run([])), convergence_table(Run([]))):
        assert "no launches" in render_text(table)
        assert "No launches" in render_markdown(table)
        assert render_csv(table).count("\n") == 1

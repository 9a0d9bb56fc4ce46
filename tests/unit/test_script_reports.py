"""Reports of people's own training: their axes are columns, their speed is what they say of it, what needs a model is absent."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import hvbench
from hvbench.analysis.frame.columns import POINT_COLUMNS
from hvbench.analysis.frame.frames import evaluation_frame, point_frame, step_frame
from hvbench.analysis.frame.metrics import STEPS, TOKENS
from hvbench.analysis.frame.run import Run
from hvbench.analysis.frame.samples import find_defect
from hvbench.analysis.frame.wall import parts_of
from hvbench.analysis.report.answer import find_answer
from hvbench.analysis.report.contents import list_tables, topics_of
from hvbench.analysis.report.facts import list_request
from hvbench.analysis.report.terminal import render_terminal
from hvbench.analysis.report.write import write_report
from hvbench.analysis.stats.estimates import summary_rows
from hvbench.analysis.topics.choices import draw_contrasts
from hvbench.analysis.topics.throughput.sentences import find_best
from hvbench.cli.display.lines import describe_record
from hvbench.records.record import Record
from hvbench.records.store import RunFolder
from hvbench.tracking.export import make_run, pair_with_figures
from tests.unit.sample_scripts import make_script_record, make_script_records, make_script_run

# Columns that need what hvbench knows of its own models alone.
OF_TWINS = (
    "model", "precision", "micro_batch_size", "model_flops_per_second", "model_flops_utilization", "gemm_flops_per_second",
    "estimated_peak_bytes", "activation_bytes", "parity", "clipped_fraction", "skipped_steps", "build_seconds",
    "data_prepare_seconds", "parts_seconds", "parameters", "trained_parameters", "trained_parameters_share", "allreduce_bytes_per_step",
)  # fmt: skip
# Words of a report of the twins that mean nothing where nobody's twin trained.
NOT_SAID = re.compile(
    r"PyTorch|TensorFlow|[Tt]win|[Pp]arity|MFU|nats|framework|\{batch\}(?! --)|[Cc]eiling|micro-batch|nan\b|NaN|None\b|<NA>"
)
FOUR = [{"batch": batch, "dtype": dtype} for batch in (8, 16) for dtype in ("fp32", "bf16")]
CASES: dict[str, Callable[[], list[Record]]] = {
    "tokens": make_script_records,
    "no tokens": lambda: make_script_records(tokens=None, has_loss=False),
    "four": lambda: make_script_records(FOUR),
    "one configuration": lambda: make_script_records([{"batch": 8, "dtype": "fp32"}]),
    "no axes": lambda: make_script_records([{}], tokens=None, has_loss=False, command="python train.py"),
    "one failed": lambda: [
        *make_script_records()[:-1],
        make_script_record({"batch": 16, "dtype": "fp32"}, repeat=4, status="failed"),
    ],
    "all failed": lambda: make_script_records(status="failed"),
    "evaluates": lambda: make_script_records(evaluates=True),
    "evaluates, no tokens": lambda: make_script_records(evaluates=True, tokens=None),
    "target": lambda: make_script_records(evaluates=True, measure={"evaluate_every": 4, "target_loss": 2.8}),
    "target, no tokens": lambda: make_script_records(
        evaluates=True, tokens=None, measure={"evaluate_every": 4, "target_loss": 2.8}
    ),
    "seeds": lambda: make_script_records(evaluates=True, measure={"seed_per_repeat": True, "target_loss": 0.1}),
    "once": lambda: make_script_records(repeats=1),
    "once, no tokens": lambda: make_script_records(repeats=1, tokens=None),
    "switches": lambda: make_script_records(
        [{"compile": on, "lr": rate} for on in (False, True) for rate in (0.0, 0.1)], command="sh run.sh {compile} {lr}"
    ),
    "ranks": lambda: [*make_script_records(ranks=1), *make_script_records(ranks=2)],
}


def first_sentence(records: list[Record]) -> str:
    return find_answer(make_script_run(records)).headlines[0].text


def test_the_axes_of_a_script_are_columns_with_braces_behind_the_ranks() -> None:
    points = point_frame(make_script_records(FOUR))
    place = list(points.columns).index("world_size")
    assert list(points.columns[place + 1 : place + 4]) == ["{batch}", "{dtype}", "command"]
    assert len(points.columns) == len(POINT_COLUMNS) + 3
    assert set(points["framework"]) == {"script"}
    assert points["{batch}"].dtype == "Int64" and set(points["{dtype}"]) == {"fp32", "bf16"}
    assert points[list(OF_TWINS)].isna().all(axis=None)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([8, 16], "Int64"), ([8, 0.5], "float64"), ([False, True], "boolean"), (["a", "b"], "str"), (["a", 3], "str")],
)
def test_the_kind_of_an_axis_follows_from_its_values(values: list[object], dtype: str) -> None:
    records = [make_script_record({"x": value}, command="python train.py {x}") for value in values]
    assert str(point_frame(records)["{x}"].dtype) == dtype


def test_what_a_script_does_not_say_is_missing_and_not_zero() -> None:
    points = point_frame(make_script_records(tokens=None, has_loss=False))
    said = points[["tokens_per_second", "tokens_per_second_per_rank", "tokens_per_step", "final_loss", "loss_digest"]]
    assert said.isna().all(axis=None)
    assert points["step_seconds_median"].between(0.009, 0.016).all()
    steps = step_frame(make_script_records(tokens=None, has_loss=False))
    assert steps["tokens"].isna().all() and steps["loss"].isna().all()


def test_speeds_are_tokens_only_where_every_launch_says_them() -> None:
    said, silent = make_script_records(), make_script_records(tokens=None)
    assert make_script_run(said).speed is TOKENS
    assert make_script_run(silent).speed is STEPS
    assert make_script_run([*said[::2], *silent[1::2]]).speed is STEPS


def test_a_loss_that_some_ranks_or_steps_do_not_log_is_that_of_the_others() -> None:
    record = make_script_record()
    sparse = [None if step % 5 else 2.0 + step / 10 for step in range(13)]  # steps 0, 5 and 10, of rank 0 alone
    ranks = [
        record.ranks[0].model_copy(update={"loss": sparse}),
        record.ranks[1].model_copy(update={"loss": [None] * 13}),
    ]
    assert point_frame([record.model_copy(update={"ranks": ranks})])["final_loss"].iloc[0] == pytest.approx(3.0)


def test_evaluations_of_rank_0_alone_count() -> None:
    found = evaluation_frame([make_script_record(evaluates=True)])
    assert found["step"].tolist() == [0, 4, 8, 12]
    assert found["tokens"].tolist() == [0, 4 * 512, 8 * 512, 12 * 512]
    assert evaluation_frame([make_script_record(evaluates=True, tokens=None)])["tokens"].isna().all()


def test_a_record_that_says_ok_and_lacks_steps_or_ranks_is_a_failure() -> None:
    record = make_script_record()
    assert find_defect(record) is None
    assert "1 of 2 ranks" in find_defect(record.model_copy(update={"ranks": record.ranks[:1]}))
    short = record.ranks[1].model_copy(update={"step_seconds": record.ranks[1].step_seconds[:5]})
    assert "steps of rank 1" in find_defect(record.model_copy(update={"ranks": [record.ranks[0], short]}))


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("tokens", r"^train\.py with batch 16 trains fastest, at [\d,]+ tokens/s \(.*n = 5\): 3\d % faster than batch 8 \(.*5 rounds\)\.$"),
        ("no tokens", r"^train\.py with batch 8 has the shortest step time, 9\.\d+ ms \(.*n = 5\): \d+ % faster per step than batch 16 \("),
        ("four", r"^train\.py with batch 16, dtype bf16 trains fastest, .*faster than the next, batch 16, dtype fp32 .* than the other 2 by"),
        ("one configuration", r"^train\.py takes 9\.\d+ ms a step \(95 % interval .*, n = 5\), which is [\d,]+ tokens/s \("),
        ("no axes", r"^train\.py takes 10\.0\d? ms a step \(95 % interval .*, n = 5\)\.$"),
        ("one failed", r"^train\.py with batch 16 trains fastest, .*n = 4\).*4 rounds\)\.$"),
        ("all failed", r"^No launch ended in ok"),
        ("evaluates", r"^train\.py with batch 16 trains fastest"),
        ("target", r"^Both points reached the target loss 2\.8"),
        ("once", r"^Both points of train\.py ran to the end, at [\d,]+ to [\d,]+ tokens/s; one launch"),
        ("once, no tokens", r"^Both points of train\.py ran to the end, at 9\.\d+ to 14\.\d+ ms a step; one launch"),
        ("switches", r"^The script with compile (true|false), lr 0(\.1)? has the highest rate of all 4 points"),
    ],
)  # fmt: skip
def test_the_first_sentence_says_which_configuration_is_fastest(case: str, sentence: str) -> None:
    assert re.search(sentence, first_sentence(CASES[case]()))


def test_the_fastest_is_judged_by_the_one_rule_paired_by_round() -> None:
    """Batch 16 has twice the tokens in 1.5 times the time: 33 % more tokens a second, 50 % longer steps."""
    run = make_script_run(make_script_records())
    (contrast,) = find_best(run, summary_rows(run)).family.contrasts
    assert contrast.is_faster and contrast.contrast.rounds == 5
    assert contrast.contrast.ratio == pytest.approx(4 / 3, rel=0.03)
    silent = make_script_run(make_script_records(tokens=None))
    (contrast,) = find_best(silent, summary_rows(silent)).family.contrasts
    assert contrast.one["{batch}"] == 8 and contrast.contrast.ratio == pytest.approx(1.5, rel=0.03)


def test_a_suite_that_names_an_axis_gets_what_it_does_first() -> None:
    run = make_script_run(make_script_records(FOUR), compares=["dtype"])
    assert run.compared_axes == ["{dtype}"]
    assert re.match(r"^Dtype bf16 is 2\d % faster than dtype fp32 over the 2 pairs", find_answer(run).headlines[0].text)


def test_steps_that_are_compared_by_their_time_alone_are_said_to_be() -> None:
    said = [sentence.text for sentence in find_answer(make_script_run(CASES["no tokens"]())).certainty]
    assert any("tokens_per_step" in text for text in said)
    assert not any(
        "tokens_per_step" in sentence.text for sentence in find_answer(make_script_run(CASES["tokens"]())).certainty
    )


def test_ranks_are_a_plural_in_a_plot_too() -> None:
    records = [make_script_record(ranks=ranks, repeat=repeat) for repeat in range(3) for ranks in (1, 2)]
    (forest,) = draw_contrasts(make_script_run(records))
    assert (forest.left.words, forest.right.words) == ("1 rank is faster", "2 ranks are faster")


@pytest.mark.parametrize("case", CASES)
def test_every_topic_speaks_of_a_script_in_its_own_words(case: str, tmp_path: Path) -> None:
    run = make_script_run(CASES[case]())
    write_report(tmp_path, run)
    terminal = "\n".join(render_terminal(run))
    assert terminal.startswith(f"\n{find_answer(run).headlines[0].text}\n"), "the answer comes before its figures"
    page = re.sub(
        r"<(style|script|svg)\b.*?</\1>", "", (tmp_path / "report.html").read_text(encoding="utf-8"), flags=re.S
    )
    text = re.sub(r"class=\"[^\"]*\"", "", page)
    for written in ((tmp_path / "report.md").read_text(encoding="utf-8"), terminal, text):
        found = NOT_SAID.search(written)
        assert not found, written[max(0, found.start() - 100) : found.end() + 100]
    assert {topic.name for topic in topics_of(run)}.isdisjoint(
        {"Parity", "Ceilings", "Scaling", "Breakdown", "Framework comparison"}
    )
    for table in list_tables(run):
        assert "framework" not in table.header
        assert not set(OF_TWINS[:3]) & set(table.data.columns)


def test_no_column_of_a_table_is_of_zeros_that_nobody_measured() -> None:
    headers = {header for table in list_tables(make_script_run(CASES["no tokens"]())) for header in table.header}
    assert headers.isdisjoint({"tokens/s", "estimate (MiB)", "parameters (MiB)", "training loss at end", "MFU (%)"})


def test_a_change_of_the_script_within_a_run_is_a_warning(tmp_path: Path) -> None:
    other = {"revision": "bbbb1a9b8d7e", "is_dirty": True, "digest": None}
    records = [*make_script_records(repeats=2), make_script_record(repeat=2, source=other)]
    write_report(tmp_path, make_script_run(records))
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert (
        "Different revisions of the script ran these launches: 4f2c1a9b8d7e, files 93ab44c0d1e2; bbbb1a9b8d7e with changes."
        in text
    )


def test_load_knows_the_axes_of_a_script(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.open_for_writing()
    folder.write_run({"suite": "mine"})
    for record in make_script_records(FOUR, repeats=2):
        folder.write_record(record)
    folder.close()
    frame = hvbench.load(tmp_path / "run")
    assert frame.groupby("{batch}")["tokens_per_second"].mean().diff().iloc[-1] > 0
    assert frame.attrs["meanings"]["{batch}"] == "the script's own: batch"
    assert "final_loss" not in frame.attrs["units"] and frame.attrs["units"]["step_seconds_median"] == "s"


def test_a_tracker_gets_the_axes_by_their_names() -> None:
    record = make_script_record({"batch": 8, "repeat": "no"}, command="python train.py {batch} {repeat}")
    ((record, row),) = pair_with_figures([record])
    tracked = make_run(record, row)
    assert tracked.settings == {
        "repeat": 0, "framework": "script", "world_size": 2, "batch": 8, "axis.repeat": "no", "seed": 0,
        "command": "python train.py {batch} {repeat}", "revision": "4f2c1a9b8d7e",
    }  # fmt: skip
    assert "model_flops_utilization" not in tracked.figures and tracked.figures["tokens_per_second"] > 0
    assert len(tracked.curves["loss"]) == 13


def test_a_line_of_the_live_view_says_what_the_script_said() -> None:
    assert re.fullmatch(r"[\d,]+ tokens/s  step 10 ms  loss 2\.4\d\d", describe_record(make_script_record(repeat=1)))
    assert re.fullmatch(r"step (10|9\.\d+) ms", describe_record(make_script_record(tokens=None, has_loss=False)))


def test_scripts_and_twins_in_one_frame_keep_their_own_columns() -> None:
    from tests.unit.sample_records import make_quickstart

    points = Run([*make_quickstart()[:2], *make_script_records(repeats=1)]).points
    assert points.groupby("framework")["{batch}"].count().to_dict() == {"pytorch": 0, "script": 2}
    assert points.groupby("framework")["model"].count().to_dict() == {"pytorch": 2, "script": 0}
    assert pd.notna(points["tokens_per_second"]).all()
    assert json.dumps(points.columns.tolist())


def test_one_seed_of_a_script_says_nothing_of_learning_and_several_do() -> None:
    one, several = (make_script_run(CASES[case]()) for case in ("evaluates", "seeds"))
    assert "learned" not in {table.name for table in list_tables(one)}
    assert "learned" in {table.name for table in list_tables(several)}


def test_only_the_settings_that_a_script_has_are_listed() -> None:
    measure = {"warmup_steps": 3, "steps": 10, "ceilings": True, "noise_every": 0, "target_loss": None}
    run = make_script_run(make_script_records(), measure=measure)
    assert list_request(run)["measured"] == "warmup_steps 3, steps 10"


def test_the_wall_time_of_a_script_is_spent_on_what_it_says_of_itself() -> None:
    """Two ranks: the slower one starts in 0.4 s; 13 waits of 1 ms between steps; no phase of a twin's."""
    record = make_script_record()
    ranks = [
        rank.model_copy(update={"phase_seconds": {"script": 0.2 * (rank.rank + 1), "data": 0.05, "ceiling": 9.0}})
        for rank in record.ranks
    ]
    parts = parts_of(record.model_copy(update={"ranks": ranks}))
    assert parts.keys() == {
        "timed steps", "first steps", "other warm-up steps", "starting the script", "before the first step", "between steps"
    }  # fmt: skip
    assert parts["starting the script"] == pytest.approx(0.4) and parts["between steps"] == pytest.approx(0.013)

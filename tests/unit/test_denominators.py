"""A launch that did not end in `ok` counts: it never reached its target, and no figure leaves it out without naming it."""

from __future__ import annotations

import pytest

from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.answer import find_answer
from hvbench.analysis.show.render import render_markdown
from hvbench.analysis.show.tables import Table, describe_lost
from hvbench.analysis.stats.estimates import read_estimate, summary_of
from hvbench.analysis.topics.batch.sentences import describe_batches
from hvbench.analysis.topics.batch.tradeoff import find_curves
from hvbench.analysis.topics.catalogue import TOPICS
from hvbench.analysis.topics.convergence.sentences import describe_convergence
from hvbench.records.record import Record
from tests.unit.sample_noise import BATCHES, batch_record
from tests.unit.sample_records import make_evaluation, make_launch, make_rank, make_record, make_stamp
from tests.unit.test_published_figures import make_linked

ENDS = ("diverged", "failed", "timeout", "oom")


def train(losses: tuple[float, ...], *, repeat: int, stopped_by: str | None = None, **changes) -> Record:
    """A launch of ten steps between evaluations, whose target is a loss of 3."""
    evaluations = [make_evaluation(10 * i, loss, training_seconds=5.0 * i) for i, loss in enumerate(losses)]
    rank = make_rank(step_seconds=[0.5] * (10 * len(losses)), evaluations=evaluations, stopped_by=stopped_by)
    return make_record([rank], repeat=repeat, target_loss=3.0, seed_per_repeat=True, **changes)


def lose(records: list[Record], *, status: str, **fields) -> list[Record]:
    """The same launches, but those of the points with `fields` ended in `status`."""
    return [
        record.model_copy(update={"outcome": record.outcome.model_copy(update={"status": status, "message": "lost"})})
        if all(getattr(record.point, name) == value for name, value in fields.items())
        else record
        for record in records
    ]


@pytest.mark.parametrize("end", [*ENDS, "gave up"])
def test_one_that_reached_and_two_that_ended_otherwise_are_three(end: str) -> None:
    if end == "gave up":
        others = [train((5.0, 4.0, 4.0), repeat=repeat, stopped_by="patience") for repeat in (1, 2)]
    else:
        others = [train((5.0, 3.0), repeat=repeat, status=end) for repeat in (1, 2)]
    run = Run([train((5.0, 3.0), repeat=0), *others])
    (row,) = summary_of(run).to_dict("records")
    assert row["target"] == "reached by 1 of 3"
    for metric in ("steps_to_target", "tokens_to_target", "seconds_to_target", "evaluation_seconds_to_target"):
        assert read_estimate(row, metric) is None
    (sentence,) = describe_convergence(run)
    assert sentence.text == (
        f"No point reached the target loss 3 in all of its launches; 2 of 3 launches did not: 2 {end}."
    )


def test_a_point_of_which_every_launch_diverged_is_one_of_all_points() -> None:
    records = [train((5.0, 3.0), repeat=0), train((5.0, 3.0), repeat=0, micro_batch_size=16)]
    records += [
        train((), repeat=0, micro_batch_size=32, status="diverged"),
        train((), repeat=0, micro_batch_size=64, status="interrupted"),
    ]
    (sentence,) = describe_convergence(Run(records))
    assert sentence.text.startswith(
        "2 of 3 points reached the target loss 3, after 10 steps; 1 of 3 launches did not: 1 diverged"
    )


def test_losses_at_the_end_are_not_averaged_over_those_that_did_not_diverge() -> None:
    launches = [train((5.0, 3.0), repeat=repeat) for repeat in range(2)]
    (row,) = summary_of(Run([*launches, train((), repeat=2, status="diverged")])).to_dict("records")
    assert read_estimate(row, "final_loss") is None and read_estimate(row, "final_validation_loss") is None
    assert read_estimate(row, "tokens_per_second").n == 2
    (row,) = summary_of(Run([*launches, train((), repeat=2, status="oom")])).to_dict("records")
    assert read_estimate(row, "final_loss").n == 2


@pytest.mark.parametrize("end", ENDS)
def test_a_batch_with_a_lost_launch_has_missed_the_target(end: str) -> None:
    records = [
        batch_record(batch, round(50 * (1 + 90 / batch)), repeat=repeat)
        for batch in (*BATCHES, 512)
        for repeat in range(2)
    ]
    lost = [
        record.model_copy(update={"outcome": record.outcome.model_copy(update={"status": end})})
        if record.repeat and record.point.gradient_accumulation_steps == 128
        else record
        for record in records
    ]
    assert list(find_curves(Run(records))[0].complete) == [*BATCHES, 512]
    assert list(find_curves(Run(lost))[0].complete) == list(BATCHES)
    (sentence,) = describe_batches(Run(lost))
    assert "up to 256" in sentence.text


def sweep(**fields) -> list[Record]:
    """Both frameworks in two precisions, three launches each, their equal work proven."""
    records = [
        make_launch({"framework": framework, "precision": precision} | fields, repeat=repeat)
        for framework in ("pytorch", "tensorflow") for precision in ("fp32", "bf16") for repeat in range(3)
    ]  # fmt: skip
    first = {f"{record.repeat} {record.point.precision}": record for record in reversed(records)}
    return [
        record.model_copy(
            update={
                "parity": make_stamp(),
                "ranks": [
                    a.model_copy(update={"loss": b.loss})
                    for a, b in zip(record.ranks, first[f"{record.repeat} {record.point.precision}"].ranks, strict=True)
                ],
            }
        )
        for record in records
    ]


@pytest.mark.parametrize("end", ENDS)
def test_sentences_about_speed_count_the_points_that_could_not_be_measured(end: str) -> None:
    run = Run(lose(sweep(), status=end, framework="tensorflow", precision="bf16"))
    all_said = (*find_answer(run).headlines, *find_answer(run).details)
    said = [each.text for each in all_said]
    assert any("1 more had no launch that ended in ok" in text for text in said)
    (frameworks,) = [each.text for each in all_said if each.topic == "frameworks"]
    assert "1 more cannot be compared, for no launch of one side ended in ok" in frameworks


def find_table(run: Run, name: str) -> Table:
    return next(
        table for topic in TOPICS if topic.needs.is_met(run) for table in topic.tables(run) if table.name == name
    )


@pytest.mark.parametrize("end", ["oom", "timeout"])
@pytest.mark.parametrize("table", ["frameworks", "scaling", "strategies", "links", "break_even"])
def test_a_table_without_a_status_names_what_it_leaves_out(table: str, end: str) -> None:
    records = {
        "frameworks": sweep(),
        "scaling": [
            make_record([make_rank(r, step_seconds=[2.0, 1.0 + 0.1 * repeat, 1.1]) for r in range(ranks)], repeat=repeat, framework=name)
            for ranks in (1, 2, 4) for repeat in range(2) for name in ("pytorch", "tensorflow")
        ],
        "strategies": [
            make_launch({"framework": name, "strategy": strategy}, repeat=repeat)
            for name in ("pytorch", "tensorflow") for strategy in ("horovod", "native") for repeat in range(2)
        ],
    }.get(table) or [
        record.model_copy(update={"point": record.point.model_copy(update={"framework": name}), "point_id": f"{name}{record.point_id}"})
        for record in make_linked() for name in ("pytorch", "tensorflow")
    ]  # fmt: skip
    whole = render_markdown(find_table(Run(records), table))
    assert "did not end in ok" not in whole
    some = [
        record.model_copy(update={"outcome": record.outcome.model_copy(update={"status": end})})
        if record.repeat == 1 and record.point.framework == "tensorflow"
        else record
        for record in records
    ]
    text = render_markdown(find_table(Run(some), table))
    assert "Launches that did not end in ok" in text and "framework tensorflow" in text and f"1 {end} of" in text


def test_what_is_named_is_safe_to_write() -> None:
    records = [make_record(status="oom", data=name) for name in ("a", "b|<script>")]
    (note,) = describe_lost(Run(records).points)
    assert "data b??script?: 1 oom of 1" in note

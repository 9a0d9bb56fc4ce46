"""The generated sentences against the records: every number is in them, every `faster than` is true, no claim without proof."""

from __future__ import annotations

import re
from functools import cache
from itertools import product

import numpy as np
import pytest
from scipy import stats

from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.answer import find_answer
from hvbench.analysis.show.sentences import Answer, Number, Sentence
from hvbench.analysis.stats.estimates import estimate_rate
from hvbench.records.record import Record
from tests.unit.sample_records import make_convergence, make_launch, make_quickstart, make_rank, make_record, make_stamp

RANKING = re.compile(r"fastest|faster|slower|soonest|highest|lies above")
FRAMEWORKS = ("pytorch", "tensorflow")


def make_proven(records: list[Record]) -> list[Record]:
    """The same launches, but with a green stamp and the losses of each configuration's first framework: proven twins."""
    first: dict[str, Record] = {}
    proven = []
    for record in records:
        key = f"{record.repeat} {record.point.model_dump(exclude={'framework'})}"
        same = first.setdefault(key, record)
        ranks = [a.model_copy(update={"loss": b.loss}) for a, b in zip(record.ranks, same.ranks, strict=True)]
        proven.append(record.model_copy(update={"ranks": ranks, "parity": make_stamp()}))
    return proven


def make_steady(rates: dict[tuple[str, str], float], *, noise: float = 0.01, repeats: int = 3) -> list[Record]:
    """Launches at given tokens/s by framework and precision; launches differ by `noise`, evenly to both sides."""
    records = []
    for (framework, precision), rate in rates.items():
        for repeat in range(repeats):
            point = {"framework": framework, "precision": precision, "world_size": 1}
            tokens = make_record(**point).model.tokens_per_step
            seconds = tokens / rate * (1 + noise * (repeat - (repeats - 1) / 2))
            records.append(make_record([make_rank(step_seconds=[seconds] * 6)], repeat=repeat, **point))
    return records


def find(records: list[Record]) -> Answer:
    run = Run(records)
    run.points["is_emulated"] = run.points["precision"] == "bf16"
    return find_answer(run)


def all_of(found: Answer) -> list[Sentence]:
    return [*found.headlines, *found.details, *found.certainty]


@cache
def found_in(name: str) -> list[Sentence]:
    """Every sentence of a scenario."""
    return all_of(find(SCENARIOS[name]))


# The numbers again, from the raw samples and by other means than the module's


def rates_of(records: list[Record], point_id: str) -> list[float]:
    rates = []
    for record in records:
        if record.point_id == point_id and record.outcome.status == "ok":
            elapsed = max(sum(rank.step_seconds[record.warmup_steps :]) for rank in record.ranks)
            rates.append(record.model.tokens_per_step * record.measure.steps / elapsed)
    return rates


def seconds_of(records: list[Record], point_id: str, name: str) -> list[float]:
    """`training_seconds` (slowest rank) or `step` of the first evaluation at or under the target."""
    values = []
    for record in records:
        if record.point_id == point_id:
            by_step = zip(*(rank.evaluations for rank in record.ranks), strict=True)
            hit = next(
                marks for marks in by_step if np.mean([mark.loss for mark in marks]) <= record.measure.target_loss
            )
            values.append(max(getattr(mark, name) for mark in hit))
    return values


def interval(values: list[float], *, is_rate: bool) -> tuple[float, float]:
    sample = np.log(values) if is_rate else np.asarray(values)
    ends = stats.t.interval(0.95, len(sample) - 1, loc=sample.mean(), scale=stats.sem(sample))
    return tuple(np.exp(ends)) if is_rate else ends


def recompute(number: Number, records: list[Record]) -> float:
    if number.metric == "tokens_per_second":
        samples = [rates_of(records, point_id) for point_id in number.point_ids]
        centres = [stats.gmean(sample) for sample in samples]
    else:
        name = {"seconds_to_target": "training_seconds", "steps_to_target": "step"}[number.metric]
        samples = [seconds_of(records, point_id, name) for point_id in number.point_ids]
        centres = [np.mean(sample) for sample in samples]
    is_rate = number.metric == "tokens_per_second"
    if number.kind == "centre":
        return centres[0]
    if number.kind == "ratio":
        return centres[0] / centres[1]
    ends = [interval(sample, is_rate=is_rate) for sample in samples]
    if number.kind == "spread":
        return float(np.median([high / low for low, high in ends]))
    return {"low": ends[0][0], "high": ends[0][1], "ratio_low": ends[0][0] / ends[-1][1]}[number.kind]


SCENARIOS = {
    "quickstart": make_proven(make_quickstart(repeats=3)),
    "quickstart, two launches": make_proven(make_quickstart(repeats=2)),
    "quickstart, twins that differ": make_quickstart(repeats=3),
    "quickstart, one launch": make_proven(make_quickstart()),
    "convergence": make_proven(make_convergence(repeats=3)),
    "convergence, one launch": make_proven(make_convergence()),
    "one framework": [make_launch({"framework": "pytorch", "micro_batch_size": b}, repeat=r) for b in (2, 32) for r in range(3)],
    "one point": [make_launch({"framework": "pytorch"}, repeat=r) for r in range(3)],
    "same best in both": make_proven(make_steady({("pytorch", "fp32"): 100, ("pytorch", "bf16"): 200, ("tensorflow", "fp32"): 300, ("tensorflow", "bf16"): 500})),
    "a failed point": [*make_proven(make_quickstart(repeats=2)), make_record(status="oom", model="small", micro_batch_size=64)],
}  # fmt: skip


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_number_in_a_sentence_is_that_of_the_records(name: str) -> None:
    records = SCENARIOS[name]
    for finding in found_in(name):
        rest = finding.text.replace("95 %", "")
        for label in sorted(finding.labels, key=len, reverse=True):
            rest = re.sub(rf"(?<![\d.,]){re.escape(label)}(?!\d|[.,]\d)", "", rest, flags=re.IGNORECASE)
        rest = re.sub(r"\b(bf16|fp16|fp32)\b", "", rest)
        written = re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", rest)
        assert sorted(written) == sorted(number.text for number in finding.numbers), finding.text
        for number in finding.numbers:
            if number.kind != "count":
                assert number.value == pytest.approx(recompute(number, records), rel=1e-9), finding.text
                assert float(number.text.replace(",", "")) == pytest.approx(number.value, rel=0.006), finding.text


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_comparison_is_true_and_beyond_both_intervals(name: str) -> None:
    records = SCENARIOS[name]
    for finding in found_in(name):
        for claim in finding.claims:
            is_rate = claim.metric == "tokens_per_second"
            ends = [
                interval(
                    rates_of(records, which) if is_rate else seconds_of(records, which, "training_seconds"),
                    is_rate=is_rate,
                )
                for which in (claim.larger, claim.smaller)
            ]
            assert ends[0][0] > ends[1][1], finding.text
        says_so = re.search(r"is the fastest|faster than|soonest|lies above", finding.text)
        assert bool(says_so) == bool(finding.claims), finding.text


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_fastest_of_all_is_faster_than_all_others(name: str) -> None:
    records = SCENARIOS[name]
    points = {record.point_id for record in records if record.outcome.status == "ok"}
    for finding in found_in(name):
        if "is the fastest of" in finding.text and "both frameworks" not in finding.text and "'s " not in finding.text:
            assert {claim.smaller for claim in finding.claims} == points - {finding.claims[0].larger}
        if "highest measured rate of" in finding.text and "'s " not in finding.text:
            best = max(points, key=lambda point_id: stats.gmean(rates_of(records, point_id)))
            assert finding.numbers[0].point_ids == (best,)


def sentences(records: list[Record]) -> str:
    return " ".join(finding.text for finding in all_of(find(records)))


def test_one_launch_a_point_ranks_nothing() -> None:
    said = sentences(SCENARIOS["quickstart, one launch"])
    assert "No configuration is called the fastest" in said
    assert not RANKING.search(said.replace("No configuration is called the fastest", ""))


def test_noise_ranks_nothing() -> None:
    """Four points at one speed: whatever came out ahead, came out ahead by chance."""
    rates = {
        (framework, precision): 1000.0 + 3 * i
        for i, (framework, precision) in enumerate(product(FRAMEWORKS, ("fp32", "bf16")))
    }
    said = sentences(make_proven(make_steady(rates, noise=0.05)))
    assert "No point is shown to be the fastest" in said and "cannot be told apart in speed" in said
    assert "faster" not in said


def test_twins_that_differ_are_not_compared() -> None:
    said = sentences(SCENARIOS["quickstart, twins that differ"])
    assert "The frameworks' speeds are not compared, because they were not proven to do the same work" in said
    assert not re.search(r"(TensorFlow|PyTorch) is faster", said)


def test_frameworks_that_never_met_are_not_compared() -> None:
    records = make_steady({("pytorch", "fp32"): 100, ("tensorflow", "bf16"): 500})
    said = sentences(records)
    assert "not proven to do the same work" in said and "faster" not in said


def test_the_answer_comes_first() -> None:
    found = find(SCENARIOS["same best in both"])
    first, second, third = (finding.text for finding in found.headlines)
    assert first.startswith("bf16 (emulated) is the fastest of the 2 configurations in both frameworks: PyTorch 200")
    assert second.startswith("TensorFlow is faster than PyTorch in both configurations, by a factor of 2.50 to 3.00")
    assert third.startswith(
        "bf16 (emulated) is faster than fp32 in both frameworks in both pairs of points that differ in nothing else"
    )


def test_a_target_is_what_its_run_is_about() -> None:
    found = find(SCENARIOS["convergence"])
    assert found.headlines[0].text.startswith("Both points reached the target loss 4, after 80 steps")
    missed = find(make_proven(make_convergence(target_loss=1.0)))
    assert missed.headlines[0].text == "No point reached the target loss 1 in all of its launches."


def test_failures_are_counted() -> None:
    assert "1 of 65 launches did not end in ok: 1 oom." in sentences(SCENARIOS["a failed point"])
    lost = [make_record(status="failed")]
    assert (
        sentences(lost)
        == "No launch ended in ok, so no speed was measured. 1 of 1 launches did not end in ok: 1 failed."
    )


def test_no_records_say_nothing() -> None:
    assert sentences([]) == "No launch has left a record yet, so there is nothing to say."


@pytest.mark.parametrize("launches", [2, 3, 5, 10])
def test_equal_points_are_called_different_in_fewer_than_one_of_a_hundred_comparisons(launches: int) -> None:
    """What `Pair` promises, with launches that differ at random and not at all by their point."""
    random = np.random.default_rng(launches)
    rates = np.exp(random.normal(0.0, 0.1, (2, 4000, launches)))
    logs = np.log(rates)
    half = stats.t.ppf(0.975, launches - 1) * logs.std(axis=2, ddof=1) / np.sqrt(launches)
    low, high = logs.mean(axis=2) - half, logs.mean(axis=2) + half
    sample = estimate_rate(list(rates[0, 0]))
    assert (sample.low, sample.high) == (pytest.approx(np.exp(low[0, 0])), pytest.approx(np.exp(high[0, 0])))
    wrong = (low[0] > high[1]) | (low[1] > high[0])
    assert wrong.mean() < 0.01

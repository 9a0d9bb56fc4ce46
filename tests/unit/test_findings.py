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
from hvbench.analysis.show.sentences import Answer, Judged, Number, Sentence
from hvbench.analysis.stats.contrasts import Call, Contrast, Family, judge_family
from hvbench.records.record import Record
from tests.unit.sample_records import make_convergence, make_launch, make_quickstart, make_rank, make_record, make_stamp
from tests.unit.sample_suites import make_run_of

RANKING = re.compile(r"fastest|faster|slower|soonest|highest")
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


def log_ratio(records: list[Record], one: str, other: str, metric: str) -> list[float]:
    """ln(one / other) in every round that both finished: of tokens/s the median over all pairs of their steps."""
    if metric == "peak_rss_bytes":
        peaks = {(each.point_id, each.repeat): max(rank.peak_rss_bytes for rank in each.ranks) for each in records}
        rounds = sorted({when for point_id, when in peaks if point_id == one})
        return [float(np.log(peaks[one, when] / peaks[other, when])) for when in rounds]
    assert metric == "tokens_per_second"
    steps: dict[str, dict[int, np.ndarray]] = {}
    for record in records:
        if record.outcome.status == "ok":
            timed = [np.array(rank.step_seconds[record.warmup_steps :]) for rank in record.ranks]
            per_token = max(timed, key=lambda seconds: seconds.sum()) / record.model.tokens_per_step
            steps.setdefault(record.point_id, {})[record.repeat] = per_token
    common = sorted(set(steps[one]) & set(steps[other]))
    return [float(np.median([np.log(b / a) for a in steps[one][when] for b in steps[other][when]])) for when in common]


JUDGED: dict[tuple, Family] = {}  # families that several sentences speak of are judged once


def judge(judged: Judged, records: list[Record]) -> Contrast:
    """The rule's word on what a sentence states, from the records."""
    key = (id(records), judged.family, judged.is_best, judged.metric)
    if key not in JUDGED:
        JUDGED[key] = judge_again(judged, records)
    family = JUDGED[key]
    found = family.mean if judged.which is None else family.contrasts[judged.which]
    assert found is not None
    return found


def judge_again(judged: Judged, records: list[Record]) -> Family:
    logs = [log_ratio(records, *pair, judged.metric) for pair in judged.family]
    return judge_family(logs, is_best=judged.is_best)


def values_of(kind: str, found: Contrast) -> set[float]:
    """What a figure of a contrast may say: per cent above 1, per cent below it, or a factor."""
    ratio = {"effect": found.ratio, "effect_low": found.low, "effect_high": found.high}[kind]
    return {100 * (ratio - 1), 100 * (1 - ratio), ratio}


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
    ends = [interval(sample, is_rate=is_rate) for sample in samples]
    return {"low": ends[0][0], "high": ends[0][1]}[number.kind]


SCENARIOS = {
    "quickstart": make_proven(make_quickstart(repeats=3)),
    "quickstart, two launches": make_proven(make_quickstart(repeats=2)),
    "quickstart, twins that differ": make_quickstart(repeats=3),
    "quickstart, one launch": make_proven(make_quickstart()),
    "convergence": make_proven(make_convergence(repeats=3)),
    "convergence, one launch": make_proven(make_convergence()),
    "one framework": [make_launch({"framework": "pytorch", "micro_batch_size": b}, repeat=r) for b in (2, 32) for r in range(3)],
    "batch": make_run_of("batch", repeats=3).records,
    "precision": make_run_of("precision", repeats=3).records,
    "compilation": make_run_of("compilation", repeats=3).records,
    "strategies": make_run_of("strategies", repeats=3, noise=0.1).records,
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
        written = re.findall(r"(?<![\w-])-?\d+(?:,\d{3})*(?:\.\d+)?", rest)
        assert sorted(written) == sorted(number.text for number in finding.numbers), finding.text
        for number in finding.numbers:
            if number.kind.startswith("effect"):
                allowed = values_of(number.kind, judge(number.judged, records))
                assert any(number.value == pytest.approx(value, rel=1e-6, abs=1e-9) for value in allowed), finding.text
                places = len(number.text.partition(".")[2])
                assert float(number.text.replace(",", "")) == pytest.approx(number.value, abs=0.51 * 10**-places)
            elif number.kind in ("centre", "low", "high"):
                assert number.value == pytest.approx(recompute(number, records), rel=1e-9), finding.text
                assert float(number.text.replace(",", "")) == pytest.approx(number.value, rel=0.006), finding.text


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_comparison_is_what_the_one_rule_calls_it(name: str) -> None:
    records = SCENARIOS[name]
    for finding in found_in(name):
        for judged in finding.judged:
            assert judge(judged, records).call is judged.call, finding.text
        calls = {judged.call for judged in finding.judged}
        if (
            re.search(r"% (faster|slower) than|faster than \d|trains fastest|times as fast", finding.text)
            and not finding.is_open
        ):
            assert calls & {Call.FASTER, Call.SLOWER}, finding.text
        if "of each other" in finding.text and finding.topic != "learning":  # losses, which test_learning holds
            assert Call.EQUAL in calls, finding.text
        if finding.is_open:
            assert not calls & {Call.FASTER, Call.SLOWER, Call.EQUAL}, finding.text
            assert "cannot say" in finding.text


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_fastest_of_all_is_faster_than_all_others(name: str) -> None:
    records = SCENARIOS[name]
    points = {record.point_id for record in records if record.outcome.status == "ok"}
    for finding in found_in(name):
        if "trains fastest" in finding.text:
            assert {judged.call for judged in finding.judged} == {Call.FASTER}
            compared = {point_id for judged in finding.judged for pair in judged.family for point_id in pair}
            framework = {record.point_id: record.point.framework for record in records}
            assert compared in (points, *({p for p in points if framework[p] == name} for name in FRAMEWORKS))
        if "has the highest rate of" in finding.text and "'s " not in finding.text:
            best = max(points, key=lambda point_id: stats.gmean(rates_of(records, point_id)))
            assert (best,) in [number.point_ids for number in finding.numbers if number.kind == "centre"]


def sentences(records: list[Record]) -> str:
    return " ".join(finding.text for finding in all_of(find(records)))


def test_one_launch_a_point_ranks_nothing_and_names_its_price() -> None:
    first = find(SCENARIOS["quickstart, one launch"]).headlines[0]
    assert first.text.startswith("All 32 points ran to the end in PyTorch and TensorFlow, at ")
    assert "; one launch a point does not say which is faster; a difference of 5 % takes about" in first.text
    said = sentences(SCENARIOS["quickstart, one launch"])
    assert not RANKING.search(said.replace("does not say which is faster", ""))


def test_noise_ranks_nothing() -> None:
    """Four points at one speed: whatever came out ahead, came out ahead by chance."""
    rates = {
        (framework, precision): 1000.0 + 3 * i
        for i, (framework, precision) in enumerate(product(FRAMEWORKS, ("fp32", "bf16")))
    }
    random = np.random.default_rng(1)
    records = make_steady(rates, noise=0.0)
    for record in records:
        for rank in record.ranks:
            rank.step_seconds[:] = (np.array(rank.step_seconds) * random.lognormal(0, 0.1)).tolist()
    said = sentences(make_proven(records))
    assert "3 rounds cannot say whether" in said
    assert not re.search(r"% (faster|slower) than|trains fastest", said)


def test_equal_speeds_are_an_answer() -> None:
    first = find(make_proven(make_steady({("pytorch", "fp32"): 1000, ("tensorflow", "fp32"): 1004}, noise=0.002)))
    text = first.headlines[0].text
    assert (
        text.startswith("TensorFlow and PyTorch are within 3 % of each other (+0.4 %, 95 % interval ")
        and "3 rounds" in text
    )


def test_twins_that_differ_are_not_compared() -> None:
    said = sentences(SCENARIOS["quickstart, twins that differ"])
    assert "The frameworks' speeds are not compared, because they were not proven to do the same work" in said
    assert not re.search(r"(TensorFlow|PyTorch) is faster", said)


def test_frameworks_that_never_met_are_not_compared() -> None:
    records = make_steady({("pytorch", "fp32"): 100, ("tensorflow", "bf16"): 500})
    said = sentences(records)
    assert "not proven to do the same work" in said and "faster" not in said


def test_the_answer_comes_first() -> None:
    first, second, third = (finding.text for finding in find(SCENARIOS["same best in both"]).headlines)
    assert first.startswith("bf16 (emulated) is 83 % faster than fp32 over both frameworks (95 % interval ")
    assert second.startswith("TensorFlow with bf16 (emulated) trains fastest, at 500")
    assert "67 % faster than the next, TensorFlow with fp32 (95 % interval " in second
    assert third.startswith("TensorFlow is 2.74 times as fast as PyTorch over the 2 configurations (95 % interval ")
    assert "3 rounds; a factor of 2.50 to 3.00 in each)" in third


def test_what_was_learned_is_what_a_run_with_evaluations_is_about() -> None:
    found = find(SCENARIOS["convergence"])
    assert found.headlines[0].text.startswith("PyTorch and TensorFlow learned the same from one seed")
    assert found.headlines[1].text.startswith("Both points reached the target loss 4, after 80 steps")
    missed = find(make_proven(make_convergence(target_loss=1.0)))
    assert missed.headlines[1].text == "No point reached the target loss 1 in all of its launches."


def test_failures_are_counted() -> None:
    assert "1 of 65 launches did not end in ok: 1 oom." in sentences(SCENARIOS["a failed point"])
    lost = [make_record(status="failed")]
    assert (
        sentences(lost)
        == "No launch ended in ok, so no speed was measured. 1 of 1 launches did not end in ok: 1 failed."
    )


def test_no_records_say_nothing() -> None:
    assert sentences([]) == "No launch has left a record yet, so there is nothing to say."

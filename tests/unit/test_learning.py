"""What a run about learning says first: which choice gets furthest, whether the frameworks learn the same, by the one rule.

Losses are made up and known, so that every sentence can be held against what it should say.
"""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from hvbench.analysis.contrasts.learning import contrast_axis
from hvbench.analysis.contrasts.twins import contrast_frameworks
from hvbench.analysis.frame.crossing import meet
from hvbench.analysis.frame.learning import list_learners, shared_tokens
from hvbench.analysis.report.answer import find_answer
from hvbench.analysis.stats.losses import LossCall, judge_losses
from hvbench.analysis.topics.exchange import describe_exchange
from hvbench.records.record import Record
from hvbench.spec.point import Point
from hvbench.spec.suite import list_suites, load_suite
from tests.unit.sample_learning import make_learner, make_run, make_suite_run

SEEDS = range(3)
ABOUT_LEARNING = [path.stem for path in list_suites() if load_suite(path).measure.evaluate_every]


def first_sentence(records: list[Record], *compares: str) -> str:
    return find_answer(make_run(records, compares=list(compares))).headlines[0].text


def train(
    levels: dict[str, float], *, axis: str = "optimizer", frameworks: tuple[str, ...] = ("pytorch",), **changes
) -> list[Record]:
    """Three seeds of each value: its level, what the seed adds, and a little that is each launch's own."""
    random = np.random.default_rng(len(levels))
    records = []
    for value, level in levels.items():
        for seed in SEEDS:
            loss = level + 0.1 * math.sin(3 * seed) + random.normal(0.0, 0.002)
            records += [
                make_learner(loss, seed=seed, framework=framework, **({axis: value} | changes))
                for framework in frameworks
            ]
    return records


@pytest.mark.parametrize(
    ("losses", "level", "steps"),
    [
        ([5.0, 4.0, 3.0], 3.5, 25.0),  # half way between the evaluations after 20 and 30 steps
        ([5.0, 4.0, 3.0], 3.0, 30.0),
        ([5.0, 4.0, 3.0], 2.9, math.inf),
        ([5.0, 3.0, 4.0], 3.5, 17.5),  # the first time counts
        ([3.0, 2.0, 1.0], 3.5, 10.0),  # when it got there was not seen
        ([math.nan, 2.0, 1.0], 2.5, 20.0),
    ],
)
def test_a_target_is_met_on_the_line_between_two_evaluations(losses: list[float], level: float, steps: float) -> None:
    assert meet([10, 20, 30], losses, level) == steps


def test_losses_are_paired_by_seed() -> None:
    """Seeds that differ by a tenth of the loss, and two choices that differ by a fiftieth of it in every seed."""
    a = {0: 3.00, 1: 3.30, 2: 2.90, 7: 9.0}
    b = {0: 3.06, 1: 3.36, 2: 2.9601}
    (found,) = judge_losses([(a, b)]).contrasts
    assert found.seeds == 3 and found.call == LossCall.LOWER
    assert found.difference == pytest.approx(-0.0600333, rel=1e-4)
    assert found.base == pytest.approx((3.06 + 3.36 + 2.9601) / 3)
    assert found.low < found.difference < found.high < 0
    assert found.turned().call == LossCall.HIGHER and found.turned().low == -found.high


@pytest.mark.parametrize(
    ("shift", "scatter", "call"),
    [
        (0.0, 0.0, LossCall.SAME),
        (0.02, 0.001, LossCall.SAME),  # less than 1 % of 3 nats, however well it is known
        (0.06, 0.001, LossCall.HIGHER),
        (-0.06, 0.001, LossCall.LOWER),
        (0.06, 0.2, LossCall.OPEN),
    ],
)
def test_what_a_difference_is_called(shift: float, scatter: float, call: LossCall) -> None:
    b = {seed: 3.0 + 0.3 * seed / 4 for seed in range(5)}
    a = {seed: loss + shift + scatter * (seed - 2) for seed, loss in b.items()}
    assert judge_losses([(a, b)]).contrasts[0].call == call


def test_one_seed_calls_nothing() -> None:
    (found,) = judge_losses([({0: 1.0}, {0: 2.0})]).contrasts
    assert (found.call, found.low, found.high, found.seeds) == (LossCall.OPEN, None, None, 1)


def test_choices_without_a_shared_seed_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="share no seed"):
        judge_losses([({0: 1.0}, {1: 2.0})])


def test_the_frameworks_launches_of_a_seed_are_one_piece_of_evidence() -> None:
    """What both frameworks learn from one seed is the same: twice as many launches, and no narrower an interval."""
    one = contrast_axis(make_run(train({"adamw": 3.0, "sgd": 3.2})), "optimizer")
    both = contrast_axis(make_run(train({"adamw": 3.0, "sgd": 3.2}, frameworks=("pytorch", "tensorflow"))), "optimizer")
    assert one.gaps[0].loss == both.gaps[0].loss


def test_the_best_is_named_with_its_distance_to_the_next() -> None:
    said = first_sentence(train({"adamw": 3.0, "sgd": 3.2, "lamb": 3.5}))
    assert re.match(
        r"AdamW gets furthest: validation loss 2\.99\d after 20 steps, 0\.20 nats lower \(95 % interval 0\.1\d to 0\.2\d, 3 seeds\) than with SGD, and 0\.50 nats lower than with LAMB\.$",
        said,
    )


def test_two_that_are_the_same_get_furthest_together() -> None:
    said = first_sentence(train({"adamw": 3.0, "lamb": 3.005, "sgd": 3.5}))
    assert re.match(
        r"AdamW and LAMB get furthest: validation losses 2\.99\d and 3\.00\d after 20 steps, 0\.50 nats lower ", said
    )


def test_all_that_are_the_same_get_equally_far() -> None:
    said = first_sentence(train({"adamw": 3.0, "lamb": 3.001, "sgd": 3.002}))
    assert re.match(
        r"SGD, AdamW and LAMB get equally far: .*, within 0\.\d+ % of the lowest \(95 % interval, 3 seeds\)\.$", said
    )


def test_where_seeds_scatter_too_much_it_says_so_and_what_would_tell() -> None:
    records = [
        make_learner(3.0 + shift * seed, seed=seed, framework="pytorch", optimizer=optimizer)
        for optimizer, shift in (("adamw", 0.05), ("sgd", -0.05))
        for seed in SEEDS
    ]
    said = first_sentence(records)
    assert said.startswith("3 seeds cannot say which of ")
    assert re.search(
        r"; a difference of 2 % of the loss takes about \d+ more seeds, \d+ minutes?: `hvbench sweep example --np 2 --resume -s repeats=\d+`\.$",
        said,
    )


def test_a_choice_speaks_by_its_best_setting_of_what_is_not_compared() -> None:
    records = [
        *train({"adamw": 3.0, "sgd": 3.2}, learning_rate=0.1),
        *train({"adamw": 3.9, "sgd": 3.1}, learning_rate=0.2),
    ]
    assert first_sentence(records, "optimizer").startswith("AdamW (rate 0.1) gets furthest: validation loss 2.99")
    assert contrast_axis(make_run(records, compares=["optimizer"]), "optimizer").gaps[
        0
    ].loss.difference == pytest.approx(0.1, abs=0.02)


def test_a_choice_that_lost_a_launch_is_in_no_contrast() -> None:
    records = train({"adamw": 3.0, "sgd": 2.0, "lamb": 3.5})
    lost = next(i for i, record in enumerate(records) if record.point.optimizer == "sgd")
    records[lost] = records[lost].model_copy(
        update={"outcome": records[lost].outcome.model_copy(update={"status": "diverged"})}
    )
    found = contrast_axis(make_run(records), "optimizer")
    assert [gap.one.value for gap in found.gaps] == ["lamb"] and found.base.value == "adamw"
    assert [learner.chosen["optimizer"] for learner in found.lost] == ["sgd"]


def test_what_can_be_switched_on_is_compared_with_without() -> None:
    records = train({"none": 2.0, "causal_lm": 1.0, "masked_lm": 1.4}, axis="pretraining", objective="classification")
    said = first_sentence(records)
    assert re.match(
        r"Pretraining helps: with pretraining by causal_lm the validation loss after 20 steps is 1\.00 nats lower \(95 % interval 0\.9\d to 1\.0\d, 3 seeds\) than with no pretraining; with pretraining by masked_lm 0\.60 nats lower \(",
        said,
    )


def test_a_number_format_that_loses_nothing_is_said_to_learn_the_same() -> None:
    said = first_sentence(train({"fp32": 3.0, "bf16": 3.004}, axis="precision"))
    assert re.match(
        r"bf16 learns what fp32 learns, validation losses after 20 steps within 0\.\d+ % \(95 % interval, 3 seeds\)\.$",
        said,
    )


def test_steps_to_the_target_are_compared_where_every_launch_got_there() -> None:
    """The loss falls by 3 nats in 20 steps from 3 above its level: 4.0 is met after 20 (level - 1) / 3 steps."""
    records = train({"fp32": 3.0, "fp16": 3.15}, axis="precision", measure={"target_loss": 4.0})
    said = first_sentence(records)
    assert re.match(
        r"With fp16 the validation loss after 20 steps is 0\.15 nats higher \(.*\) than with fp32, and takes 7\.\d % more steps \(95 % interval .*\) to the target loss\.$",
        said,
    )
    never = train({"fp32": 3.0, "fp16": 4.5}, axis="precision", measure={"target_loss": 4.0})
    assert "to the target loss" not in first_sentence(never)


def test_losses_are_compared_after_as_many_tokens_as_all_were_trained_with() -> None:
    short = make_learner(3.0, framework="pytorch", optimizer="adamw")
    evaluations = [[one for one in rank.evaluations if one.step <= 15] for rank in short.ranks]
    ranks = [rank.model_copy(update={"evaluations": each}) for rank, each in zip(short.ranks, evaluations, strict=True)]
    run = make_run([short.model_copy(update={"ranks": ranks}), make_learner(3.0, framework="pytorch", optimizer="sgd")])
    learners = list_learners(run)
    tokens = shared_tokens(learners)
    assert tokens == 15 * short.model.tokens_per_step
    assert [learner.losses_at(tokens)[0] for learner in learners] == [3.75, 3.75]


def test_frameworks_that_learn_the_same_are_said_to_and_seeds_are_the_yardstick() -> None:
    said = first_sentence(train({"adamw": 3.0}, frameworks=("pytorch", "tensorflow")))
    assert re.match(
        r"PyTorch and TensorFlow learn the same: validation losses of one seed are within 0\.01 % of each other \(95 % interval, 3 seeds\), while another seed changes them by 0\.73 %\.$",
        said,
    )


def test_frameworks_that_learn_something_else_speak_for_themselves() -> None:
    records = [*train({"adamw": 3.0, "sgd": 3.2}), *train({"adamw": 3.3, "sgd": 3.1}, frameworks=("tensorflow",))]
    run = make_run(records, compares=["optimizer"])
    assert {gap.loss.call for gap in contrast_frameworks(run)} == {LossCall.HIGHER, LossCall.LOWER}
    said = [sentence.text for sentence in find_answer(run).headlines]
    assert said[0].startswith("In PyTorch: AdamW gets furthest") and said[1].startswith(
        "In TensorFlow: SGD gets furthest"
    )
    asked = find_answer(make_run(records, compares=["framework"])).headlines[0].text
    assert re.match(
        r"PyTorch and TensorFlow do not learn the same in both configurations: the validation loss of TensorFlow with AdamW is 0\.30 nats higher \(",
        asked,
    )


def test_what_no_configuration_alone_can_say_is_said_of_all_together() -> None:
    """Differences of 1.5 % of the loss that go up in one configuration where they go down in the other."""
    records = [
        make_learner(
            3.0 + sign * 0.045 * (seed - 1) * (framework == "tensorflow"),
            seed=seed,
            framework=framework,
            optimizer=optimizer,
        )
        for optimizer, sign in (("adamw", 1), ("sgd", -1))
        for framework in ("pytorch", "tensorflow")
        for seed in SEEDS
    ]
    said = first_sentence(records, "framework")
    assert re.match(
        r"PyTorch and TensorFlow learn the same over the 2 configurations together: validation losses of one seed are on average within 0\.01 % of each other \(95 % interval, 3 seeds\), .*; of AdamW and SGD alone the seeds cannot say \(within \d+ %\)\.$",
        said,
    ), said


def test_steps_that_scatter_too_much_are_not_said_to_be_as_many() -> None:
    records = [
        make_learner(
            3.0 + scatter * (seed - 1),
            seed=seed,
            framework="pytorch",
            precision=precision,
            measure={"target_loss": 3.02},
        )
        for precision, scatter in (("fp32", 0.0), ("bf16", 0.002))
        for seed in SEEDS
    ]
    assert ", in as many steps to the target loss (within " in first_sentence(records)
    wide = [
        make_learner(
            3.0 + scatter * (seed - 1),
            seed=seed,
            framework="pytorch",
            precision=precision,
            measure={"target_loss": 4.0},
        )
        for precision, scatter in (("fp32", 0.0), ("bf16", 0.1))
        for seed in SEEDS
    ]
    assert "cannot say" in first_sentence(wide) and "as many steps to the target loss (within" not in first_sentence(
        wide
    )


def test_one_seed_in_two_frameworks_is_said_to_be_one() -> None:
    records = [make_learner(3.0, framework=framework) for framework in ("pytorch", "tensorflow")]
    assert (
        first_sentence(records)
        == "PyTorch and TensorFlow learned the same from one seed: their validation losses are within 0.01 % of each other."
    )


def test_the_first_at_the_target_is_named_by_the_time_after_the_first_step() -> None:
    random = np.random.default_rng(1)
    records = [
        make_learner(
            3.0,
            seed=seed,
            seconds=seconds * random.lognormal(0.0, 0.01),
            framework=framework,
            measure={"target_loss": 4.0},
        )
        for framework, seconds in (("pytorch", 0.1), ("tensorflow", 0.08))
        for seed in SEEDS
    ]
    said = first_sentence(records)
    assert re.search(
        r"; TensorFlow gets to the target loss first: it takes (19|20|21) % less time after the first step than PyTorch \(95 % interval 1\d to 2\d %, 3 seeds\)\.$",
        said,
    )


def level_of(point: Point) -> float:
    """Every choice changes the level by its own amount: more than 1 % of the loss, except those that should lose nothing."""
    return (
        3.0
        + 0.2 * ["adamw", "sgd", "adafactor", "lamb", "lars"].index(point.optimizer)
        + 0.1 * ["linear", "cosine", "inverse_sqrt", "constant"].index(point.schedule)
        + 0.1 * (point.batch_warmup_steps > 0)
        - 0.5 * (point.pretraining != "none")
        - 0.2 * (point.pretraining == "causal_lm")
        + 0.001 * (point.precision != "fp32")
        + 0.05 * ["full", "adapter", "lora", "bias", "last_layers", "prefix", "head"].index(point.adaptation)
        + 0.1 * point.judges_pairs
        + {"topk": 0.2, "powersgd": 0.05, "onebit": 0.1}.get(point.compression, 0.0)
        + 0.1 * ["gpt2", "llama", "bert"].index(point.family)
    )


ANSWERS = {
    "adaptation": r"In both frameworks 5 of 7 ways to adapt are on the Pareto front of validation loss, step time, peak memory and bytes on the wire: all parameters "
    r"\(loss \d\.\d+.*, 136\.5 KiB sent a step\), adapters \(loss .*\), LoRA \(loss .*, 9\.0 KiB sent a step\), biases alone \(.*\) and the head alone \(.*\); "
    r"beaten: the last layers alone \(by adapters\) and prefixes \(by biases alone\)\.$",
    "bert_pretraining": r"Next sentence does harm: with next-sentence prediction the validation loss after 20 steps is 0\.\d+ nats higher \(.*\) than with no next-sentence prediction",
    "convergence": r"PyTorch and TensorFlow learn the same in both configurations: .*; TensorFlow gets to the target loss first: ",
    "exchange": r"On every link in PyTorch \(n = 18\) and on every link in TensorFlow \(n = 18\) topk on the wire takes a shorter step than the uncompressed all-reduce, ",
    "families": r"Family gpt2 gets furthest: validation loss \d\.\d{3} after 20 steps, 0\.\d+ nats lower \(.*\) than with family llama, and 0\.\d+ nats lower than with family bert",
    "finetune": r"Pretraining helps: with pretraining by causal_lm the validation loss after 20 steps is 0\.70 nats lower \(.*\) than with no pretraining, and it names 50 instead of 50 % of the samples right.*; with pretraining by masked_lm 0\.50 nats lower",
    "finetune_labels": r"Pretraining helps: with pretraining by masked_lm the validation loss after 20 steps is 0\.50 nats lower \(.*\) than with no pretraining, and it names 50 instead of 50 % of the samples right",
    "large_batch": r"The critical batch, from which on a larger one can at most halve the steps, is [\d,]+ samples \(95 % interval ",
    "local_sgd": r"An exchange every 4 steps and an exchange at every step are within 3 % of each other over both frameworks \(.*, 3 rounds\); after as "
    r"many tokens an exchange every 4 steps and an exchange at every step are within 3 % of each other in validation loss \(",
    "objectives": r"PyTorch and TensorFlow learn the same in all 3 configurations: ",
    "optimizers": r"AdamW \(rate 0\.00\d\) gets furthest: validation loss \d\.\d{3} after 20 steps, 0\.2\d nats lower \(.*\) than with SGD, and 0\.\d+ to 0\.\d+ nats lower than with Adafactor, LAMB and LARS",
    "precision_convergence": r"bf16 and fp16 learn what fp32 learns, validation losses after 20 steps within 0\.\d+ % \(95 % interval, \d seeds\), in as many steps to the target loss \(within .* %\); fp16 on the wire learns what uncompressed learns",
    "schedules": r"A linear schedule gets furthest: validation loss \d\.\d{3} after 20 steps, 0\.\d+ nats lower \(.*\) than with a cosine schedule.*; batch warmup helps: with a batch that grows over 30 steps the validation loss after the same [\d,]+ tokens is 1\.47 nats lower \(.*\) than with a full batch from the start",
}

FRONT = (
    r"In both frameworks 3 of 6 ways to exchange are on the Pareto front of validation loss, step time, peak memory and bytes on the wire: int8 on the wire "
    r"\(loss .*, 4,141\.8 KiB sent a step\), powersgd on the wire \(loss .*, 383\.0 KiB sent a step\) and topk on the wire \(loss .*, 330\.1 KiB sent a step\); "
    r"beaten: fp16 on the wire \(by int8 on the wire\), uncompressed \(by int8 on the wire\) and onebit on the wire \(by powersgd on the wire\)\.$"
)


def test_behind_the_break_evens_stands_what_no_other_way_to_exchange_beats() -> None:
    said = [sentence.text for sentence in describe_exchange(make_suite_run("exchange", level_of))]
    assert re.match(FRONT, said[5]), said


def test_every_suite_that_evaluates_has_its_answer_here() -> None:
    assert sorted(ANSWERS) == sorted(ABOUT_LEARNING)


@pytest.mark.parametrize("name", ABOUT_LEARNING)
def test_the_first_sentence_of_a_suite_answers_its_question(name: str) -> None:
    """Its own points and seeds, with losses that are known: what the suite would say of a machine without noise of its own."""
    level = (lambda point: 3.9 - 0.01 * point.gradient_accumulation_steps) if name == "large_batch" else level_of
    first = find_answer(make_suite_run(name, level)).headlines[0].text
    assert re.match(ANSWERS[name], first), first

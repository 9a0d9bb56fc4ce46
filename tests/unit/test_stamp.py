"""The stamp: which configurations a plan has checked, and what of a comparison a record keeps."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from hvbench.cli.display.lines import Quiet
from hvbench.cli.display.parity import describe_row
from hvbench.cli.launches.parity import parse_words, plan_pairs, require_proven
from hvbench.errors import HvbenchError
from hvbench.parity.compare import Deviation, kind_of, worst_by_kind
from hvbench.parity.pairs import MAX_TRACE_BYTES, Parity, pair_up, split_by_size
from hvbench.parity.run import estimate_trace_bytes
from hvbench.parity.stamp import describe_parities, find_pairs, make_stamps, share_checks
from hvbench.plan.jobs import Job, Plan
from hvbench.spec.point import Point

TINY = {"model": "tiny", "world_size": 2}


def job(framework: str, repeat: int = 0, **fields) -> Job:
    return Job(point=Point(framework=framework, **TINY, **fields), repeat=repeat)


def plan(jobs: list[Job], done: list[Job] | None = None) -> Plan:
    return Plan(jobs=jobs, skipped=[], done=done or [])


def deviation(name: str, error: float, tolerance: float = 1e-6) -> Deviation:
    return Deviation(name=name, relative_error=error, tolerance=tolerance)


def comparison(
    *deviations: Deviation, problem: str | None = None, overflows: tuple[int, int] = (0, 0), **fields
) -> Parity:
    (pair,) = pair_up([Point(framework="pytorch", **TINY, **fields)])
    return Parity(points=pair, deviations=list(deviations), problem=problem, overflows=overflows, updates=3)


# Which configurations


def test_every_configuration_of_both_frameworks_is_checked_once() -> None:
    jobs = [job(name, repeat, seed=seed) for repeat in (0, 1) for name in ("pytorch", "tensorflow") for seed in (0, 1)]
    pairs = find_pairs(plan(jobs))
    assert [[point.framework for point in pair] for pair in pairs] == [["pytorch", "tensorflow"]] * 2
    assert [[point.seed for point in pair] for pair in pairs] == [[0, 0], [1, 1]]


def test_an_asynchronous_server_is_not_checked() -> None:
    strategies = ("horovod", "parameter_server_async", "local")
    pairs = find_pairs(
        plan([job(name, strategy=strategy) for strategy in strategies for name in ("pytorch", "tensorflow")])
    )
    assert [pair[0].strategy for pair in pairs] == ["horovod", "local"]


def test_links_that_differ_share_the_check_on_the_fastest() -> None:
    links = (200_000_000, 3_000_000_000, 1_000_000_000)
    jobs = [
        job(name, compression=compression, link_bits_per_second=link)
        for link in links for compression in ("none", "fp16") for name in ("pytorch", "tensorflow")
    ]  # fmt: skip
    pairs = find_pairs(plan(jobs))
    checked = share_checks(pairs)
    assert len(pairs) == 6 and list(checked) == pairs
    assert {pair[0].link_bits_per_second for pair in checked.values()} == {3_000_000_000}
    for pair, instead in checked.items():
        assert [point.compression for point in pair] == [point.compression for point in instead]
        assert [point.framework for point in pair] == [point.framework for point in instead]


def test_a_link_as_it_is_counts_as_the_fastest() -> None:
    jobs = [job(name, link_bits_per_second=link) for link in (None, 10**9) for name in ("pytorch", "tensorflow")]
    assert {pair[0].link_bits_per_second for pair in share_checks(find_pairs(plan(jobs))).values()} == {None}


def test_a_single_framework_has_nothing_to_check() -> None:
    assert find_pairs(plan([job("pytorch"), job("pytorch", seed=1)])) == []
    assert find_pairs(plan([job("pytorch"), job("tensorflow", seed=1)])) == []


def test_a_resumed_sweep_checks_what_it_still_runs() -> None:
    done = [job("pytorch"), job("tensorflow"), job("pytorch", seed=1), job("tensorflow", seed=2)]
    left = [job("tensorflow", seed=1), job("pytorch", seed=3), job("tensorflow", seed=3)]
    assert [pair[0].seed for pair in find_pairs(plan(left, done))] == [1, 3]


def test_a_choice_that_one_framework_alone_has_is_compared_with_the_others_default() -> None:
    jobs = [job("pytorch"), job("pytorch", gemm="onednn"), job("tensorflow")]
    pairs = find_pairs(plan(jobs))
    assert [[point.gemm for point in pair] for pair in pairs] == [["auto", "auto"], ["onednn", "auto"]]


def test_traces_that_would_fill_the_disk_are_made_in_batches() -> None:
    small = pair_up([Point(model="small", world_size=2, seed=seed) for seed in range(4)])
    large = pair_up([Point(model="gpt2", world_size=2, seed=seed) for seed in range(9)])
    assert split_by_size(small) == [small]
    batches = split_by_size(large)
    assert [pair for batch in batches for pair in batch] == large and len(batches) > 1
    for batch in batches:
        assert sum(estimate_trace_bytes(pair[0]) for pair in batch) <= MAX_TRACE_BYTES
    assert split_by_size([]) == []


# What is kept


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("rank0/logits", "logits"),
        ("rank1/loss/step2", "loss"),
        ("rank0/gradient/block0.mlp.up.weight", "gradient"),
        ("gradient_norm/step0", "gradient_norm"),
        ("rank0/update/block0.attention.qkv.bias", "update"),
        ("rank0/update/block0.attention.qkv.bias:key", "key_bias"),
        ("rank0/update_length", "update_length"),
        ("tensorflow/ranks_with_other_parameters", "ranks_with_other_parameters"),
    ],
)
def test_the_kind_of_a_quantity(name: str, kind: str) -> None:
    assert kind_of(deviation(name, 0.0)) == kind


def test_a_kind_is_shown_by_its_worst() -> None:
    kinds = worst_by_kind([deviation("rank0/loss/step0", 1e-9), deviation("rank1/loss/step1", 2e-9)])
    assert {kind: each.name for kind, each in kinds.items()} == {"loss": "rank1/loss/step1"}


def test_a_stamp_has_the_largest_error_of_each_kind_with_its_tolerance() -> None:
    stamps = make_stamps(
        [
            comparison(
                deviation("rank0/logits", 1e-7, 5e-7),
                deviation("rank0/loss/step0", 1e-8, 5e-7),
                deviation("rank1/loss/step1", 2e-8, 5e-7),
                deviation("rank0/gradient/a", 3e-7, 1e-6),
                deviation("rank0/gradient_norm/step0", 9e-7, 1e-6),
                deviation("rank0/update/a", 4e-6, 1e-5),
                deviation("rank0/update/a:key", 5e-4, 1e-3),
                overflows=(2, 2),
            )
        ]
    )
    assert {point.framework: stamp.counterpart for point, stamp in stamps.items()} == {
        "pytorch": "tensorflow",
        "tensorflow": "pytorch",
    }
    for stamp in stamps.values():
        assert stamp.is_proven and stamp.updates == 3 and stamp.overflows == 2 and stamp.problem is None
        assert (stamp.logits_relative_error, stamp.logits_tolerance) == (1e-7, 5e-7)
        assert (stamp.loss_relative_error, stamp.loss_tolerance) == (2e-8, 5e-7)
        assert (stamp.gradient_relative_error, stamp.gradient_tolerance) == (3e-7, 1e-6)
        assert (stamp.update_relative_error, stamp.update_tolerance) == (4e-6, 1e-5)
        assert (stamp.worst, stamp.worst_relative_error) == ("rank0/gradient_norm/step0", 9e-7)


def test_a_figure_that_is_not_finite_is_none_and_red() -> None:
    stamps = make_stamps([comparison(deviation("rank0/logits", math.nan), deviation("rank0/loss/step0", 0.0))])
    for stamp in stamps.values():
        assert not stamp.is_proven and stamp.logits_relative_error is None
        assert stamp.worst == "rank0/logits" and stamp.worst_relative_error is None


def test_a_check_that_failed_says_why_and_proves_nothing() -> None:
    for stamp in make_stamps([comparison(problem="tensorflow oom: no memory")]).values():
        assert not stamp.is_proven and stamp.problem == "tensorflow oom: no memory"
        assert stamp.worst is stamp.logits_relative_error is stamp.gradient_tolerance is None


def test_of_several_comparisons_of_a_point_the_red_one_stamps_it() -> None:
    green = comparison(deviation("rank0/logits", 0.0))
    red = comparison(deviation("rank0/logits", 1.0), gemm="onednn")
    for order in ([green, red], [red, green]):
        stamps = {(point.framework, point.gemm): stamp.is_proven for point, stamp in make_stamps(order).items()}
        assert stamps == {("pytorch", "auto"): True, ("pytorch", "onednn"): False, ("tensorflow", "auto"): False}


def test_one_line_sums_it_up() -> None:
    green = comparison(deviation("rank0/logits", 2e-7))
    red = comparison(deviation("rank0/logits", 1.0), precision="bf16")
    assert describe_parities([green]) == (
        "parity done: both frameworks do the same work in 1 configuration, over 3 updates; closest to its tolerance: "
        "rank0/logits 2.0e-07 (allowed 1e-06)"
    )
    assert describe_parities([green, red]) == (
        "parity done: NOT proven for 1 of 2 configurations; tiny-b8x1-bf16-none: rank0/logits 1.0e+00 (allowed 1e-06)"
    )
    assert "oom: x" in describe_parities([comparison(problem="oom: x")])


def test_a_check_that_failed_is_not_called_a_difference() -> None:
    failed = comparison(problem="oom: x", precision="fp16")
    red = comparison(deviation("rank0/logits", 1.0), precision="bf16")
    assert (
        describe_parities([failed])
        == "parity done: 1 of 1 configuration could not be compared; tiny-b8x1-fp16-none: oom: x"
    )
    assert describe_parities([failed, red]) == (
        "parity done: NOT proven for 1 of 2 configurations, 1 of 2 configurations could not be compared; "
        "tiny-b8x1-bf16-none: rank0/logits 1.0e+00 (allowed 1e-06)"
    )
    assert [row.split(":")[0] for row in (describe_row(each, [], names_pair=False)[-1] for each in (failed, red))] == [
        "not compared",
        "NOT the same",
    ]


def test_the_exit_code_says_whether_a_difference_was_seen(tmp_path: Path) -> None:
    failed, red = comparison(problem="oom: x"), comparison(deviation("rank0/logits", 1.0))
    green = comparison(deviation("rank0/logits", 0.0))
    codes = {}
    for name, parities in {"failed": [green, failed], "red": [green, red], "both": [failed, red]}.items():
        with pytest.raises(HvbenchError) as caught:
            require_proven(parities, logs=tmp_path / name)
        codes[name] = (caught.value.exit_code, str(caught.value).partition(";")[0])
    assert codes == {
        "failed": (5, "1 of 2 comparisons could not be compared"),
        "red": (1, "1 of 2 comparisons are not proven to be the same work"),
        "both": (1, "1 of 2 comparisons are not proven to be the same work"),
    }
    require_proven([green], logs=tmp_path)


@pytest.mark.parametrize(
    "words",
    [["compression=onebit", "precision=fp32"], ["sync_every=7", "precision=fp32", "compression=none"]],
    ids=" ".join,
)
def test_what_is_compared_needs_no_steps_that_can_be_timed(words: list[str]) -> None:
    """Phases of 1-bit Adam and whole rounds are a matter of timed steps, which a check of parity has none of."""
    pairs = plan_pairs(parse_words(words, []), world_size=2, display=Quiet())
    assert len(pairs) == 2 and all(len(pair) == 2 for pair in pairs)

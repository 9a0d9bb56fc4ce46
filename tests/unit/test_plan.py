"""What will run, in which order, what is skipped and why, and how long it should take."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hvbench.plan.estimates import count_tokens, describe_shortages, estimate_seconds, estimate_sweep_seconds
from hvbench.plan.jobs import Job, Plan, make_plan, number_places, worker_group
from hvbench.plan.skip import is_installed, reason_not_to_measure, reason_to_skip
from hvbench.registry import FRAMEWORKS, describe_framework
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.training.flops import model_facts
from hvbench.training.memory import estimate_memory
from tests import patience

pytestmark = pytest.mark.skipif(
    not all(map(is_installed, FRAMEWORKS)), reason="points of a framework that is not installed are skipped"
)


def points(**axis: list) -> list[Point]:
    """`tiny` points along one axis, PyTorch and TensorFlow in turn."""
    ((key, values),) = axis.items()
    return [Point(model="tiny", framework=name, **{key: value}) for value in values for name in FRAMEWORKS]


def plan(chosen: list[Point], *, world_size: int = 2, repeats: int = 1, done: tuple[str, ...] = ()) -> Plan:
    return make_plan(chosen, MeasureSettings(repeats=repeats), world_size=world_size, done=done)


# Order


def test_a_job_of_another_point_than_the_suites_has_no_place() -> None:
    chosen = points(seed=[0, 1])
    jobs = plan(chosen, repeats=2).jobs
    other = Job(
        point=jobs[0].point.model_copy(update={"cycle_time_seconds": 0.005}), repeat=0
    )  # as hvbench tune proposes
    places = number_places(chosen, [*jobs, other])
    assert sorted(places.values()) == list(range(8)) and other.key not in places


def test_repeats_are_the_outer_loop_forth_and_back_and_each_framework_runs_in_one_piece() -> None:
    jobs = plan(points(seed=[0, 1]), repeats=2).jobs
    assert [(job.repeat, job.point.framework, job.point.seed) for job in jobs] == [
        (0, "pytorch", 0),
        (0, "pytorch", 1),
        (0, "tensorflow", 0),
        (0, "tensorflow", 1),
        (1, "tensorflow", 1),
        (1, "tensorflow", 0),
        (1, "pytorch", 1),
        (1, "pytorch", 0),
    ]


def test_points_share_workers_only_with_the_same_framework_world_size_and_device() -> None:
    assert worker_group(Point(precision="fp32", seed=1)) == worker_group(Point(precision="bf16", data="synthetic"))
    different = [Point(), Point(framework="tensorflow"), Point(world_size=2), Point(device="cpu")]
    assert len(set(map(worker_group, different))) == 4


def test_world_sizes_are_grouped_too() -> None:
    chosen = [Point(model="tiny", world_size=size, seed=seed) for seed in (0, 1) for size in (1, 2)]
    assert [(job.point.world_size, job.point.seed) for job in plan(chosen).jobs] == [(1, 0), (1, 1), (2, 0), (2, 1)]


# What a strategy cannot give


@pytest.mark.parametrize("strategy", ["parameter_server", "parameter_server_async"])
def test_a_served_training_is_not_ablated_and_leaves_checkpoints(strategy: str) -> None:
    point = Point(model="tiny", strategy=strategy, world_size=2)
    reason = reason_not_to_measure(point, MeasureSettings(ablation_rounds=2))
    assert reason.startswith("ablation_rounds: ") and strategy in reason
    assert reason_not_to_measure(point, MeasureSettings(checkpoint_every=2)) is None
    assert reason_not_to_measure(Point(model="tiny"), MeasureSettings(ablation_rounds=2)) is None


def test_steps_that_still_send_gradients_are_not_timed_with_those_that_send_momenta() -> None:
    point = Point(model="tiny", world_size=2, compression="onebit", onebit_warmup_steps=8)
    assert reason_not_to_measure(point, MeasureSettings(warmup_steps=8)) is None
    reason = reason_not_to_measure(point, MeasureSettings(warmup_steps=7))
    assert reason is not None and reason.startswith(
        "warmup_steps 7: compression onebit averages gradients in the first "
    )
    assert reason_not_to_measure(Point(model="tiny"), MeasureSettings(warmup_steps=1)) is None


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"compression": "topk", "world_size": 1}, "one rank has nothing to all-reduce: "),
        (
            {"compression": "int8", "precision": "fp16"},
            "compression int8 adds what was not sent to the next gradient, and in precision fp16 ",
        ),
        (
            {"compression": "topk", "gradient_predivide": 2.0},
            "topk sums outside Horovod: it knows no adasum and needs no gradient_predivide",
        ),
        (
            {"compression": "powersgd", "strategy": "native"},
            "compression: a choice of Horovod's, and the strategy is native",
        ),
        (
            {"compression": "powersgd", "powersgd_rank": 29},
            "powersgd_rank 29: no matrix that trains is smaller as two of that rank; ",
        ),
        (
            {"compression": "powersgd", "adaptation": "bias"},
            "powersgd_rank 4: no matrix that trains is smaller as two of that rank; ",
        ),
        ({"compression": "powersgd", "powersgd_rank": 28}, None),
        (
            {"compression": "onebit", "optimizer": "lamb"},
            "compression onebit sends the momenta of optimizer adamw, not of lamb",
        ),
        (
            {"compression": "onebit", "precision": "fp16"},
            "compression onebit adds what was not sent to the next gradient, ",
        ),
        ({"compression": "onebit", "sync_every": 4}, "sync_every 4 sends differences of parameters, "),
        ({"compression": "onebit", "shard": "optimizer"}, "shard optimizer sends values: "),
        ({"compression": "onebit", "strategy": "hierarchical"}, "hierarchical sums fp32 or fp16 over gloo, "),
        (
            {"compression": "onebit", "strategy": "native"},
            "compression: a choice of Horovod's, and the strategy is native",
        ),
        ({"compression": "onebit", "world_size": 1}, "one rank has nothing to all-reduce: "),
        ({"compression": "onebit", "reduction": "adasum", "controller": "mpi"}, "onebit sums outside Horovod: "),
        ({"compression": "onebit"}, None),
    ],
)
def test_a_compression_that_cannot_be_is_one_line(fields: dict, line: str | None) -> None:
    found = reason_to_skip(Point(**{"model": "tiny", "world_size": 2, **fields}), world_size=2)
    assert found is None if line is None else found.startswith(line)


# World size


def test_a_point_without_a_world_size_gets_all_launched_ranks() -> None:
    (job,) = plan([Point(model="tiny")], world_size=3).jobs
    assert job.point.world_size == 3
    assert job.point.point_id == Point(model="tiny", world_size=3).point_id


def test_a_point_may_use_fewer_ranks_than_were_launched() -> None:
    (job,) = plan([Point(model="tiny", world_size=1)], world_size=2).jobs
    assert job.point.world_size == 1


# Skipped, with a reason


@pytest.mark.parametrize(
    ("fields", "world_size", "reason"),
    [
        ({"world_size": 4}, 2, "needs 4 ranks, 2 launched"),
        ({"num_heads": 3}, 2, "hidden_size 32 is not a multiple of num_heads 3"),
        ({"compression": "fp16"}, 1, "one rank has nothing to all-reduce: Horovod skips compression"),
        ({"lr_warmup_steps": 10, "schedule_steps": 10}, 2, "lr_warmup_steps 10 leaves nothing of schedule_steps 10"),
        ({"batch_warmup_steps": 3}, 2, "batch_warmup_steps raises gradient_accumulation_steps, which is 1"),
        (
            {"segmentation": "overlap", "segmentation_stride": 33},
            2,
            "segmentation_stride 33 is longer than sequence_length 32: the tokens between two samples would never be read",
        ),
        (
            {"segmentation": "overlap", "objective": "classification"},
            2,
            "segmentation overlap is for language models: samples with labels are texts of their own, or pieces of one package",
        ),
        (
            {"segmentation": "documents", "data": "synthetic"},
            2,
            "segmentation documents: synthetic text has no files",
        ),
        (
            {"length_warmup_steps": 5, "sequence_length": 3},
            2,
            "length_warmup_steps: sequence_length 3 is too short to grow; at least 4",
        ),
    ],
)
def test_a_point_that_makes_no_sense_is_skipped_with_its_reason(fields: dict, world_size: int, reason: str) -> None:
    made = plan([Point(model="tiny", **fields), Point(model="tiny")], world_size=world_size)
    assert [skipped.reason for skipped in made.skipped] == [reason]
    assert len(made.jobs) == 1


def test_samples_that_grow_reach_their_length() -> None:
    settings = MeasureSettings(warmup_steps=2, steps=5)
    made = make_plan([Point(model="tiny", length_warmup_steps=steps) for steps in (6, 7)], settings, world_size=2)
    assert [job.point.length_warmup_steps for job in made.jobs] == [6]
    (skipped,) = made.skipped
    assert skipped.reason == (
        "length_warmup_steps 7 leaves none of 7 steps (warmup_steps and steps) at the full sequence_length"
    )


@pytest.mark.parametrize("schedule", ["constant", "inverse_sqrt"])
def test_a_schedule_without_an_end_has_none_that_a_warm_up_could_pass(schedule: str) -> None:
    made = plan([Point(model="tiny", schedule=schedule, lr_warmup_steps=10, schedule_steps=10)])
    assert not made.skipped


def test_a_framework_is_looked_up_without_being_imported() -> None:
    code = f"import sys, hvbench.plan.skip as p; [p.is_installed(n) for n in {FRAMEWORKS}]; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=patience.SECONDS
    ).stdout.split()
    assert not {describe_framework(name).module for name in FRAMEWORKS} & set(loaded)


# Resume


def test_what_is_done_does_not_run_again() -> None:
    everything = plan(points(seed=[0, 1]), repeats=2)
    finished = everything.jobs[1:6]
    rest = plan(points(seed=[0, 1]), repeats=2, done=tuple(job.key for job in finished))
    assert rest.done == finished
    assert rest.jobs == [everything.jobs[0], *everything.jobs[6:]]


def test_keys_of_other_points_do_not_matter() -> None:
    assert len(plan(points(seed=[0]), done=("pytorch-tiny-b8x1-fp32-none-00000000.r0",)).jobs) == 2


def test_a_key_names_point_and_repeat() -> None:
    point = Point(model="tiny", world_size=2)
    assert Job(point=point, repeat=3).key == f"{point.point_id}.r3"


def test_launches_that_were_added_before_belong_to_the_plan() -> None:
    chosen = points(seed=[0])
    resolved = [job.point for job in plan(chosen).jobs]
    made = make_plan(
        chosen, MeasureSettings(repeats=1), world_size=2, done=[f"{resolved[0].point_id}.r2"],
        extra=[(resolved[0].point_id, 2), (resolved[1].point_id, 1), ("another point", 5)],
    )  # fmt: skip
    planned = [(job.point.framework, job.repeat) for job in made.jobs]
    assert planned == [("pytorch", 0), ("tensorflow", 0), ("tensorflow", 1)]
    assert [(job.point.framework, job.repeat) for job in made.done] == [("pytorch", 2)]


# Memory


def test_a_point_that_does_not_fit_is_named_once() -> None:
    jobs = plan([Point(model="tiny")], repeats=3).jobs
    (rank_bytes,) = {estimate_memory(job.point, is_native=False).peak_bytes for job in jobs}
    assert describe_shortages(jobs, memory_bytes=2 * rank_bytes) == []
    (line,) = describe_shortages(jobs, memory_bytes=2 * rank_bytes - 1)
    assert line.startswith(f"{jobs[0].point.point_id} should need about 0.3 GiB a rank, and its 2 ranks together more")
    assert describe_shortages(jobs, memory_bytes=rank_bytes, is_single_host=False) == []
    (line,) = describe_shortages(jobs, memory_bytes=rank_bytes - 1, is_single_host=False)
    assert line.endswith("should need about 0.3 GiB a rank, more than this host's 0.3 GiB")
    assert describe_shortages(jobs, memory_bytes=2**50, limit_bytes=rank_bytes) == []
    (line,) = describe_shortages(jobs, memory_bytes=2**50, limit_bytes=rank_bytes - 1)
    assert line.endswith("more than the limit of 0.3 GiB")


# Time


def test_more_work_takes_longer() -> None:
    def seconds(steps: int = 10, **fields: object) -> float:
        return estimate_seconds(Job(point=Point(world_size=2, **fields), repeat=0), MeasureSettings(steps=steps))

    assert seconds(steps=20) > seconds()
    assert seconds(model="gpt2") > 10 * seconds()
    assert seconds(framework="tensorflow") > seconds()


def test_evaluations_take_time_too() -> None:
    job = Job(point=Point(world_size=2), repeat=0)
    without, with_them = (MeasureSettings(steps=20, evaluate_every=every) for every in (0, 2))
    assert estimate_seconds(job, with_them) > estimate_seconds(job, without)


@pytest.mark.parametrize(
    ("fields", "measured", "tokens"),
    [
        ({}, {}, 10 * 2048),  # 2 ranks x 8 samples x 128 tokens
        ({"gradient_accumulation_steps": 4}, {}, 10 * 8192),
        ({"gradient_accumulation_steps": 4, "batch_warmup_steps": 3}, {}, (1 + 2 + 3 + 7 * 4) * 2048),
        ({"gradient_accumulation_steps": 8, "batch_warmup_steps": 200}, {"steps": 169}, 1_361_920),
        ({"gradient_accumulation_steps": 4, "batch_warmup_steps": 3, "initial_checkpoint": "a"}, {}, 10 * 8192),
        ({"length_warmup_steps": 6}, {}, 2 * 8 * (2 * 32 + 2 * 64 + 2 * 96 + 4 * 128)),
        ({"length_warmup_steps": 6, "initial_checkpoint": "a"}, {}, 10 * 2048),
        ({}, {"evaluate_every": 4, "evaluate_samples": 32}, 10 * 2048 + 4 * 32 * 128 / 3),  # after 0, 4, 8, 10 steps
        (
            {},
            {"evaluate_every": 5, "evaluate_samples": 33},
            10 * 2048 + 3 * 48 * 128 / 3,
        ),  # 17 samples fill three batches
        ({}, {"noise_every": 5}, 10 * 2048 + 3 * 2048),
    ],
)
def test_an_estimate_counts_the_tokens_that_a_job_computes(fields: dict, measured: dict, tokens: float) -> None:
    point = Point(world_size=2, micro_batch_size=8, sequence_length=128, **fields)
    assert count_tokens(point, MeasureSettings(**({"warmup_steps": 1, "steps": 9} | measured))) == pytest.approx(tokens)


def test_ablations_take_time_too() -> None:
    job = Job(point=Point(world_size=2), repeat=0)
    without, with_them = (MeasureSettings(steps=20, ablation_rounds=rounds) for rounds in (0, 7))
    assert estimate_seconds(job, with_them) > estimate_seconds(job, without)


def test_a_slow_link_takes_the_time_of_the_payload() -> None:
    settings = MeasureSettings(warmup_steps=1, steps=3)
    job = Job(point=Point(world_size=2), repeat=0)
    shaped = Job(point=job.point.model_copy(update={"link_bits_per_second": 10**6}), repeat=0)
    wire_seconds = 8 * model_facts(job.point).allreduce_bytes_per_step / 1e6  # two ranks: all of it crosses each link
    assert estimate_seconds(shaped, settings) - estimate_seconds(job, settings) == pytest.approx(4 * wire_seconds)


def test_a_sweep_takes_its_jobs_and_its_launches() -> None:
    jobs = plan(points(seed=[0, 1]), repeats=2).jobs
    settings = MeasureSettings(repeats=2)
    assert estimate_sweep_seconds(jobs, settings) > sum(estimate_seconds(job, settings) for job in jobs)
    assert estimate_sweep_seconds([], settings) == 0

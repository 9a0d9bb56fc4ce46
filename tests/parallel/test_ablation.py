"""Ablations on two real ranks: each kind leaves out what it says, training goes on as without them, a sweep records them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hvbench.records.record import Ablation, Record
from hvbench.records.store import RunFolder
from hvbench.registry import FRAMEWORKS
from hvbench.spec.point import Point
from hvbench.training.local_sgd import count_exchanged_bytes
from hvbench.training.wire import count_losses
from tests.parallel.ablated import AVERAGED, FIRST_LOSS_SCALE, HALF, PREDIVIDES, ROUNDS, STEPS, TRAININGS
from tests.parallel.ranks import run_ranks

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(sys.executable).parent

SUITE = """
question = "Where does the time go?"
[point]
model = "tiny"
num_layers = 1
data = "synthetic"
micro_batch_size = 2
gradient_accumulation_steps = 2
compression = "fp16"
[axes]
framework = ["pytorch", "tensorflow"]
gradient_predivide = [1e6, 1e-6]
[measure]
warmup_steps = 1
steps = 3
ablation_rounds = 2
"""

Ranks = list[dict[str, np.ndarray]]


@pytest.fixture(scope="module", params=FRAMEWORKS)
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    """What both ranks of one twin recorded."""
    folder = tmp_path_factory.mktemp(request.param)
    run_ranks(["-m", "tests.parallel.ablated", request.param, str(folder)], folder=folder)
    files = [np.load(folder / f"rank{rank}.npz", allow_pickle=False) for rank in range(2)]
    return [{name: file[name] for name in file.files} for file in files]


def part(arrays: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(f"{name}/"): value for key, value in arrays.items() if key.startswith(f"{name}/")}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_training_goes_on_bit_for_bit_as_without_ablations(ranks: Ranks, name: str) -> None:
    """Losses, norms, loss scales, evaluations; and in the end parameters, the optimizer's moments, the masks' place."""
    for rank in ranks:
        plain, interrupted = (part(rank, f"{name}/{kind}") for kind in ("plain", "interrupted"))
        del plain["paused_seconds"], interrupted["paused_seconds"]
        assert plain.keys() == interrupted.keys() and any(key.startswith("optimizer/") for key in plain)
        for key, values in plain.items():
            np.testing.assert_array_equal(values, interrupted[key], err_msg=key, strict=True)
        assert len(plain["loss"]) == STEPS and len(plain["evaluated"]) == STEPS // 2 + 1
        assert len(set(plain["loss"])) == STEPS, "no two steps are alike, or little has been compared"
    fp16 = part(ranks[0], "fp16/interrupted")
    assert len(fp16["skipped_steps"]) and fp16["loss_scale"][0] == FIRST_LOSS_SCALE > fp16["loss_scale"][-1]


@pytest.mark.slow
def test_rounds_of_local_updates_go_on_bit_for_bit_from_a_checkpoint_and_whatever_was_evaluated(ranks: Ranks) -> None:
    """The second half without evaluations, each rank with its own moments: its losses and norms are those of the whole."""
    for rank in ranks:
        whole, resumed = part(rank, "rounds/plain"), part(rank, "resumed")
        for name in ("loss", "gradient_norm"):
            np.testing.assert_array_equal(resumed[name], whole[name][HALF:], err_msg=name)
        assert whole["averaging_steps"].tolist() == [2, 5] and resumed["averaging_steps"].tolist() == [2]
    one, other = (part(rank, "rounds/plain") for rank in ranks)
    moments = [name for name in one if name.startswith("optimizer/first_moments/")]
    assert all((one[name] != other[name]).any() for name in moments), "each rank keeps its own"
    assert all((one[name] == other[name]).all() for name in one if name.startswith("parameters/"))


@pytest.mark.slow
def test_evaluations_in_the_middle_of_a_round_are_of_the_mean_of_the_ranks_parameters(ranks: Ranks) -> None:
    apart, common, again = ([part(rank, f"round/{kind}") for rank in ranks] for kind in ("apart", "common", "again"))
    for name in apart[0]:
        assert (apart[0][name] != apart[1][name]).any(), name
        assert (common[0][name] == common[1][name]).all(), name
        np.testing.assert_allclose(common[0][name], (apart[0][name] + apart[1][name]) / 2, rtol=1e-6, atol=1e-8)
        for before, after in zip(apart, again, strict=True):
            assert (before[name] == after[name]).all(), name


@pytest.mark.slow
def test_an_average_sends_as_many_bytes_as_are_computed(ranks: Ranks) -> None:
    point = Point(model="tiny", num_layers=1, world_size=2, **AVERAGED)
    assert [int(rank["exchanged_bytes"]) for rank in ranks] == [count_exchanged_bytes(point)] * 2


@pytest.mark.slow
def test_gradients_are_the_ranks_own_without_the_all_reduce_and_common_with_it(ranks: Ranks) -> None:
    local, averaged = ([part(rank, name) for rank in ranks] for name in ("local", "averaged"))
    for name in averaged[0]:
        assert (averaged[0][name] == averaged[1][name]).all(), name
        np.testing.assert_allclose(averaged[0][name], (local[0][name] + local[1][name]) / 2, rtol=1e-5, atol=1e-8)
    assert any((local[0][name] != local[1][name]).any() for name in local[0])


@pytest.mark.slow
def test_the_local_step_updates_from_the_ranks_own_gradients(ranks: Ranks) -> None:
    norms = [np.sqrt(sum((value.astype("f8") ** 2).sum() for value in part(rank, "local").values())) for rank in ranks]
    for rank, norm in zip(ranks, norms, strict=True):
        assert rank["local_norm"] == pytest.approx(norm, rel=1e-5)
    assert ranks[0]["whole_norm"] == ranks[1]["whole_norm"] != ranks[0]["local_norm"]
    apart = [part(rank, "apart") for rank in ranks]
    assert any((apart[0][name] != apart[1][name]).any() for name in apart[0])


def norm(gradients: dict[str, np.ndarray]) -> float:
    return float(np.sqrt(sum((value.astype("f8") ** 2).sum() for value in gradients.values())))


@pytest.mark.slow
@pytest.mark.parametrize("predivide", PREDIVIDES)
def test_what_is_counted_as_lost_on_the_wire_is_what_horovod_loses(ranks: Ranks, predivide: float) -> None:
    """What each rank sends follows from its own gradients: sums are zero where that says so, and as many values are lost."""
    point = Point(model="tiny", world_size=2, compression="fp16", gradient_predivide=predivide)
    averages = part(ranks[0], f"sent/{predivide:g}/averages")
    both = [part(rank, f"sent/{predivide:g}/own") for rank in ranks]
    factor = np.float32(1 / predivide)
    sent = [{name: np.float16(np.float16(own[name]) * factor).astype("f4") for name in own} for own in both]
    differing = sum(
        np.count_nonzero((sent[0][name] + sent[1][name] == 0) != (average == 0)) for name, average in averages.items()
    )
    counted = [count_losses(own, averages, point=point, all_finite=True) for own in both]
    assert differing <= 1e-3 * counted[0].values
    for own, values, losses in zip(both, sent, counted, strict=True):
        lost = sum(np.count_nonzero((own[name] != 0) & (values[name] == 0)) for name in own)
        assert losses.zeros == pytest.approx(lost, rel=1e-3, abs=3)
    assert all(each.overflows == 0 for each in counted)
    shares = [each.zeros / each.values for each in counted]
    assert max(shares) < 0.1 if predivide == 1.0 else min(shares) > 0.1


@pytest.mark.slow
def test_norms_are_of_each_micro_batch_and_of_the_average_over_passes_and_ranks(ranks: Ranks) -> None:
    for rank in ranks:
        expected = [norm(part(rank, f"micro{index}")) for index in range(2)]
        assert rank["micro_gradient_norms"] == pytest.approx(expected, rel=1e-6)
        assert rank["averaged_norm"] == pytest.approx(norm(part(rank, "averaged")), rel=1e-6)
        assert rank["scaled_norm"] == pytest.approx(float(rank["averaged_norm"]), rel=1e-6), "unscaled"
        first, last = part(rank, "averaged"), part(rank, "averaged_after_norms")
        assert all((first[name] == last[name]).all() for name in first), "looking at the noise changes no state"
    assert ranks[0]["averaged_norm"] == ranks[1]["averaged_norm"]
    assert len({value for rank in ranks for value in rank["micro_gradient_norms"].tolist()}) == 4
    for rank in ranks:  # an overflow on the wire, and none of the rank's own
        assert rank["wire_norms"][:2] == pytest.approx(rank["micro_gradient_norms"], rel=1e-6)
        assert not np.isfinite(rank["wire_norms"][2])
    assert all(rank["gathered"].tolist() == [0.1, 1.1] for rank in ranks)


@pytest.mark.slow
def test_every_kind_sees_all_micro_steps(ranks: Ranks) -> None:
    for rank in ranks:
        mean = rank["micro_losses"].mean()
        for name in ("forward_loss", "backward_loss", "step_loss"):
            assert rank[name] == pytest.approx(mean, rel=1e-6), name


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_every_kind_takes_time_that_is_no_trainings(ranks: Ranks, name: str) -> None:
    for rank in ranks:
        samples = part(rank, f"{name}/rounds")
        assert set(samples) == set(Ablation.model_fields)
        assert all(len(values) == ROUNDS and (values > 0).all() for values in samples.values())
        assert rank[f"{name}/interrupted/paused_seconds"] > sum(values.sum() for values in samples.values())


def check_wire(records: list[Record], *, printed: str) -> None:
    """Both twins count the same losses: with a predivide of 1e6 nearly all become zero, with 1e-6 training diverges."""
    looks = {(record.point.gradient_predivide, record.point.framework): record for record in records}
    for predivide, diverges in ((1e6, False), (1e-6, True)):
        pair = [looks[predivide, framework] for framework in FRAMEWORKS]
        for record in pair:
            assert record.outcome.status == ("diverged" if diverges else "ok")
            if diverges:
                assert "; fp16 on the wire: " in record.outcome.message and " % overflow" in record.outcome.message
        for a, b in zip(*(record.ranks for record in pair), strict=True):
            (left,), (right,) = a.wire, b.wire
            assert left.step == right.step == (0 if diverges else 4)
            assert (left.overflows > 0) == (right.overflows > 0) == diverges
            assert left.zeros == pytest.approx(right.zeros, rel=0.01, abs=5)
            assert left.norm == pytest.approx(right.norm, rel=1e-4)
            assert left.zeros > 0.9 * left.values or diverges
    assert "warning: " in printed and "become zero" in printed
    assert printed.count("fp16 on the wire lost gradients of ") == 4


@pytest.mark.slow
def test_a_sweep_records_ablations_and_a_timeline_of_both_twins(tmp_path: Path) -> None:
    (tmp_path / "suite.toml").write_text(SUITE)
    words = [
        "hvbench",
        "sweep",
        "suite.toml",
        "--np",
        "2",
        "--out",
        "run",
        "--timeline",
        "--no-parity",
        "-s",
        "ceilings=false",
    ]
    environment = os.environ | {"PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=550)
    assert done.returncode == 1, done.stderr
    records, problems = RunFolder(tmp_path / "run").read_records()
    assert problems == [] and len(records) == 4
    check_wire(records, printed=done.stdout + done.stderr)
    records = [record for record in records if record.point.gradient_predivide > 1]
    assert {record.point.framework for record in records} == set(FRAMEWORKS)
    for record in records:
        assert record.outcome.status == "ok"
        for rank in record.ranks:
            assert {len(getattr(rank.ablation, name)) for name in Ablation.model_fields} == {2}
            assert len(rank.step_seconds) == 4, "ablations are no steps of the measured part"
        timeline = Path(record.environment["horovod_settings"]["HOROVOD_TIMELINE"])
        assert timeline == tmp_path / "run" / "timelines" / f"generation{record.generation:04d}.json"
        events = json.loads(timeline.read_text())
        names = {event["args"].get("name") for event in events if event.get("name") == "process_name"}
        assert any("token_embedding" in str(name) for name in names), "one row a tensor"
        assert {"B", "E"} <= {event["ph"] for event in events}
    assert (tmp_path / "run" / "plots" / "breakdown.png").is_file()
    assert "timeline was recorded" in (tmp_path / "run" / "report.md").read_text()
    assert "Where the time goes" in done.stdout

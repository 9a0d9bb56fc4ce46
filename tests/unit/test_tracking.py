"""Trackers: what was written is read back with each tracker's own reader or message types."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hvbench.analysis.frame.frames import point_frame
from hvbench.errors import StorageError
from hvbench.records.record import Record
from hvbench.tracking.export import make_run, pair_with_figures, track
from hvbench.tracking.trackers import LIBRARIES
from tests import patience
from tests.unit.sample_records import make_convergence, make_launch, make_record
from tests.unit.sample_tracking import read_settings, read_tensorboard, read_wandb


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tests away from the trackers of the person who runs them."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_PROJECT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


def make_some() -> list[Record]:
    """Two launches with evaluations, one that failed without a sample, and one with a loss of NaN."""
    lost = make_record(status="oom", message="no memory", model="small", micro_batch_size=64)
    wild = make_launch({"framework": "pytorch", "seed": 9}, steps=4)
    wild = wild.model_copy(
        update={"ranks": [rank.model_copy(update={"loss": [None, *rank.loss[1:]]}) for rank in wild.ranks]}
    )
    return [*make_convergence(), lost, wild]


def losses_of(record: Record) -> dict[int, float]:
    """Step -> loss over ranks, by hand."""
    columns = zip(*(rank.loss for rank in record.ranks), strict=True)
    return {step: sum(each) / len(each) for step, each in enumerate(columns, start=1) if None not in each}


def name_of(record: Record) -> str:
    return f"{record.point_id}.r{record.repeat}"


def test_a_tracker_run_has_the_settings_curves_and_figures_of_its_record() -> None:
    for record, row in pair_with_figures(make_some()):
        run = make_run(record, row)
        assert run.name == name_of(record) and run.status == record.outcome.status
        assert {one.step: one.value for one in run.curves.get("loss", [])} == pytest.approx(losses_of(record))
        if record.outcome.status == "ok":
            slowest = max(record.ranks, key=lambda rank: sum(rank.step_seconds[record.warmup_steps :]))
            assert [one.value for one in run.curves["step_seconds"]] == slowest.step_seconds
            assert run.figures["tokens_per_second"] == point_frame([record])["tokens_per_second"][0]
        else:
            assert run.curves == {} and run.figures == {}


def test_tensorboard_reads_it_back(tmp_path: Path) -> None:
    records = make_some()
    for _ in range(2):  # the second time changes nothing
        (hint,) = track(tmp_path, records, ["tensorboard"])
    assert hint == f"tensorboard --logdir {tmp_path / 'tracking' / 'tensorboard'}"
    for record in records:
        folder = tmp_path / "tracking" / "tensorboard" / name_of(record)
        scalars = read_tensorboard(folder)
        losses = {step: value for step, value, _ in scalars.get("loss", [])}
        assert losses == pytest.approx(losses_of(record), rel=1e-6)
        rates = [value for _, value, _ in scalars.get("figures/tokens_per_second", [])]
        assert rates == ([pytest.approx(point_frame([record])["tokens_per_second"][0], rel=1e-6)] if losses else [])
        assert f"| status | {record.outcome.status} |" in read_settings(folder)


# MLflow uses what SQLAlchemy 2.1 has deprecated.
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
def test_mlflow_reads_it_back(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    records = make_some()
    for _ in range(2):
        (hint,) = track(tmp_path, records, ["mlflow"])
    uri = hint.removeprefix("mlflow ui --backend-store-uri ")
    client = MlflowClient(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("hvbench").experiment_id])
    assert sorted(run.info.run_name for run in runs) == sorted(map(name_of, records))
    for run in runs:
        (record,) = (each for each in records if name_of(each) == run.info.run_name)
        assert run.info.status == ("FINISHED" if record.outcome.status == "ok" else "FAILED")
        assert run.data.params["micro_batch_size"] == str(record.point.micro_batch_size)
        assert run.data.tags["hvbench.suite"] == record.suite
        assert {one.step: one.value for one in client.get_metric_history(run.info.run_id, "loss")} == losses_of(record)


def test_wandb_reads_it_back(tmp_path: Path) -> None:
    records = make_some()[1:]
    for _ in range(2):  # the second time adds no run
        track(tmp_path, records, ["wandb"])
    found = read_wandb(tmp_path / "tracking" / "wandb")
    assert sorted(found) == sorted(map(name_of, records))
    for record in records:
        session = found[name_of(record)]
        assert session.history.get("loss", {}) == pytest.approx(losses_of(record))
        assert session.summary["status"] == record.outcome.status
        assert session.config["framework"] == record.point.framework


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_missing_library_is_one_line_with_the_command(name: str, tmp_path: Path) -> None:
    hide = "import sys; sys.modules.update(dict.fromkeys(sys.argv[1].split(',')))"  # None: cannot be imported
    code = f"{hide}; sys.argv = ['hvbench', 'report', '.', '--track', '{name}']; from hvbench.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, ",".join(LIBRARIES[name])],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=patience.SECONDS,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"pip install 'hvbench[{name}]'" in done.stderr


def test_a_tracker_that_cannot_be_written_costs_the_other_nothing(tmp_path: Path) -> None:
    records = make_some()[:1]
    (tmp_path / "tracking").mkdir()
    (tmp_path / "tracking" / "wandb").write_text("in the way")
    with pytest.raises(StorageError, match=r"tracking/wandb: Weights & Biases: .*File exists") as caught:
        track(tmp_path, records, ["wandb", "tensorboard"])
    assert "\n" not in str(caught.value)
    assert read_tensorboard(tmp_path / "tracking" / "tensorboard" / name_of(records[0]))["loss"]

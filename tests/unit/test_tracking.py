"""Trackers: what was written is read back with each tracker's own reader or message types."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from hvbench.analysis.frame.frames import point_frame
from hvbench.records.record import Record
from hvbench.tracking import LIBRARIES, make_run, pair_with_figures, track
from tests import patience
from tests.unit.sample_records import make_convergence, make_launch, make_record

LEVELDB_BLOCK = 32768


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
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    records = make_some()
    for _ in range(2):  # the second time changes nothing
        (hint,) = track(tmp_path, records, ["tensorboard"])
    assert hint == f"tensorboard --logdir {tmp_path / 'tracking' / 'tensorboard'}"
    for record in records:
        reader = EventAccumulator(str(tmp_path / "tracking" / "tensorboard" / name_of(record)))
        reader.Reload()
        tags = reader.Tags()["scalars"]
        losses = {one.step: one.value for one in reader.Scalars("loss")} if "loss" in tags else {}
        assert losses == pytest.approx(losses_of(record), rel=1e-6)
        rates = [one.value for one in reader.Scalars("figures/tokens_per_second")] if losses else []
        assert rates == ([pytest.approx(point_frame([record])["tokens_per_second"][0], rel=1e-6)] if losses else [])
        (text,) = reader.Tensors("point/text_summary")
        assert f"| status | {record.outcome.status} |" in text.tensor_proto.string_val[0].decode()


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


def read_wandb(path: Path) -> list:
    """The messages of a .wandb file: LevelDB's log format (after a header of 7 bytes), W&B's own message type."""
    from wandb.proto import wandb_internal_pb2

    content, position, part, messages = path.read_bytes(), 7, b"", []
    while position + 7 <= len(content):
        if (left := LEVELDB_BLOCK - position % LEVELDB_BLOCK) < 7:
            position += left
            continue
        _, size, kind = struct.unpack("<IHB", content[position : position + 7])
        piece = content[position + 7 : position + 7 + size]
        position += 7 + size
        part = piece if kind in (1, 2) else part + piece  # whole, first; middle, last
        if kind in (1, 4):
            messages.append(wandb_internal_pb2.Record.FromString(part))
    return messages


def test_wandb_reads_it_back(tmp_path: Path) -> None:
    records = make_some()[1:]
    for _ in range(2):
        track(tmp_path, records, ["wandb"])
    found = {}
    for path in (tmp_path / "tracking" / "wandb" / "wandb").glob("offline-run-*/*.wandb"):
        messages = read_wandb(path)
        (begun,) = (message.run for message in messages if message.WhichOneof("record_type") == "run")
        losses, summary = {}, {}
        for message in messages:
            items = {
                (item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in message.history.item
            }
            if "loss" in items:
                losses[items["_step"] if "_step" in items else message.history.step.num] = items["loss"]
            summary |= {
                (item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in message.summary.update
            }
        config = {item.key: json.loads(item.value_json) for item in begun.config.update}
        assert begun.display_name not in found, "the second time added a run"
        found[begun.display_name] = losses, summary, config
    assert sorted(found) == sorted(map(name_of, records))
    for record in records:
        losses, summary, config = found[name_of(record)]
        assert losses == pytest.approx(losses_of(record))
        assert summary["status"] == record.outcome.status and config["framework"] == record.point.framework


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

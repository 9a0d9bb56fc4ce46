"""MLflow: one run per launch, in a local SQLite store below the run's folder, or at MLFLOW_TRACKING_URI."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from hvbench.errors import StorageError
from hvbench.tracking.runs import TrackedRun

TAG = "hvbench.id"
BATCH = 900  # metrics in one call; MLflow allows 1,000
EXPERIMENT = "hvbench"


def write_runs(runs: Iterable[TrackedRun], folder: Path) -> str:
    """Log every launch that the store does not have yet; the command that shows them. Raises StorageError."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    try:
        if not uri:
            folder.mkdir(parents=True, exist_ok=True)
            uri = f"sqlite:///{folder.resolve() / 'mlflow.db'}"
        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(EXPERIMENT)
        for run in runs:
            if not client.search_runs([experiment_id], f"tags.`{TAG}` = '{run.id}'", max_results=1):
                write_run(run, client, experiment_id)
    except (OSError, MlflowException, SQLAlchemyError) as error:
        raise StorageError(f"{uri or folder}: MLflow: {str(error).splitlines()[0]}") from None
    return f"mlflow ui --backend-store-uri {uri}"


def write_run(run: TrackedRun, client: MlflowClient, experiment_id: str) -> None:
    """Log one launch: curves as metrics per step, figures as metrics at the last step, settings as parameters."""
    tags = {TAG: run.id, "hvbench.suite": run.suite, "hvbench.status": run.status}
    begun = client.create_run(experiment_id, start_time=milliseconds(run.start_seconds), run_name=run.name, tags=tags)
    last = max((values[-1].step for values in run.curves.values()), default=0)
    metrics = [
        *(
            Metric(name, one.value, milliseconds(one.seconds), one.step)
            for name, values in run.curves.items()
            for one in values
        ),
        *(Metric(f"figures/{name}", value, milliseconds(run.end_seconds), last) for name, value in run.figures.items()),
    ]
    params = [Param(name, str(value)) for name, value in run.settings.items()]
    client.log_batch(begun.info.run_id, params=params, tags=[RunTag("mlflow.source.name", "hvbench")])
    for batch in cut(metrics, BATCH):
        client.log_batch(begun.info.run_id, metrics=batch)
    status = {"ok": "FINISHED", "stopped": "KILLED"}.get(run.status, "FAILED")
    client.set_terminated(begun.info.run_id, status, end_time=milliseconds(run.end_seconds))


def cut(values: Sequence[Metric], size: int) -> list[Sequence[Metric]]:
    """`values` in pieces of at most `size`."""
    return [values[start : start + size] for start in range(0, len(values), size)]


def milliseconds(seconds: float) -> int:
    """Whole milliseconds since 1970, MLflow's unit of time."""
    return round(seconds * 1000)

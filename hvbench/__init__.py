"""hvbench: the same transformer training in PyTorch and TensorFlow, measured side by side on Horovod.

From Python: `load` reads a run, `run_point` makes one of a single point, `compare` compares runs. Each returns a tidy
DataFrame; what it needs is imported when it is called, so that `import hvbench` stays light.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__version__ = "0.1.0"
__all__ = ["__version__", "compare", "load", "run_point"]


def load(run: str | Path, *, skip_unreadable: bool = False) -> pd.DataFrame:
    """A run folder as a tidy DataFrame: one row a launch, one column a field of its point or a metric.

    A launch that did not end in `ok` keeps its row and its reason (`status`, `message`), with its metrics missing. Of people's own
    scripts each axis is a column with its braces, such as `{batch}`; what only hvbench's own models have is missing.

    Args:
        run: the folder of a run, such as `results/quickstart/20260101T000000Z`.
        skip_unreadable: leave out records that cannot be read, instead of raising.

    Returns:
        The launches. Units and meanings of the columns are in `frame.attrs["units"]` and `frame.attrs["meanings"]`.

    Raises:
        hvbench.errors.UsageError: `run` is no run folder, or holds a record that cannot be read.

    Example:
        >>> frame = hvbench.load("results/reference/quickstart")
        >>> frame.groupby("framework")["point_id"].nunique()
        framework
        pytorch       5
        tensorflow    5
        Name: point_id, dtype: int64
        >>> frame.attrs["units"]["tokens_per_second"]
        'tokens/s'
    """
    from hvbench.analysis.frame.frames import point_frame
    from hvbench.analysis.frame.own_columns import columns_of
    from hvbench.errors import UsageError
    from hvbench.records.store import RunFolder

    folder = RunFolder(Path(run))
    folder.read_run()
    records, problems = folder.read_records()
    if problems and not skip_unreadable:
        raise UsageError(f"{problems[0]}; leave such records out with skip_unreadable=True")
    frame = point_frame(records)
    columns = columns_of(records)
    frame.attrs["units"] = {column.name: column.unit for column in columns if column.unit}
    frame.attrs["meanings"] = {column.name: column.meaning for column in columns}
    return frame


def run_point(*, np: int = 1, out: str | Path | None = None, **fields: Any) -> pd.DataFrame:
    """Train one point on ranks of this host, and return its launches as `load` does.

    Each launch has fresh workers, one a rank. Call it from the main thread of a program that no launcher has started.

    Args:
        np: ranks.
        out: a new run folder for the records; None: they are not kept.
        **fields: of the point and of [measure], as in a suite file (`hvbench plan --fields` lists them).

    Returns:
        One row a launch (`repeats` of them); one that failed has its reason in `status` and `message`.

    Raises:
        hvbench.errors.UsageError: a field is unknown or has a wrong value, or the point cannot run here.
        hvbench.errors.StorageError: `out` cannot be written, or holds a run.
        hvbench.errors.LaunchError: the ranks could not be started.

    Example:
        >>> frame = hvbench.run_point(framework="pytorch", model="tiny", data="synthetic", warmup_steps=1, steps=3)
        >>> frame[["framework", "status", "world_size", "micro_batch_size"]]
          framework status  world_size  micro_batch_size
        0   pytorch     ok           1                 8
        >>> bool(frame["tokens_per_second"].gt(0).all())
        True
    """
    import tempfile

    from hvbench.sweep.point import measure_point

    if out is not None:
        measure_point(fields, np=np, out=Path(out))
        return load(out)
    with tempfile.TemporaryDirectory(prefix="hvbench-point-") as folder:
        measure_point(fields, np=np, out=Path(folder, "run"))
        return load(Path(folder, "run"))


def compare(*runs: str | Path, by: str | None = None, root: str | Path = "results") -> pd.DataFrame:
    """Compare two or more runs point by point, the first one being the reference, or the values of a field within runs.

    Args:
        *runs: folders, or names such as `smoke@latest`, `smoke@baseline` or `smoke@ab`.
        by: a field of the point, such as `framework`: its values within the runs are compared instead of the runs.
        root: the folder of all results, for names.

    Returns:
        One row a point and metric: both centres with their intervals, the ratio b/a with its interval and p-values, and
        the call: `worse`, `better`, `same`, `unclear`, or None where no words are allowed. `frame.attrs["verdict"]`
        says it in sentences, `frame.attrs["is_comparable"]` whether the sides did the same work on the same machine,
        `frame.attrs["problems"]` names records that could not be read.

    Raises:
        hvbench.errors.UsageError: a run is no run folder, or there is nothing to compare it with.
        hvbench.errors.MissingData: a run is not there, or holds no record.

    Example:
        >>> frame = hvbench.compare("results/reference/quickstart", by="framework")
        >>> frame.loc[frame["metric"] == "step_seconds_median", ["arm_a", "arm_b", "n_a", "call"]].drop_duplicates()
             arm_a       arm_b  n_a    call
        0  pytorch  tensorflow    5  better
    """
    from hvbench.comparison.outputs.comparison import comparison_frame, summarize
    from hvbench.comparison.read import compare_runs

    comparison, problems = compare_runs([str(run) for run in runs], by=by, root=Path(root))
    frame = comparison_frame(comparison)
    frame.attrs["verdict"] = summarize(comparison)
    frame.attrs["is_comparable"] = comparison.is_comparable
    frame.attrs["problems"] = problems
    return frame

"""hvbench: the same transformer training in PyTorch and TensorFlow, measured side by side on Horovod."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(run: str | Path, *, skip_unreadable: bool = False) -> pd.DataFrame:
    """A run folder as a tidy DataFrame: one row a launch, one column a field of its point or a metric.

    Units and meanings of the columns are in `frame.attrs["units"]` and `frame.attrs["meanings"]`; a launch that did not
    end in `ok` keeps its row and its reason, with its metrics missing. Raises hvbench.errors.UsageError.
    """
    # Loaded when they are needed: `import hvbench` stays light.
    from hvbench.analysis.frame.columns import POINT_COLUMNS
    from hvbench.analysis.frame.frames import point_frame
    from hvbench.errors import UsageError
    from hvbench.records.store import RunFolder

    folder = RunFolder(Path(run))
    folder.read_run()
    records, problems = folder.read_records()
    if problems and not skip_unreadable:
        raise UsageError(f"{problems[0]}; leave such records out with skip_unreadable=True")
    frame = point_frame(records)
    frame.attrs["units"] = {column.name: column.unit for column in POINT_COLUMNS if column.unit}
    frame.attrs["meanings"] = {column.name: column.meaning for column in POINT_COLUMNS}
    return frame

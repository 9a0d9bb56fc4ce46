"""The formats by name: which file holds what. A new one is an entry here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from hvbench.analysis.formats.benchmarks import render_bencher, render_bigger_is_better, render_smaller_is_better
from hvbench.analysis.formats.mlperf import render_mlperf
from hvbench.analysis.formats.openmetrics import render_openmetrics
from hvbench.analysis.frame.run import Run
from hvbench.errors import StorageError
from hvbench.io.atomic import write_text

FOLDER = "formats"  # below the run's
FORMATS: dict[str, dict[str, Callable[[Run], str]]] = {
    "openmetrics": {"openmetrics.prom": render_openmetrics},
    "bencher": {"bencher.json": render_bencher},
    "github-action-benchmark": {
        "smaller-is-better.json": render_smaller_is_better,
        "bigger-is-better.json": render_bigger_is_better,
    },
    "mlperf": {"mlperf.log": render_mlperf},
}


def write_formats(folder: Path, run: Run, names: Iterable[str]) -> list[Path]:
    """Write the run in each of the formats; the paths. Raises StorageError."""
    paths = []
    for name in names:
        for file, render in FORMATS[name].items():
            path = folder / FOLDER / file
            try:
                path.parent.mkdir(exist_ok=True)
                write_text(path, render(run), durable=False)
            except OSError as error:
                raise StorageError(f"{path}: cannot be written: {error.strerror or error}") from None
            paths.append(path)
    return paths

"""A run -> the files of its report: `report.html`, `report.md`, `tables/*` and `plots/*` in the run's folder.

Every figure in them is computed from the records that are given, so the same records give the same files.
"""

from __future__ import annotations

from pathlib import Path

from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.contents import TopicFigures, draw_figures, list_tables, name_answer_plots
from hvbench.analysis.report.markdown import render_report
from hvbench.analysis.report.page.render import render_page
from hvbench.analysis.show.exports import render_latex, require_parquet, write_parquet
from hvbench.analysis.show.panels import own_style, save
from hvbench.analysis.show.render import frame_to_csv, render_csv, render_markdown
from hvbench.errors import StorageError
from hvbench.io.atomic import write_text


def write_report(run_dir: Path, run: Run, *, style: Path | None = None, with_parquet: bool = False) -> list[Path]:
    """Write tables, plots, `report.md` and `report.html` of `run` below a folder.

    Args:
        run_dir: where to write; it is created if missing.
        run: the launches, and what was asked for: `suite`, `question`, `command`, `created_at`, `hvbench_version`,
            `jobs` and `skipped`, all of which may be missing.
        style: a file of matplotlib settings for the plots.
        with_parquet: also write every table as Parquet.

    Returns:
        The paths that were written, in order.

    Raises:
        StorageError: a file cannot be written.
        UsageError: the style cannot be read, or the library that writes Parquet is missing.
    """
    if with_parquet:
        require_parquet()
    with own_style(style):
        plots = draw_figures(run)
        try:
            paths = _write_files(run_dir, run, plots)
            paths += _write_parquet_files(run_dir, run) if with_parquet else []
        except OSError as error:
            raise StorageError(f"{run_dir}: the report cannot be written: {error.strerror or error}") from None
    return sorted(paths)


def render_tables(run: Run) -> dict[str, str]:
    """Path below the run's folder -> text: every table as CSV, Markdown and LaTeX, and one CSV row a launch."""
    tables = list_tables(run)
    texts = {f"tables/{table.name}.csv": render_csv(table) for table in tables}
    texts |= {f"tables/{table.name}.md": f"# {table.title}\n\n{render_markdown(table)}" for table in tables}
    texts |= {f"tables/{table.name}.tex": render_latex(table) for table in tables if table.cells}
    return texts | {"tables/launches.csv": frame_to_csv(run.points)}


def _write_files(run_dir: Path, run: Run, plots: list[TopicFigures]) -> list[Path]:
    figures = {name: figure for part in plots for name, figure in part.figures.items()}
    titles = {name: figure.get_suptitle().splitlines()[0] for name, figure in figures.items()}
    beside = name_answer_plots(run, plots)
    texts = render_tables(run) | {"report.md": render_report(run, plots=titles, beside=beside)}
    paths = [path for name, figure in figures.items() for path in save(figure, run_dir / "plots" / name)]
    texts["report.html"] = render_page(run, plots=plots)  # which changes the figures
    for name, text in texts.items():
        paths.append(run_dir / name)
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        write_text(paths[-1], text, durable=False)
    return paths


def _write_parquet_files(run_dir: Path, run: Run) -> list[Path]:
    frames = {"launches": run.points, **{table.name: table.data for table in list_tables(run)}}
    return [write_parquet(frame, run_dir / "tables" / f"{name}.parquet") for name, frame in frames.items()]

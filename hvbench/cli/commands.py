"""The commands. Each parses its arguments, calls one function of the package, and prints what that returns."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from hvbench import __version__
from hvbench.cli.values import Memory, Outcomes

RESULTS = Path("results")

EPILOG = """\b
The flow:
  hvbench doctor                        what is installed, and what to do about the rest
  hvbench suites                        the questions that can be asked
  hvbench plan quickstart               what a suite would run, and for how long
  horovodrun -np 8 hvbench sweep        train every point in both frameworks, on 8 ranks
  hvbench report results/…/…            tables, plots and report again, from the records

\b
Exit codes: 0 all points ok · 1 some points failed · 2 usage · 5 launch, storage or build · 130 interrupted"""


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="hvbench")
def hvbench() -> None:
    """Train the same transformer in PyTorch and TensorFlow on Horovod, and compare what it costs.

    A suite asks one question, such as "does throughput keep rising with the micro-batch?", and expands to points. Each
    point is trained by fresh workers, one a rank; raw samples go to records, and records to tables, plots and a report.
    """
    if os.environ.get("NO_COLOR"):
        click.get_current_context().color = False


def options_of_a_sweep(command):
    """Options that `sweep`, `plan` and `run` share."""
    np_help = "Ranks to launch on this host. Under horovodrun or mpirun: leave it out."
    return click.option("--np", "np", type=int, metavar="N", help=np_help)(command)


def limits_of_a_point(command):
    """Options of `sweep` and `run` that bound what one point may cost."""
    timeout_help = "Time limit of one point, loading the framework excluded. Default: 10 times the estimate, at least 300 s."
    memory_help = "Memory that one worker may allocate, such as 2GiB; beyond it the point ends in `oom`. Default: no limit."
    command = click.option("--memory-limit", metavar="SIZE", type=Memory(), help=memory_help)(command)
    seconds = click.FloatRange(min=0, min_open=True, max=10**9)
    return click.option("--timeout", metavar="SECONDS", type=seconds, help=timeout_help)(command)


def output_options(command):
    """`--quiet` and `--json`, as one value."""
    quiet_help = "Print nothing but errors."
    json_help = "Print what happens as one JSON object a line."
    command = click.option("--quiet", "output", flag_value="quiet", default=None, help=quiet_help)(command)
    return click.option("--json", "output", flag_value="json", default=None, help=json_help)(command)


def override_option(command):
    """`-s key=value`."""
    text = "Fix a field (key=value) or make it an axis (key=value,value); [measure] settings too. May be repeated."
    return click.option("-s", "--set", "overrides", multiple=True, metavar="KEY=VALUE[,VALUE]", help=text)(command)


@hvbench.command()
@click.argument("suite", default="quickstart")
@override_option
@options_of_a_sweep
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Run folder. Default: results/SUITE/TIME.")
@limits_of_a_point
@click.option(
    "--resume/--fresh", default=False, help="Go on with the newest run of the suite (or with --out), or start a new one."
)
@click.option("--retry", type=Outcomes(), metavar="OUTCOME,…", help="With --resume: outcomes to try again. Default: all but ok.")
@click.option("--force", is_flag=True, help="With --resume: go on even if the suite or the machine has changed.")
@output_options
def sweep(
    suite: str,
    overrides: tuple[str, ...],
    np: int | None,
    out: Path | None,
    timeout: float | None,
    memory_limit: int | None,
    resume: bool,
    retry: frozenset[str] | None,
    force: bool,
    output: str | None,
) -> int:
    """Run every point of SUITE (a name or a TOML file) and write records, tables, plots and a report.

    \b
    horovodrun -np 8 hvbench sweep                    the main job: suite "quickstart" on 8 ranks
    hvbench sweep smoke --np 2                        the same without a launcher, on this host
    hvbench sweep batch -s precision=bf16 -s steps=20 --np 2
    hvbench sweep batch --np 2 --resume --retry timeout,oom --timeout 900
    """
    if not resume and (force or retry is not None):
        raise click.UsageError("--retry and --force go with --resume")
    from hvbench.cli.running import run_sweep
    from hvbench.suite import apply_overrides, find_suite, load_suite

    def load():
        return apply_overrides(load_suite(find_suite(suite)), overrides)

    return run_sweep(
        load,
        np=np,
        out=out,
        root=RESULTS,
        command=sys.argv,
        resume=resume,
        retry=retry,
        force=force,
        timeout_seconds=timeout,
        memory_limit_bytes=memory_limit,
        output=output or "auto",
    )


@hvbench.command()
@click.argument("values", nargs=-1, metavar="KEY=VALUE…")
@options_of_a_sweep
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Run folder. Default: results/run/TIME.")
@limits_of_a_point
@output_options
def run(
    values: tuple[str, ...],
    np: int | None,
    out: Path | None,
    timeout: float | None,
    memory_limit: int | None,
    output: str | None,
) -> int:
    """Run one point, given as fields: hvbench run framework=tensorflow precision=bf16 steps=20 --np 2

    Fields left out have their defaults (see `hvbench plan --fields`).
    """
    from hvbench.cli.running import run_sweep
    from hvbench.suite import apply_overrides, parse_suite

    def load():
        return apply_overrides(parse_suite("", name="run", where="hvbench run"), values, option="")

    return run_sweep(
        load,
        np=np,
        out=out,
        root=RESULTS,
        command=sys.argv,
        timeout_seconds=timeout,
        memory_limit_bytes=memory_limit,
        output=output or "auto",
    )


@hvbench.command()
@click.argument("suite", default="quickstart")
@override_option
@options_of_a_sweep
@click.option("--fields", is_flag=True, help="List the fields of a point and the [measure] settings, and stop.")
def plan(suite: str, overrides: tuple[str, ...], np: int | None, fields: bool) -> None:
    """Show what SUITE would run, what is skipped and why, and roughly how long it takes."""
    from hvbench.cli.running import describe_fields, describe_plan
    from hvbench.suite import apply_overrides, find_suite, load_suite

    if fields:
        click.echo(describe_fields())
        return
    click.echo(describe_plan(apply_overrides(load_suite(find_suite(suite)), overrides), np=np))


@hvbench.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--style", type=click.Path(path_type=Path), metavar="FILE", help="A matplotlib style file for the plots.")
@click.option("--parquet", is_flag=True, help="Write the tables as Parquet too (needs pyarrow: hvbench[parquet]).")
def report(run: Path, style: Path | None, parquet: bool) -> None:
    """Rebuild tables, plots, report.html and report.md of the run folder RUN from its records."""
    from hvbench.cli.running import write_report

    click.echo(write_report(run, style=style, with_parquet=parquet))


@hvbench.command()
def suites() -> None:
    """List the suites with the question that each answers."""
    from hvbench.suite import list_suites, load_suite

    loaded = [load_suite(path) for path in list_suites()]
    width = max((len(suite.name) for suite in loaded), default=0)
    for suite in loaded:
        click.echo(f"{suite.name:{width}}  {suite.question}")


@hvbench.command()
def doctor() -> int:
    """Show what is installed and built, cores and memory, what each framework can do here, and what is missing."""
    from hvbench.doctor import examine

    findings = examine()
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        mark = click.style("ok  ", fg="green") if finding.is_good else click.style("miss", fg="red")
        click.echo(f"{mark}  {finding.subject:{width}}  {finding.fact}")
        if finding.remedy:
            click.echo(f"{'':{width + 8}}fix: {finding.remedy}")
    return 0 if all(finding.is_good or not finding.is_required for finding in findings) else 1


@hvbench.command("install-horovod", context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def install_horovod(arguments: tuple[str, ...]) -> int:
    """Build Horovod against the PyTorch, TensorFlow, MPI and CUDA that are installed here."""
    from hvbench.install.__main__ import main

    return main(list(arguments))

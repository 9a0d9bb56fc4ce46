"""The commands. Each parses its arguments, calls one function of the package, and prints what that returns."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from hvbench import __version__
from hvbench.cli.communicating import allreduce, predict
from hvbench.cli.comparing import baseline, compare, history
from hvbench.cli.gating import ab, gate
from hvbench.cli.lab import hosts_option, lab
from hvbench.cli.options import Duration, Memory, Outcomes, Share, Trackers, typed_words
from hvbench.cli.submit import submit
from hvbench.cli.tune import tune

RESULTS = Path("results")

EPILOG = """\b
The flow:
  hvbench doctor                        what is installed, and what to do about the rest
  hvbench suites                        the questions that can be asked
  hvbench plan quickstart               what a suite would run, and for how long
  hvbench parity --np 2                 whether both frameworks do the same work, tensor by tensor
  horovodrun -np 8 hvbench sweep        train every point in both frameworks, on 8 ranks
  hvbench allreduce --np 2              all-reduces by themselves, by message size and path
  hvbench predict results/…/…           what more ranks or another link would make of it
  hvbench report results/…/…            tables, plots and report again, from the records
  hvbench compare smoke@baseline smoke@latest      what changed between two runs, and how sure that is
  hvbench ab smoke --np 2 --b env=.venv-new        launch two arms alternately: is the new one slower?
  hvbench gate smoke@latest             the same question to a stored run (hvbench baseline), with an exit code
  hvbench history step_seconds_median   a metric over the stored runs, and where it changed

\b
Exit codes: 0 all well · 1 some points failed, parity not proven, or a regression · 2 usage · 3 inconclusive ·
4 not comparable · 5 missing data, launch, storage or build · 130 interrupted"""


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
    return click.option("--np", "np", type=int, metavar="N", help=np_help)(hosts_option(command))


def memory_limit_option(command):
    """`--memory-limit`."""
    text = "Memory that one worker may allocate, such as 2GiB; beyond it the point ends in `oom`. Default: no limit."
    return click.option("--memory-limit", metavar="SIZE", type=Memory(), help=text)(command)


def limits_of_a_point(command):
    """Options of `sweep` and `run` that bound what one point may cost."""
    command = memory_limit_option(command)
    timeout_help = (
        "Time limit of one point, loading the framework excluded. Default: 10 times the estimate, at least 300 s."
    )
    seconds = click.FloatRange(min=0, min_open=True, max=10**9)
    return click.option("--timeout", metavar="SECONDS", type=seconds, help=timeout_help)(command)


def timeline_option(command):
    """`--timeline`, of `sweep` and `run`."""
    text = (
        "Record Horovod's timeline of each set of workers (2 ranks at least) in the run folder (timelines/), for "
        "chrome://tracing or Perfetto. It slows every step: do not publish timings of such a run."
    )
    return click.option("--timeline", is_flag=True, help=text)(command)


def options_of_precision(command):
    """Options of `sweep` and `run` that ask for more launches than planned."""
    target_help = "Launch points again, after the repeats, until the interval of tokens/s is within ± this, such as 2%."
    budget_help = "Time for those launches, such as 10m. Default: 30m."
    command = click.option("--budget", "budget_seconds", metavar="TIME", type=Duration(), help=budget_help)(command)
    return click.option("--precision-target", metavar="SHARE", type=Share(), help=target_help)(command)


def track_option(command):
    """`--track`, of `sweep`, `run` and `report`."""
    text = "Give every launch to experiment trackers too, after all is measured: tensorboard, wandb, mlflow."
    return click.option("--track", "trackers", type=Trackers(), default="", metavar="TRACKER,…", help=text)(command)


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


def scale_option(command):
    """`--scale`, of `sweep` and `plan`."""
    text = "Ask the suite's question at another size, one of its tables [scale.NAME], such as small on a machine with GPUs."
    return click.option("--scale", metavar="NAME", help=text)(command)


@hvbench.command()
@click.argument("suite", default="quickstart")
@scale_option
@override_option
@options_of_a_sweep
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Run folder. Default: results/SUITE/TIME."
)
@limits_of_a_point
@options_of_precision
@click.option(
    "--resume/--fresh",
    default=False,
    help="Go on with the newest run of the suite (or with --out), or start a new one.",
)
@click.option(
    "--retry", type=Outcomes(), metavar="OUTCOME,…", help="With --resume: outcomes to try again. Default: all but ok."
)
@click.option("--force", is_flag=True, help="With --resume: go on even if the suite or the machine has changed.")
@timeline_option
@track_option
@output_options
@click.option(
    "--parity/--no-parity",
    default=True,
    help="First check that the frameworks do the same work (default), or leave it unproven.",
)
@click.option(
    "--report/--no-report",
    "with_report",
    default=True,
    envvar="HVBENCH_REPORT",
    help="Write tables, plots, report.html and report.md at the end.",
)
def sweep(
    suite: str,
    scale: str | None,
    overrides: tuple[str, ...],
    np: int | None,
    out: Path | None,
    timeout: float | None,
    memory_limit: int | None,
    precision_target: float | None,
    budget_seconds: float | None,
    resume: bool,
    retry: frozenset[str] | None,
    force: bool,
    timeline: bool,
    parity: bool,
    with_report: bool,
    trackers: tuple[str, ...],
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
    from hvbench.spec.suite import choose_suite
    from hvbench.sweep.options import SweepOptions

    def load():
        return choose_suite(suite, scale=scale, overrides=overrides)

    options = SweepOptions(
        command=typed_words(),
        out=out,
        resume=resume,
        retry=retry,
        force=force,
        timeout_seconds=timeout,
        memory_limit_bytes=memory_limit,
        timeline=timeline,
        checks_parity=parity,
        precision_target=precision_target,
        budget_seconds=budget_seconds,
    )
    return run_sweep(
        load, options, np=np, root=RESULTS, with_report=with_report, trackers=trackers, output=output or "auto"
    )


@hvbench.command()
@click.argument("values", nargs=-1, metavar="KEY=VALUE…")
@options_of_a_sweep
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Run folder. Default: results/run/TIME.")
@limits_of_a_point
@timeline_option
@options_of_precision
@track_option
@output_options
def run(
    values: tuple[str, ...],
    np: int | None,
    out: Path | None,
    timeout: float | None,
    memory_limit: int | None,
    timeline: bool,
    precision_target: float | None,
    budget_seconds: float | None,
    trackers: tuple[str, ...],
    output: str | None,
) -> int:
    """Run one point, given as fields: hvbench run framework=tensorflow precision=bf16 steps=20 --np 2

    Fields left out have their defaults (see `hvbench plan --fields`).
    """
    from hvbench.cli.running import run_sweep
    from hvbench.spec.suite import apply_overrides, parse_suite
    from hvbench.sweep.options import SweepOptions

    def load():
        return apply_overrides(parse_suite("", name="run", where="hvbench run"), values, option="")

    options = SweepOptions(
        command=typed_words(),
        out=out,
        timeout_seconds=timeout,
        memory_limit_bytes=memory_limit,
        timeline=timeline,
        precision_target=precision_target,
        budget_seconds=budget_seconds,
    )
    return run_sweep(load, options, np=np, root=RESULTS, trackers=trackers, output=output or "auto")


@hvbench.command()
@click.argument("suite", default="quickstart")
@scale_option
@override_option
@options_of_a_sweep
@memory_limit_option
@click.option("--fields", is_flag=True, help="List the fields of a point and the [measure] settings, and stop.")
def plan(
    suite: str, scale: str | None, overrides: tuple[str, ...], np: int | None, memory_limit: int | None, fields: bool
) -> None:
    """Show what SUITE would run, what is skipped and why, what may not fit into memory, and roughly how long it takes."""
    from hvbench.cli.running import describe_fields, describe_plan
    from hvbench.spec.suite import choose_suite

    if fields:
        click.echo(describe_fields())
        return
    chosen = choose_suite(suite, scale=scale, overrides=overrides)
    click.echo(describe_plan(chosen, np=np, memory_limit_bytes=memory_limit))


@hvbench.command()
@click.argument("words", nargs=-1, metavar="[SUITE] [KEY=VALUE…]")
@override_option
@options_of_a_sweep
@click.option(
    "--steps", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Optimizer updates to compare."
)
@click.option("--full", is_flag=True, help="Print every tensor and every update, not only the largest errors.")
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), metavar="FILE", help="Write every figure to FILE too."
)
def parity(
    words: tuple[str, ...], overrides: tuple[str, ...], np: int | None, steps: int, full: bool, json_path: Path | None
) -> int:
    """Train the same few updates in both frameworks and compare every tensor: is it the same work?

    \b
    hvbench parity --np 2                             model tiny, every precision, compression and accumulation
    hvbench parity precision=bf16 --np 2 --full       fewer of these, with every tensor
    horovodrun -np 2 hvbench parity quickstart --steps 3

    Exit code 0: all within their tolerances, which hvbench/parity/trace.py states with the measurements behind them.
    """
    from hvbench.cli.parity import run_parity

    return run_parity(words, overrides, np=np, steps=steps, is_full=full, json_path=json_path)


@hvbench.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--style", type=click.Path(path_type=Path), metavar="FILE", help="A matplotlib style file for the plots.")
@click.option("--parquet", is_flag=True, help="Write the tables as Parquet too (needs pyarrow: hvbench[parquet]).")
@track_option
def report(run: Path, style: Path | None, parquet: bool, trackers: tuple[str, ...]) -> None:
    """Rebuild tables, plots, report.html and report.md of the run folder RUN from its records."""
    from hvbench.cli.running import write_report

    click.echo(write_report(run, style=style, with_parquet=parquet, trackers=trackers))


@hvbench.command()
@click.option("--schema", is_flag=True, help="Print the JSON Schema of a suite file instead, for editors.")
def suites(schema: bool) -> None:
    """List the suites with the question that each answers."""
    from hvbench.spec.schema import suite_schema
    from hvbench.spec.suite import list_suites, load_suite

    if schema:
        click.echo(json.dumps(suite_schema(), indent=2))
        return
    loaded = [load_suite(path) for path in list_suites()]
    width = max((len(suite.name) for suite in loaded), default=0)
    for suite in loaded:
        scales = f"  (--scale {', '.join(suite.scales)})" if suite.scales else ""
        click.echo(f"{suite.name:{width}}  {suite.question}{scales}")


@hvbench.command()
def doctor() -> int:
    """Show what is installed and built, cores and memory, what each framework can do here, and what is missing."""
    from hvbench.plan.doctor import examine

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


for each in (compare, ab, gate, baseline, history, allreduce, predict, tune, lab, submit):
    hvbench.add_command(each)

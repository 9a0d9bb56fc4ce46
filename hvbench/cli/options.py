"""Options that several commands share, as decorators, and what the commands have in common between parsing and printing."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from hvbench.cli.completers import complete_field
from hvbench.cli.param_types import Duration, Memory, Outcomes, Share, Trackers

RESULTS = Path("results")  # below the current folder
HOSTS_VARIABLE = "HVBENCH_HOSTS"

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What a sweep shows while it runs, and what is made of its records at the end."""

    display: str = "auto"  # json, quiet, or auto: the live view on a terminal, lines elsewhere
    with_report: bool = True
    trackers: tuple[str, ...] = ()


# Which ranks


def np_option(command: Command) -> Command:
    """`--np`, of the commands that launch ranks."""
    text = "Ranks to launch on this host. Under horovodrun or mpirun: leave it out."
    return click.option("--np", "np", type=int, metavar="N", help=text)(command)


def hosts_option(command: Command) -> Command:
    """`-H host1:4,host2:4`: put into the environment, where every launch of this process finds it."""

    def keep(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value:
            os.environ[HOSTS_VARIABLE] = value

    text = "Hosts and ranks on each, such as host1:4,host2:4, this host first; the others are reached by ssh. Instead of horovodrun -H."
    return click.option("-H", "--hosts", metavar="HOST[:RANKS],…", expose_value=False, callback=keep, help=text)(
        command
    )


def env_option(command: Command) -> Command:
    """`--env FRAMEWORK=FOLDER`: kept for every launch of this process; UsageError for what cannot be one."""

    def keep(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> None:
        if values:
            from hvbench.launch.environments import add_environment

            for value in values:
                add_environment(value)

    text = (
        "Environment in which a framework's workers start, such as tensorflow=/opt/tf, with Horovod, numpy and pydantic in it. May be "
        "repeated. Default: [environments] of ~/.config/hvbench/settings.toml, else this one."
    )
    option = click.option(
        "--env", multiple=True, metavar="FRAMEWORK=FOLDER", expose_value=False, callback=keep, help=text
    )
    return option(command)


def launch_options(command: Command) -> Command:
    """`--np`, `-H` and `--env`."""
    return np_option(hosts_option(env_option(command)))


# Which points


def override_option(command: Command) -> Command:
    """`-s key=value`."""
    text = "Fix a field (key=value) or make it an axis (key=value,value); [measure] settings too. May be repeated."
    return click.option(
        "-s", "--set", "overrides", multiple=True, metavar="KEY=VALUE[,VALUE]", shell_complete=complete_field, help=text
    )(command)


def scale_option(command: Command) -> Command:
    """`--scale`, of `sweep` and `plan`."""
    text = "Ask the suite's question at another size, one of its tables [scale.NAME], such as small on a machine with GPUs."
    return click.option("--scale", metavar="NAME", help=text)(command)


# Fields of SweepOptions, by their names there


def out_option(default: str) -> Callable[[Command], Command]:
    """`--out FOLDER`; `default` says where the run goes without it."""
    path, text = click.Path(path_type=Path), f"Run folder. Default: {default}."
    return click.option("--out", type=path, metavar="FOLDER", help=text)


def budget_option(default: str) -> Callable[[Command], Command]:
    """`--budget` of a search, `default` without it."""
    choices = {"type": Duration(), "default": default, "show_default": True, "metavar": "TIME"}
    return click.option("--budget", "budget_seconds", help="Time for all launches.", **choices)


def memory_limit_option(command: Command) -> Command:
    """`--memory-limit`."""
    text = "Resident memory that one worker may need, such as 2GiB; beyond it the point ends in `oom`. Default: the suite's, or no limit."
    option = click.option("--memory-limit", "memory_limit_bytes", metavar="SIZE", type=Memory(), help=text)
    return option(command)


def point_limit_options(command: Command) -> Command:
    """`--timeout` and `--memory-limit`: what one point may cost."""
    text = "Time limit of one point, loading the framework excluded. Default: 10 times the estimate, at least 300 s."
    seconds = click.FloatRange(min=0, min_open=True, max=10**9)
    timeout = click.option("--timeout", "timeout_seconds", metavar="SECONDS", type=seconds, help=text)
    return timeout(memory_limit_option(command))


def resume_options(command: Command) -> Command:
    """`--resume`, `--retry` and `--force`, of `sweep` and `run`: go on with a run that was begun."""
    resume_text = "Go on with the newest run of that name (or with --out), or start a new one."
    retry_text = "With --resume: outcomes to try again. Default: all but ok."
    force_text = "With --resume: go on even if the suite or the machine has changed."

    @functools.wraps(command)
    def check(**choices: Any) -> Any:
        if not choices["resume"] and (choices["force"] or choices["retry"] is not None):
            raise click.UsageError("--retry and --force go with --resume")
        return command(**choices)

    force = click.option("--force", is_flag=True, help=force_text)
    retry = click.option("--retry", type=Outcomes(), metavar="OUTCOME,…", help=retry_text)
    resume = click.option("--resume/--fresh", default=False, help=resume_text)
    return resume(retry(force(check)))


def timeline_option(command: Command) -> Command:
    """`--timeline`, of `sweep` and `run`."""
    text = (
        "Record Horovod's timeline of each set of workers (2 ranks at least) in the run folder (timelines/), for "
        "chrome://tracing or Perfetto. It slows every step: do not publish timings of such a run."
    )
    return click.option("--timeline", is_flag=True, help=text)(command)


def precision_options(command: Command) -> Command:
    """`--precision-target` and `--budget`: more launches than planned, until the intervals are narrow enough."""
    target_text = (
        "Add rounds, after the repeats, until the frameworks' ratio is known to ± this in every configuration, such as 3%. Where no two "
        "frameworks take turns: until the tokens/s of every point are."
    )
    budget_text = "Time for those rounds, such as 10m; what they measured until then stays. Default: 30m."
    budget = click.option("--budget", "budget_seconds", metavar="TIME", type=Duration(), help=budget_text)
    target = click.option("--precision-target", metavar="SHARE", type=Share(), help=target_text)
    return target(budget(command))


# What is shown and written


def track_option(command: Command) -> Command:
    """`--track`, of `sweep`, `run` and `report`."""
    text = "Give every launch to experiment trackers too: tensorboard, wandb, mlflow. The first two also see each step while a sweep runs."
    return click.option("--track", "trackers", type=Trackers(), default="", metavar="TRACKER,…", help=text)(command)


def display_options(command: Command) -> Command:
    """`--quiet` and `--json`, as one value named `display`."""
    quiet_text = "Print nothing but errors."
    json_text = "Print what happens as one JSON object a line."
    quiet = click.option("--quiet", "display", flag_value="quiet", default=None, help=quiet_text)
    json = click.option("--json", "display", flag_value="json", default=None, help=json_text)
    return json(quiet(command))


@dataclass(frozen=True, kw_only=True)
class VerdictFiles:
    """Where a verdict is written to, beside the terminal."""

    junit: Path | None = None
    markdown: Path | None = None
    json: Path | None = None


def verdict_options(command: Command) -> Command:
    """Options of `ab` and `gate`: the policy, as `policy_path`, and where the verdict goes, as `files: VerdictFiles`."""

    @functools.wraps(command)
    def gather(**choices: Any) -> Any:
        files = VerdictFiles(**{name: choices.pop(f"{name}_path") for name in ("junit", "markdown", "json")})
        if files.junit:
            require_library("junitparser", needed_by="--junit", extra="ci")
        return command(files=files, **choices)

    path = click.Path(path_type=Path)
    for name, text in (
        ("--json", "Write the verdict and all decisions as JSON."),
        ("--markdown", "Write a Markdown comment for a pull request."),
        ("--junit", "Write JUnit XML (needs the extra hvbench[ci])."),
        ("--policy", "Margins, metrics and accepted regressions, a TOML file; see docs/ci.md."),
    ):
        gather = click.option(name, f"{name[2:]}_path", type=path, metavar="FILE", help=text)(gather)
    return gather


def typed_words() -> list[str]:
    """The command line as it was typed, with the program's name in place of its path, for run.json; `python -m hvbench`, too."""
    name = Path(sys.argv[0]).name
    return ["hvbench" if name == "__main__.py" else name, *sys.argv[1:]]


def write_output(text: str, out: Path | None) -> None:
    """Print `text`, or write it to the file `out`; raises StorageError."""
    if out is None:
        click.echo(text, nl=False)
        return
    from hvbench.io.atomic import explaining_write_errors, write_named_file

    with explaining_write_errors(out):
        write_named_file(out, text)


def require_library(library: str, *, needed_by: str, extra: str) -> None:
    """Raise a usage error where an optional library is not installed, before anything is launched or read."""
    from importlib.util import find_spec

    if find_spec(library) is None:
        raise click.UsageError(f"{needed_by} needs {library}: pip install 'hvbench[{extra}]'")

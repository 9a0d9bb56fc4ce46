"""The command `hvbench` itself: its commands, its help, its exit codes."""

from __future__ import annotations

import os

import click

from hvbench import __version__
from hvbench.cli.ab import ab
from hvbench.cli.allreduce import allreduce
from hvbench.cli.baseline import baseline
from hvbench.cli.comment import comment
from hvbench.cli.compare import compare
from hvbench.cli.completion import completion
from hvbench.cli.doctor import doctor
from hvbench.cli.export import export
from hvbench.cli.gate import gate
from hvbench.cli.history import history
from hvbench.cli.init import init
from hvbench.cli.install_horovod import install_horovod
from hvbench.cli.lab import lab
from hvbench.cli.parity import parity
from hvbench.cli.plan import plan
from hvbench.cli.predict import predict
from hvbench.cli.report import report
from hvbench.cli.run import run
from hvbench.cli.search import search
from hvbench.cli.site import site
from hvbench.cli.submit import submit
from hvbench.cli.suites import suites
from hvbench.cli.sweep import sweep
from hvbench.cli.tune import tune
from hvbench.cli.watch import watch

EPILOG = """\b
The flow:
  hvbench doctor                        what is installed, and what to do about the rest
  hvbench suites                        the questions that can be asked
  hvbench init                          a suite of your own, from a few questions
  hvbench plan quickstart               what a suite would run, and for how long
  hvbench parity --np 2                 whether both frameworks do the same work, tensor by tensor
  horovodrun -np 8 hvbench sweep        train every point in both frameworks, on 8 ranks
  hvbench allreduce --np 2              all-reduces by themselves, by message size and path
  hvbench search tiny --np 2            what reaches a loss soonest, and what it gains
  hvbench predict results/…/…           what more ranks or another link would make of it
  hvbench watch quickstart@latest       a sweep that runs elsewhere, as its own terminal shows it
  hvbench report results/…/…            tables, plots and report again, from the records
  hvbench export smoke@latest POINT FOLDER         a trained model, as transformers loads it
  hvbench compare smoke@baseline smoke@latest      what changed between two runs, and how sure that is
  hvbench ab smoke --np 2 --b env=.venv-new        launch two arms alternately: is the new one slower?
  hvbench gate smoke@latest             the same question to a stored run (hvbench baseline), with an exit code
  hvbench history step_seconds_median   a metric over the stored runs, and where it changed
  hvbench site results --out public     all runs as a static site: answers, lines, comparisons, machines

\b
Exit codes: 0 all well · 1 some points failed, parity not proven, or a regression · 2 usage · 3 inconclusive ·
4 not comparable · 5 missing data, launch, storage or build · 130 interrupted"""


COMMANDS = (
    ab,
    allreduce,
    baseline,
    comment,
    compare,
    completion,
    doctor,
    export,
    gate,
    history,
    init,
    install_horovod,
    lab,
    parity,
    plan,
    predict,
    report,
    run,
    search,
    site,
    submit,
    suites,
    sweep,
    tune,
    watch,
)


@click.group(
    commands=COMMANDS, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, prog_name="hvbench")
def hvbench() -> None:
    """Train the same transformer in PyTorch and TensorFlow on Horovod, and compare what it costs.

    A suite asks one question, such as "does throughput keep rising with the micro-batch?", and expands to points. Each
    point is trained by fresh workers, one a rank; raw samples go to records, and records to tables, plots and a report.
    """
    if os.environ.get("NO_COLOR"):
        click.get_current_context().color = False

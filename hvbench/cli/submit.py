"""`hvbench submit`: the job of a scheduler, from the same arguments."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from hvbench.cli.options import write_output
from hvbench.cli.param_types import Duration

LAUNCHING = ("sweep", "run", "parity", "allreduce", "tune")


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--scheduler", type=click.Choice(["slurm", "kubernetes"]), required=True, help="Whose job is written.")
@click.option("--hosts", type=click.IntRange(1, 100_000), default=1, show_default=True, help="Hosts to ask for.")
@click.option("--ranks-per-host", type=click.IntRange(1, 1024), default=1, show_default=True, help="Ranks on each.")
@click.option(
    "--cores-per-rank", type=click.IntRange(1, 1024), default=1, show_default=True, help="Cores of each rank."
)
@click.option("--gpus", type=click.IntRange(0, 64), default=0, show_default=True, help="GPUs of each rank, of NVIDIA.")
@click.option(
    "--time", "seconds", type=Duration(), default="1h", show_default=True, metavar="TIME", help="The job's time limit."
)
@click.option("--name", default="hvbench", show_default=True, help="The job's name.")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="Of the scheduler, such as partition=short (Slurm). May be repeated.",
)
@click.option("--image", metavar="IMAGE", help="Container image with hvbench and its Horovod (Kubernetes).")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the job to FILE. Default: print it."
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND…")
def submit(
    scheduler: str,
    hosts: int,
    ranks_per_host: int,
    cores_per_rank: int,
    gpus: int,
    seconds: float,
    name: str,
    options: tuple[str, ...],
    image: str | None,
    out: Path | None,
    command: tuple[str, ...],
) -> None:
    """Write the job that runs an hvbench COMMAND on a cluster: an sbatch script, or a Kubernetes MPIJob.

    \b
    hvbench submit --scheduler slurm --hosts 2 --ranks-per-host 8 --out job.sh -- sweep batch
    sbatch job.sh
    hvbench submit --scheduler kubernetes --hosts 4 --gpus 1 --image me/hvbench:gpu -- sweep batch | kubectl apply -f -
    """
    from hvbench.launch.submit import Submission, program_words, render

    if command[0] not in LAUNCHING:
        raise click.UsageError(f"{command[0]!r} launches nothing; submit one of {', '.join(LAUNCHING)}")
    if {"--np", "-H", "--hosts"} & {word.partition("=")[0] for word in command}:
        raise click.UsageError("leave --np and -H out: the job says which hosts and how many ranks")
    words = program_words(sys.executable, command) if scheduler == "slurm" else ("hvbench", *command)
    job = Submission(
        name=name,
        command=words,
        hosts=hosts,
        ranks_per_host=ranks_per_host,
        cores_per_rank=cores_per_rank,
        gpus_per_rank=gpus,
        minutes=max(1, round(seconds / 60)),
        folder=os.getcwd(),
        options=options,
        image=image,
    )
    write_output(render(scheduler, job), out)

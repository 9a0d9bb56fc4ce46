"""Jobs for schedulers that run an hvbench command on several hosts: an sbatch script, a Kubernetes MPIJob. Pure text.

Slurm: the script asks for hosts and lets the first run hvbench with `-H`; what ssh does elsewhere, `srun` does within the
allocation, so no host has to let another in. Kubernetes: a manifest of Kubeflow's MPI operator (kubeflow.org/v2beta1),
whose launcher runs the command under mpirun; JSON, which `kubectl apply -f` takes as it takes YAML.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hvbench.errors import UsageError
from hvbench.spec.messages import shorten

NAME = re.compile(r"[a-z]([-a-z0-9]{0,40}[a-z0-9])?")  # what Kubernetes allows, and Slurm takes
GPUS = "nvidia.com/gpu"  # what NVIDIA's device plugin calls them
OPTION = re.compile(r"[A-Za-z][\w-]*(=[^\n\r]*)?")

SLURM = """#!/bin/bash
{directives}
set -euo pipefail
cd {folder}

# hvbench reaches the other hosts of this job by srun, in place of ssh: HVBENCH_SSH is called with a host and a command.
on_host=$(mktemp)
trap 'rm -f "$on_host"' EXIT
cat > "$on_host" <<'END'
#!/bin/sh
host=$1
shift
exec srun --overlap --nodes=1 --ntasks=1 --nodelist="$host" sh -c "$*"
END
chmod +x "$on_host"
export HVBENCH_SSH="$on_host"

hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed 's/$/:{ranks_per_host}/' | paste -sd, -)
HVBENCH_HOSTS="$hosts" {command}
"""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What is run where; `command` is hvbench's words, the program first."""

    name: str
    command: tuple[str, ...]
    hosts: int
    ranks_per_host: int
    cores_per_rank: int
    gpus_per_rank: int = 0
    minutes: int
    folder: str
    options: tuple[str, ...] = ()  # of the scheduler, NAME or NAME=VALUE
    image: str | None = None  # of the containers, for Kubernetes


def check(submission: Submission) -> None:
    """Raise UsageError for a name or an option that no scheduler takes."""
    if not NAME.fullmatch(submission.name):
        raise UsageError(
            f"--name {shorten(submission.name)}: must be lower-case letters, digits and dashes, such as hvbench-batch"
        )
    for option in submission.options:
        if not OPTION.fullmatch(option):
            raise UsageError(f"--option {shorten(option)}: must be NAME or NAME=VALUE, such as partition=short")


def render_slurm(submission: Submission) -> str:
    """An sbatch script; raises UsageError."""
    check(submission)
    facts = {
        "job-name": submission.name,
        "nodes": submission.hosts,
        "ntasks-per-node": submission.ranks_per_host,
        "cpus-per-task": submission.cores_per_rank,
        **({"gpus-per-node": gpus} if (gpus := submission.ranks_per_host * submission.gpus_per_rank) else {}),
        "time": submission.minutes,
        "output": f"{submission.name}-%j.log",
    }
    given = [option.partition("=")[0] for option in submission.options]
    lines = [f"--{name}={value}" for name, value in facts.items() if name not in given]
    return SLURM.format(
        directives="\n".join(f"#SBATCH {line}" for line in [*lines, *(f"--{option}" for option in submission.options)]),
        folder=shlex.quote(submission.folder),
        ranks_per_host=submission.ranks_per_host,
        command=shlex.join(submission.command),
    )


def render_kubernetes(submission: Submission) -> str:
    """An MPIJob of Kubeflow's MPI operator as JSON; raises UsageError."""
    check(submission)
    if not submission.image:
        raise UsageError("--image: Kubernetes runs containers: name an image with hvbench and its Horovod in it")
    if submission.options:
        raise UsageError("--option: the manifest is yours to edit; options are Slurm's")
    ranks = submission.hosts * submission.ranks_per_host
    cores = str(submission.ranks_per_host * submission.cores_per_rank)
    launcher = {
        "command": ["mpirun", "--allow-run-as-root", "-np", str(ranks), *submission.command]
    }  # as containers do
    given = {"cpu": cores}
    if submission.gpus_per_rank:
        given[GPUS] = str(submission.ranks_per_host * submission.gpus_per_rank)
    worker = {"resources": {"requests": given, "limits": given}}
    manifest = {
        "apiVersion": "kubeflow.org/v2beta1",
        "kind": "MPIJob",
        "metadata": {"name": submission.name},
        "spec": {
            "slotsPerWorker": submission.ranks_per_host,
            "runPolicy": {
                "cleanPodPolicy": "Running",
                "activeDeadlineSeconds": 60 * submission.minutes,
                "backoffLimit": 0,
            },
            "mpiReplicaSpecs": {
                "Launcher": _replicas(1, {"name": "launcher", "image": submission.image, **launcher}),
                "Worker": _replicas(submission.hosts, {"name": "worker", "image": submission.image, **worker}),
            },
        },
    }
    return json.dumps(manifest, indent=2) + "\n"


def _replicas(count: int, container: dict[str, Any]) -> dict[str, Any]:
    return {"replicas": count, "restartPolicy": "Never", "template": {"spec": {"containers": [container]}}}


RENDERERS = {"slurm": render_slurm, "kubernetes": render_kubernetes}


def render(scheduler: str, submission: Submission) -> str:
    """The job for that scheduler; raises UsageError."""
    return RENDERERS[scheduler](submission)


def program_words(executable: str, words: Sequence[str]) -> tuple[str, ...]:
    """hvbench as this interpreter runs it, whatever PATH says on the hosts of a job."""
    return (executable, "-P", "-c", "from hvbench.cli import main; main()", *words)

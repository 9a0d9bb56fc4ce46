"""Jobs for schedulers: what they ask for, that nothing in them can break out of its place, and that they are well-formed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

from hvbench.cli.group import hvbench
from hvbench.errors import UsageError
from hvbench.launch.submit import Submission, render_kubernetes, render_slurm

SCHEMA = json.loads(Path(__file__).with_name("mpijob_schema.json").read_text())
JOB = Submission(
    name="hvbench", command=("/opt/my env/bin/python", "-c", "main()", "sweep", "a suite's.toml"), hosts=2, ranks_per_host=4,
    cores_per_rank=3, minutes=90, folder="/shared/my runs",
)  # fmt: skip


def change(**fields: object) -> Submission:
    return Submission(**(vars(JOB) | fields))


def test_a_slurm_job_asks_for_its_hosts_and_is_a_script(tmp_path: Path) -> None:
    text = render_slurm(change(options=("partition=short", "time=5", "exclusive")))
    directives = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]
    assert directives == [
        "--job-name=hvbench", "--nodes=2", "--ntasks-per-node=4", "--cpus-per-task=3", "--output=hvbench-%j.log",
        "--partition=short", "--time=5", "--exclusive",
    ]  # fmt: skip
    assert "cd '/shared/my runs'" in text
    assert text.splitlines()[0] == "#!/bin/bash" and text.splitlines()[1].startswith("#SBATCH"), "before any command"
    script = tmp_path / "job.sh"
    script.write_text(text)
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_words_stay_words_in_the_shell(tmp_path: Path) -> None:
    last = render_slurm(change(command=("printf", "%s|", "a b", "it's", "$HOME", ";id"))).splitlines()[-1]
    command = last.split('HVBENCH_HOSTS="$hosts" ')[1]
    assert subprocess.run(["bash", "-c", command], capture_output=True, text=True).stdout == "a b|it's|$HOME|;id|"


def test_an_mpi_job_has_the_shape_of_kubeflows_schema() -> None:
    manifest = json.loads(render_kubernetes(change(image="me/hvbench:1", command=("hvbench", "sweep", "batch"))))
    assert (manifest["apiVersion"], manifest["kind"], manifest["metadata"]) == (
        "kubeflow.org/v2beta1",
        "MPIJob",
        {"name": "hvbench"},
    )
    jsonschema.validate(manifest, SCHEMA)
    spec = manifest["spec"]
    assert spec["slotsPerWorker"] == 4 and spec["runPolicy"]["activeDeadlineSeconds"] == 5400
    launcher, worker = (spec["mpiReplicaSpecs"][name] for name in ("Launcher", "Worker"))
    assert (launcher["replicas"], worker["replicas"]) == (1, 2)
    (container,) = launcher["template"]["spec"]["containers"]
    assert container["command"] == ["mpirun", "--allow-run-as-root", "-np", "8", "hvbench", "sweep", "batch"]
    assert worker["template"]["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "12"}


def test_ranks_get_their_gpus_on_each_host() -> None:
    assert "#SBATCH --gpus-per-node=8\n" in render_slurm(change(gpus_per_rank=2))
    manifest = json.loads(render_kubernetes(change(image="me/hvbench:gpu", gpus_per_rank=2)))
    jsonschema.validate(manifest, SCHEMA)
    launcher, worker = (manifest["spec"]["mpiReplicaSpecs"][name] for name in ("Launcher", "Worker"))
    (container,) = worker["template"]["spec"]["containers"]
    assert container["resources"] == dict.fromkeys(("requests", "limits"), {"cpu": "12", "nvidia.com/gpu": "8"})
    assert "resources" not in launcher["template"]["spec"]["containers"][0], "it trains nothing"


def test_a_field_that_kubeflow_does_not_know_would_be_seen() -> None:
    manifest = json.loads(render_kubernetes(change(image="me/hvbench:1")))
    manifest["spec"]["mpiReplicaSpecs"]["Worker"]["replica"] = 2
    with pytest.raises(jsonschema.ValidationError, match="replica"):
        jsonschema.validate(manifest, SCHEMA)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "my job"}, "--name"),
        ({"name": "job\n#SBATCH --uid=0"}, "--name"),
        ({"options": ("partition=short\n#SBATCH --uid=0",)}, "--option"),
        ({"options": ("-p short",)}, "--option"),
    ],
)
def test_what_could_break_out_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        render_slurm(change(**fields))


def test_kubernetes_needs_an_image() -> None:
    with pytest.raises(UsageError, match="--image"):
        render_kubernetes(JOB)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scheduler", "pbs", "--", "sweep"], "pbs"),
        (["--scheduler", "slurm", "--", "report", "x"], "launches nothing"),
        (["--scheduler", "slurm", "--", "sweep", "--np", "2"], "leave --np and -H out"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(hvbench, ["submit", *arguments])
    assert result.exit_code == 2 and message in result.output


def test_the_command_line_writes_the_script(tmp_path: Path) -> None:
    out = tmp_path / "job.sh"
    words = [
        "submit",
        "--scheduler",
        "slurm",
        "--ranks-per-host",
        "2",
        "--time",
        "10m",
        "--out",
        str(out),
        "--",
        "sweep",
        "smoke",
        "-s",
        "steps=2",
    ]
    result = CliRunner().invoke(hvbench, words)
    assert result.exit_code == 0, result.output
    text = out.read_text()
    assert "#SBATCH --time=10" in text and text.rstrip().endswith("sweep smoke -s steps=2")

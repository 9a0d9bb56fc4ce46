"""A job that `hvbench submit` has written, run by a real Slurm on this machine: controller, daemon, sbatch, srun.

Needs root and Debian's slurm-wlm and munge; elsewhere it says what is missing and is left out.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvbench.records.store import RunFolder
from tests import patience

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "munged", "scontrol")
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
MISSING = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None] + (["root"] if os.geteuid() else [])
pytestmark = [
    pytest.mark.root,
    pytest.mark.long,
    pytest.mark.skipif(bool(MISSING), reason=f"no Slurm here: {', '.join(MISSING)}"),
]
CONFIG = """
ClusterName=hvbench
SlurmctldHost={host}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
ReturnToService=2
NodeName={host} CPUs={cores} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cluster of this one machine; its folder."""
    folder = tmp_path / "slurm"
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    for parent in [folder, *folder.parents]:  # munged has a user of its own, which has to reach its files
        if str(parent).startswith("/tmp/pytest"):
            parent.chmod(0o755)
    host = socket.gethostname().partition(".")[0]
    (folder / "slurm.conf").write_text(CONFIG.format(folder=folder, host=host, cores=len(os.sched_getaffinity(0))))
    monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{PATH}")
    munge = folder / "munge"
    munge.mkdir()
    (munge / "key").write_bytes(os.urandom(128))
    user = pwd.getpwnam("munge")
    for path in (munge, munge / "key"):
        os.chown(path, user.pw_uid, user.pw_gid)
        path.chmod(0o700 if path.is_dir() else 0o400)
    folder.chmod(0o777)
    options = [f"--socket={folder}/munge.socket", f"--key-file={munge}/key", f"--pid-file={munge}/pid"]
    options += [f"--log-file={munge}/log", f"--seed-file={munge}/seed", "--foreground", "--force"]
    processes = [subprocess.Popen(["munged", *options], user="munge", group="munge")]
    time.sleep(1)
    processes += [
        subprocess.Popen([name, "-D"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for name in ("slurmctld", "slurmd")
    ]
    try:
        deadline = time.monotonic() + patience.SECONDS
        while "idle" not in subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True).stdout:
            assert time.monotonic() < deadline, (folder / "slurmctld.log").read_text()[-2000:]
            time.sleep(0.5)
        yield folder
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(timeout=patience.SECONDS)


def test_sbatch_finishes_a_sweep_of_two_ranks(slurm: Path, tmp_path: Path) -> None:
    words = [
        "hvbench",
        "submit",
        "--scheduler",
        "slurm",
        "--ranks-per-host",
        "2",
        "--time",
        "15m",
        "--out",
        "job.sh",
        "--",
    ]
    words += ["sweep", "smoke", "-s", "precision=fp32", "-s", "compression=none", "--no-parity", "--out", "run"]
    subprocess.run(words, cwd=tmp_path, check=True)
    done = subprocess.run(["sbatch", "--wait", "job.sh"], cwd=tmp_path, capture_output=True, text=True, timeout=900)
    log = "".join(path.read_text() for path in tmp_path.glob("hvbench-*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + log
    records, problems = RunFolder(tmp_path / "run").read_records()
    assert problems == [] and {record.point.framework for record in records} == {"pytorch", "tensorflow"}
    assert {record.outcome.status for record in records} == {"ok"}
    assert all([rank.rank for rank in record.ranks] == [0, 1] for record in records)


def test_srun_does_what_ssh_does_elsewhere(slurm: Path, tmp_path: Path) -> None:
    """The script's stand-in for ssh, asked for a command on a host of the job, with something on its standard input."""
    words = ["hvbench", "submit", "--scheduler", "slurm", "--out", "job.sh", "--", "sweep", "smoke"]
    subprocess.run(words, cwd=tmp_path, check=True)
    text = (tmp_path / "job.sh").read_text()
    probe = f'echo "from stdin" | "$HVBENCH_SSH" {socket.gethostname().partition(".")[0]} "cd {tmp_path} && cat > heard && pwd"\n'
    (tmp_path / "job.sh").write_text(text[: text.index("hosts=$(")] + probe)
    done = subprocess.run(["sbatch", "--wait", "job.sh"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    log = "".join(path.read_text() for path in tmp_path.glob("hvbench-*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + log
    assert (tmp_path / "heard").read_text() == "from stdin\n" and str(tmp_path) in log

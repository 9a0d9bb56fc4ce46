"""Several hosts: network namespaces with addresses, names and ssh servers of their own, and links that are shaped or cut.

Needs root, iproute2 and OpenSSH's server; elsewhere these tests say what is missing and are left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hvbench.errors import UsageError
from hvbench.launch.lab import Lab, missing_requirements, open_lab
from hvbench.records.store import RunFolder
from tests import patience

SCRIPTS = Path(sys.executable).parent
MISSING = missing_requirements()
needs_lab = pytest.mark.skipif(bool(MISSING), reason=f"no lab here: {'; '.join(MISSING)}")
pytestmark = pytest.mark.root

SUITE = """
question = "Do several hosts train?"
[point]
model = "tiny"
num_layers = 1
micro_batch_size = 2
data = "synthetic"
[axes]
framework = {frameworks}
strategy = {strategies}
link_bits_per_second = {links}
compression = {compressions}
[measure]
warmup_steps = 2
steps = {steps}
"""


def write_suite(
    folder: Path,
    *,
    frameworks: tuple[str, ...] = ("pytorch",),
    links: tuple[int, ...],
    compressions: tuple[str, ...] = ("none",),
    strategies: tuple[str, ...] = ("horovod",),
    steps: int = 4,
) -> Path:
    path = folder / "hosts.toml"
    choices = {"frameworks": frameworks, "links": links, "compressions": compressions, "strategies": strategies}
    path.write_text(SUITE.format(**{name: json.dumps(list(values)) for name, values in choices.items()}, steps=steps))
    return path


@pytest.fixture
def lab(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """Two hosts, or as many as the test asks for."""
    monkeypatch.setenv("PATH", f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}")
    with open_lab(getattr(request, "param", 2)) as made:
        yield made


def run(
    lab: Lab, words: list[str], *, folder: Path, seconds: float = 550.0, ranks_per_host: int = 1
) -> subprocess.CompletedProcess[str]:
    process = lab.start(
        words, cwd=folder, ranks_per_host=ranks_per_host, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    output, errors = process.communicate(timeout=seconds)
    return subprocess.CompletedProcess(words, process.returncode, output, errors)


def test_a_machine_without_what_a_lab_needs_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", "/nowhere")
    with (
        pytest.raises(
            UsageError,
            match=r"no lab on this machine: network namespaces need root; ip is not installed \(Debian: iproute2\)",
        ),
        open_lab(),
    ):
        pass


@needs_lab
def test_hosts_are_apart_have_names_and_let_each_other_in_and_nothing_is_left(tmp_path: Path) -> None:
    with open_lab(2) as lab:
        ssh = ["ssh", *lab.ssh_options, "host2"]
        done = run(
            lab, [*ssh, "ip -brief address show eth0; nproc; cat /etc/hosts"], folder=tmp_path, seconds=patience.SECONDS
        )
        assert done.returncode == 0, done.stderr
        assert "10.99.0.2/24" in done.stdout and "10.99.0.1 host1" in done.stdout
        lab.set_link(1, is_up=False)
        cut = run(lab, [*ssh[:1], "-oConnectTimeout=1", *ssh[1:], "true"], folder=tmp_path, seconds=patience.SECONDS)
        assert cut.returncode == 255
        namespaces = [host.namespace for host in lab.hosts]
        left = lab.start(["sleep", "600"], host=1)
    assert left.wait(timeout=patience.SECONDS) == -9, "what still ran in there is ended"
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    assert not any(name in listed or Path("/etc/netns", name).exists() for name in namespaces)


@needs_lab
@pytest.mark.slow
def test_two_hosts_train_over_ssh_and_a_shaped_link_is_as_slow_as_it_says(lab: Lab, tmp_path: Path) -> None:
    link = 2_000_000
    suite = write_suite(tmp_path, links=(link,), strategies=("horovod", "parameter_server"))
    done = run(lab, ["hvbench", "sweep", str(suite), "--no-parity", "--no-report", "--out", "run"], folder=tmp_path)
    assert done.returncode == 0, done.stderr
    records, problems = RunFolder(tmp_path / "run").read_records()
    record, served = sorted(records, key=lambda record: record.point.strategy)
    for each in (record, served):
        assert problems == [] and each.outcome.status == "ok"
        assert [rank.host for rank in each.ranks] == ["host1", "host2"]
        assert [rank.local_rank for rank in each.ranks] == [0, 0]
    assert served.ranks[1].loss == pytest.approx(record.ranks[1].loss, rel=2e-5), "the one server is on the other host"
    assert record.environment["horovod_settings"]["HOROVOD_GLOO_IFACE"] == "eth0"
    # Two ranks: all of the payload leaves each host in every step, in any step but the first few at the link's rate.
    wire_seconds = 8 * record.model.allreduce_bytes_per_step / link
    timed = record.ranks[0].step_seconds[record.warmup_steps :]
    assert sum(timed) > 0.8 * len(timed) * wire_seconds
    queues = run(lab, ["tc", "qdisc", "show", "dev", "eth0"], folder=tmp_path, seconds=patience.SECONDS).stdout
    assert "tbf" not in queues, "the link is as before"


@needs_lab
@pytest.mark.long
@pytest.mark.parametrize("lab", [4], indirect=True)
def test_four_hosts_train_both_frameworks_with_every_compression(lab: Lab, tmp_path: Path) -> None:
    suite = write_suite(
        tmp_path, frameworks=("pytorch", "tensorflow"), links=(50_000_000,), compressions=("none", "fp16", "bf16")
    )
    done = run(lab, ["hvbench", "sweep", str(suite), "--out", "run"], folder=tmp_path)
    assert done.returncode == 0, done.stderr
    records, _ = RunFolder(tmp_path / "run").read_records()
    assert len(records) == 6 and all(record.parity.is_proven for record in records)
    assert {tuple(rank.host for rank in record.ranks) for record in records} == {("host1", "host2", "host3", "host4")}


@needs_lab
@pytest.mark.long
@pytest.mark.parametrize("ranks_per_host", [1, 2])
def test_horovodrun_on_several_hosts(lab: Lab, tmp_path: Path, ranks_per_host: int) -> None:
    suite = write_suite(tmp_path, frameworks=("pytorch", "tensorflow"), links=(100_000_000,))
    hosts = ",".join(f"{host.address}:{ranks_per_host}" for host in lab.hosts)
    words = ["horovodrun", "--gloo", "-np", str(2 * ranks_per_host), "-H", hosts, "--network-interfaces", "eth0"]
    words += [
        "--ssh-identity-file",
        str(lab.folder / "key"),
        "hvbench",
        "sweep",
        str(suite),
        "--no-parity",
        "--out",
        "run",
    ]
    done = run(lab, words, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    records, _ = RunFolder(tmp_path / "run").read_records()
    assert len(records) == 2 and {record.outcome.status for record in records} == {"ok"}
    assert [rank.local_rank for rank in records[0].ranks] == list(range(ranks_per_host)) * 2


@needs_lab
@pytest.mark.long
def test_all_reduces_between_hosts(lab: Lab, tmp_path: Path) -> None:
    words = [
        "hvbench",
        "allreduce",
        "--controller",
        "gloo",
        "-b",
        "2MiB",
        "-e",
        "4MiB",
        "--link",
        "100Mbit",
        "--out",
        "run",
    ]
    done = run(lab, words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "link 100 Mbit/s" in done.stdout and "# pytorch gloo bf16: 2 ranks" in done.stdout
    best = max(float(line.split()[4]) for line in done.stdout.splitlines() if line.startswith("# Best bus bandwidth"))
    assert best < 2.5 * 0.1 / 8, "16 bits on the wire at most double what the link carries"


@needs_lab
@pytest.mark.long
def test_a_cable_that_is_pulled_costs_a_point_and_resume_completes(lab: Lab, tmp_path: Path) -> None:
    suite = write_suite(tmp_path, links=(3_000_000, 4_000_000), steps=40)
    words = ["hvbench", "sweep", str(suite), "--no-parity", "--timeout", "60", "--out", "run"]
    process = lab.start(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    log = tmp_path / "run" / "logs" / "generation0000-rank0.log"
    deadline = time.monotonic() + patience.SECONDS
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(15)  # the first point trains
    lab.set_link(1, is_up=False)
    output, _ = process.communicate(timeout=500)
    lab.set_link(1, is_up=True)
    assert process.returncode in (1, 5), output
    assert "Traceback" not in output
    records, problems = RunFolder(tmp_path / "run").read_records()
    assert problems == [] and records[0].outcome.status in ("failed", "timeout", "interrupted"), output
    # a host that was cut off learns by its keepalive that nobody needs it
    deadline = time.monotonic() + patience.SECONDS
    while (left := [run_on(lab, host, ["pgrep", "-f", "hvbench.worker"]) for host in (0, 1)]) != ["", ""]:
        assert time.monotonic() < deadline, left
        time.sleep(1)
    again = run(lab, [*words, "--resume"], folder=tmp_path)
    assert again.returncode == 0, again.stderr
    records, _ = RunFolder(tmp_path / "run").read_records()
    assert {record.outcome.status for record in records} == {"ok"} and len(records) == 2


def run_on(lab: Lab, host: int, words: list[str]) -> str:
    """What a command says that sees the processes of one host's namespace only."""
    pids = subprocess.run(
        ["ip", "netns", "pids", lab.hosts[host].namespace], capture_output=True, text=True
    ).stdout.split()
    found = subprocess.run(words, capture_output=True, text=True).stdout.split()
    return " ".join(sorted(set(pids) & set(found)))

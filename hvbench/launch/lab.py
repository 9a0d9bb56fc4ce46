"""Several hosts on one machine, to study the network: network namespaces, a switch between them, and real ssh.

Each host has an address, a name, an interface `eth0` whose rate may be shaped, an ssh server, and its share of the cores.
They share the machine's files, memory and clock, so what differs between them is the network alone. Needs Linux, root,
iproute2 and OpenSSH's server. Everything is gone when the block ends, processes that were started in it included.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hvbench.errors import LaunchError, UsageError
from hvbench.launch.link import VARIABLE as LINK_VARIABLE

MAX_HOSTS = 64
NETWORK = "10.99.0"  # within the namespaces alone; nothing leaves them
INTERFACE = "eth0"
SSHD_SECONDS = 10.0
SSHD_CONFIG = """
Port 22
ListenAddress {address}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
LogLevel ERROR
"""


@dataclass(frozen=True, kw_only=True)
class Host:
    """One of them, as the others see it."""

    name: str
    address: str
    namespace: str
    cores: tuple[int, ...]

    def command(self, words: Sequence[str]) -> list[str]:
        """`words`, to be run on this host."""
        cores = ",".join(map(str, self.cores))
        return ["ip", "netns", "exec", self.namespace, "taskset", "--cpu-list", cores, *words]


@dataclass(frozen=True, kw_only=True)
class Lab:
    """All hosts, and how a program on the first reaches the others."""

    hosts: tuple[Host, ...]
    folder: Path

    def environment(self, *, ranks_per_host: int = 1) -> dict[str, str]:
        """What `hvbench` on the first host needs to know: the hosts, the ssh, and the link that it may shape."""
        return {
            "HVBENCH_HOSTS": ",".join(f"{host.name}:{ranks_per_host}" for host in self.hosts),
            "HVBENCH_SSH": " ".join(["ssh", *self.ssh_options]),
            LINK_VARIABLE: INTERFACE,
        }

    @property
    def ssh_options(self) -> tuple[str, ...]:
        """A key that these hosts accept, and no memory of theirs."""
        files = (f"-i{self.folder}/key", "-oUserKnownHostsFile=/dev/null", "-oStrictHostKeyChecking=no")
        return ("-F/dev/null", *files, "-oIdentitiesOnly=yes", "-oBatchMode=yes", "-oLogLevel=ERROR")

    def start(
        self, words: Sequence[str], *, host: int = 0, ranks_per_host: int = 1, **options: object
    ) -> subprocess.Popen[str]:
        """Start a command on a host, with the lab's environment."""
        environment = {**os.environ, **self.environment(ranks_per_host=ranks_per_host)}
        return subprocess.Popen(self.hosts[host].command(words), env=environment, text=True, **options)

    def set_link(self, host: int, *, is_up: bool) -> None:
        """Plug a host's cable in, or pull it."""
        words = ["ip", "link", "set", INTERFACE, "up" if is_up else "down"]
        run_ip("netns", "exec", self.hosts[host].namespace, *words)


def missing_requirements() -> list[str]:
    """What this machine lacks for a lab, a line each; empty when it can have one."""
    missing = []
    if os.geteuid() != 0:
        missing.append("network namespaces need root")
    for program, package in (
        ("ip", "iproute2"),
        ("tc", "iproute2"),
        ("taskset", "util-linux"),
        ("ssh", "openssh-client"),
    ):
        if shutil.which(program) is None:
            missing.append(f"{program} is not installed (Debian: {package})")
    if find_sshd() is None:
        missing.append("sshd is not installed (Debian: openssh-server)")
    return missing


def find_sshd() -> str | None:
    """The ssh server; it insists on being called by its full path."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def open_lab(hosts: int = 2) -> Iterator[Lab]:
    """Make a lab of that many hosts; raises UsageError where it is not possible, LaunchError when it fails."""
    if not 1 <= hosts <= MAX_HOSTS:
        raise UsageError(f"a lab has between 1 and {MAX_HOSTS} hosts, not {hosts}")
    if missing := missing_requirements():
        raise UsageError(f"no lab on this machine: {'; '.join(missing)}")
    prefix = f"hvlab{os.getpid()}"
    cores = sorted(os.sched_getaffinity(0))
    members = tuple(
        Host(
            name=f"host{number}",
            address=f"{NETWORK}.{number}",
            namespace=f"{prefix}-{number}",
            cores=tuple(cores[number - 1 :: hosts]) or (cores[(number - 1) % len(cores)],),
        )
        for number in range(1, hosts + 1)
    )
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="hvbench-lab-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        lab = Lab(hosts=members, folder=folder)
        _make_keys(folder)
        switch = f"{prefix}-0"
        _add_namespace(stack, switch, names="")
        run_ip("-n", switch, "link", "add", "switch", "type", "bridge")
        run_ip("-n", switch, "link", "set", "switch", "up")
        names = "127.0.0.1 localhost\n" + "".join(f"{host.address} {host.name}\n" for host in members)
        for number, host in enumerate(members, start=1):
            _add_namespace(stack, host.namespace, names=names)
            port = f"port{number}"
            run_ip(
                "-n", switch, "link", "add", port, "type", "veth", "peer", "name", INTERFACE, "netns", host.namespace
            )
            run_ip("-n", switch, "link", "set", port, "master", "switch", "up")
            run_ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", INTERFACE)
            run_ip("-n", host.namespace, "link", "set", "lo", "up")
            run_ip("-n", host.namespace, "link", "set", INTERFACE, "up")
        for host in members:
            _start_sshd(stack, host, folder=folder)
        yield lab


def _add_namespace(stack: contextlib.ExitStack, name: str, *, names: str) -> None:
    """A namespace with a hosts file of its own; both go when the stack unwinds, its processes first."""
    settings = Path("/etc/netns") / name
    settings.mkdir(parents=True, exist_ok=True)
    stack.callback(shutil.rmtree, settings, ignore_errors=True)
    (settings / "hosts").write_text(names, encoding="utf-8")
    run_ip("netns", "add", name)
    stack.callback(_remove_namespace, name)


def _remove_namespace(name: str) -> None:
    for _ in range(10):
        pids = subprocess.run(
            ["ip", "netns", "pids", name], capture_output=True, text=True, errors="replace"
        ).stdout.split()
        if not pids:
            break
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.05)
    subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def _make_keys(folder: Path) -> None:
    for name in ("key", "host_key"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(words, check=True, stdin=subprocess.DEVNULL)


def _start_sshd(stack: contextlib.ExitStack, host: Host, *, folder: Path) -> None:
    """An ssh server that listens on the host's address alone; raises LaunchError when it does not answer."""
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd insists on it
    config = folder / f"sshd-{host.name}"
    config.write_text(SSHD_CONFIG.format(address=host.address, folder=folder), encoding="utf-8")
    log = (folder / f"sshd-{host.name}.log").open("w", encoding="utf-8")
    stack.callback(log.close)
    words = host.command([find_sshd() or "sshd", "-D", "-e", "-f", str(config)])
    server = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    stack.callback(_end, server)
    deadline = time.monotonic() + SSHD_SECONDS
    probe = host.command(["ss", "--no-header", "--listening", "--tcp", "--numeric", "sport = :22"])
    while not subprocess.run(probe, capture_output=True, text=True, errors="replace").stdout.strip():
        if server.poll() is not None or time.monotonic() > deadline:
            said = Path(log.name).read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise LaunchError(f"sshd on {host.name} does not start: {said[-1] if said else 'no message'}")
        time.sleep(0.02)


def _end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()


def run_ip(*words: str) -> None:
    """`ip WORDS`; raises LaunchError with its message."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    if done.returncode:
        raise LaunchError(f"ip {' '.join(words)}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")

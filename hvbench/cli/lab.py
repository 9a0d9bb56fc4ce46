"""`hvbench lab`: run a command on several hosts that are made for it on this machine."""

from __future__ import annotations

import click


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--hosts", type=click.IntRange(1, 64), default=2, show_default=True, help="Hosts to make.")
@click.option(
    "--ranks-per-host",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="What -H says by default in there.",
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def lab(hosts: int, ranks_per_host: int, command: tuple[str, ...]) -> int:
    """Run COMMAND on the first of several hosts that are made for it on this machine: network namespaces and real ssh.

    \b
    hvbench lab -- hvbench sweep network              step time against the bandwidth of the link
    hvbench lab --hosts 4 -- hvbench allreduce --controller gloo --link 1Gbit

    Needs Linux, root, iproute2 and openssh-server. Each host has its share of the cores.
    """
    import signal

    from hvbench.io.signals import handling
    from hvbench.launch.lab import open_lab

    with open_lab(hosts) as made:
        process = made.start(command, ranks_per_host=ranks_per_host)
        # Ctrl-C reaches the command directly, and the command decides. A signal sent to this process alone is passed on
        # to the command, so that the lab is taken down only after the command has ended.
        passed_on = dict.fromkeys((signal.SIGTERM, signal.SIGHUP), lambda number, frame: process.send_signal(number))
        with handling({signal.SIGINT: signal.SIG_IGN, **passed_on}):
            code = process.wait()
    return code if code >= 0 else 128 - code

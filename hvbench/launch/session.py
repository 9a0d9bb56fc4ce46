"""A launch from its begin to its end: rank 0 gets a Coordinator, every other rank serves as an agent and leaves."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

from hvbench.errors import Interrupted, LaunchError, UsageError
from hvbench.launch.agent import Agent, run_agent
from hvbench.launch.bootstrap import publish
from hvbench.launch.channel import Hub, connect
from hvbench.launch.context import Context, detect_context, forget_launcher
from hvbench.launch.coordinator import Coordinator
from hvbench.launch.host_list import bare_name, parse_hosts
from hvbench.launch.messages import Quit
from hvbench.launch.parent import find_launchers, watching
from hvbench.launch.settings import chosen_threads, require_horovod_settings
from hvbench.launch.task import GO_ON
from hvbench.records.environment import usable_cores
from hvbench.records.float32 import require_ieee_float32

END_SECONDS = 10.0
MAX_RANKS_PER_CORE = 32
SAME_REQUEST_SECONDS = 1.0  # a terminal and a launcher may both pass one Ctrl-C on, as two signals


def resolve_context(np: int | None) -> Context:
    """Who launched this process; with no launcher, a launch by hvbench itself of `np` ranks, or on $HVBENCH_HOSTS (`-H`).

    Raises UsageError.
    """
    context, hosts = detect_context(), os.environ.get("HVBENCH_HOSTS")
    if context.launcher == "srun":  # each task would run everything by itself
        raise UsageError(
            f"srun has started {context.size} tasks and does not tell them how to find each other: give srun --mpi=pmix "
            f"or --mpi=pmi2, or start one task and --np {context.size}, or let hvbench submit write the job"
        )
    if context.launcher == "none":
        forget_launcher()
    if context.launcher == "none" and hosts:
        ranks = parse_hosts(hosts)
        if np is not None and not 1 <= np <= len(ranks):
            raise UsageError(f"--np {np}: must be between 1 and {len(ranks)}, the ranks of -H {hosts}")
        chosen = tuple(ranks[: np or len(ranks)])
        os.environ["HOROVOD_HOSTNAME"] = bare_name(chosen[0])  # the name by which this host is one of them
        return replace(context, size=len(chosen), is_single_host=len(set(chosen)) == 1, hosts=chosen)
    if context.launcher == "none":
        most = MAX_RANKS_PER_CORE * usable_cores()
        if np is not None and not 1 <= np <= most:
            raise UsageError(
                f"--np {np}: must be between 1 and {most} ({MAX_RANKS_PER_CORE} ranks a core on this host)"
            )
        return replace(context, size=np or 1)
    if np is not None and np != context.size:
        raise UsageError(f"--np {np}: the launcher has started {context.size} ranks; leave --np out")
    return context


class Launch:
    """A launch in the hands of rank 0, which opens it once or dismisses it."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._is_over = False

    @property
    def world_size(self) -> int:
        """How many ranks there are."""
        return self.context.size

    @contextlib.contextmanager
    def open(self, *, run_path: Path) -> Iterator[Coordinator]:
        """Bring the ranks together; see `open_launch`."""
        self._is_over = True
        with open_launch(self.context, run_path=run_path) as coordinator:
            yield coordinator

    def dismiss(self) -> None:
        """Let the other ranks leave, if they still wait: there is nothing for them to do."""
        if not self._is_over:
            self._is_over = True
            dismiss(self.context)


@contextlib.contextmanager
def join_launch(np: int | None) -> Iterator[Launch | None]:
    """Rank 0: yield the launch that this process was started in, or is to start `np` ranks of. Other ranks: serve, yield None.

    A launch that was not opened in the block, because of a mistake in the arguments or because nothing was left to do,
    is dismissed at its end: the launcher's other ranks wait for that.

    Args:
        np: ranks to launch on this host; None under a launcher, which says how many there are.

    Raises:
        UsageError: `np` is out of bounds, or is not what the launcher has started; or the environment changes what fp32 is, or
            has a setting that Horovod would misread, ignore or die of, or no number of threads.
    """
    context = resolve_context(np)
    if not context.is_first:
        run_agent(context)  # until the launch ends
        yield None
        return
    launch = Launch(context)
    try:
        require_ieee_float32()
        require_horovod_settings(is_launched=context.launcher != "none")
        chosen_threads()
        yield launch
    finally:
        launch.dismiss()


@contextlib.contextmanager
def open_launch(context: Context, *, run_path: Path) -> Iterator[Coordinator]:
    """Rank 0: bring the ranks together and yield their Coordinator; at the end nothing is left running.

    Ctrl-C, SIGTERM or SIGHUP raises Interrupted where rank 0 waits for its ranks; a second one ends the process at once.
    """
    hub = Hub(is_single_host=context.is_single_host, backlog=context.size)
    with interruptible(hub), watching(find_launchers(context), lambda: hub.interrupt(f"the launcher is gone; {GO_ON}")):
        try:
            agent = Agent(connect(hub.address), rank=0)
        except OSError as error:
            raise LaunchError(f"rank 0: no folder for temporary files: {error}") from None
        own = threading.Thread(target=agent.run, name="hvbench-agent", daemon=True)
        own.start()
        launched = publish(hub.address, context)
        coordinator = Coordinator(hub, context, run_path=run_path)
        try:
            coordinator.wait_for_members(check=lambda: require_alive(launched, hosts=context.hosts))
            yield coordinator
        finally:
            coordinator.quit()
            own.join(timeout=END_SECONDS)
            for process in launched:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=END_SECONDS)
                process.kill()
                process.wait()
            hub.close()


def require_alive(launched: list[subprocess.Popen], *, hosts: Sequence[str] = ()) -> None:
    """Raise LaunchError when an agent that hvbench has started itself is gone before it joined."""
    for rank, process in enumerate(launched, start=1):
        if process.poll() is not None:
            where = f" on {hosts[rank]}" if hosts else ""
            why = (
                " (255 is ssh's own: can it log in there without a question?)"
                if hosts and process.returncode == 255
                else ""
            )
            raise LaunchError(
                f"rank {rank}{where}: its agent ended with code {process.returncode} before it joined{why}"
            )


def dismiss(context: Context) -> None:
    """Rank 0: end a launch that has nothing to do (a mistake in the arguments), so that the other ranks leave too."""
    if context.launcher == "none" or context.size == 1:
        return
    hub = Hub(is_single_host=context.is_single_host, backlog=context.size)
    publish(hub.address, context)
    left = set(range(1, context.size))
    while left and (received := hub.receive(END_SECONDS)) is not None:
        hub.send(received[0], Quit())
        left.discard(received[0])
    hub.close()


@contextlib.contextmanager
def interruptible(hub: Hub) -> Iterator[None]:
    """Turn the first SIGINT, SIGTERM or SIGHUP into Interrupted at `hub.receive`, and the second into an immediate end.

    SIGHUP (a terminal or connection that is gone) stays ignored where `nohup` asked for that.
    """
    first: dict[str, float] = {}

    def interrupt(number: int, frame: FrameType | None) -> None:
        name, now = signal.Signals(number).name, time.monotonic()
        if not first:
            hub.interrupt(f"stopped by {name}; {GO_ON}")
        elif name in first or now - min(first.values()) > SAME_REQUEST_SECONDS:
            os._exit(Interrupted.exit_code)
        first[name] = now

    caught = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        caught.append(signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in caught}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

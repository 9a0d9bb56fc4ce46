"""Signals to rank 0: the first asks it to stop, at the place where it waits; `nohup` is respected."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from hvbench.errors import Interrupted
from hvbench.launch.channel import Hub
from hvbench.launch.session import interruptible

SECONDS = 30.0


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub(is_single_host=True, backlog=1)
    yield hub
    hub.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_raised_where_rank_0_waits(hub: Hub, number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # the tests themselves may run under nohup
    try:
        with interruptible(hub):
            os.kill(os.getpid(), number)
            with pytest.raises(
                Interrupted, match=f"^stopped by {number.name}; what was measured is safe, go on with --resume$"
            ):
                hub.receive(SECONDS)
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_a_terminal_that_goes_away_stops_nothing_under_nohup(hub: Hub) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible(hub):
            os.kill(os.getpid(), signal.SIGHUP)
            assert hub.receive(0.2) is None
    finally:
        signal.signal(signal.SIGHUP, before)

"""The doctor says when the Horovod that is installed is not the mended one, and what to do."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from hvbench.install import decide, detect
from hvbench.plan.doctor import examine_horovod, examine_ranks
from hvbench.records.environment import usable_cores

STACK = detect()


def test_what_hvbench_builds_here_is_good() -> None:
    for cuda in (None, False):
        installed = replace(STACK.horovod, version=decide(STACK, cuda=cuda).version)
        finding = examine_horovod(replace(STACK, horovod=installed))
        assert finding.is_good and finding.remedy is None


@pytest.mark.parametrize("version", ["0.28.1", "0.28.1+hvbench000000000000"])
def test_any_other_may_sum_wrongly(version: str) -> None:
    finding = examine_horovod(replace(STACK, horovod=replace(STACK.horovod, version=version)))
    assert not finding.is_good and not finding.is_required
    assert finding.fact.startswith(version) and "float16" in finding.fact
    assert finding.remedy == "hvbench install-horovod"


def test_ranks_are_said_to_reach_what_they_reach_together() -> None:
    """On two cores and more, a number of ranks and a factor; cores may share what multiplies, whatever the kernel says."""
    checks = examine_ranks()
    assert len(checks) == (usable_cores() > 1)
    for check in checks:
        factor = rf"{usable_cores()} ranks together reach \d+\.\d times one rank's matrix products on the CPU "
        assert check.is_good and re.fullmatch(
            rf"{factor}\(\d+\.\d to \d+\.\d in 3 rounds, numpy, just now.*\)", check.fact
        )


def test_none_at_all_is_required() -> None:
    finding = examine_horovod(replace(STACK, horovod=None))
    assert finding.is_required and not finding.is_good and finding.remedy == "hvbench install-horovod"

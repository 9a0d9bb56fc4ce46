"""The doctor says when the Horovod that is installed is not the mended one, and what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hvbench.install import decide, detect
from hvbench.plan.doctor import examine_horovod

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


def test_none_at_all_is_required() -> None:
    finding = examine_horovod(replace(STACK, horovod=None))
    assert finding.is_required and not finding.is_good and finding.remedy == "hvbench install-horovod"

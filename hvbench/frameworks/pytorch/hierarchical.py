"""A two-level all-reduce in PyTorch: within each host, then between the hosts, each rank with its share of the gradients.

A ring over all ranks passes every host's link 2 (n - 1) / n times the payload, whatever number of the n ranks share the host. Here the
ranks of a host sum among themselves first (each gets its part of all, and adds), so that 2 (h - 1) / h times the payload leaves a host of h; then each
gathers the others' shares (all-gather). Of one rank a host it is a ring over the hosts, on one host parts and an all-gather.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import horovod.torch as hvd
import torch

from hvbench.frameworks.pytorch.operations import start_gather, start_parts, start_reduction, wait
from hvbench.frameworks.pytorch.ranks import Levels


class _Stage(NamedTuple):
    """What happens to a gradient on one level: `begin` sends its values, `end` makes of what arrived, and of the gradient's dtype, those of the next stage."""

    begin: Callable[[str, torch.Tensor], int]
    end: Callable[[torch.Tensor, torch.dtype], torch.Tensor]


class HierarchicalAllReduce:
    """Average gradients over the ranks, level by level; the sums of both levels are divided at the end."""

    def __init__(self, levels: Levels, *, compressor: type[hvd.compression.Compressor]) -> None:
        self.compressor = compressor
        self.levels = levels
        self.host_size, hosts = (1 if each is None else each.size() for each in (levels.host, levels.between))
        self.world_size = self.host_size * hosts
        self.stages: list[_Stage] = []
        if levels.host:
            self.stages.append(_Stage(self._hand_out_in_host, self._sum_parts))
        if levels.between:
            self.stages.append(_Stage(self._sum_between_hosts, _keep))
        if levels.host:
            self.stages.append(_Stage(self._gather_in_host, _keep))
        self.pending: dict[str, _Running] = {}

    def start(self, name: str, gradient: torch.Tensor) -> None:
        """Begin with one gradient, and go on with those whose stage has ended: the slow link is busy while the backward pass runs."""
        for other, running in self.pending.items():
            if running.stage < len(self.stages) and hvd.poll(running.handle):
                self._go_on(other, running)
        wire, context = self.compressor.compress(gradient)
        padded = torch.nn.functional.pad(wire.flatten(), (0, -gradient.numel() % self.host_size))
        self.pending[name] = _Running(gradient, context, handle=self.stages[0].begin(name, padded))

    def finish(self) -> dict[str, torch.Tensor]:
        """Wait for all that were started; canonical name -> average."""
        for stage in range(len(self.stages)):
            for name, running in self.pending.items():
                if running.stage == stage:
                    self._go_on(name, running)
        averages = {name: self._average(running) for name, running in self.pending.items()}
        self.pending = {}
        return averages

    def _go_on(self, name: str, running: _Running) -> None:
        """Wait for the end of a gradient's stage, and begin its next one."""
        running.value = self.stages[running.stage].end(wait(running.handle), running.gradient.dtype)
        running.stage += 1
        if running.stage < len(self.stages):
            running.handle = self.stages[running.stage].begin(name, running.value)

    def _average(self, running: _Running) -> torch.Tensor:
        total = self.compressor.decompress(running.value[: running.gradient.numel()], running.context)
        return total.div_(self.world_size).view_as(running.gradient)

    def _hand_out_in_host(self, name: str, values: torch.Tensor) -> int:
        return start_parts(f"{name}.host", values, process_set=self.levels.host)

    def _sum_parts(self, parts: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The sum of this rank's part of the gradients of all ranks of the host, one behind the other; fp16 is added in float32."""
        return parts.view(self.host_size, -1).sum(0, dtype=dtype).to(parts.dtype)

    def _sum_between_hosts(self, name: str, values: torch.Tensor) -> int:
        return start_reduction(f"{name}.between", values, op=hvd.Sum, process_set=self.levels.between)

    def _gather_in_host(self, name: str, values: torch.Tensor) -> int:
        return start_gather(f"{name}.gather", values, process_set=self.levels.host)


def _keep(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return values


class _Running:
    """A gradient on its way: the number of stages that have ended, the last one's result, and the handle of the one that runs."""

    def __init__(self, gradient: torch.Tensor, context: torch.dtype | None, *, handle: int) -> None:
        self.gradient = gradient
        self.context = context
        self.handle = handle
        self.value = gradient
        self.stage = 0

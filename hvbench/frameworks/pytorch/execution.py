"""How parts of the model run in PyTorch: recomputed in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def recomputed(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """`function` of one tensor, of which a forward pass keeps only that tensor: the backward pass computes the rest again.

    Dropout draws the same masks again. (Chen et al., arXiv:1604.06174)
    """
    return lambda x: _Recomputation(function, x).run() if torch.is_grad_enabled() else function(x)


class _Recomputation:
    """One call of a function: its input, and what autograd saved of it, which is computed when it is first read.

    `torch.utils.checkpoint` does the same, and loads PyTorch's compiler: 90 MB, and more time than PyTorch itself.
    """

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> None:
        self.function = function
        self.x = x
        self.random = _random_state(x.device)
        self.saved = 0  # tensors that the forward pass would have kept
        self.values: dict[int, torch.Tensor] = {}  # number of such a tensor -> its value

    def run(self) -> torch.Tensor:
        """The function's result; autograd keeps numbers in place of tensors."""
        x, self.x = self.x, self.x.detach()  # no reference to the graph that refers to this object
        with torch.autograd.graph.saved_tensors_hooks(self._number, self._value):
            return self.function(x)

    def _number(self, tensor: torch.Tensor) -> int:
        self.saved += 1
        return self.saved - 1

    def _value(self, number: int) -> torch.Tensor:
        if number not in self.values:
            self._compute()
        return self.values.pop(number)

    def _compute(self) -> None:
        """Run the function up to the last tensor that it saves."""
        values: list[torch.Tensor] = []

        def keep(tensor: torch.Tensor) -> int:
            values.append(tensor.detach())
            if len(values) == self.saved:
                raise _AllComputed
            return len(values)

        devices = [self.x.device] if self.x.is_cuda else []
        with torch.random.fork_rng(devices=devices), torch.enable_grad():
            _set_random_state(self.x.device, self.random)
            try:
                with torch.autograd.graph.saved_tensors_hooks(keep, _refuse):
                    self.function(self.x.detach().requires_grad_())
            except _AllComputed:
                pass
        self.values = dict(enumerate(values))


class _AllComputed(Exception):
    """Nothing else of a function's activations is read: what follows, its last product often, need not run again."""


def _refuse(number: Any) -> torch.Tensor:
    raise AssertionError("a recomputed function differentiates nothing itself")


def _random_state(device: torch.device) -> torch.Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(device: torch.device, state: torch.Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)

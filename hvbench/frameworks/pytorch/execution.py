"""How parts of the model run in PyTorch: compiled, recomputed in the backward pass."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

# torch.compile's modes. CUDA graphs would keep gradients in memory of their own, which the next pass overwrites: they
# are read until the update, by all-reduces and by the passes that accumulate into them.
MODES = {"default": "default", "max": "max-autotune-no-cudagraphs"}


def compiled(function: Callable[..., Any], *, choice: str, device: str) -> Callable[..., Any]:
    """`function`, forward and backward, compiled as a point's `compile` asks; itself for "none".

    It is one graph, whose gradients are final together when its backward pass ends.
    """
    if choice == "none":
        return function
    import torch._dynamo  # the compiler, which only those load who use it
    from torch._inductor import config

    torch._dynamo.config.optimize_ddp = False  # it would cut the graph, and cannot where anything is recomputed
    if device == "cpu":
        config.compile_threads = 1  # else processes that nobody suspends while others have their turn
    return torch.compile(function, mode=MODES[choice], fullgraph=True, dynamic=False)


def forget_compiled() -> None:
    """Free what was compiled in this process: a few models exhaust the compiler's limit for one function."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()


def recomputed(
    function: Callable[[torch.Tensor], torch.Tensor], *, is_random: bool
) -> Callable[[torch.Tensor], torch.Tensor]:
    """`function` of one tensor, of which a forward pass keeps only that tensor: the backward pass computes the rest again.

    (Chen et al., arXiv:1604.06174) Where it `is_random`, as with dropout, it draws the same numbers again.
    """

    def run(x: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_compiling():
            return checkpoint(function, x, use_reentrant=False, preserve_rng_state=is_random)
        return _Recomputation(function, x, is_random=is_random).run() if torch.is_grad_enabled() else function(x)

    return run


class _Recomputation:
    """One call of a function: its input, and what autograd saved of it, which is computed when it is first read.

    `torch.utils.checkpoint` does the same, and loads PyTorch's compiler: 87 MiB, and more time than PyTorch itself. What is
    compiled uses it.
    """

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, *, is_random: bool) -> None:
        self.function = function
        self.x = x
        self.needs_gradient = x.requires_grad  # not above frozen embeddings alone
        self.random = _random_state(x.device) if is_random else None
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
        with torch.random.fork_rng(devices=devices, enabled=self.random is not None), torch.enable_grad():
            if self.random is not None:
                _set_random_state(self.x.device, self.random)
            with contextlib.suppress(_AllComputed), torch.autograd.graph.saved_tensors_hooks(keep, _refuse):
                self.function(self.x.detach().requires_grad_(self.needs_gradient))
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

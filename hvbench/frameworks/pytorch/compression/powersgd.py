"""Gradients as products of two narrow matrices in PyTorch: PowerSGD."""

from __future__ import annotations

import horovod.torch as hvd
import torch

from hvbench.frameworks.contract import Arrays
from hvbench.frameworks.pytorch.compression.feedback import FeedbackAllReduce
from hvbench.frameworks.pytorch.operations import start_reduction, wait
from hvbench.spec.point import Point
from hvbench.training.compression import initial_factors

_FACTORS = "factors/"


class PowerSGDAllReduce(FeedbackAllReduce):
    """Average gradients as P Q^T: one step of the power method a training step, from the Q of the step before.

    `factors` holds Q of each matrix, which all ranks have in common.
    """

    def __init__(self, point: Point, *, rank: int, device: str) -> None:
        super().__init__(point, rank=rank, device=device)
        self.factors = {name: torch.from_numpy(value).to(device) for name, value in initial_factors(point).items()}

    def start(self, name: str, gradient: torch.Tensor) -> None:
        """Begin to average P of one gradient, or the gradient itself where it is sent as it is."""
        if name not in self.residuals:
            self.pending[name] = (start_reduction(name, gradient, op=hvd.Average), gradient)
            return
        matrix = self.residuals[name].view(len(gradient), -1)
        matrix += gradient.view_as(matrix)
        left = matrix @ self.factors[name]
        self.pending[name] = (start_reduction(f"{name}.left", left, op=hvd.Average), gradient)

    def finish(self) -> dict[str, torch.Tensor]:
        """Average Q of each gradient from its P; canonical name -> P Q^T."""
        averages, seconds = {}, {}
        for name, (handle, gradient) in self.pending.items():
            left = wait(handle)
            if name not in self.residuals:
                averages[name] = left
                continue
            left = orthonormalize(left)
            right = self.residuals[name].view(len(gradient), -1).T @ left
            seconds[name] = (start_reduction(f"{name}.right", right, op=hvd.Average), left, gradient)
        for name, (handle, left, gradient) in seconds.items():
            right = wait(handle)
            gradient.copy_((left @ right.T).view_as(gradient))
            self.residuals[name] -= gradient
            # A column of zeros would stay one: of a gradient that is still zero, such as that of LoRA's A.
            self.factors[name] = torch.where((right != 0).any(0), right, self.factors[name])
            averages[name] = gradient
        self.pending = {}
        return averages

    def state(self) -> Arrays:
        """`residuals/NAME`, and `factors/NAME`: the Q with which the next step begins."""
        return super().state() | {
            f"{_FACTORS}{name}": value.cpu().numpy().copy() for name, value in self.factors.items()
        }

    def load_state(self, state: Arrays) -> None:
        """Continue from a `state`. Raises KeyError where an array is missing."""
        super().load_state(state)
        for name, value in self.factors.items():
            value.copy_(torch.from_numpy(state[f"{_FACTORS}{name}"]))


def orthonormalize(matrix: torch.Tensor) -> torch.Tensor:
    """The columns of a matrix [rows, rank] by the modified Gram-Schmidt process, first to last; a column of zeros stays one."""
    columns = list(matrix.unbind(1))
    for index, column in enumerate(columns):
        norm = torch.linalg.vector_norm(column)
        columns[index] = column = column / torch.where(norm > 0, norm, 1.0)
        for later in range(index + 1, len(columns)):
            columns[later] = columns[later] - (column @ columns[later]) * column
    return torch.stack(columns, 1)

"""The largest values of each gradient in PyTorch, with their indices, from every rank to every other."""

from __future__ import annotations

import torch

from hvbench.frameworks.pytorch.compression.feedback import FeedbackAllReduce
from hvbench.frameworks.pytorch.operations import start_gather, wait
from hvbench.training.compression import topk_count


class TopKAllReduce(FeedbackAllReduce):
    """Average the values of each gradient that are largest by size on a rank; elsewhere that rank counts as 0."""

    def start(self, name: str, gradient: torch.Tensor) -> None:
        """Begin to send the largest values of one gradient: k indices, then k values as their bits."""
        residual = self.residuals[name].view(-1)
        residual += gradient.view(-1)
        largest = residual.abs().topk(topk_count(residual.numel(), self.point), sorted=False).indices
        message = torch.cat([largest.int(), residual[largest].view(torch.int32)])
        residual[largest] = 0.0
        self.pending[name] = (start_gather(f"{name}.largest", message), gradient)

    def finish(self) -> dict[str, torch.Tensor]:
        """Add up what all ranks have sent, in their order; canonical name -> average."""
        averages = {}
        for name, (handle, gradient) in self.pending.items():
            total = gradient.zero_().view(-1)
            for indices, values in wait(handle).view(self.world_size, 2, -1):
                total[indices.long()] += values.view(torch.float32)  # a rank sends no index twice
            averages[name] = gradient.div_(self.world_size)
        self.pending = {}
        return averages

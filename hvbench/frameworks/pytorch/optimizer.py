"""AdamW in PyTorch: decoupled weight decay (Loshchilov & Hutter, arXiv:1711.05101, alg. 2), epsilon outside the root."""

from __future__ import annotations

import torch

from hvbench.spec import Point
from hvbench.training.weights import is_decayed


class Optimizer:
    """Updates parameters in place from averaged gradients."""

    def __init__(self, parameters: dict[str, torch.nn.Parameter], point: Point) -> None:
        decayed = [value for name, value in parameters.items() if is_decayed(name)]
        others = [value for name, value in parameters.items() if not is_decayed(name)]
        groups = [{"params": decayed, "weight_decay": point.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.adamw = torch.optim.AdamW(
            groups, lr=point.learning_rate, betas=(point.beta1, point.beta2), eps=point.epsilon, fused=True
        )
        self.parameters = parameters

    def update(self, gradients: dict[str, torch.Tensor], *, learning_rate: float) -> None:
        """One step; `gradients` by canonical name, final (averaged, unscaled, clipped)."""
        for name, gradient in gradients.items():
            self.parameters[name].grad = gradient
        for group in self.adamw.param_groups:
            group["lr"] = learning_rate
        self.adamw.step()

"""AdamW in PyTorch: decoupled weight decay (Loshchilov & Hutter, arXiv:1711.05101, alg. 2), epsilon outside the root."""

from __future__ import annotations

import numpy as np
import torch

from hvbench.frameworks.contract import Arrays
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

    def state(self) -> Arrays:
        """Moments by canonical name, and `updates`, how many they have seen."""
        state: Arrays = {"updates": np.array(0, np.int64)}
        for name, parameter in self.parameters.items():
            kept = self.adamw.state.get(parameter)  # nothing before the first update
            zero = torch.zeros_like(parameter)
            state[f"first_moments/{name}"] = (kept["exp_avg"] if kept else zero).cpu().numpy().copy()
            state[f"second_moments/{name}"] = (kept["exp_avg_sq"] if kept else zero).cpu().numpy().copy()
            if kept:
                state["updates"] = np.array(int(kept["step"].item()), np.int64)
        return state

    def load_state(self, state: Arrays) -> None:
        """Go on from a `state`. Raises KeyError where it lacks something."""
        updates = float(state["updates"])
        for name, parameter in self.parameters.items():
            self.adamw.state[parameter] = {
                "step": torch.tensor(updates, dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.tensor(state[f"first_moments/{name}"], device=parameter.device),
                "exp_avg_sq": torch.tensor(state[f"second_moments/{name}"], device=parameter.device),
            }

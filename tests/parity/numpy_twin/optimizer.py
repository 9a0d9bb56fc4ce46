"""AdamW in numpy: decoupled weight decay (Loshchilov & Hutter, arXiv:1711.05101, alg. 2), epsilon outside the root."""

from __future__ import annotations

import math

import numpy as np

from hvbench.frameworks.contract import Arrays
from hvbench.spec import Point
from hvbench.training.weights import is_decayed


class Optimizer:
    """Updates parameters in place from averaged gradients."""

    def __init__(self, parameters: Arrays, point: Point) -> None:
        self.parameters = parameters
        self.point = point
        self.moments = {name: (np.zeros_like(value), np.zeros_like(value)) for name, value in parameters.items()}
        self.steps = 0

    def update(self, gradients: Arrays, *, learning_rate: float) -> None:
        """One step; `gradients` by canonical name, final (averaged, unscaled, clipped)."""
        self.steps += 1
        point = self.point
        correction1, correction2 = 1 - point.beta1**self.steps, 1 - point.beta2**self.steps
        for name, gradient in gradients.items():
            value, (first, second) = self.parameters[name], self.moments[name]
            if is_decayed(name):
                value *= 1 - learning_rate * point.weight_decay
            first += (gradient - first) * (1 - point.beta1)
            second *= point.beta2
            second += np.square(gradient) * (1 - point.beta2)
            value -= first * (learning_rate / correction1) / (np.sqrt(second) / math.sqrt(correction2) + point.epsilon)

    def state(self) -> Arrays:
        """Moments by canonical name, and `updates`, how many they have seen."""
        state: Arrays = {"updates": np.array(self.steps, np.int64)}
        for name, (first, second) in self.moments.items():
            state |= {f"first_moments/{name}": first.copy(), f"second_moments/{name}": second.copy()}
        return state

    def load_state(self, state: Arrays) -> None:
        """Go on from a `state`. Raises KeyError where it lacks something."""
        self.steps = int(state["updates"])
        for name, (first, second) in self.moments.items():
            first[...], second[...] = state[f"first_moments/{name}"], state[f"second_moments/{name}"]

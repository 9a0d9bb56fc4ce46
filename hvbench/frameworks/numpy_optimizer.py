"""The optimizers in numpy, for parameter servers. The formulas and their papers are in `hvbench.training.optimizers`."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable

import numpy as np

from hvbench.frameworks.contract import Arrays
from hvbench.frameworks.numpy_norms import measure_norms
from hvbench.spec.point import Point
from hvbench.training.optimizers import (
    ADAFACTOR_CLIP_THRESHOLD,
    ADAFACTOR_DECAY_EXPONENT,
    ADAFACTOR_LEAST_SCALE,
    LEAST_SECOND_MOMENT,
    is_adapted,
    largest_share,
    rate_factor,
    state_shapes,
)
from hvbench.training.weights import is_decayed

Norms = Callable[[list[np.ndarray]], list[float]]


class Optimizer(abc.ABC):
    """Updates parameters in place from averaged gradients. `slots` and `updates` are all that it keeps."""

    def __init__(self, parameters: Arrays, point: Point, norms: Norms | None = None) -> None:
        self.parameters = parameters
        self.point = point
        self.measure_norms = norms or measure_norms
        self.slots = {
            slot: {name: np.zeros(shapes[name], value.dtype) for name, value in parameters.items() if name in shapes}
            for slot, shapes in state_shapes(point).items()
        }
        self.updates = 0

    @abc.abstractmethod
    def update(self, gradients: Arrays, *, learning_rate: float) -> None:
        """One step; `gradients` by canonical name, final (averaged, unscaled, clipped)."""

    def state(self) -> Arrays:
        """`SLOT/NAME` -> what it keeps of that tensor, and `updates`, how many it has made."""
        state: Arrays = {"updates": np.array(self.updates, np.int64)}
        for slot, values in self.slots.items():
            state |= {f"{slot}/{name}": value.copy() for name, value in values.items()}
        return state

    def reset(self) -> None:
        """Begin anew: no moments, no updates made."""
        for values in self.slots.values():
            for value in values.values():
                value[...] = 0
        self.updates = 0

    def load_state(self, state: Arrays) -> None:
        """Go on from a `state`. Raises KeyError where it lacks something."""
        self.updates = int(state["updates"])
        for slot, values in self.slots.items():
            for name, value in values.items():
                value[...] = state[f"{slot}/{name}"]

    def _decay(self, name: str) -> float:
        return self.point.weight_decay if is_decayed(name) else 0.0

    def _direction(self, name: str, gradient: np.ndarray) -> np.ndarray:
        """Adam's unbiased first moment over the root of its unbiased second, after `gradient`."""
        beta1, beta2 = self.point.beta1, self.point.beta2
        first, second = self.slots["first_moments"][name], self.slots["second_moments"][name]
        first += (gradient - first) * (1 - beta1)
        second *= beta2
        second += np.square(gradient) * (1 - beta2)
        root = np.sqrt(second) / math.sqrt(1 - beta2**self.updates) + self.point.epsilon
        return first / (1 - beta1**self.updates) / root


class AdamW(Optimizer):
    """Adam with decoupled weight decay."""

    def update(self, gradients: Arrays, *, learning_rate: float) -> None:
        self.updates += 1
        peak = learning_rate
        for name, gradient in gradients.items():
            learning_rate = peak * rate_factor(self.point, name)
            value = self.parameters[name]
            value *= 1 - learning_rate * self._decay(name)
            value -= learning_rate * self._direction(name, gradient)


class OneBitAdamW(AdamW):
    """AdamW that freezes its second moments after `onebit_warmup_steps` updates; from then on ranks exchange what steps they would take.

    These are first moments in units of the second's roots (`hvbench.training.optimizers`). `frozen_updates` were made when it froze, which the
    second moments' bias correction stays at; 0: it has not.
    """

    def __init__(self, parameters: Arrays, point: Point, norms: Norms | None = None) -> None:
        super().__init__(parameters, point, norms)
        self.frozen_updates = 0

    @property
    def is_frozen(self) -> bool:
        """Whether the next update is one by exchanged first moments."""
        return self.updates >= self.point.onebit_warmup_steps

    def mix(self, gradients: Arrays) -> Arrays:
        """Canonical name -> the step that this rank's gradient makes of the last common one."""
        self.frozen_updates = self.frozen_updates or self.updates
        bound, steps = largest_share(self.point), {}
        for name, gradient in gradients.items():
            root = self._root(name)
            last = self.slots["first_moments"][name] / root
            share = np.where(self._has_moved(name), np.clip(gradient / root, -bound, bound), 0.0)
            steps[name] = ((share - last) * (1 - self.point.beta1) + last).astype(gradient.dtype)
        return steps

    def update_by(self, steps: Arrays, *, learning_rate: float) -> None:
        """One update by steps that all ranks have in common; what had hardly a gradient stays, for no sign is 0."""
        self.updates += 1
        correction = 1 - self.point.beta1**self.updates
        for name, step in steps.items():
            rate, value = learning_rate * rate_factor(self.point, name), self.parameters[name]
            step = np.where(self._has_moved(name), step, 0.0).astype(value.dtype)
            self.slots["first_moments"][name][...] = step * self._root(name)
            value *= 1 - rate * self._decay(name)
            value -= rate / correction * step

    def _has_moved(self, name: str) -> np.ndarray:
        """Of each element whether its gradients were more than rounding errors."""
        second = self.slots["second_moments"][name]
        return second > LEAST_SECOND_MOMENT * second.mean()

    def _root(self, name: str) -> np.ndarray:
        """The root of a frozen second moment, unbiased, and epsilon."""
        correction = math.sqrt(1 - self.point.beta2**self.frozen_updates)
        return np.sqrt(self.slots["second_moments"][name]) / correction + self.point.epsilon

    def state(self) -> Arrays:
        """`SLOT/NAME`, `updates`, and `frozen_updates`."""
        return super().state() | {"frozen_updates": np.array(self.frozen_updates, np.int64)}

    def reset(self) -> None:
        """Begin anew: no moments, no updates made."""
        super().reset()
        self.frozen_updates = 0

    def load_state(self, state: Arrays) -> None:
        """Continue from a `state`, or from one of AdamW. Raises KeyError where an array is missing."""
        super().load_state(state)
        self.frozen_updates = int(state.get("frozen_updates", 0)) if self.is_frozen else 0


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum unless that is 0."""

    def update(self, gradients: Arrays, *, learning_rate: float) -> None:
        self.updates += 1
        peak = learning_rate
        for name, gradient in gradients.items():
            learning_rate = peak * rate_factor(self.point, name)
            step = gradient + self._decay(name) * self.parameters[name]
            if self.slots:
                momenta = self.slots["momenta"][name]
                momenta *= self.point.momentum
                momenta += step
                step = momenta
            self.parameters[name] -= learning_rate * step


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling of SGD with momentum."""

    def update(self, gradients: Arrays, *, learning_rate: float) -> None:
        self.updates += 1
        peak = learning_rate
        for name, gradient in gradients.items():
            learning_rate = peak * rate_factor(self.point, name)
            value, momenta, decay = self.parameters[name], self.slots["momenta"][name], self._decay(name)
            rate = learning_rate
            if is_adapted(name):
                norm, gradient_norm = self.measure_norms([value, gradient])
                if norm > 0 and gradient_norm > 0:
                    rate *= self.point.trust_coefficient * norm / (gradient_norm + decay * norm)
            momenta *= self.point.momentum
            momenta += rate * (gradient + decay * value)
            value -= momenta


class LAMB(Optimizer):
    """Layer-wise adaptive moments: AdamW's direction, as long as the parameter times the rate."""

    def update(self, gradients: Arrays, *, learning_rate: float) -> None:
        self.updates += 1
        peak = learning_rate
        for name, gradient in gradients.items():
            learning_rate = peak * rate_factor(self.point, name)
            value = self.parameters[name]
            step = self._direction(name, gradient) + self._decay(name) * value
            rate = learning_rate
            if is_adapted(name):
                norm, step_norm = self.measure_norms([value, step])
                rate *= norm / step_norm if norm > 0 and step_norm > 0 else 1.0
            value -= rate * step


class Adafactor(Optimizer):
    """Second moments of matrices as an outer product of the means of rows and columns."""

    def update(self, gradients: Arrays, *, learning_rate: float) -> None:
        self.updates += 1
        peak = learning_rate
        rate = self.updates**-ADAFACTOR_DECAY_EXPONENT  # 1 - the decay
        rows, columns, seconds = (self.slots[slot] for slot in ("row_moments", "column_moments", "second_moments"))
        for name, gradient in gradients.items():
            learning_rate = peak * rate_factor(self.point, name)
            value = self.parameters[name]
            squares = np.square(gradient) + self.point.epsilon**2
            if name in rows:
                rows[name] += (squares.mean(axis=1) - rows[name]) * rate
                columns[name] += (squares.mean(axis=0) - columns[name]) * rate
                step = gradient * np.sqrt(rows[name].mean() / rows[name])[:, None] / np.sqrt(columns[name])
            else:
                seconds[name] += (squares - seconds[name]) * rate
                step = gradient / np.sqrt(seconds[name])
            size = math.sqrt(value.size)
            norm, step_norm = self.measure_norms([value, step])
            scale = max(norm / size, ADAFACTOR_LEAST_SCALE)
            clip = max(step_norm / size / ADAFACTOR_CLIP_THRESHOLD, 1.0)
            value *= 1 - learning_rate * self._decay(name)
            value -= learning_rate * scale / clip * step


OPTIMIZERS = {"adamw": AdamW, "sgd": SGD, "lars": LARS, "lamb": LAMB, "adafactor": Adafactor}


def make_optimizer(parameters: Arrays, *, point: Point, norms: Norms | None = None) -> Optimizer:
    """The optimizer that `point` names, for `parameters`, or for parts of them whose tensors' norms `norms` measures."""
    rule = OneBitAdamW if point.sends_momenta else OPTIMIZERS[point.optimizer]
    return rule(parameters, point, norms)

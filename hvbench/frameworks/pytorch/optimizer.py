"""The optimizers in PyTorch: AdamW, 1-bit Adam, SGD, LARS, LAMB, Adafactor.

The formulas and their papers are in `hvbench.training.optimizers`; PyTorch's own kernels are used where they compute the same.
They are called as functions: to make an object of `torch.optim` loads PyTorch's compiler, which takes longer than PyTorch.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable

import numpy as np
import torch
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from hvbench.frameworks.contract import Arrays
from hvbench.frameworks.pytorch.norms import measure_norms
from hvbench.spec.optimizer import OPTIMIZERS as OPTIMIZERS_OF_POINTS
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

Norms = Callable[[list[torch.Tensor]], list[torch.Tensor]]


class Optimizer(abc.ABC):
    """Updates parameters in place from averaged gradients; `slots` (moments, momenta) and `updates` are its whole state."""

    def __init__(self, parameters: dict[str, torch.Tensor], point: Point, norms: Norms | None = None) -> None:
        self.parameters = parameters  # or this rank's parts of them, which `norms` then measures with all ranks' parts
        self.point = point
        self.measure_norms = norms or measure_norms
        is_factored = OPTIMIZERS_OF_POINTS[
            point.optimizer
        ].is_factored  # else its state has the shapes of what it updates
        self.slots = {
            slot: {
                name: value.new_zeros(shapes[name] if is_factored else value.shape)
                for name, value in parameters.items()
                if name in shapes
            }
            for slot, shapes in state_shapes(point).items()
        }
        self.updates = 0
        # The same number as PyTorch's function counts it: of each parameter, in a tensor.
        self._counts = {name: torch.zeros((), device=value.device) for name, value in parameters.items()}
        # The parameters without autograd: views of the same memory.
        self._values = {name: value.detach() for name, value in parameters.items()}
        self._decayed = [name for name in parameters if is_decayed(name) and point.weight_decay]
        self._adapted = [name for name in parameters if is_adapted(name)]
        self._factors = {name: rate_factor(point, name) for name in parameters}  # of the learning rate
        self._groups: dict[tuple[float, float], list[str]] = {}  # by weight decay and that factor
        for name in parameters:
            decay = point.weight_decay if name in self._decayed else 0.0
            self._groups.setdefault((decay, self._factors[name]), []).append(name)

    @abc.abstractmethod
    def update(self, gradients: dict[str, torch.Tensor], *, learning_rate: float) -> None:
        """One update; `gradients`: canonical name -> gradient, averaged, unscaled and clipped."""

    def _scale(self, steps: dict[str, torch.Tensor]) -> None:
        """Multiply each step by the factor of its parameter's learning rate, in place."""
        if self.point.layer_lr_decay != 1.0:
            torch._foreach_mul_(list(steps.values()), [self._factors[name] for name in steps])

    def state(self) -> Arrays:
        """`SLOT/NAME` -> that slot of that parameter, and `updates`, the number of updates made."""
        state: Arrays = {"updates": np.array(self.updates, np.int64)}
        for slot, values in self.slots.items():
            state |= {f"{slot}/{name}": value.cpu().numpy().copy() for name, value in values.items()}
        return state

    def reset(self) -> None:
        """Begin anew: no moments, no updates made."""
        for values in self.slots.values():
            torch._foreach_zero_(list(values.values()))
        self.updates = 0
        torch._foreach_zero_(list(self._counts.values()))

    def load_state(self, state: Arrays) -> None:
        """Continue from a `state`. Raises KeyError where an array is missing."""
        self.updates = int(state["updates"])
        for slot, values in self.slots.items():
            for name, value in values.items():
                value.copy_(torch.tensor(state[f"{slot}/{name}"]))
        for count in self._counts.values():
            count.fill_(self.updates)


class AdamW(Optimizer):
    """PyTorch's own fused AdamW."""

    def update(self, gradients: dict[str, torch.Tensor], *, learning_rate: float) -> None:
        self.updates += 1
        for (weight_decay, factor), names in self._groups.items():
            adamw(
                [self._values[name] for name in names],
                [gradients[name] for name in names],
                [self.slots["first_moments"][name] for name in names],
                [self.slots["second_moments"][name] for name in names],
                [],
                [self._counts[name] for name in names],
                fused=True,
                amsgrad=False,
                beta1=self.point.beta1,
                beta2=self.point.beta2,
                lr=learning_rate * factor,
                weight_decay=weight_decay,
                eps=self.point.epsilon,
                maximize=False,
            )


class OneBitAdamW(AdamW):
    """AdamW that freezes its second moments after `onebit_warmup_steps` updates; from then on ranks exchange what steps they would take.

    These are first moments in units of the second's roots (`hvbench.training.optimizers`). `frozen_updates` were made when it froze, which the
    second moments' bias correction stays at; 0: it has not.
    """

    def __init__(self, parameters: dict[str, torch.Tensor], point: Point, norms: Norms | None = None) -> None:
        super().__init__(parameters, point, norms)
        self.frozen_updates = 0

    @property
    def is_frozen(self) -> bool:
        """Whether the next update is one by exchanged first moments."""
        return self.updates >= self.point.onebit_warmup_steps

    def mix(self, gradients: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Canonical name -> the step that this rank's gradient makes of the last common one, in the gradient's place."""
        self.frozen_updates = self.frozen_updates or self.updates
        bound = largest_share(self.point)
        for name, gradient in gradients.items():
            root = self._root(name)
            last = self.slots["first_moments"][name] / root
            gradient.div_(root).clamp_(-bound, bound).mul_(self._has_moved(name))
            gradient.sub_(last).mul_(1 - self.point.beta1).add_(last)
        return gradients

    def update_by(self, steps: dict[str, torch.Tensor], *, learning_rate: float) -> None:
        """One update by steps that all ranks have in common; what had hardly a gradient stays, for no sign is 0."""
        self.updates += 1
        for count in self._counts.values():
            count += 1
        correction = 1 - self.point.beta1**self.updates
        for (weight_decay, factor), names in self._groups.items():
            rate = learning_rate * factor
            for name in names:
                value, step = self._values[name], steps[name].mul_(self._has_moved(name))
                torch.mul(step, self._root(name), out=self.slots["first_moments"][name])
                if weight_decay:
                    value.mul_(1 - rate * weight_decay)
                value.add_(step, alpha=-rate / correction)

    def _has_moved(self, name: str) -> torch.Tensor:
        """Of each element whether its gradients were more than rounding errors."""
        second = self.slots["second_moments"][name]
        return second > LEAST_SECOND_MOMENT * second.mean()

    def _root(self, name: str) -> torch.Tensor:
        """The root of a frozen second moment, unbiased, and epsilon."""
        correction = math.sqrt(1 - self.point.beta2**self.frozen_updates)
        return self.slots["second_moments"][name].sqrt().div_(correction).add_(self.point.epsilon)

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
    """PyTorch's own fused SGD."""

    def update(self, gradients: dict[str, torch.Tensor], *, learning_rate: float) -> None:
        self.updates += 1
        for (weight_decay, factor), names in self._groups.items():
            sgd(
                [self._values[name] for name in names],
                [gradients[name] for name in names],
                [self.slots["momenta"][name] for name in names] if self.slots else [],
                fused=True,
                weight_decay=weight_decay,
                momentum=self.point.momentum,
                lr=learning_rate * factor,
                dampening=0.0,
                nesterov=False,
                maximize=False,
            )


class LARS(Optimizer):
    """SGD with momentum, the learning rate of each layer scaled by its trust ratio."""

    def update(self, gradients: dict[str, torch.Tensor], *, learning_rate: float) -> None:
        self.updates += 1
        weight_decay = self.point.weight_decay
        norms = self.measure_norms([self._values[name] for name in self._adapted])
        gradient_norms = self.measure_norms([gradients[name] for name in self._adapted])
        rates = [learning_rate * self._factors[name] for name in gradients]
        steps = dict(zip(gradients, torch._foreach_mul(list(gradients.values()), rates), strict=True))
        if self._decayed:
            shares = [learning_rate * self._factors[name] * weight_decay for name in self._decayed]
            decays = torch._foreach_mul([self._values[name] for name in self._decayed], shares)
            torch._foreach_add_([steps[name] for name in self._decayed], decays)
        for name, norm, gradient_norm in zip(self._adapted, norms, gradient_norms, strict=True):
            decay = weight_decay if is_decayed(name) else 0.0
            ratio = self.point.trust_coefficient * norm / (gradient_norm + decay * norm)
            steps[name].mul_(torch.where((norm > 0) & (gradient_norm > 0), ratio, 1.0))
        momenta = [self.slots["momenta"][name] for name in steps]
        torch._foreach_mul_(momenta, self.point.momentum)
        torch._foreach_add_(momenta, list(steps.values()))
        torch._foreach_sub_([self._values[name] for name in steps], momenta)


class LAMB(Optimizer):
    """AdamW's step of each layer scaled to the length of its parameter."""

    def update(self, gradients: dict[str, torch.Tensor], *, learning_rate: float) -> None:
        self.updates += 1
        beta1, beta2 = self.point.beta1, self.point.beta2
        names, values = list(gradients), list(gradients.values())
        first, second = ([self.slots[slot][name] for name in names] for slot in ("first_moments", "second_moments"))
        torch._foreach_lerp_(first, values, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, values, values, 1 - beta2)
        roots = torch._foreach_sqrt(second)
        torch._foreach_div_(roots, math.sqrt(1 - beta2**self.updates))
        torch._foreach_add_(roots, self.point.epsilon)
        unbiased = torch._foreach_div(first, 1 - beta1**self.updates)
        torch._foreach_div_(unbiased, roots)
        steps = dict(zip(names, unbiased, strict=True))
        if self._decayed:
            decays = torch._foreach_mul([self._values[name] for name in self._decayed], self.point.weight_decay)
            torch._foreach_add_([steps[name] for name in self._decayed], decays)
        norms = self.measure_norms([self._values[name] for name in self._adapted])
        step_norms = self.measure_norms([steps[name] for name in self._adapted])
        for name, norm, step_norm in zip(self._adapted, norms, step_norms, strict=True):
            steps[name].mul_(torch.where((norm > 0) & (step_norm > 0), norm / step_norm, 1.0))
        self._scale(steps)
        torch._foreach_add_([self._values[name] for name in names], unbiased, alpha=-learning_rate)


class Adafactor(Optimizer):
    """Adam without a first moment, the second moments of matrices kept as the means of their rows and columns."""

    def update(self, gradients: dict[str, torch.Tensor], *, learning_rate: float) -> None:
        self.updates += 1
        new_share = self.updates**-ADAFACTOR_DECAY_EXPONENT  # 1 - the decay of the second moments
        rows, columns, seconds = (self.slots[slot] for slot in ("row_moments", "column_moments", "second_moments"))
        steps = {}
        for name, gradient in gradients.items():
            squares = gradient.square().add_(self.point.epsilon**2)
            if name in rows:
                row = rows[name].lerp_(squares.mean(dim=1), new_share)
                column = columns[name].lerp_(squares.mean(dim=0), new_share)
                steps[name] = gradient * (row.mean() / row).sqrt_()[:, None] * column.rsqrt()
            else:
                steps[name] = gradient * seconds[name].lerp_(squares, new_share).rsqrt()
        values = [self._values[name] for name in steps]
        norms, step_norms = measure_norms(values), measure_norms(list(steps.values()))
        for name, norm, step_norm in zip(steps, norms, step_norms, strict=True):
            size = math.sqrt(steps[name].numel())
            scale = torch.clamp(norm / size, min=ADAFACTOR_LEAST_SCALE)
            steps[name].mul_(scale / torch.clamp(step_norm / size / ADAFACTOR_CLIP_THRESHOLD, min=1.0))
        if self._decayed:
            decayed = [self._values[name] for name in self._decayed]
            kept = [1 - learning_rate * self._factors[name] * self.point.weight_decay for name in self._decayed]
            torch._foreach_mul_(decayed, kept)
        self._scale(steps)
        torch._foreach_add_(values, list(steps.values()), alpha=-learning_rate)


OPTIMIZERS = {"adamw": AdamW, "sgd": SGD, "lars": LARS, "lamb": LAMB, "adafactor": Adafactor}


def make_optimizer(parameters: dict[str, torch.Tensor], *, point: Point, norms: Norms | None = None) -> Optimizer:
    """The optimizer that `point` names, for `parameters`, or for parts of them whose tensors' norms `norms` measures."""
    rule = OneBitAdamW if point.sends_momenta else OPTIMIZERS[point.optimizer]
    return rule(parameters, point, norms)

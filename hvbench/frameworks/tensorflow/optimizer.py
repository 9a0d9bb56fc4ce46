"""The optimizers in TensorFlow: AdamW, 1-bit Adam, SGD, LARS, LAMB, Adafactor.

The formulas and their papers are in `hvbench.training.optimizers`; TensorFlow's own kernels are used where they compute the same.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from hvbench.frameworks.contract import Arrays
from hvbench.frameworks.tensorflow.norms import measure_norms
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

Norms = Callable[[list[tf.Tensor]], list[tf.Tensor]]


class Optimizer(abc.ABC):
    """Updates parameters in place from averaged gradients; `slots` (moments, momenta) and `updates` are its whole state."""

    def __init__(self, parameters: dict[str, tf.Variable], point: Point, norms: Norms | None = None) -> None:
        self.parameters = parameters  # or this rank's parts of them, which `norms` then measures with all ranks' parts
        self.point = point
        self.measure_norms = norms or measure_norms
        is_factored = OPTIMIZERS_OF_POINTS[
            point.optimizer
        ].is_factored  # else its state has the shapes of what it updates
        self.slots = {
            slot: {
                name: tf.Variable(tf.zeros(shapes[name] if is_factored else value.shape, value.dtype))
                for name, value in parameters.items()
                if name in shapes
            }
            for slot, shapes in state_shapes(point).items()
        }
        self.updates = tf.Variable(0, dtype=tf.int64)

    @abc.abstractmethod
    def update(self, gradients: dict[str, tf.Tensor], *, learning_rate: tf.Tensor) -> None:
        """One update; `gradients`: canonical name -> gradient, averaged, unscaled and clipped."""

    def state(self) -> Arrays:
        """`SLOT/NAME` -> that slot of that parameter, and `updates`, the number of updates made."""
        state: Arrays = {"updates": np.array(self.updates.numpy(), np.int64)}
        for slot, values in self.slots.items():
            state |= {f"{slot}/{name}": value.numpy() for name, value in values.items()}
        return state

    def reset(self) -> None:
        """Begin anew: no moments, no updates made."""
        for values in self.slots.values():
            for value in values.values():
                value.assign(tf.zeros_like(value))
        self.updates.assign(0)

    def load_state(self, state: Arrays) -> None:
        """Continue from a `state`. Raises KeyError where an array is missing."""
        self.updates.assign(state["updates"])
        for slot, values in self.slots.items():
            for name, value in values.items():
                value.assign(state[f"{slot}/{name}"])

    def _is_decayed(self, name: str) -> bool:
        return bool(is_decayed(name) and self.point.weight_decay)

    def _rate(self, name: str, learning_rate: tf.Tensor) -> tf.Tensor:
        """The parameter's own learning rate."""
        factor = rate_factor(self.point, name)
        return learning_rate if factor == 1.0 else learning_rate * factor

    def _count(self) -> tf.Tensor:
        """Count this update; its number t, from 1, in float64, for powers such as beta^t."""
        return tf.cast(self.updates.assign_add(1), tf.float64)


class AdamW(Optimizer):
    """TensorFlow's fused Adam kernel, after decoupled weight decay.

    The kernel adds epsilon to sqrt(v), the paper to sqrt(v / (1 - beta2^t)). The two agree if epsilon is multiplied by
    sqrt(1 - beta2^t), so the kernel is given that product and the bias-corrected learning rate.
    """

    def update(self, gradients: dict[str, tf.Tensor], *, learning_rate: tf.Tensor) -> None:
        count, dtype = self._count(), learning_rate.dtype
        correction1 = 1 - tf.constant(self.point.beta1, tf.float64) ** count
        correction2 = tf.sqrt(1 - tf.constant(self.point.beta2, tf.float64) ** count)
        zero = tf.zeros((), dtype)
        # The same tensors for all parameters of a rate: each operation less is traced and optimized sooner.
        factors = dict.fromkeys(rate_factor(self.point, name) for name in gradients)
        for factor in factors:
            rate = tf.cast(learning_rate, tf.float64) * factor
            kept = tf.cast(1 - rate * self.point.weight_decay, dtype)
            factors[factor] = kept, tf.cast(rate * correction2 / correction1, dtype)
        terms = {
            "beta1_power": zero,  # its own bias correction switched off
            "beta2_power": zero,
            "beta1": tf.constant(self.point.beta1, dtype),
            "beta2": tf.constant(self.point.beta2, dtype),
            "epsilon": tf.cast(self.point.epsilon * correction2, dtype),
        }
        for name, gradient in gradients.items():
            value = self.parameters[name]
            kept, rate = factors[rate_factor(self.point, name)]
            if self._is_decayed(name):
                value.assign(value * kept)
            tf.raw_ops.ResourceApplyAdam(
                var=value.handle,
                m=self.slots["first_moments"][name].handle,
                v=self.slots["second_moments"][name].handle,
                grad=gradient,
                lr=rate,
                **terms,
            )


class OneBitAdamW(AdamW):
    """AdamW that freezes its second moments after `onebit_warmup_steps` updates; from then on ranks exchange what steps they would take.

    These are first moments in units of the second's roots (`hvbench.training.optimizers`). `frozen_updates` were made when it froze, which the
    second moments' bias correction stays at; 0: it has not.
    """

    def __init__(self, parameters: dict[str, tf.Variable], point: Point, norms: Norms | None = None) -> None:
        super().__init__(parameters, point, norms)
        self.frozen_updates = tf.Variable(0, dtype=tf.int64)

    @property
    def is_frozen(self) -> bool:
        """Whether the next update is one by exchanged first moments."""
        return int(self.updates.numpy()) >= self.point.onebit_warmup_steps

    def mix(self, gradients: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Canonical name -> the step that this rank's gradient makes of the last common one."""
        frozen = tf.where(self.frozen_updates > 0, self.frozen_updates, self.updates)
        self.frozen_updates.assign(frozen)
        bound, steps = largest_share(self.point), {}
        for name, gradient in gradients.items():
            root = self._root(name)
            last, share = self.slots["first_moments"][name] / root, gradient / root
            share = tf.where(tf.abs(share) > bound, bound * tf.sign(share), share)  # what is not a number stays none
            share = tf.where(self._has_moved(name), share, tf.zeros_like(share))
            steps[name] = (share - last) * (1 - self.point.beta1) + last
        return steps

    def update_by(self, steps: dict[str, tf.Tensor], *, learning_rate: tf.Tensor) -> None:
        """One update by steps that all ranks have in common; what had hardly a gradient stays, for no sign is 0."""
        correction = 1 - tf.constant(self.point.beta1, tf.float64) ** self._count()
        for name, step in steps.items():
            value = tf.convert_to_tensor(self.parameters[name])
            step = tf.where(self._has_moved(name), step, tf.zeros_like(step))
            self.slots["first_moments"][name].assign(step * self._root(name))
            rate = tf.cast(self._rate(name, learning_rate), tf.float64)
            if self._is_decayed(name):
                value *= tf.cast(1 - rate * self.point.weight_decay, value.dtype)
            self.parameters[name].assign(value - tf.cast(rate / correction, value.dtype) * step)

    def _has_moved(self, name: str) -> tf.Tensor:
        """Of each element whether its gradients were more than rounding errors."""
        second = self.slots["second_moments"][name]
        return second > LEAST_SECOND_MOMENT * tf.reduce_mean(second)

    def _root(self, name: str) -> tf.Tensor:
        """The root of a frozen second moment, unbiased, and epsilon."""
        second, frozen = self.slots["second_moments"][name], tf.cast(self.frozen_updates, tf.float64)
        correction = tf.sqrt(1 - tf.constant(self.point.beta2, tf.float64) ** frozen)
        return tf.sqrt(second) / tf.cast(correction, second.dtype) + self.point.epsilon

    def state(self) -> Arrays:
        """`SLOT/NAME`, `updates`, and `frozen_updates`."""
        return super().state() | {"frozen_updates": np.array(self.frozen_updates.numpy(), np.int64)}

    def reset(self) -> None:
        """Begin anew: no moments, no updates made."""
        super().reset()
        self.frozen_updates.assign(0)

    def load_state(self, state: Arrays) -> None:
        """Continue from a `state`, or from one of AdamW. Raises KeyError where an array is missing."""
        super().load_state(state)
        self.frozen_updates.assign(state.get("frozen_updates", 0) if self.is_frozen else 0)


class SGD(Optimizer):
    """TensorFlow's fused momentum kernel."""

    def update(self, gradients: dict[str, tf.Tensor], *, learning_rate: tf.Tensor) -> None:
        self.updates.assign_add(1)
        for name, gradient in gradients.items():
            value = self.parameters[name]
            if self._is_decayed(name):
                gradient += self.point.weight_decay * value
            if not self.slots:
                value.assign_sub(self._rate(name, learning_rate) * gradient)
                continue
            tf.raw_ops.ResourceApplyMomentum(
                var=value.handle,
                accum=self.slots["momenta"][name].handle,
                lr=self._rate(name, learning_rate),
                grad=gradient,
                momentum=tf.constant(self.point.momentum, value.dtype),
            )


class LARS(Optimizer):
    """SGD with momentum, the learning rate of each layer scaled by its trust ratio."""

    def update(self, gradients: dict[str, tf.Tensor], *, learning_rate: tf.Tensor) -> None:
        self.updates.assign_add(1)
        for name, gradient in gradients.items():
            value, momenta = tf.convert_to_tensor(self.parameters[name]), self.slots["momenta"][name]
            decay = self.point.weight_decay if self._is_decayed(name) else 0.0
            step = gradient + decay * value if decay else gradient
            rate = self._rate(name, learning_rate)
            if is_adapted(name):
                norm, gradient_norm = self.measure_norms([value, gradient])
                ratio = self.point.trust_coefficient * norm / (gradient_norm + decay * norm)
                rate *= _where_positive(norm, gradient_norm, ratio)
            momenta.assign(self.point.momentum * momenta + rate * step)
            self.parameters[name].assign_sub(momenta)


class LAMB(Optimizer):
    """AdamW's step of each layer scaled to the length of its parameter."""

    def update(self, gradients: dict[str, tf.Tensor], *, learning_rate: tf.Tensor) -> None:
        count = self._count()
        beta1, beta2 = self.point.beta1, self.point.beta2
        correction1 = 1 - tf.constant(beta1, tf.float64) ** count
        correction2 = tf.sqrt(1 - tf.constant(beta2, tf.float64) ** count)
        for name, gradient in gradients.items():
            value = tf.convert_to_tensor(self.parameters[name])
            first, second = self.slots["first_moments"][name], self.slots["second_moments"][name]
            first.assign_add((gradient - first) * (1 - beta1))
            second.assign(second * beta2 + tf.square(gradient) * (1 - beta2))
            root = tf.sqrt(second) / tf.cast(correction2, value.dtype) + self.point.epsilon
            step = first / tf.cast(correction1, value.dtype) / root
            if self._is_decayed(name):
                step += self.point.weight_decay * value
            rate = self._rate(name, learning_rate)
            if is_adapted(name):
                norm, step_norm = self.measure_norms([value, step])
                rate *= _where_positive(norm, step_norm, norm / step_norm)
            self.parameters[name].assign_sub(rate * step)


class Adafactor(Optimizer):
    """Adam without a first moment, the second moments of matrices kept as the means of their rows and columns."""

    def update(self, gradients: dict[str, tf.Tensor], *, learning_rate: tf.Tensor) -> None:
        share = self._count() ** -ADAFACTOR_DECAY_EXPONENT  # 1 - the decay of the second moments
        rows, columns, seconds = (self.slots[slot] for slot in ("row_moments", "column_moments", "second_moments"))
        for name, gradient in gradients.items():
            value = tf.convert_to_tensor(self.parameters[name])
            new_share = tf.cast(share, value.dtype)
            squares = tf.square(gradient) + self.point.epsilon**2
            if name in rows:
                row = rows[name].assign_add((tf.reduce_mean(squares, axis=1) - rows[name]) * new_share)
                column = columns[name].assign_add((tf.reduce_mean(squares, axis=0) - columns[name]) * new_share)
                step = gradient * tf.sqrt(tf.reduce_mean(row) / row)[:, None] * tf.math.rsqrt(column)
            else:
                step = gradient * tf.math.rsqrt(seconds[name].assign_add((squares - seconds[name]) * new_share))
            size = math.sqrt(value.shape.num_elements())
            norm, step_norm = measure_norms([value, step])
            scale = tf.maximum(norm / size, ADAFACTOR_LEAST_SCALE)
            clip = tf.maximum(step_norm / size / ADAFACTOR_CLIP_THRESHOLD, 1.0)
            if self._is_decayed(name):
                value *= 1 - self._rate(name, learning_rate) * self.point.weight_decay
            self.parameters[name].assign(value - self._rate(name, learning_rate) * scale / clip * step)


OPTIMIZERS = {"adamw": AdamW, "sgd": SGD, "lars": LARS, "lamb": LAMB, "adafactor": Adafactor}


def make_optimizer(parameters: dict[str, tf.Variable], *, point: Point, norms: Norms | None = None) -> Optimizer:
    """The optimizer that `point` names, for `parameters`, or for parts of them whose tensors' norms `norms` measures."""
    rule = OneBitAdamW if point.sends_momenta else OPTIMIZERS[point.optimizer]
    return rule(parameters, point, norms)


def _where_positive(norm: tf.Tensor, other_norm: tf.Tensor, ratio: tf.Tensor) -> tf.Tensor:
    """The trust ratio where both norms are above 0, else 1."""
    return tf.where((norm > 0) & (other_norm > 0), ratio, tf.ones_like(ratio))

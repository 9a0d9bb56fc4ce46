"""The updates of one tensor in plain numpy float64, written from the papers and not from the twins.

Each takes a tensor, its gradients and the learning rates of successive steps, and gives the tensor after each step. A
tensor that is zero has no trust ratio.
"""

from __future__ import annotations

import numpy as np

Steps = list[np.ndarray]


def reference_sgd(
    value: np.ndarray, gradients: Steps, rates: list[float], *, momentum: float, weight_decay: float
) -> Steps:
    """u = m u + g + lambda w, w = w - eta u (Goyal et al., arXiv:1706.02677, eq. 9 and the decay of section 3)."""
    velocity, values = np.zeros_like(value), []
    for gradient, rate in zip(gradients, rates, strict=True):
        velocity = momentum * velocity + gradient + weight_decay * value
        value = value - rate * velocity
        values.append(value)
    return values


def reference_lars(
    value: np.ndarray,
    gradients: Steps,
    rates: list[float],
    *,
    momentum: float,
    weight_decay: float,
    trust_coefficient: float,
    is_adapted: bool,
) -> Steps:
    """arXiv:1708.03888, algorithm 1 with the local rate of eq. 6."""
    velocity, values = np.zeros_like(value), []
    for gradient, rate in zip(gradients, rates, strict=True):
        local, length = 1.0, np.linalg.norm(value)
        if is_adapted and length > 0:
            local = trust_coefficient * length / (np.linalg.norm(gradient) + weight_decay * length)
        velocity = momentum * velocity + rate * local * (gradient + weight_decay * value)
        value = value - velocity
        values.append(value)
    return values


def reference_lamb(
    value: np.ndarray,
    gradients: Steps,
    rates: list[float],
    *,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
    is_adapted: bool,
) -> Steps:
    """arXiv:1904.00962, algorithm 2, phi the identity."""
    first, second, values = np.zeros_like(value), np.zeros_like(value), []
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient**2
        ratio = first / (1 - beta1**t) / (np.sqrt(second / (1 - beta2**t)) + epsilon)
        step = ratio + weight_decay * value
        length = np.linalg.norm(value)
        trust = length / np.linalg.norm(step) if is_adapted and length > 0 else 1.0
        value = value - rate * trust * step
        values.append(value)
    return values


def reference_adafactor(
    value: np.ndarray, gradients: Steps, rates: list[float], *, epsilon: float, weight_decay: float
) -> Steps:
    """arXiv:1804.04235, algorithm 4 for matrices and 5 for vectors, with sums as there; decoupled decay is not theirs."""
    values = []
    rows, columns, second = 0.0, 0.0, 0.0
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        decay = 1 - t**-0.8
        squares = gradient**2 + epsilon**2
        if value.ndim == 2:
            rows = decay * rows + (1 - decay) * squares.sum(axis=1)
            columns = decay * columns + (1 - decay) * squares.sum(axis=0)
            estimate = np.outer(rows, columns) / rows.sum()
        else:
            estimate = second = decay * second + (1 - decay) * squares
        update = gradient / np.sqrt(estimate)
        update = update / max(1.0, np.sqrt(np.mean(update**2)) / 1.0)
        scale = max(1e-3, np.sqrt(np.mean(value**2)))
        value = value - rate * scale * update - rate * weight_decay * value
        values.append(value)
    return values

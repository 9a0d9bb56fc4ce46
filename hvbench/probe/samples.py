"""What a script logs about its steps: numbers, or what a framework has for one, kept as a record of hvbench holds them."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

from hvbench.errors import ProbeError

LARGEST = 1e100  # of a number in a record; a loss beyond it has diverged
MOST_COUNTED = 2**40  # tokens or samples


@dataclass(frozen=True)
class Nonfinite:
    """A loss that is no number any more, and its step, counted from 0."""

    loss: float
    step: int

    def __str__(self) -> str:
        return f"loss {self.loss} at step {self.step}"


class LoggedSamples:
    """One entry per step in every list; None where nothing, or nothing finite, was logged."""

    def __init__(self, *, tokens_per_step: Any) -> None:
        """Raises ProbeError."""
        self.steps = 0
        self.loss: list[float | None] = []
        self.gradient_norm: list[float | None] = []
        self.learning_rate: list[float | None] = []
        self.loss_scale: list[float | None] = []
        self.step_tokens: list[int | None] = []
        self.nonfinite: Nonfinite | None = None  # the first such loss
        self._logged = dict.fromkeys(("gradient_norm", "learning_rate", "loss_scale"), -1)  # last step before a gap
        self._tokens: int | None = None
        if tokens_per_step is not None:
            self._tokens = to_count("probe.training(tokens_per_step", tokens_per_step)

    def add_step(self) -> None:
        """A step has ended; what is logged from now on is of this one."""
        for values in (self.loss, self.gradient_norm, self.learning_rate, self.loss_scale):
            values.append(None)
        self.step_tokens.append(self._tokens)
        self.steps += 1

    def note(self, values: dict[str, Any]) -> None:
        """Keep values of the last step; before the first one, only what holds from then on. Raises ProbeError."""
        for name, value in values.items():
            if name == "tokens":
                self._tokens = to_count("training.log(tokens", value)
                if self.steps:
                    self.step_tokens[-1] = self._tokens
            else:
                self._note(name, to_number(f"training.log({name}", value))

    def _note(self, name: str, number: float) -> None:
        if not self.steps:
            return
        is_finite = abs(number) < LARGEST
        getattr(self, name)[-1] = number if is_finite else None
        if name != "loss":
            if self._logged[name] == self.steps - 2:
                self._logged[name] += 1
        elif not is_finite and self.nonfinite is None:
            self.nonfinite = Nonfinite(number, self.steps - 1)

    def to_json(self) -> dict[str, list[Any]]:
        """Fields of `hvbench.records.record.RankSamples`: what is not known of every step is not listed."""
        logged = {name: getattr(self, name) if last == self.steps - 1 else [] for name, last in self._logged.items()}
        for name in ("learning_rate", "loss_scale"):  # which a record holds as finite numbers
            logged[name] = [] if None in logged[name] else logged[name]
        return {
            "loss": self.loss,
            **logged,
            "skipped_steps": [],
            "step_tokens": [] if None in self.step_tokens else self.step_tokens,
        }


def to_number(what: str, value: Any) -> float:
    """A number, or a tensor that holds one, as a float; it waits for the device. Raises ProbeError; `what` begins its message."""
    try:
        if isinstance(value, str | bytes):
            raise ValueError
        return float(detach(value))
    except (TypeError, ValueError, OverflowError):
        raise ProbeError(f"{what}={_describe(value)}): not a number") from None
    except RuntimeError:
        if getattr(value, "numel", lambda: 1)() == 1:  # what the device has to say of the step itself
            raise
        raise ProbeError(f"{what}={_describe(value)}): not one number but several; log their mean") from None


def to_count(what: str, value: Any) -> int:
    """A number of tokens or samples; raises ProbeError."""
    number = None
    try:
        number = operator.index(value)
    except TypeError:
        as_float = to_number(what, value)
        if math.isfinite(as_float) and as_float.is_integer():
            number = int(as_float)
    if number is None or not 0 <= number < MOST_COUNTED:
        raise ProbeError(f"{what}={_describe(value)}): must be a whole number from 0 to {MOST_COUNTED - 1}")
    return number


def finite_or_none(number: float) -> float | None:
    """A number as a record holds it."""
    return number if abs(number) < LARGEST else None


def detach(value: Any) -> Any:
    """A tensor of PyTorch without the graph that led to it, which would keep its memory."""
    return value.detach() if hasattr(value, "detach") else value


def _describe(value: Any) -> str:
    return repr(value)[:40] if isinstance(value, str | bytes | int | float) else f"<{type(value).__name__}>"

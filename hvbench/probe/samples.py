"""What a script logs about its steps: numbers, or what a framework has for one, kept as a record of hvbench holds them."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

from hvbench.errors import ProbeError

LARGEST = 1e100  # of a number in a record; a loss beyond it has diverged
MOST_COUNTED = 2**40  # tokens or samples
OTHERS = ("gradient_norm", "learning_rate", "loss_scale")  # what else is kept if it is logged at every step


@dataclass(frozen=True)
class Nonfinite:
    """A loss that is no number any more, and its step, counted from 0."""

    loss: float
    step: int

    def __str__(self) -> str:
        return f"loss {self.loss} at step {self.step}"


class LoggedSamples:
    """What was logged, by the number of steps that had been trained then; None where nothing, or nothing finite, was.

    A step costs nothing here before something is logged of it.
    """

    def __init__(self, *, tokens_per_step: Any) -> None:
        """Raises ProbeError."""
        self.loss: dict[int, float | None] = {}  # by step, counted from 0, as all of these
        self.nonfinite: Nonfinite | None = None  # the first such loss
        self._others: dict[str, dict[int, float | None]] = {name: {} for name in OTHERS}
        self._tokens: dict[int, int] = {}  # from that step on
        if tokens_per_step is not None:
            self._tokens[0] = to_count("probe.training(tokens_per_step", tokens_per_step)

    def note_loss(self, value: Any, *, steps: int) -> None:
        """Keep the loss of the last of so many steps, if there is one. Raises ProbeError."""
        number = value if type(value) is float else to_number("training.log(loss", value)
        if not steps:
            return
        if abs(number) < LARGEST:
            self.loss[steps - 1] = number
            return
        self.loss[steps - 1] = None
        if self.nonfinite is None:
            self.nonfinite = Nonfinite(number, steps - 1)

    def note(self, values: dict[str, Any], *, steps: int) -> None:
        """Keep other values of the last step; before the first one, only what holds from then on. Raises ProbeError."""
        for name, value in values.items():
            if name == "loss":
                self.note_loss(value, steps=steps)
            elif name == "tokens":
                self._tokens[max(0, steps - 1)] = to_count("training.log(tokens", value)
            else:
                number = to_number(f"training.log({name}", value)
                if steps:
                    self._others[name][steps - 1] = finite_or_none(number)

    def last_loss(self, steps: int) -> float | None:
        """Of the last of so many steps."""
        return self.loss.get(steps - 1)

    def step_tokens(self, begin: int, end: int) -> list[int | None]:
        """Tokens of this rank in each of the steps from `begin` to before `end`; None where they are not known."""
        tokens = next((self._tokens[step] for step in reversed(self._tokens) if step <= begin), None)
        return [tokens := self._tokens.get(step, tokens) for step in range(begin, end)]

    def values_of(self, begin: int, end: int) -> dict[str, list[float | None]]:
        """Loss and OTHERS of the steps from `begin` to before `end`; None where a step has none."""
        by_step = {"loss": self.loss, **self._others}
        return {name: [values.get(step) for step in range(begin, end)] for name, values in by_step.items()}

    def to_json(self, steps: int) -> dict[str, list[Any]]:
        """Fields of `hvbench.records.record.RankSamples`: what is not known of every step is not listed."""
        listed = {name: [by_step.get(step) for step in range(steps)] for name, by_step in self._others.items()}
        for name, by_step in self._others.items():
            # A record holds two of them as finite numbers.
            if len(by_step) < steps or (name != "gradient_norm" and None in listed[name]):
                listed[name] = []
        tokens = self.step_tokens(0, steps)
        return {
            "loss": [self.loss.get(step) for step in range(steps)],
            **listed,
            "skipped_steps": [],
            "step_tokens": [] if None in tokens else tokens,
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

"""Training: what a script may call, here without any effect, for a script that hvbench did not launch."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

_NOTHING = nullcontext()


class Measured(SystemExit):
    """Every step that the suite asks for has been trained and written down: the script ends here, with code 0."""


class Training:
    """One training. Outside a launch of hvbench every method does nothing, at the price of a call."""

    is_launched = False  # whether hvbench launched this process and measures it
    is_done = False  # whether as many steps as were asked for have been trained, or enough
    steps = 0  # that have been trained

    def __enter__(self) -> Training:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was begun."""

    def step(self) -> AbstractContextManager[None]:
        """One optimizer update, by `with`: its time, on a device that is idle at both ends, becomes a sample.

        Raises:
            Measured: instead of a step more than the suite asks for.
            ProbeError: called within a step, or outside of `with probe.training()`.
        """
        return _NOTHING

    def paused(self) -> AbstractContextManager[None]:
        """What is done in here, by `with`, is no training: its time belongs to no step and to no wait for data."""
        return _NOTHING

    def log(
        self,
        *,
        loss: Any = None,
        learning_rate: Any = None,
        gradient_norm: Any = None,
        loss_scale: Any = None,
        tokens: Any = None,
    ) -> None:
        """Note numbers, or tensors that hold one: of the step that this is called in, or else of the last one.

        Within a step they are read at its end, so that logging does not wait for the device.

        Args:
            loss: this rank's training loss; one that is not finite ends the launch as `diverged`.
            learning_rate, gradient_norm, loss_scale: kept if they are logged at every step.
            tokens: what `tokens_per_step` is, from this step on.

        Raises:
            ProbeError: something is no number.
        """

    def evaluate(self, *, loss: Any, samples: int = 1, accuracy: Any = None) -> None:
        """Note the result of an evaluation after the steps so far, in or right after the `paused()` that it took.

        Without a `paused()` all the time since the last step counts as the evaluation's.

        Args:
            loss: of one validation set, always the same. Where the suite stops at a target or for lack of patience it has to be the
                mean over all ranks, which every rank gives: each decides for itself, and all have to decide the same.
            samples: how many this rank's loss and accuracy are of, its weight among the ranks'.
            accuracy: share of samples that were classified right.

        Raises:
            ProbeError: something is no number, or this is called within a step.
        """

    # For callbacks of frameworks, which have no block to put into a `with`.

    def begin(self, *, until_exit: bool = False) -> None:
        """What entering the `with` does; `until_exit`: the end of the process leaves it, an uncaught exception as a failure."""

    def leave(self) -> None:
        """What leaving the `with` does: raises Measured where the training is done, and notes where it is not."""

    def begin_step(self, *, at_once: bool = False) -> None:
        """What entering `step()` does; with `at_once` it begins where the last one ended, one behind the last of all, too, which never ends."""

    def end_step(self) -> None:
        """What leaving `step()` does."""

    def abandon_step(self) -> None:
        """What an exception in `step()` does: it is no step."""

    def begin_pause(self) -> None:
        """What entering `paused()` does."""

    def end_pause(self) -> None:
        """What leaving `paused()` does."""

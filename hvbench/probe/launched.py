"""LaunchedTraining: the training of a process that hvbench launched, which writes what a worker of hvbench writes.

`hvbench.worker` says which files those are. The process that measures claims its rank's folder, so that of several
processes of one rank one alone writes there; a child that it forks inherits a training that does nothing.
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import signal
import sys
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from hvbench.errors import ProbeError
from hvbench.io.atomic import write_json
from hvbench.launch.script import EVALUATES, FINISHED, STOPPED
from hvbench.probe.blocks import OPEN, Pause, State, Step
from hvbench.probe.clock import StepClock
from hvbench.probe.device import is_on_gpu, synchronize
from hvbench.probe.evaluations import Evaluations
from hvbench.probe.idle import Measured, Training
from hvbench.probe.profile import Profile
from hvbench.probe.request import read_request
from hvbench.probe.result import Measurement, Start, await_end, describe_result, describe_steps, read_start
from hvbench.probe.samples import LoggedSamples, detach
from hvbench.records.source import read_source
from hvbench.records.steps import StepWriter
from hvbench.worker.failure import describe_failure, write_failure
from hvbench.worker.faults import load_faults
from hvbench.worker.progress import INTERVAL_SECONDS, WAITING, ProgressFile
from hvbench.worker.turns import Turns, join_turns

BEFORE = "script"  # what the process does before its training begins
FIRST = "data"  # before its first step
PROFILE = "profile"  # after the timed steps


class LaunchedTraining(Training):
    """See `hvbench.probe.Training`."""

    is_launched = True
    report_seconds = INTERVAL_SECONDS  # between two reports of progress while steps are taken

    def __init__(self, folder: str, *, variable: str, tokens_per_step: Any) -> None:
        """Read what is asked; nothing is written yet. Raises ProbeError."""
        self._request = read_request(Path(folder), variable=variable)
        self._samples = LoggedSamples(tokens_per_step=tokens_per_step)
        self._evaluations = Evaluations(self._request)
        self._clock = StepClock()
        self._progress = ProgressFile(self._request.folder, faults=load_faults(self._request.rank), begun_in=BEFORE)
        self._progress.note(index=0, phase=BEFORE)
        self._start: Start | None = None
        self._state = State.NEW
        self._is_measured = False
        self._pending: dict[str, Any] = {}  # logged within the present step
        self.steps = 0
        self._may_be_done = False  # or it is not even asked
        self._has_gpu = False  # by the end of the warm-up: nothing that costs time is asked in every step
        self._total = self._request.total_steps
        self._dense = self._request.warmup_steps + 1  # leading steps before each of which all is looked at
        self._reported = 0.0  # when progress was last written
        self._timed_tokens, self._timed_seconds = 0, 0.0  # up to then
        self._counted = self._request.warmup_steps  # leading steps that are in these, or never will be
        self._turns = Turns()
        self._takes_turns = False
        self._place = ExitStack()  # at which the turns are taken
        self._is_at_place = False
        self._step, self._pause = Step(self), Pause(self)
        self._shown = StepWriter(str(self._request.steps_file)) if self._request.steps_file else None
        self._profile = Profile(folder=self._request.profile, rank=self._request.rank)

    @property
    def is_done(self) -> bool:
        """Whether no step is left: all are done, profiled ones too, or training has ended early."""
        return self._is_measured_whole and not self._is_profile_wanted

    @property
    def _is_measured_whole(self) -> bool:
        """Whether no further step is a sample.

        One rank of several may be the first whose loss is no number, and would leave the others waiting in an all-reduce: it
        trains to the end with them, and says so then.
        """
        if self.steps >= self._total or self._evaluations.stopped_by:
            return True
        return self._samples.nonfinite is not None and self._request.world_size == 1

    @property
    def _is_profile_wanted(self) -> bool:
        """Whether a step is to be profiled; a training that is not finite on one rank goes on with the others."""
        is_finite = self._samples.nonfinite is None
        return self._profile.is_wanted and (is_finite or self._request.world_size > 1)

    # What a script calls

    def __enter__(self) -> Training:
        self.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        is_exit = error is None or (isinstance(error, SystemExit) and not error.code)
        # Steps that are only profiled cannot cost what was measured before them.
        if error is None or (self._is_measured_whole and (is_exit or self._profile.has_begun)):
            self.leave()
        else:
            self.fail(error)

    def step(self) -> AbstractContextManager[None]:
        return self._step

    def paused(self) -> AbstractContextManager[None]:
        return self._pause

    def log(
        self,
        *,
        loss: Any = None,
        learning_rate: Any = None,
        gradient_norm: Any = None,
        loss_scale: Any = None,
        tokens: Any = None,
    ) -> None:
        if self._may_be_done and self._profile.has_begun and self._state in OPEN:
            return  # of a step that is no sample
        if self._state is State.BETWEEN and loss is not None:  # the usual call
            self._samples.note_loss(loss if type(loss) is float else detach(loss), steps=self.steps)
            loss = None
            if self._samples.nonfinite is not None:
                self._may_be_done = True
        if loss is learning_rate is gradient_norm is loss_scale is tokens is None and self._state is State.BETWEEN:
            return
        values = {"loss": loss, "learning_rate": learning_rate, "gradient_norm": gradient_norm}
        values |= {"loss_scale": loss_scale, "tokens": tokens}
        given = {name: detach(value) for name, value in values.items() if value is not None}
        if self._state is State.STEP:
            self._pending |= given
        elif self._may("log", State.BETWEEN):
            self._note(given)

    def evaluate(self, *, loss: Any, samples: int = 1, accuracy: Any = None) -> None:
        if self._state is State.STEP and not self._clock.pauses:
            raise ProbeError("training.evaluate() within a step: evaluate between steps, in `with training.paused():`")
        if self._may("evaluate", *OPEN) and not self._profile.has_begun:
            seconds, training_seconds = self._clock.end_evaluation()
            values = {"loss": loss, "samples": samples, "accuracy": accuracy}
            step = self.steps
            self._evaluations.add(step=step, seconds=seconds, training_seconds=training_seconds, values=values)
            self._may_be_done |= self._evaluations.stopped_by is not None

    # Its parts, for callbacks

    def begin(self, *, until_exit: bool = False) -> None:
        """Claim this rank's folder and join the turns. Raises ProbeError or ConnectionError."""
        if not self._may("__enter__", State.NEW):
            return
        self._claim()
        self._state = State.BETWEEN
        os.register_at_fork(after_in_child=self._become_child)
        try:
            read_source()
            self._start = read_start()
            self._stack = (self._request.folder / "stack.txt").open("w", encoding="utf-8")
            faulthandler.register(signal.SIGUSR1, file=self._stack)
            about = {"index": 0, "steps": self._request.total_steps, "job": "script", "point": self._request.key}
            self._progress.enter(FIRST, **about)
            self._turns = join_turns(rank=self._request.rank, world_size=self._request.world_size)
            self._takes_turns = not self._turns.is_alone
        except BaseException as error:
            self.fail(error)
            raise
        if until_exit:
            self._watch_exit()

    def begin_step(self, *, at_once: bool = False) -> None:
        if self._state is not State.BETWEEN and not self._may("step", State.BETWEEN):
            return
        if self._clock.pauses:
            raise ProbeError("training.step() within training.paused(): the time of a step would be left out")
        if self._may_be_done:
            if self.is_done and not at_once:
                self.leave()
            if self._is_measured_whole and self._is_profile_wanted:
                self._begin_profiled_step()
                return
        if self._takes_turns or self.steps < self._dense or time.monotonic() - self._reported >= self.report_seconds:
            self._prepare_step()
        if self._has_gpu:
            synchronize()
        self._clock.begin_step(at_once=at_once)
        self._state = State.STEP

    def end_step(self) -> None:
        if self._state is not State.STEP:
            self._end_profiled_step()
            return
        if self._has_gpu:
            synchronize()
        self._clock.end_step()
        self._state = State.BETWEEN
        self.steps += 1
        if self.steps >= self._total:
            self._may_be_done = True
        if self._pending:
            pending, self._pending = self._pending, {}
            self._note(pending)

    def abandon_step(self) -> None:
        """The step has raised an exception: it is none, and its time is that between two others."""
        if self._state in (State.STEP, State.PROFILED):
            self._state, self._pending = State.BETWEEN, {}

    def begin_pause(self) -> None:
        if self._may("paused", *OPEN):
            self._clock.begin_pause()
            self._enter(EVALUATES)

    def end_pause(self) -> None:
        if self._state in OPEN:  # else the training has ended within the pause
            if self._clock.pauses == 1:
                is_before = self.steps == 0 and self._state is State.BETWEEN
                self._enter(FIRST if is_before else self._request.phase_of(self.steps))
            self._clock.end_pause()

    # Its end

    def leave(self, *, is_exit: bool = False) -> None:
        """Write down what was measured and raise Measured, or, where steps are missing, that they are.

        `is_exit`: the process ends in any case, and nothing is raised.
        """
        if self._state in (State.CLOSED, State.FORKED):
            return
        if not self._is_measured_whole and self._samples.nonfinite is None:
            self._give_up(f"trained {self._describe_steps()}")
            return
        try:
            self._write_result()
        except BaseException as error:
            self.fail(error)
            raise
        self._state, self._is_measured = State.CLOSED, True
        await_end(self._request.folder)
        if not is_exit:
            raise Measured

    def fail(self, error: BaseException) -> None:
        """Write down the exception that ends the training; whoever calls lets it go on."""
        if self._state in (State.CLOSED, State.FORKED):
            return
        failure = describe_failure(error)
        if isinstance(error, SystemExit):
            self._give_up(f"exited with code {error.code or 0} when it had trained {self._describe_steps()}")
        elif self._samples.nonfinite and not failure["is_echo"]:
            self._give_up(f"{self._samples.nonfinite}; {failure['message']}", status="diverged")
        else:
            self._give_up(**failure)

    def _write_result(self) -> None:
        if self._shown:
            self._show_steps(self._shown)
        measured = Measurement(
            request=self._request,
            start=self._start,
            clock=self._clock,
            samples=self._samples,
            evaluations=self._evaluations,
        )
        result = describe_result(measured)
        result["samples"] |= {"profile": self._profile.describe(), **(self._profile.peaks or {})}
        if self._evaluations.stopped_by:
            self._enter(STOPPED)  # for who starts the ranks: all of them have to, or none
        self._progress.clock.enter(WAITING)
        self._place.close()  # which waits for the other arms of a comparison
        self._turns.__exit__()
        result["samples"]["phase_seconds"] = self._progress.clock.take()
        write_json(self._request.folder / "result-0.json", result)
        self._enter(FINISHED)

    def _give_up(self, message: str, *, status: str = "failed", is_echo: bool = False) -> None:
        self._state = State.CLOSED
        failure = {"status": status, "message": message, "is_echo": is_echo}
        last = {"step": self.steps, "loss": self._samples.last_loss(self.steps)}
        write_failure(self._request.folder, failure, state=self._progress.state | last)
        self._forget_turns()

    def _forget_turns(self) -> None:
        """Close the connection out of order, without leaving the place: the turn server then waits no more for this process."""
        self._place.pop_all()
        self._turns.__exit__()

    def _describe_steps(self) -> str:
        return f"{self.steps} of the {self._request.total_steps} steps asked for (warmup_steps + steps)"

    def _watch_exit(self) -> None:
        """Let the end of the process end the training, for nothing else does."""
        shown = sys.excepthook

        def note(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
            self.fail(error)
            shown(kind, error, trace)

        sys.excepthook = note
        atexit.register(self.leave, is_exit=True)

    # Inside

    def _prepare_step(self) -> None:
        """What does not happen before every step: report, look for a GPU, wait for a turn. None of it is training."""
        self._clock.begin_pause()
        self._enter(self._request.phase_of(self.steps))
        if self.steps <= self._request.warmup_steps:
            self._has_gpu = is_on_gpu()
        if self._takes_turns and not self.is_done:
            self._take_turn(self._request.phase_of(self.steps))
        self._clock.end_pause()

    def _begin_profiled_step(self) -> None:
        """Wait for a turn, as before any step, and let the profiler record."""
        self._clock.begin_pause()
        self._enter(PROFILE)
        if self._takes_turns:
            self._take_turn(PROFILE)
        self._clock.end_pause()
        synchronize()
        self._profile.begin_step()
        self._state = State.PROFILED

    def _end_profiled_step(self) -> None:
        if self._may("end_step", State.PROFILED):
            synchronize()
            self._profile.end_step()
            self._state = State.BETWEEN

    def _enter(self, phase: str) -> None:
        self._reported = time.monotonic()
        begin, self._counted = self._counted, max(self.steps, self._counted)
        self._timed_seconds += sum(self._clock.step_seconds_after(begin))
        self._timed_tokens += sum(tokens or 0 for tokens in self._samples.step_tokens(begin, self.steps))
        self._progress.enter(
            phase,
            step=self.steps,
            loss=self._samples.last_loss(self.steps),
            timed_tokens=self._timed_tokens * self._request.world_size,  # of all ranks, if they have equally many
            timed_seconds=self._timed_seconds,
        )
        if self._shown and self._shown.is_due:
            self._show_steps(self._shown)

    def _show_steps(self, shown: StepWriter) -> None:
        shown.write(describe_steps(self._clock, self._samples, begin=shown.steps, end=self.steps))

    def _may(self, method: str, *states: State) -> bool:
        """Whether a method has anything to do here; raises ProbeError where it must not be called, Measured where all is over."""
        if self._state in states:
            return True
        if self._state is State.FORKED:
            return False
        if self._is_measured:
            raise Measured
        raise ProbeError(f"training.{method}() {self._state.value}")

    def _claim(self) -> None:
        """Make `pid`, by which this process is found; raises ProbeError where another one has."""
        path = self._request.folder / "pid"
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            other = path.read_text(encoding="utf-8") or "unknown"
            raise ProbeError(
                f"a second process of rank {self._request.rank} calls probe.training(), beside process {other}: hvbench starts "
                "one process a rank, and one alone can be measured"
            ) from None

    def _become_child(self) -> None:
        """A forked child, such as a loader of data, has no part in this: neither its steps nor its end count."""
        if self._state is not State.CLOSED:
            self._forget_turns()
        self._state = State.FORKED

    def _take_turn(self, phase: str) -> None:
        """Wait for the other arms of a comparison before the first step, and for a turn before each."""
        self._progress.clock.enter(WAITING)
        if not self._is_at_place:
            self._place.enter_context(self._turns.at(self._request.place, steps=self._request.steps))
            self._is_at_place = True
        self._turns.step()
        self._takes_turns = not self._turns.is_alone
        self._progress.clock.enter(phase)

    def _note(self, values: dict[str, Any]) -> None:
        """Keep values of the last step, or, before the first, what holds from then on."""
        self._samples.note(values, steps=self.steps)
        self._may_be_done |= self._samples.nonfinite is not None

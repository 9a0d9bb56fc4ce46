"""The clock and the samples: what one rank writes down about each step of one point.

A step's clock runs from the end of the step before it, when the device was idle, to its own end, when it is idle again;
the wait for its batch is a sample of its own, and pauses are taken out. So a rank's steps, waits and pauses add up to
the time that elapsed, and nothing falls between two steps. Warm-up steps, the first (tracing, compiling) included, are
recorded like the others and left out when read.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hvbench.frameworks.contract import Input, Runtime, StepResult, Trainer
from hvbench.frameworks.update import on_common_parameters, train_update
from hvbench.records.record import finite_or_none
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.point import Point
from hvbench.spec.rounds import Exchange, exchange_of
from hvbench.spec.schedule import SCHEDULES
from hvbench.spec.settings import MeasureSettings
from hvbench.training.batches import Batches
from hvbench.training.checkpoints import CheckpointHeader
from hvbench.training.evaluation import mean_over_ranks
from hvbench.training.layout import Batch
from hvbench.training.loss_scale import LossScale
from hvbench.training.schedule import point_learning_rate, samples_before
from hvbench.training.stopping import EarlyStopping, Plateau
from hvbench.worker.best import BestCheckpoint
from hvbench.worker.checkpoints import Saver
from hvbench.worker.energy import EnergyMeter
from hvbench.worker.evaluation import describe_evaluation, evaluate
from hvbench.worker.rehearsal import rehearse
from hvbench.worker.samples import SampleLists

# Where a rank can diverge alone, all ask each other after so many steps, and after twice, four times, … as many: the others
# then train at most twice as long as the one that diverged, and are seldom disturbed.
FIRST_MEETING = 16


BY_SEARCH = "search"  # what ended a training that was no longer of interest


class Diverged(Exception):
    """Training left the finite numbers on `rank`. All ranks raise it between the same two steps: see `Loop.meet`."""

    def __init__(self, message: str, *, rank: int) -> None:
        super().__init__(message)
        self.rank = rank


class Loop:
    """Trains one point step by step and samples it. `phase` and `step` say where it is, for progress and for outcomes."""

    def __init__(
        self,
        point: Point,
        settings: MeasureSettings,
        *,
        trainer: Trainer,
        batches: Batches,
        runtime: Runtime,
        folder: Path | None = None,
        meter: EnergyMeter | None = None,
    ) -> None:
        """Args: `folder` is where the ranks leave checkpoints; None: they leave none.

        `meter` is on during the timed steps, and off in pauses.
        """
        self.point = point
        self.settings = settings
        self.trainer = trainer
        self.batches = batches
        self.reader: Input | None = None  # hands the steps their batches; None: `batches` itself
        self.runtime = runtime
        place = {"is_common": point.has_common_state, "is_sharded": point.is_sharded}
        self.saver = Saver(folder, runtime, **place) if folder else None
        self.meter = meter or EnergyMeter()
        self.samples = SampleLists()
        self.loss_scale = LossScale(enabled=PRECISIONS[point.precision].loss_scaling)
        self.total_steps = settings.warmup_steps + settings.steps
        self.step = 0
        self.first_step = 0  # of the training: what a checkpoint had done before
        target_loss = settings.target_loss if settings.stop_at_target else None
        self._stopping = EarlyStopping(target_loss=target_loss, patience=settings.patience)
        self._plateau = None
        if SCHEDULES[point.schedule].follows_loss:
            self._plateau = Plateau(factor=point.plateau_factor, patience=point.plateau_patience)
        self.timed_tokens = 0  # of all steps after the warm-up, over all ranks
        self.timed_seconds = 0.0  # the same, by this rank's clock
        self.paused_seconds = 0.0  # of what is no training: evaluations, measurements of the gradient noise, ablations
        self.divergence: Diverged | None = None  # of this rank, where the others do not know of it yet
        self.validation: dict[str, float | None] = {}  # the last evaluation, over all ranks, as progress reports it
        self.is_ended_early: Callable[[], bool] | None = None  # asked of rank 0 at evaluations; None: nobody asks
        self.best = BestCheckpoint(self.saver, every=settings.checkpoint_every)  # which `keep_best` keeps
        # The last rank is the straggler: the others, and what they do, are those of a training without one.
        self._delay_seconds = point.straggler_seconds if runtime.rank == runtime.world_size - 1 else 0.0
        self._started = 0.0
        self._step_ended = 0.0  # by the clock of training alone: the last step

    @property
    def is_done(self) -> bool:
        """Whether no step is left: all are done, or training has ended early."""
        return self.step >= self.total_steps or self.samples.stopped_by is not None

    @property
    def steps(self) -> range:
        """The numbers of its steps in the whole training."""
        return range(self.first_step, self.first_step + self.total_steps)

    @property
    def phase(self) -> str:
        """`first_step`, `warmup` or `measure`."""
        if self.step == 0:
            return "first_step"
        return "warmup" if self.step < self.settings.warmup_steps else "measure"

    @property
    def timed_steps(self) -> int:
        """How many steps after the warm-up are done."""
        return max(0, self.step - self.settings.warmup_steps)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What runs in here is no training: its time belongs to no step and not to `training_seconds`."""
        begun = time.perf_counter()
        was_metered = self.meter.end()
        yield
        if was_metered:
            self.meter.begin()
        self.paused_seconds += time.perf_counter() - begun

    def resume(self, header: CheckpointHeader) -> None:
        """Take over where a checkpoint stands: its step, its place in the text, its loss scale."""
        self.first_step = header.step
        if self.loss_scale.enabled:
            self.loss_scale.scale, self.loss_scale.clean_steps = header.loss_scale, header.clean_steps

    @property
    def checkpoint_header(self) -> CheckpointHeader:
        """Where the training stands, for a checkpoint."""
        steps = self.first_step + self.step
        return CheckpointHeader(
            step=steps,
            samples=samples_before(self.point, steps),
            global_batch_size=self.point.global_batch_size,
            optimizer=self.point.optimizer,
            adaptation=self.point.trained_part,
            loss_scale=self.loss_scale.scale,
            clean_steps=self.loss_scale.clean_steps,
            tokens_digest=self.batches.tokens_digest,
            seed=self.point.seed,
            framework=self.point.framework,
        )

    def start(self) -> None:
        """Line up the ranks; evaluate the untrained model if evaluations were asked for."""
        if self.settings.evaluate_every:
            self._evaluate()
        rehearse(self.trainer, self.point, self.batches, steps=self.steps, loss_scale=self.loss_scale.scale)
        self.runtime.barrier()
        self._started = time.perf_counter()
        self.paused_seconds = 0.0
        self._step_ended = 0.0
        if not self.settings.warmup_steps:
            self.meter.begin()

    @property
    def training_seconds(self) -> float:
        """The clock of training alone, since `start`: without pauses."""
        return time.perf_counter() - self._started - self.paused_seconds

    def advance(self) -> None:
        """One step, timed; the gradient noise before it and an evaluation after it are outside the clock.

        A rank that has diverged alone trains no more: it only counts steps until it meets the others. Where the others need it for an
        average of parameters, it trains on. Raises Diverged.
        """
        if self.divergence and not self.point.has_local_updates:
            self.step += 1
        else:
            self._train()
        if self.step >= FIRST_MEETING and self.step & (self.step - 1) == 0:
            self.meet()
        is_last = bool(self.settings.evaluate_every) and self.step == self.total_steps
        if is_last or self._is_due(self.settings.evaluate_every):
            self._evaluate()
        if self.saver and self._is_due(self.settings.checkpoint_every):
            self._save()

    def count_padding(self) -> list[int]:
        """Padding of each step so far over all ranks; no step counts it, for packing all ranks' samples again takes time of its own."""
        if not self.point.has_layout:
            return []
        return [self.batches.padding_of_step(self.first_step + step) for step in range(len(self.samples.step_tokens))]

    def close(self) -> None:
        """End what hands the steps their batches: after this there is no step."""
        if self.reader:
            self.reader.close()
            self.reader = None

    def finish(self) -> None:
        """Behind the last step: the test split, if there is one and evaluations were asked for, by the best parameters that were kept.

        Raises Diverged on all ranks where one has diverged since they last met.
        """
        training_seconds = self.training_seconds
        self.meter.end()
        self.meet()
        if self.settings.evaluate_every and self.batches.test_samples and self.samples.stopped_by != BY_SEARCH:
            last, batches = self.best.load(self.trainer, self.point, batches=self.batches, step=self.step)
            begun = time.perf_counter()
            with on_common_parameters(self.trainer, self.point, self.first_step + self.step):
                own = evaluate(self.trainer, batches, point=self.point, names=self.batches.class_names)
            times = {"seconds": time.perf_counter() - begun, "training_seconds": training_seconds}
            self.samples.test = describe_evaluation(own, step=self.best.step or self.step) | times
            if last is not None:
                self.trainer.load_state(last)
            self.runtime.barrier()

    def meet(self) -> None:
        """Ask all ranks whether they have diverged, where one can alone; raises Diverged on each of them where one has.

        A rank does so before anything that it needs the others for, or they would wait for a rank that trains no more.
        """
        if self.point.has_common_updates:
            return
        with self.paused():
            have_diverged = self.runtime.gather(float(self.divergence is not None))
        if self.divergence:
            raise self.divergence
        if any(have_diverged):
            rank = have_diverged.index(1.0)
            raise Diverged(f"rank {rank} diverged, by step {self.step} of this rank", rank=rank)

    def _train(self) -> None:
        index = self.first_step + self.step
        rate = point_learning_rate(self.point, index) * (self._plateau.scale if self._plateau else 1.0)
        scale = self.loss_scale.scale
        if self._is_due(self.settings.noise_every):
            self._measure_noise(loss_scale=scale)

        asked = self.training_seconds
        batch = (self.reader or self.batches).train_batch(index)
        self.runtime.synchronize()
        begun = self.training_seconds
        if self._delay_seconds:
            time.sleep(self._delay_seconds)  # not a busy wait: another host's rank would leave this one's cores alone
        how = {"learning_rate": rate, "loss_scale": scale, "times_exchange": self.runtime.device == "cpu"}
        result = train_update(self.trainer, self.point, index, batch, **how)
        self.runtime.synchronize()
        ended = self.training_seconds

        step_seconds = ended - self._step_ended - (begun - asked)
        self._step_ended = ended
        self.samples.data_seconds.append(begun - asked)
        self.samples.step_seconds.append(step_seconds)
        self.samples.step_tokens.append(self.batches.tokens_of_step(index))
        if exchange_of(self.point, index) is Exchange.PARAMETERS:
            self.samples.averaging_steps.append(self.step)
        self.samples.add(result, learning_rate=rate, loss_scale=scale)
        if result.skipped:
            self._find_overflow(batch, loss_scale=scale)
        self._check_finite(result)  # behind all that is written down about the step: it may be the last
        self.loss_scale.update(skipped=result.skipped)
        self.step += 1
        if self.step == self.settings.warmup_steps:
            self.meter.begin()
        if self.timed_steps:
            self.timed_tokens += self.samples.step_tokens[-1]
            self.timed_seconds += step_seconds

    def _is_due(self, every: int) -> bool:
        """Whether what happens every so many steps (0: never) happens after the steps so far."""
        return bool(every) and self.step % every == 0

    def _save(self) -> None:
        with self.paused():
            self.saver.save(self.checkpoint_header, self.trainer)

    def _check_finite(self, result: StepResult) -> None:
        gave_up = result.skipped and self.loss_scale.scale <= 1.0
        if not gave_up and (result.skipped or math.isfinite(result.gradient_norm)):
            return
        message = f"gradient norm {result.gradient_norm} at step {self.step}, loss {result.loss}"
        divergence = Diverged(message, rank=self.runtime.rank)
        if self.point.has_common_updates:
            raise divergence
        self.divergence = self.divergence or divergence

    def _find_overflow(self, batch: Batch, *, loss_scale: float) -> None:
        """Note whether this rank's own gradients overflowed, or only their sum on the wire; no parameter has moved."""
        with self.paused():
            self.trainer.rewind(len(batch[0]))  # with the step's own dropout masks
            norms = self.trainer.gradient_norms(*batch, loss_scale=loss_scale)
            self.trainer.rewind(-len(batch[0]))
        is_own = not all(map(math.isfinite, norms.micro_batches))
        self.samples.overflows.append({"step": self.step, "loss_scale": loss_scale, "is_own": is_own})

    def _measure_noise(self, *, loss_scale: float) -> None:
        """Norms of the gradients of the next batch, before and after averaging."""
        with self.paused():
            begun = time.perf_counter()
            batch = self.batches.train_batch(self.first_step + self.step)
            norms = self.trainer.gradient_norms(*batch, loss_scale=loss_scale)
            seconds = time.perf_counter() - begun
        self.samples.gradient_noise.append(
            {
                "step": self.step,
                "micro_gradient_norms": [finite_or_none(norm) for norm in norms.micro_batches],
                "gradient_norm": finite_or_none(norms.averaged),
                "seconds": seconds,
            }
        )

    def _evaluate(self) -> None:
        """Loss and metrics of this rank's share of the validation samples; every rank stops or none does."""
        self.meet()
        training_seconds = self.training_seconds if self.step else 0.0
        with self.paused():
            begun = time.perf_counter()
            batches = self.batches.validation_batches(self.settings.evaluate_samples)
            with on_common_parameters(self.trainer, self.point, self.first_step + self.step):
                own = evaluate(self.trainer, batches, point=self.point, names=self.batches.class_names)
            # The wait for the slowest rank belongs to no step.
            losses = self.runtime.gather(math.nan if own.loss is None else own.loss)
            counts = [
                int(count) for count in self.runtime.gather(float(own.samples if own.targets is None else own.targets))
            ]
            ended = time.perf_counter()
        times = {"seconds": ended - begun, "training_seconds": training_seconds}
        self.samples.evaluations.append(describe_evaluation(own, step=self.step) | times)
        mean = mean_over_ranks(losses, samples=counts)
        if self.settings.keep_best and self.saver and self.step and mean < self.best.loss:
            with self.paused():
                self.best.keep(self.checkpoint_header, self.trainer, loss=mean, step=self.step)
        if self._plateau:
            self._plateau.judge(mean)
        self.validation = {
            "validation_step": self.step,
            "validation_loss": finite_or_none(mean),
            "validation_tokens": sum(self.samples.step_tokens),
            "validation_seconds": training_seconds,
        }
        reason = self._stopping.judge(mean) or self._ask_for_early_end()
        # At least one step has been timed, and one is left: the last evaluation ends nothing early.
        if self.settings.warmup_steps < self.step < self.total_steps:
            self.samples.stopped_by = reason

    def _ask_for_early_end(self) -> str | None:
        """Whether rank 0 was told that this training shall end: the same answer on all ranks, which meet here anyway."""
        if self.is_ended_early is None:
            return None
        with self.paused():
            answers = self.runtime.gather(float(self.is_ended_early()))
        return BY_SEARCH if answers[0] else None

"""What one sweep may be asked for beside its suite: how it continues a run, what bounds it, what is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hvbench.errors import UsageError
from hvbench.records.record import Status
from hvbench.records.store import RunFolder, latest_run_path, new_run_path
from hvbench.spec.suite import Suite


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """Choices of one `hvbench sweep`, `run` or `tune`; every default is that of the command line."""

    command: Sequence[str] = ("hvbench",)  # the words that were typed, for run.json
    out: Path | None = None  # the run folder; None: the newest run with `resume`, else a new one
    resume: bool = False  # leave out the launches that are recorded as ok, or with an outcome not in `retry`
    retry: frozenset[Status] | None = None  # with `resume`: the outcomes to try again; None: all but ok
    force: bool = False  # with `resume`: continue even though the suite or the machine has changed
    timeout_seconds: float | None = None  # of one point; None: the suite's, or from the estimate
    precision_target: float | None = None  # a share, of the ratio of frameworks or of tokens/s; None: the suite's
    budget_seconds: float | None = None  # for the launches that the precision target asks for; None: the suite's
    memory_limit_bytes: int | None = None  # of one worker; None: the suite's
    checks_parity: bool = True  # compare the frameworks, tensor by tensor, before the first point
    timeline: bool = False  # record Horovod's timeline of every set of workers

    def apply_to(self, suite: Suite) -> Suite:
        """`suite` with the measurement settings that were given here.

        Raises:
            UsageError: a budget without a precision target, neither here nor in the suite.
        """
        names = ("timeout_seconds", "precision_target", "budget_seconds", "memory_limit_bytes")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        chosen = replace(suite, measure=suite.measure.model_copy(update=given))
        if self.budget_seconds is not None and chosen.measure.precision_target is None:
            raise UsageError("--budget goes with --precision-target, such as --precision-target 2%")
        return chosen

    def run_folder(self, root: Path, suite_name: str) -> RunFolder:
        """The run folder of a suite of that name: `out`, or with `resume` its newest run, or a new one, below `root`.

        Raises StorageError.
        """
        latest = latest_run_path(root, suite_name) if self.resume else None
        chosen = self.out or latest
        return RunFolder(chosen) if chosen else RunFolder(new_run_path(root, suite_name), is_new=True)

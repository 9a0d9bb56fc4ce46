"""Everything that a sweep does before a launch: plan, open or continue the run folder, check data and checkpoints.

All bad input is found here, on rank 0, so that it ends the sweep with one line before any worker starts.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hvbench import __version__
from hvbench.errors import StorageError, UsageError
from hvbench.io.clock import utc_now
from hvbench.plan.jobs import Plan, make_plan, require_runnable
from hvbench.plan.precision import choose_aim
from hvbench.plan.repeats import extra_keys
from hvbench.plan.search import Searched, plan_search, plan_tries, require_limit
from hvbench.plan.turns import Turns, decide_turns, describe_site
from hvbench.records.environment import describe_environment
from hvbench.records.script_source import describe_script_source
from hvbench.records.store import RunFolder
from hvbench.spec.messages import shorten
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.spec.suite import Suite
from hvbench.sweep.epochs import resolve_epochs
from hvbench.sweep.largest import keep_to_text
from hvbench.sweep.observer import Observer
from hvbench.sweep.options import SweepOptions
from hvbench.sweep.resume import describe_changes, find_changes, lasting_environment, require_unchanged
from hvbench.sweep.run import Sweep
from hvbench.sweep.tasks import name_text, seeded_point
from hvbench.training import corpus, text
from hvbench.training.checkpoints import check_checkpoint, describe_lost_own_state
from hvbench.training.documents import cut_documents
from hvbench.training.huggingface.start import check_weights, identify_weights
from hvbench.training.labelled.corpus import LabelledCorpus, describe_labelled, require_labels
from hvbench.training.labelled.rows import examine_rows
from hvbench.training.labelled.source import source_of
from hvbench.training.packages import find_packages, prepare_text
from hvbench.training.pretraining import pretraining_point


def prepare_sweep(
    suite: Suite,
    folder: RunFolder,
    options: SweepOptions,
    *,
    world_size: int,
    observer: Observer,
    is_single_host: bool = True,
) -> Sweep:
    """A sweep that is ready to run, its run folder open and its run.json written.

    Args:
        suite: the points and how they are measured.
        folder: the run folder: a new one, or with `options.resume` one that holds an earlier session's records.
        options: what was chosen for this sweep.
        world_size: ranks of the launch.
        observer: is told what takes long, how frameworks are measured, and what has changed in a run that is continued by force.
        is_single_host: all ranks are on this host.

    Raises:
        UsageError: no point can run, or take turns as asked for, or a continued run has changed since it was begun.
        DataError: a text cannot be read, or is too short for one batch.
        StorageError: the folder cannot be written, or holds a run that is not to be continued.
    """
    try:
        place = {"world_size": world_size, "is_single_host": is_single_host}
        return _prepare(suite, folder, options, observer=observer, **place)
    except BaseException:
        folder.discard()
        raise


def _prepare(
    suite: Suite,
    folder: RunFolder,
    options: SweepOptions,
    *,
    world_size: int,
    observer: Observer,
    is_single_host: bool,
) -> Sweep:
    points = suite.points()
    require_script_folder(suite)
    if suite.script is None:
        check_texts(points)
    suite = resolve_epochs(suite, points, world_size=world_size, say=observer.prepare, report=observer.prepare)
    folder.open_for_writing()
    before = read_earlier_session(folder, resume=options.resume)
    plan = make_plan(
        points,
        suite.measure,
        world_size=world_size,
        done=folder.done_keys(retry=options.retry) if before else (),
        extra=extra_keys(before, repeats=suite.measure.repeats) if before else (),
    )
    require_runnable(plan, where=suite.where)
    searched: list[Searched] = []
    if suite.search:
        require_limit(suite.search, suite.measure, points, where=suite.where)
        first, searched = plan_search(plan, suite.search, suite.measure, where=suite.where)
        searched = keep_to_text(searched, suite.search)
        records = folder.read_records()[0] if before else []
        plan = plan_tries(searched, suite.search, suite.measure, skipped=first.skipped, records=records)
    runnable = [job.point for job in [*plan.jobs, *plan.done]]
    # A search takes no turns: what comes next follows from how the last launch ended.
    site = describe_site(is_single_host=is_single_host)
    turns = Turns() if suite.search else decide_turns(runnable, suite.measure, site, where=suite.where)
    plan = replace(plan, jobs=turns.arrange(plan.jobs))
    run = describe_run(suite, plan, world_size=world_size, command=options.command) | {
        "turns": turns.line,
        "script": describe_script(suite),
        "precision_aim": None if suite.measure.precision_target is None else choose_aim(runnable, turns),
    }
    if before is not None:
        changes = find_changes(before, run)
        require_unchanged(changes, "", path=folder.path, force=options.force)
        if changes:
            observer.prepare(f"going on although it has changed: {describe_changes(changes)}")
        run = continue_run(before, run, changes=changes)
    for line in check_checkpoints(plan, suite.measure):
        observer.prepare(line)
    is_open = suite.measure.precision_target is not None or suite.search is not None
    read = check_inputs(plan, before, folder, options, observer=observer, is_open=is_open)
    folder.write_run({**run, **{key: found for key, found in read.items() if found or key == "data"}})
    if turns.line:
        observer.prepare(turns.line)
    script = run["script"]["source"] if run["script"] else {}
    return Sweep(
        suite=suite,
        folder=folder,
        plan=plan,
        options=options,
        turns=turns,
        texts=read["data"],
        weights=read["initial_weights"],
        script=script,
        searched=searched,
    )


def require_script_folder(suite: Suite) -> None:
    """Raise UsageError where the folder that a script runs in is not there."""
    if suite.script and not suite.folder.is_dir():
        raise UsageError(
            f"{suite.where}: [script] repository = {shorten(suite.script.repository)}: no folder {suite.folder}; it is "
            "seen from the suite's file"
        )


def describe_script(suite: Suite) -> dict[str, Any] | None:
    """run.json's `script`: what is launched, and of which files it is made; None for hvbench's own training."""
    if suite.script is None:
        return None
    return {**suite.script.model_dump(), "source": describe_script_source(suite.folder)}


def read_earlier_session(folder: RunFolder, *, resume: bool) -> dict[str, Any] | None:
    """run.json as the last session left it, None for a new run; raises StorageError where `resume` was not asked for."""
    if not (folder.path / "run.json").exists():
        return None
    if not resume:
        raise StorageError(
            f"{folder.path}: holds a run already; go on with --resume, or choose another folder with --out"
        )
    return folder.read_run()


def describe_run(suite: Suite, plan: Plan, *, world_size: int, command: Sequence[str]) -> dict[str, Any]:
    """run.json of a new run: what was asked, of which machine."""
    return {
        "suite": suite.name,
        "question": suite.question,
        "command": shlex.join(command),
        "hvbench_version": __version__,
        "created_at": utc_now(),
        "world_size": world_size,
        "base": dict(suite.base),
        "axes": dict(suite.axes),
        "together": [dict(group) for group in suite.together],
        "search": suite.search.model_dump() if suite.search else None,
        "compares": list(suite.compares),
        "exclude": [dict(excluded) for excluded in suite.exclude],
        "measure": suite.measure.model_dump(),
        "jobs": [job.key for job in [*plan.done, *plan.jobs]],
        "skipped": [{"point_id": skipped.point.point_id, "reason": skipped.reason} for skipped in plan.skipped],
        "environment": lasting_environment(describe_environment()),
    }


def continue_run(before: Mapping[str, Any], now: Mapping[str, Any], *, changes: Sequence[str]) -> dict[str, Any]:
    """run.json of a run that is continued: when and how it was begun, what is asked now, and one more session."""
    sessions = before.get("sessions") if isinstance(before.get("sessions"), list) else []
    session = {"command": now["command"], "started_at": now["created_at"], "changes": list(changes)}
    kept = {key: before[key] for key in ("command", "created_at") if isinstance(before.get(key), str)}
    return {**before, **now, **kept, "sessions": [*sessions, session]}


def check_checkpoints(plan: Plan, settings: MeasureSettings) -> list[str]:
    """Compare every initial checkpoint with the points that start from it: lines on what they do not take from it. Raises UsageError."""
    lines = []
    for job in plan.jobs:
        if path := job.point.initial_checkpoint:
            check_checkpoint(path, seeded_point(job, settings))
            lines.append(describe_lost_own_state(path, world_size=job.point.world_size or 1))
    return list(dict.fromkeys(filter(None, lines)))


def check_inputs(
    plan: Plan,
    before: Mapping[str, Any] | None,
    folder: RunFolder,
    options: SweepOptions,
    *,
    observer: Observer,
    is_open: bool,
) -> dict[str, dict[str, Any]]:
    """What run.json says of the texts and the weights that are read, those of earlier sessions (`before`) included.

    Raises DataError where one cannot be read, UsageError where it has changed since and `options` do not force it.
    """
    read = {
        "initial_weights": check_initial_weights(plan, observer, is_open=is_open),
        "data": check_data(plan, observer, is_open=is_open),
    }
    for key, what in (("initial_weights", "what it starts from "), ("data", "its text ")):
        known = before.get(key) if before else None
        if isinstance(known, Mapping):
            changes = find_changes({key: known}, {key: read[key]})
            require_unchanged(changes, what, path=folder.path, force=options.force)
            read[key] = {**known, **read[key]}
    return read


def check_texts(points: Sequence[Point]) -> list[str]:
    """Read the text of each of `points` once: lines about what of it is no text. Raises DataError where nothing can be trained on."""
    points = with_pretrainings(points)
    plain = dict.fromkeys((point.data, point.encoding) for point in points if not point.has_label_file)
    losses = [text.check(source, encoding=encoding) for source, encoding in plain]
    for source in dict.fromkeys(source_of(point) for point in points if point.has_label_file):
        examine_rows(source)
    return list(filter(None, losses))


def check_initial_weights(plan: Plan, observer: Observer, *, is_open: bool) -> dict[str, dict[str, str]]:
    """Compare every folder of weights with the points that start from it; folder -> digests. Raises DataError."""
    found: dict[str, dict[str, str]] = {}
    points = needed_points(plan, is_open=is_open)
    for line in compare_weights(points):
        observer.prepare(line)
    for point in points:
        if point.initial_weights:
            found.setdefault(point.initial_weights, {}).update(identify_weights(point))
    return found


def compare_weights(points: Iterable[Point]) -> list[str]:
    """A line on what points take from their folders of weights, once for all frameworks. Raises DataError for one that does not fit."""
    return list(dict.fromkeys(check_weights(point) for point in points if point.initial_weights))


def needed_points(plan: Plan, *, is_open: bool) -> list[Point]:
    """The points of hvbench's own training that are launched; `is_open`: also those whose launches may be repeated."""
    jobs = [*plan.jobs, *(plan.done if is_open else [])]
    return list(dict.fromkeys(job.point for job in jobs if isinstance(job.point, Point)))


def with_pretrainings(points: Sequence[Point]) -> list[Point]:
    """The points, and those of their pretrainings that read a text of their own."""
    own = [pretraining_point(point) for point in points if point.is_pretrained and point.pretraining_data]
    return list(dict.fromkeys([*points, *own]))


def check_data(plan: Plan, observer: Observer, *, is_open: bool) -> dict[str, str]:
    """Prepare every text that the plan needs; raises DataError.

    `is_open`: recorded launches may be repeated, so their texts are needed too. The observer is told what is left out of
    a text. Returns the digest of each text by its name (`hvbench.sweep.tasks.name_text`).
    """
    digests, losses = {}, []
    by_text: dict[tuple[str, bool], list[Point]] = {}  # labelled pairs of a BERT are other tokens of the same text
    for point in with_pretrainings(needed_points(plan, is_open=is_open)):
        by_text.setdefault((name_text(point), point.has_framed_labels), []).append(point)
    for (name, _), same in by_text.items():
        prepared = prepare_text(same[0], report=observer.prepare)
        digests[name] = prepared.digest
        losses.append(prepared.loss)
        for point in same:
            if isinstance(prepared, LabelledCorpus):
                require_labels(point, prepared)
                losses += describe_labelled(point, prepared)
                continue
            if point.separates_documents:
                cut_documents(point)
                continue
            corpus.require_enough(
                prepared,
                sequence_length=point.sequence_length,
                global_batch_size=point.global_batch_size,
                stride=point.stride,
            )
            if point.is_classifier:
                find_packages(point)
    for loss in dict.fromkeys(filter(None, losses)):  # once for all vocabularies
        observer.prepare(loss)
    return digests

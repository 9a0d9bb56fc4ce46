"""The profilers of PyTorch and TensorFlow, where a script has imported them: self time of every operator, and a trace for Perfetto."""

from __future__ import annotations

import gzip
import importlib
import json
import re
import sys
import tempfile
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Protocol

US, PS = 1e-6, 1e-12  # in seconds
STEP = "hvbench step"  # as traces call it
# TensorFlow's operators on the host: `gradients/dense/MatMul:MatMul`. Its other events are of threads that wait while others work,
# those of its executor and of the stages of tf.data: their time would be counted twice.
OPERATOR = re.compile(r"[^:]*:\w[^:]*")


@dataclass(frozen=True, kw_only=True)
class OperatorTime:
    """What one operator took in a step, without those that it called."""

    count: float = 0.0
    seconds: float = 0.0  # on the host
    device_seconds: float = 0.0  # on a GPU

    def plus(self, call: Call) -> OperatorTime:
        """The same with one more call."""
        return OperatorTime(
            count=self.count + 1,
            seconds=self.seconds + call.seconds,
            device_seconds=self.device_seconds + call.device_seconds,
        )

    @staticmethod
    def median_of(steps: Sequence[OperatorTime]) -> OperatorTime:
        """Each figure's median over several steps."""
        return OperatorTime(
            count=median(step.count for step in steps),
            seconds=median(step.seconds for step in steps),
            device_seconds=median(step.device_seconds for step in steps),
        )


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of an operator: when it began, by the recording's own clock, and what it took without those that it called."""

    name: str
    begin: float
    seconds: float = 0.0
    device_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Recording:
    """All calls of operators, and when steps began and ended, by the same clock (s)."""

    calls: list[Call] = field(default_factory=list)
    steps: list[tuple[float, float]] = field(default_factory=list)


def typical_step(recording: Recording) -> dict[str, OperatorTime]:
    """What each operator takes in a step: the median over the recorded steps, which one that was disturbed does not change."""
    steps = sorted(recording.steps)
    begins = [begin for begin, _ in steps]
    found: dict[str, list[OperatorTime]] = {}  # of each step
    for call in recording.calls:
        step = bisect_right(begins, call.begin) - 1
        if step >= 0 and call.begin < steps[step][1]:
            of_steps = found.setdefault(call.name, [OperatorTime()] * len(steps))
            of_steps[step] = of_steps[step].plus(call)
    medians = {name: OperatorTime.median_of(of_steps) for name, of_steps in found.items()}
    return {name: usual for name, usual in medians.items() if usual.count}


class Recorder(Protocol):
    """A profiler."""

    name: str

    def start(self) -> None:
        """Record from now on."""

    def step(self) -> AbstractContextManager[Any]:
        """Around a step: says in the recording, and in the trace, when it began and ended."""

    def stop(self, path: Path) -> Recording:
        """End the recording, and write a trace to `path` (JSON of Chrome's format, compressed)."""


class TorchRecorder:
    """torch.profiler."""

    name = "torch"

    def __init__(self, torch: Any) -> None:
        activities = [torch.profiler.ProfilerActivity.CPU]
        activities += [torch.profiler.ProfilerActivity.CUDA] if torch.cuda.is_initialized() else []
        self._profile = torch.profiler.profile(activities=activities)
        self._mark = torch.profiler.record_function

    def start(self) -> None:
        self._profile.start()

    def step(self) -> AbstractContextManager[Any]:
        return self._mark(STEP)

    def stop(self, path: Path) -> Recording:
        self._profile.stop()
        self._profile.export_chrome_trace(str(path))
        recording = Recording()
        for event in self._profile.events():
            begin, end = event.time_range.start * US, event.time_range.end * US
            if event.name == STEP:
                recording.steps.append((begin, end))
                continue
            is_new = hasattr(event, "self_device_time_total")  # since torch 2.4
            on_device = event.self_device_time_total if is_new else event.self_cuda_time_total
            times = {"seconds": event.self_cpu_time_total * US, "device_seconds": on_device * US}
            recording.calls.append(Call(name=event.name, begin=begin, **times))
        return recording


class TensorFlowRecorder:
    """tf.profiler, whose file of planes, lines and events is read here: TensorFlow alone makes no trace of it."""

    name = "tensorflow"

    def __init__(self, tensorflow: Any) -> None:
        self._profiler = tensorflow.profiler.experimental
        self._planes = importlib.import_module("tensorflow.tsl.profiler.protobuf.xplane_pb2")
        self._folder = tempfile.TemporaryDirectory(prefix="hvbench-profile-")

    def start(self) -> None:
        self._profiler.start(self._folder.name)

    def step(self) -> AbstractContextManager[Any]:
        return self._profiler.Trace(STEP)

    def stop(self, path: Path) -> Recording:
        with self._folder as folder:
            self._profiler.stop()
            events: list[dict[str, Any]] = []
            recording = Recording()
            for file in Path(folder).rglob("*.xplane.pb"):
                space = self._planes.XSpace()
                space.ParseFromString(file.read_bytes())
                for number, plane in enumerate(space.planes):
                    read_plane(plane, number=number, events=events, recording=recording)
        with gzip.open(path, "wt", encoding="utf-8") as trace:
            json.dump({"traceEvents": events}, trace)
        return recording


def read_plane(plane: Any, *, number: int, events: list[dict[str, Any]], recording: Recording) -> None:
    """Add the events of one device, or of the host, to those of a trace, and its calls and steps to a recording."""
    is_device = plane.name.startswith("/device:")
    if not is_device and plane.name != "/host:CPU":
        return
    events.append({"name": "process_name", "ph": "M", "pid": number, "args": {"name": plane.name}})
    for line in plane.lines:
        about = {"pid": number, "tid": line.id}
        events.append({"name": "thread_name", "ph": "M", **about, "args": {"name": line.display_name or line.name}})
        spans, operators = [], set()
        for event in line.events:
            full_name = plane.event_metadata[event.metadata_id].name
            name = name_event(full_name)
            if is_device or OPERATOR.fullmatch(full_name):
                operators.add(name)
            begin = line.timestamp_ns * 1000 + event.offset_ps
            if name == STEP:
                recording.steps.append((begin * PS, (begin + event.duration_ps) * PS))
            spans.append((begin, event.duration_ps, name))
            events.append({"name": name, "ph": "X", "ts": begin / 1e6, "dur": event.duration_ps / 1e6, **about})
        for begin, picoseconds, name in self_times(spans):
            if name in operators:
                spent = {"device_seconds" if is_device else "seconds": picoseconds * PS}
                recording.calls.append(Call(name=name, begin=begin * PS, **spent))


def name_event(name: str) -> str:
    """The operator of an event: `gradients/dense/MatMul:MatMul` is MatMul; `EagerExecute: Add` stays what it is."""
    return name.rpartition(":")[2] if ":" in name and ": " not in name and "::" not in name else name


def self_times(spans: Iterable[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """(begin, duration without what lies within, name) of the spans (begin, duration, name) of one thread, which nest."""
    found: list[list[Any]] = []  # begin, own duration, name
    inside: list[tuple[int, int]] = []  # (end, index) of the spans that contain this moment
    for begin, duration, name in sorted(spans, key=lambda span: (span[0], -span[1])):
        while inside and inside[-1][0] <= begin:
            inside.pop()
        if inside:
            found[inside[-1][1]][1] -= duration
        inside.append((begin + duration, len(found)))
        found.append([begin, duration, name])
    return [(begin, max(0, own), name) for begin, own, name in found]


def find_recorders() -> list[Recorder]:
    """The profilers of the frameworks that this process has imported."""
    found: list[Recorder] = []
    if torch := sys.modules.get("torch"):
        found.append(TorchRecorder(torch))
    if tensorflow := sys.modules.get("tensorflow"):
        found.append(TensorFlowRecorder(tensorflow))
    return found

"""The profilers of PyTorch and TensorFlow, where a script has imported them: self time of every operator, and a trace for Perfetto."""

from __future__ import annotations

import gzip
import importlib
import json
import re
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

US, PS = 1e-6, 1e-12  # in seconds
# TensorFlow's operators on the host: `gradients/dense/MatMul:MatMul`. Its other events are of threads that wait while others work,
# those of its executor and of the stages of tf.data: their time would be counted twice.
OPERATOR = re.compile(r"[^:]*:\w[^:]*")


@dataclass(frozen=True, kw_only=True)
class OperatorTime:
    """What one operator took, without those that it called; all together, or a step."""

    count: float
    seconds: float  # on the host
    device_seconds: float = 0.0  # on a GPU

    def per_step(self, steps: int) -> OperatorTime:
        """The same, a step."""
        return OperatorTime(
            count=self.count / steps, seconds=self.seconds / steps, device_seconds=self.device_seconds / steps
        )


class Recorder(Protocol):
    """A profiler."""

    name: str

    def start(self) -> None:
        """Record from now on."""

    def stop(self, path: Path) -> dict[str, OperatorTime]:
        """End the recording, and write a trace to `path` (JSON of Chrome's format, compressed)."""


class TorchRecorder:
    """torch.profiler."""

    name = "torch"

    def __init__(self, torch: Any) -> None:
        activities = [torch.profiler.ProfilerActivity.CPU]
        activities += [torch.profiler.ProfilerActivity.CUDA] if torch.cuda.is_initialized() else []
        self._profile = torch.profiler.profile(activities=activities)

    def start(self) -> None:
        self._profile.start()

    def stop(self, path: Path) -> dict[str, OperatorTime]:
        self._profile.stop()
        self._profile.export_chrome_trace(str(path))
        return {
            row.key: OperatorTime(
                count=row.count,
                seconds=row.self_cpu_time_total * US,
                # the name before torch 2.4
                device_seconds=getattr(row, "self_device_time_total", getattr(row, "self_cuda_time_total", 0.0)) * US,
            )
            for row in self._profile.key_averages()
        }


class TensorFlowRecorder:
    """tf.profiler, whose file of planes, lines and events is read here: TensorFlow alone makes no trace of it."""

    name = "tensorflow"

    def __init__(self, tensorflow: Any) -> None:
        self._profiler = tensorflow.profiler.experimental
        self._planes = importlib.import_module("tensorflow.tsl.profiler.protobuf.xplane_pb2")
        self._folder = tempfile.TemporaryDirectory(prefix="hvbench-profile-")

    def start(self) -> None:
        self._profiler.start(self._folder.name)

    def stop(self, path: Path) -> dict[str, OperatorTime]:
        with self._folder as folder:
            self._profiler.stop()
            events: list[dict[str, Any]] = []
            found: dict[str, OperatorTime] = {}
            for file in Path(folder).rglob("*.xplane.pb"):
                space = self._planes.XSpace()
                space.ParseFromString(file.read_bytes())
                for number, plane in enumerate(space.planes):
                    read_plane(plane, number=number, events=events, found=found)
        with gzip.open(path, "wt", encoding="utf-8") as trace:
            json.dump({"traceEvents": events}, trace)
        return found


def read_plane(plane: Any, *, number: int, events: list[dict[str, Any]], found: dict[str, OperatorTime]) -> None:
    """Add the events of one device, or of the host, to those of a trace, and their self times to `found`."""
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
            spans.append((begin, event.duration_ps, name))
            events.append({"name": name, "ph": "X", "ts": begin / 1e6, "dur": event.duration_ps / 1e6, **about})
        for name, picoseconds in self_times(spans):
            if name not in operators:
                continue
            before = found.get(name, OperatorTime(count=0.0, seconds=0.0))
            seconds = picoseconds * PS
            found[name] = OperatorTime(
                count=before.count + 1,
                seconds=before.seconds + (0.0 if is_device else seconds),
                device_seconds=before.device_seconds + (seconds if is_device else 0.0),
            )


def name_event(name: str) -> str:
    """The operator of an event: `gradients/dense/MatMul:MatMul` is MatMul; `EagerExecute: Add` stays what it is."""
    return name.rpartition(":")[2] if ":" in name and ": " not in name and "::" not in name else name


def self_times(spans: Iterable[tuple[int, int, str]]) -> list[tuple[str, int]]:
    """(name, duration without what lies within) of the spans (begin, duration, name) of one thread, which nest."""
    found: list[list[Any]] = []  # name, own duration
    inside: list[tuple[int, int]] = []  # (end, index) of the spans that contain this moment
    for begin, duration, name in sorted(spans, key=lambda span: (span[0], -span[1])):
        while inside and inside[-1][0] <= begin:
            inside.pop()
        if inside:
            found[inside[-1][1]][1] -= duration
        inside.append((begin + duration, len(found)))
        found.append([name, duration])
    return [(name, max(0, own)) for name, own in found]


def find_recorders() -> list[Recorder]:
    """The profilers of the frameworks that this process has imported."""
    found: list[Recorder] = []
    if torch := sys.modules.get("torch"):
        found.append(TorchRecorder(torch))
    if tensorflow := sys.modules.get("tensorflow"):
        found.append(TensorFlowRecorder(tensorflow))
    return found

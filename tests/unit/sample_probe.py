"""A rank's folder as hvbench leaves it for a script's process, made by hand; and what such a process wrote there."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hvbench import probe
from hvbench.launch.messages import WorkerDescription
from hvbench.launch.script_process import place_of_mpi
from hvbench.probe.idle import Training
from hvbench.records.record import RankSamples
from hvbench.spec.settings import MeasureSettings
from tests import patience

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Folder:
    """One rank's folder."""

    path: Path

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder."""
        return json.loads((self.path / name).read_text(encoding="utf-8"))

    @property
    def result(self) -> dict[str, Any]:
        """What the process wrote at its end, with samples that a record takes."""
        result = self.read("result-0.json")
        RankSamples.model_validate(result["samples"])
        assert not (self.path / "failure.json").exists()
        return result

    @property
    def failure(self) -> dict[str, Any]:
        """Why the process measured nothing."""
        assert not (self.path / "result-0.json").exists()
        return self.read("failure.json")


MakeFolder = Callable[..., Folder]


def make_folder(path: Path, *, rank: int = 0, world_size: int = 1, place: int | None = None, **measure: Any) -> Folder:
    """A rank's folder whose launch waits for nobody at its end; `measure` are settings of the suite."""
    path.mkdir(parents=True)
    settings = MeasureSettings(**{"warmup_steps": 2, "steps": 5} | measure).model_dump(mode="json")
    job = {"kind": "script", "point": {}, "measure": settings, "key": "train-0.r0", "repeat": 0, "place": place}
    about = {"framework": "script", "rank": rank, "world_size": world_size, "local_rank": rank, "host": "here"}
    about |= {"threads": 1, "device": "auto", "jobs": [job], "memory_limit_bytes": None, "agent_pid": None}
    (path / "generation.json").write_text(json.dumps(about), encoding="utf-8")
    (path / "end").touch()
    return Folder(path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeFolder]:
    """Makes the folder of the next training in this process, which forgets the one before."""

    def make(**about: Any) -> Folder:
        made = make_folder(tmp_path / f"rank{len(list(tmp_path.iterdir()))}", **about)
        monkeypatch.setenv(probe.VARIABLE, str(made.path))
        monkeypatch.setattr(probe, "_current", Training())
        return made

    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    yield make
    with contextlib.suppress(SystemExit):
        probe.current().leave()
    faulthandler.unregister(signal.SIGUSR1)


def environment_of(made: Folder) -> dict[str, str]:
    """The environment of a rank's process, which finds the hvbench that is tested."""
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return os.environ | {probe.VARIABLE: str(made.path), "PYTHONPATH": paths}


def run(made: Folder, script: str, *, where: Path, **variables: str) -> subprocess.CompletedProcess:
    """Run a program as hvbench would, in the folder `where`, with more variables in its environment."""
    path = where / "script.py"
    path.write_text(textwrap.dedent(script), encoding="utf-8")
    return subprocess.run(
        [sys.executable, str(path)],
        cwd=where,
        env=place_of_mpi(f"{sys.prefix}/bin") | environment_of(made) | variables,
        capture_output=True,
        text=True,
        timeout=patience.SECONDS,
    )


def make_supervised(folder: Path, program: str, **more: Any) -> list[str]:
    """A rank's folder for a script of Python, as its agent leaves it; the words that start its supervisor, which starts the script."""
    folder.mkdir()
    about = WorkerDescription(
        framework="script", rank=0, world_size=1, local_rank=0, host="here", threads=1, device="cpu", jobs=[],
        command=[sys.executable, "-c", program, str(folder)], folder=str(folder), agent_pid=os.getpid(), **more,
    )  # fmt: skip
    (folder / "generation.json").write_text(json.dumps(vars(about)), encoding="utf-8")
    return [sys.executable, "-P", "-m", "hvbench.launch.script", str(folder)]

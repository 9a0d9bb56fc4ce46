"""Dockerfiles: read into instructions, and executed in a folder that stands for the image, by chroot. Of the syntax, what deploy/ uses."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

INSTRUCTIONS = ("ARG", "FROM", "RUN", "ENV", "WORKDIR", "COPY", "ENTRYPOINT", "CMD")
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


@dataclass(frozen=True)
class Instruction:
    """One instruction with its text, continued lines joined."""

    name: str
    text: str

    @property
    def assignments(self) -> dict[str, str]:
        """Of ARG and ENV: name -> value."""
        return dict(word.partition("=")[::2] for word in shlex.split(self.text))


def read_dockerfile(path: Path) -> list[Instruction]:
    """Its instructions in order; raises ValueError for one that is none."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    found = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            name, _, text = line.strip().partition(" ")
            if name not in INSTRUCTIONS or not text.strip():
                raise ValueError(f"{path}: {line}")
            found.append(Instruction(name, re.sub(r" {2,}", " ", text.strip())))
    return found


def is_ignored(name: str, patterns: Sequence[str]) -> bool:
    """Whether .dockerignore keeps a file out: the last pattern that it, or a folder above it, matches."""
    above = ["/".join(name.split("/")[: end + 1]) for end in range(name.count("/") + 1)]
    verdict = False
    for pattern in patterns:
        is_kept, plain = pattern.startswith("!"), pattern.lstrip("!")
        inner = plain.removeprefix("**/")
        if any(fnmatch.fnmatch(each if inner == plain else each.rpartition("/")[2], inner) for each in above):
            verdict = not is_kept
    return verdict


@dataclass
class Image:
    """A folder in which instructions are executed as a build would, from the files of `context`."""

    root: Path
    context: Path
    given: Mapping[str, str]  # build arguments, and variables such as those of a proxy
    shared: Sequence[Path] = ()  # files and folders of this machine that pip's settings lead to
    variables: dict[str, str] = field(default_factory=dict)
    folder: str = "/"

    def execute(self, instruction: Instruction) -> None:
        """Execute one instruction; raises AssertionError with what its program has said."""
        match instruction.name:
            case "ARG":
                self.variables |= {
                    name: self.given.get(name, value)
                    for name, value in instruction.assignments.items()
                    if self.given.get(name, value)
                }
            case "ENV":
                self.variables |= {name: self.fill(value) for name, value in instruction.assignments.items()}
            case "WORKDIR":
                self.folder = instruction.text
                self.inside(self.folder).mkdir(parents=True, exist_ok=True)
            case "COPY":
                *sources, target = instruction.text.split()
                for source in sources:
                    self.copy(source, target)
            case "RUN":
                self.run(["sh", "-c", instruction.text])

    def fill(self, text: str) -> str:
        """A text with the values of variables."""
        return VARIABLE.sub(lambda match: self.variables.get(match[1] or match[2], ""), text)

    def inside(self, path: str) -> Path:
        """Where a path of the image is."""
        return self.root / os.path.join(self.folder, path).lstrip("/")

    def copy(self, source: str, target: str) -> None:
        """A file into a folder, or what is in a folder, as COPY does."""
        there = self.inside(target)
        if (self.context / source).is_dir():
            shutil.copytree(
                self.context / source, there, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
            )
        else:
            shutil.copy(self.context / source, there / Path(source).name if target.endswith("/") else there)

    def run(self, words: Sequence[str]) -> str:
        """Run a program in the image, with what a container has: /proc, /dev, the resolver; its output."""
        shutil.copy("/etc/resolv.conf", self.root / "etc" / "resolv.conf")
        mounts = [f"mount -t proc proc {shlex.quote(str(self.root / 'proc'))}"]
        shared = [Path("/dev"), *(self.shared if "pip" in " ".join(words) else ())]
        for path in shared:
            there = self.root / path.relative_to("/")
            if path.is_dir():
                there.mkdir(parents=True, exist_ok=True)
            else:
                there.parent.mkdir(parents=True, exist_ok=True)
                there.touch()
            mounts.append(f"mount --rbind {shlex.quote(str(path))} {shlex.quote(str(there))}")
        command = ["chroot", str(self.root), "sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", self.folder, *words]
        script = "\n".join([*mounts, f"exec {shlex.join(command)}"])
        proxies = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script],
            env={"HOME": "/root", **proxies, **self.given, **self.variables},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-8000:]}"
        return done.stdout


def entry(instructions: Sequence[Instruction]) -> tuple[list[str], list[str]]:
    """What a container runs: (ENTRYPOINT, CMD)."""
    said = {one.name: json.loads(one.text) for one in instructions if one.name in ("ENTRYPOINT", "CMD")}
    return said["ENTRYPOINT"], said["CMD"]

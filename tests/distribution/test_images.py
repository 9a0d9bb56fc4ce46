"""The images and environments of deploy/: read as their programs read them, and the image for CPUs built in a chroot, where asked for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from hvbench.io.cache import cache_root
from hvbench.launch.rendezvous import find_ports
from hvbench.records.store import RunFolder
from hvbench.registry import FRAMEWORKS
from tests.distribution.images import VARIABLE, Image, Instruction, entry, is_ignored, read_dockerfile
from tests.distribution.test_packages import list_tracked

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILES = {path.name: read_dockerfile(path) for path in sorted(DEPLOY.glob("Dockerfile*"))}
IMAGE = re.compile(r"(?P<name>[a-z0-9]+([._-][a-z0-9]+)*(/[a-z0-9]+([._-][a-z0-9]+)*)?):(?P<tag>[\w.${}-]+)")
SHELL_OWN = {"HOME", "PATH", "@"}


def runs(instructions: list[Instruction]) -> list[str]:
    return [one.text for one in instructions if one.name == "RUN"]


def packages_of(text: str) -> set[str]:
    """What `apt-get install` is given."""
    (words,) = re.findall(r"apt-get install ((?:[^&\n]|&(?!&))*)", text)
    return {word for word in words.split() if not word.startswith("-")}


@pytest.mark.parametrize("name", DOCKERFILES)
def test_a_dockerfile_is_written_as_it_should_be(name: str) -> None:
    instructions = DOCKERFILES[name]
    first = next(one for one in instructions if one.name != "ARG")
    assert first.name == "FROM" and [one.name for one in instructions].count("FROM") == 1
    image = IMAGE.fullmatch(first.text)
    assert image and image["tag"] != "latest" and "." not in image["name"].partition("/")[0], "no host, and a version"
    known = set(SHELL_OWN)
    for one in instructions:
        if one.name in ("ARG", "ENV"):
            known |= one.assignments.keys()
        used = {a or b for a, b in VARIABLE.findall(one.text)}
        assert used <= known, f"{one.name} uses what nothing sets: {used - known}"
    for text in runs(instructions):
        subprocess.run(["sh", "-n", "-c", text], check=True)
        if "apt-get" in text:
            assert text.startswith("apt-get update && ") and text.endswith(" && rm -rf /var/lib/apt/lists/*")
            assert "--yes --no-install-recommends" in text
        if "pip install" in text:
            assert "--no-cache-dir" in text
    assert entry(instructions) == (["hvbench"], ["--help"])


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_is_copied_is_all_that_the_wheel_is_made_of(name: str) -> None:
    copied = [source for one in DOCKERFILES[name] if one.name == "COPY" for source in one.text.split()[:-1]]
    patterns = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    wanted = {"setup.py", "pyproject.toml", "README.md", "LICENSE", "hvbench", "suites"}
    assert set(copied) == wanted
    tracked = list_tracked()
    kept = {path for path in tracked if not is_ignored(path, patterns)}
    assert kept == {path for path in tracked if path.split("/")[0] in wanted}
    assert is_ignored("hvbench/cli/__pycache__/ab.cpython-311.pyc", patterns) and is_ignored(
        ".venv/bin/python", patterns
    )


def test_both_dockerfiles_and_the_apptainer_file_take_the_same_steps() -> None:
    cpu, gpu = DOCKERFILES["Dockerfile"], DOCKERFILES["Dockerfile.gpu"]
    assert [text.replace(" --with-cuda", "") for text in runs(gpu)] == runs(cpu)
    definition = (DEPLOY / "apptainer.def").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^%(\w+)\n((?:(?!%).*\n?)*)", definition, re.M))
    assert re.search(r"^Bootstrap: docker\nFrom: (.+)$", definition, re.M)[1] == cpu[0].text
    subprocess.run(["sh", "-n", "-c", sections["post"]], check=True)
    assert packages_of(sections["post"]) == packages_of(runs(cpu)[0]) - {"openssh-server"}
    for line in (
        "python3 -m venv /opt/hvbench",
        "HVBENCH_CACHE=/tmp/cache hvbench install-horovod",
        "rm -rf /tmp/cache",
    ):
        assert line in sections["post"] and line in runs(cpu)[1]
    (extras,) = [one.assignments["EXTRAS"] for one in cpu if one.name == "ARG" and "EXTRAS" in one.text]
    assert f"'.[{extras}]'" in sections["post"]
    copied = [source for one in cpu if one.name == "COPY" for source in one.text.split()[:-1]]
    assert [line.split() for line in sections["files"].split("\n") if line.strip()] == [
        [source, f"/opt/source/{source}"] for source in copied
    ]


def test_condas_environment_has_a_supported_python_and_this_clone() -> None:
    environment = yaml.safe_load((DEPLOY / "environment.yml").read_text(encoding="utf-8"))
    assert environment.keys() == {"name", "channels", "dependencies"}
    named = [each for each in environment["dependencies"] if isinstance(each, str)]
    assert all(re.fullmatch(r"[a-z0-9_-]+(=[\d.]+)?", each) for each in named)
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    (supported,) = re.findall(r'python_requires="(.+?)"', setup)
    (version,) = [each.partition("=")[2] for each in named if each.startswith("python=")]
    assert Requirement(f"python{supported}").specifier.contains(version)
    ((clone,),) = [each["pip"] for each in environment["dependencies"] if isinstance(each, dict)]
    folder, extras = re.fullmatch(r"(.+)\[(.+)\]", clone).groups()
    assert (DEPLOY / folder / "setup.py").samefile(ROOT / "setup.py") and extras == "all,ci"


# Root trusts a key, whose owner asks the daemon for what mpirun would start on a host.
BY_SSH = """
ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519 && cp /root/.ssh/id_ed25519.pub /root/.ssh/authorized_keys
/usr/sbin/sshd -p {port} -o ListenAddress=127.0.0.1 -o PidFile=/tmp/sshd.pid
trap 'kill $(cat /tmp/sshd.pid)' EXIT
ssh -p {port} 127.0.0.1 'command -v orted hvbench'
"""


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Image]:
    """An empty Debian of the release that the image for CPUs begins with; gone after the test, it takes gigabytes."""
    if os.geteuid() or not shutil.which("debootstrap"):
        pytest.skip("needs root and debootstrap (apt-get install debootstrap)")
    root = tmp_path / "image"
    release = IMAGE.fullmatch(DOCKERFILES["Dockerfile"][0].text)["tag"].removesuffix("-slim")
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    try:
        done = subprocess.run(["debootstrap", "--variant=minbase", release, root], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr
        yield Image(root=root, context=ROOT, given=pip, shared=find_pip_files())
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.mark.long
@pytest.mark.root
@pytest.mark.timeout(3600)
def test_the_image_for_cpus_is_built_in_a_chroot_and_trains(image: Image) -> None:
    """All instructions of the Dockerfile; then a sweep of both frameworks on two ranks, and what mpirun needs on another host."""
    instructions = DOCKERFILES["Dockerfile"]
    kept = image.root / "tmp" / "cache" / "horovod"  # what another build has left, if it was for the same
    if (cache_root() / "horovod").is_dir():
        shutil.copytree(cache_root() / "horovod", kept, ignore=shutil.ignore_patterns("lock", "build"))
    for one in instructions[1:]:
        image.execute(one)
    assert not (image.root / "tmp" / "cache").exists()
    (program,), (words,) = entry(instructions)
    assert "Usage: hvbench" in image.run([program, words])
    image.run([program, "sweep", "smoke", "--np", "2", "--quiet", "--out", "run"])
    records, problems = RunFolder(image.root / "work" / "run").read_records()
    assert problems == [] and {record.outcome.status for record in records} == {"ok"}
    assert {record.point.framework for record in records} == set(FRAMEWORKS)
    (port,) = find_ports(1)
    said = image.run(["sh", "-ec", BY_SSH.format(port=port)])
    assert said.split()[-2:] == ["/opt/hvbench/bin/orted", "/opt/hvbench/bin/hvbench"], said


def find_pip_files() -> list[Path]:
    """Files and folders of this machine that pip's settings are, or lead to: an index or wheels on a disk, certificates."""
    words = [sys.executable, "-m", "pip", "config"]
    told = subprocess.run([*words, "debug"], check=True, capture_output=True, text=True).stdout
    files = [Path(path) for path in re.findall(r"^\s+(/.+), exists: True$", told, re.M)]
    listed = subprocess.run([*words, "list"], check=True, capture_output=True, text=True).stdout
    named = [
        Path(path).parent if is_index else Path(path)  # an index on a disk leads to files beside it
        for is_index, path in re.findall(r"(file://)?(/[^\s'\"]+)", listed)
    ]
    return [path for path in dict.fromkeys([*files, *named]) if path.exists()]

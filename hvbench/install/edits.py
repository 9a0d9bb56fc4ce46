"""The edits that make Horovod 0.28.1 build and run with today's PyTorch, TensorFlow and compilers.

Each is a literal replacement with its reason. An edit whose text is not there exactly as often as expected stops the
build: a source that differs from the one these edits were written for must be looked at, not guessed about.
"""

import hashlib
from dataclasses import astuple, dataclass
from pathlib import Path

from hvbench.errors import InstallError


@dataclass(frozen=True, kw_only=True)
class Edit:
    """Replace `before`, found exactly `times` times in the file at `path`, by `after`."""

    path: str
    before: str
    after: str
    why: str
    times: int = 1


# Several sources are compiled as one, a third less work: they spend most of it on the headers that they share.
UNITY = "set(CMAKE_UNITY_BUILD ON)\nset(CMAKE_UNITY_BUILD_BATCH_SIZE 8)\n"

EDITS = (
    Edit(
        path="CMakeLists.txt",
        before="set(CMAKE_CXX_STANDARD 14)",
        after="set(CMAKE_CXX_STANDARD 17)",
        why="the headers of PyTorch and TensorFlow need C++17",
    ),
    Edit(
        path="horovod/torch/CMakeLists.txt",
        before="set(CMAKE_CXX_STANDARD 14)",
        after="set(CMAKE_CXX_STANDARD 17)\n" + UNITY,
        why="the PyTorch part sets the standard once more; the sources all include the same headers",
    ),
    Edit(
        path="CMakeLists.txt",
        before='string(REPLACE "-O2" "-O3" CMAKE_CXX_FLAGS_RELWITHDEBINFO "${CMAKE_CXX_FLAGS_RELWITHDEBINFO}")',
        after='set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O3 -DNDEBUG")',
        why="without debug information it compiles a quarter faster and the wheel is a tenth of the size",
    ),
    Edit(
        path="horovod/tensorflow/CMakeLists.txt",
        before='list(APPEND TF_SOURCES "${PROJECT_SOURCE_DIR}/horovod/tensorflow/xla_mpi_ops.cc")\n',
        after=UNITY,
        why="TensorFlow's wheel lacks a header it includes; only Horovod's operations inside XLA clusters are lost",
    ),
    Edit(
        path="horovod/tensorflow/CMakeLists.txt",
        before="list(APPEND TF_LINKER_LIBS compatible17_gloo)",
        after="list(APPEND TF_LINKER_LIBS gloo)",
        why="both parts are C++17 with the same ABI now: one Gloo is enough for them",
    ),
    Edit(
        path="CMakeLists.txt",
        before="if(HAVE_GLOO AND (DEFINED Tensorflow_CXX17 AND Tensorflow_CXX17))",
        after="if(FALSE)",
        why="so the second copy need not be compiled",
    ),
    Edit(
        path="horovod/common/gloo/gloo_context.cc",
        before=(
            "  attr device_attr;\n"
            "  device_attr.iface = gloo_iface_;\n"
            "  device_attr.ai_family = AF_UNSPEC;\n"
            "  auto dev = CreateDevice(device_attr);\n"
            "\n"
            "  global_ctx = global_context.ctx;\n"
        ),
        after=(
            "  gloo_iface_ = global_context.gloo_iface_;\n"
            "  attr device_attr;\n"
            "  device_attr.iface = gloo_iface_;\n"
            "  device_attr.ai_family = AF_UNSPEC;\n"
            "  auto dev = CreateDevice(device_attr);\n"
            "\n"
            "  global_ctx = global_context.ctx;\n"
        ),
        why="process sets ignored HOROVOD_GLOO_IFACE and listened on a loopback address when there are several hosts",
    ),
    Edit(
        path="third_party/gloo/gloo/types.h",
        before="    return !(*this == rhs.x);\n",
        after="    return x != rhs.x;\n",
        why="it took the bits of a float16 for a number, and an assignment, which asks it first, was left out: sums lost a summand",
    ),
)


def apply_edits(source: Path, edits: tuple[Edit, ...] = EDITS) -> None:
    """Apply the edits to the tree at `source`; raise InstallError, with nothing written, where one does not fit."""
    texts: dict[Path, str] = {}
    for edit in edits:
        path = source / edit.path
        if path not in texts:
            if not path.is_file():
                raise InstallError(f"{edit.path} is not in Horovod's source: this is not the release hvbench can mend")
            texts[path] = path.read_text(encoding="utf-8")
        found = texts[path].count(edit.before)
        if found != edit.times:
            raise InstallError(
                f"{edit.path}: expected {edit.times} × {edit.before.strip().splitlines()[0]!r}, found {found}: "
                f"this is not the Horovod source hvbench can mend ({edit.why})"
            )
        texts[path] = texts[path].replace(edit.before, edit.after)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")


def edits_digest(edits: tuple[Edit, ...] = EDITS) -> str:
    """Return a digest of the edits, for the cache key: other edits make another wheel."""
    return hashlib.sha256(repr([astuple(edit) for edit in edits]).encode()).hexdigest()

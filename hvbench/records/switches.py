"""Environment variables that change what the libraries below the frameworks do: which of them are set, and to what. Pure.

Names that say where something lies, or that hold what nobody should read, are left out; folders in values are, too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from hvbench.spec.secret_names import SECRETS

# OpenMP, MKL, oneDNN, other BLAS, PyTorch, TensorFlow, XLA, CUDA and its libraries, transports, allocators.
LIBRARIES = re.compile(
    r"(OMP|KMP|GOMP|MKL|ONEDNN|DNNL|OPENBLAS|BLIS|ATEN|TORCH|TORCHINDUCTOR|PYTORCH|TF|XLA|KERAS|CUDA|CUDNN|CUBLAS|CUBLASLT|NVIDIA"
    r"|NCCL|UCX|GLOO|MALLOC|TCMALLOC|MIMALLOC|JEMALLOC)_\w+|GLIBC_TUNABLES|LD_PRELOAD|PYTHONMALLOC",
    re.ASCII,
)
# Where things lie, what is written about a run, and what tells a process its place among others.
NO_SWITCHES = re.compile(
    r"\w+_(HOME|PATH|ROOT|DIR|DIRS|FOLDER|FILE|PREFIX|INCLUDE|LIB|LIBRARY|URL|URI)|\w*LOG_LEVEL|TORCH_LOGS\w*|TORCH_SHOW\w*"
    r"|NCCL_DEBUG\w*|NCCL_COMM_ID|TF_CONFIG|TF_CPP_\w*LOG\w*|GLOO_SOCKET_IFNAME|NVIDIA_(REQUIRE|VISIBLE|DRIVER)_\w+|NVIDIA_PRODUCT_NAME"
    r"|CUDA_VERSION|CUDNN_VERSION|NCCL_VERSION|PYTORCH_VERSION|TORCH_VERSION",
    re.ASCII,
)
VISIBLE = "CUDA_VISIBLE_DEVICES"  # empty: none may be seen; of any other an empty value is none
LOOPBACK = ("NCCL_SOCKET_IFNAME", "lo")  # horovodrun's word for one host, where nothing goes over a network
CREDENTIALS = re.compile(r"\w+://[^/\s]*@")
FOLDERS = re.compile(r"(?<![\w.])~?/(?:[^\s/:;,=]+/)*")
MAX_VALUE = 500


def find_switches(environment: Mapping[str, str], *, but: Collection[str] = ()) -> dict[str, str]:
    """Name -> value of the switches that `environment` sets, in the order of their names.

    Args:
        environment: variables of a process.
        but: names that hvbench has set itself, from the point or the launch.
    """
    return {
        name: describe_switch(name, environment[name])
        for name in sorted(environment)
        if is_switch(name) and name not in but and (environment[name].strip() or name == VISIBLE)
        if not CREDENTIALS.search(environment[name]) and (name, environment[name]) != LOOPBACK
    }


def is_switch(name: str) -> bool:
    """Whether a variable of this name changes what a library does."""
    return bool(LIBRARIES.fullmatch(name)) and not NO_SWITCHES.fullmatch(name) and not SECRETS.search(name)


def describe_switch(name: str, value: str) -> str:
    """A value as it is compared: which GPUs a process sees is a matter of the scheduler's, how many is one of speed."""
    if name == VISIBLE:
        return f"{count_visible(value)} devices"
    return FOLDERS.sub("", value.strip())[:MAX_VALUE]


def count_visible(value: str) -> int:
    """GPUs that CUDA_VISIBLE_DEVICES shows: those before the first that cannot be one."""
    count = 0
    for word in value.split(","):
        if not re.fullmatch(r"\d+|(GPU|MIG)-[\w/-]+", word.strip()):
            break
        count += 1
    return count

"""Builds Horovod 0.28.1 against the PyTorch, TensorFlow, MPI and CUDA of the running interpreter's environment.

    python -m hvbench.install              build (or take from the cache), install, verify
    python -m hvbench.install --dry-run    say what would be built, change nothing

Horovod's last release is source only and predates today's frameworks: `edits` mends its source, `plan` decides what
to build, `build` builds it once per combination and keeps the wheel in the user's cache. The package needs nothing but
the standard library, so that it runs inside any environment that has a framework.
"""

from hvbench.install.build import check_build, install
from hvbench.install.plan import Build, decide
from hvbench.install.prerequisites import missing_prerequisites
from hvbench.install.stack import Stack, detect

__all__ = ["Build", "Stack", "check_build", "decide", "detect", "install", "missing_prerequisites"]

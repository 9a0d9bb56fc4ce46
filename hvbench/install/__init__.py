"""Builds Horovod 0.28.1 against the PyTorch, TensorFlow, MPI and CUDA of the running interpreter's environment.

    python -m hvbench.install              build (or take from the cache), install, verify
    python -m hvbench.install --dry-run    say what would be built, change nothing

Horovod's last release is source only and older than today's frameworks: `stack` finds what is installed, `plan` decides
what to build against it, `edits` patches the source, `build` builds one wheel per combination, which stays in the user's
cache. The package imports nothing but the standard library, so that it runs in any environment that has a framework.
"""

from hvbench.install.build import check_build, install
from hvbench.install.plan import Build, decide
from hvbench.install.prerequisites import missing_prerequisites
from hvbench.install.stack import Stack, detect

__all__ = ["Build", "Stack", "check_build", "decide", "detect", "install", "missing_prerequisites"]

"""`python -m hvbench.install`: the builder on a bare interpreter, before anything else is installed.

    python -m hvbench.install              build against this environment's frameworks, install, verify
    python -m hvbench.install --dry-run    say what would be built
    python -m hvbench.install --check      only look whether a compiler, make, Python's headers and venv are there

Exit codes: 0, 5 when something is missing or fails, 130 when interrupted.
"""

import argparse
import signal
import sys
from pathlib import Path

from hvbench.errors import InstallError, Interrupted
from hvbench.install import install, missing_prerequisites
from hvbench.install.terminal import terminal_status

# Not the docstring, which PYTHONOPTIMIZE=2 takes away.
DESCRIPTION = "Build Horovod against the PyTorch, TensorFlow, MPI and CUDA that are installed here."


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a plain kill cleans up like Ctrl-C
    try:
        if options.check:
            if missing := missing_prerequisites(environment=True):
                raise InstallError("\n".join(missing))
        else:
            install(
                report=lambda line: print(line, flush=True),
                status=terminal_status(sys.stdout),
                cuda=options.cuda,
                rebuild=options.rebuild,
                cache=options.cache,
                jobs=options.jobs,
                dry_run=options.dry_run,
            )
    except InstallError as error:
        print(f"error: {error}".replace("\n", "\n       "), file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted: no half-built wheel was left", file=sys.stderr)
        return Interrupted.exit_code
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the command line's description."""
    parser = argparse.ArgumentParser(prog="python -m hvbench.install", description=DESCRIPTION)
    parser.add_argument("--dry-run", action="store_true", help="say what would be built, change nothing")
    parser.add_argument("--check", action="store_true", help="only check for a compiler, make, headers and venv")
    parser.add_argument("--rebuild", action="store_true", help="build even if the cache has the wheel")
    parser.add_argument("--cache", type=absolute, metavar="DIR", help="default: $HVBENCH_CACHE or ~/.cache/hvbench")
    parser.add_argument("--jobs", type=positive, help="compilers at a time (default: cores, as far as memory allows)")
    cuda = parser.add_mutually_exclusive_group()
    cuda.add_argument("--with-cuda", dest="cuda", action="store_const", const=True, help="fail rather than omit NCCL")
    cuda.add_argument("--without-cuda", dest="cuda", action="store_const", const=False, help="omit NCCL")
    return parser


def absolute(text: str) -> Path:
    """Parse a folder's path."""
    return Path(text).absolute()


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    sys.exit(main())

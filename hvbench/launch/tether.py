"""Run a command that ends when its parent does: `python -m hvbench.launch.tether PARENT_PID COMMAND…` (Linux)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # outlives the exec below
    if os.getppid() == int(sys.argv[1]):  # else it ended before we could ask
        os.execvp(sys.argv[2], sys.argv[2:])

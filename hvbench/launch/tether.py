"""Run a command that ends when its parent does: `python -m hvbench.launch.tether PARENT_PID COMMAND…` (Linux)."""

from __future__ import annotations

import os
import sys

from hvbench.launch.own_process import die_with_parent

if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])

"""Turns of launches that live at the same time, so that what is compared sees the same machine, step by step.

scheduler  whose turn it is, pure: events in, decisions out
server     asks it, on a Unix socket, for ranks that ask there (`hvbench.worker.turns`), and suspends those that wait
"""

VARIABLE = "HVBENCH_TURNS"  # ARM:PATH, for a rank that takes turns: whose rank it is, and where the server's socket is; empty: it takes none
GIVE_UP_SECONDS = 120.0  # for a turn, and for other arms to come to the same point, where nobody else ends them

"""How long a test waits for what has to happen: a bound on a hang, no measure of speed. A busy machine is slow, not wrong."""

SECONDS = 300.0

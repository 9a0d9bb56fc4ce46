"""The errors that are reported to the user in one line, each with its exit code.

A message says what was wrong, where, and what is allowed or what to do next. Only `cli` turns these errors into output
and an exit code; any other exception is a defect of hvbench and shows its traceback.
"""


class HvbenchError(Exception):
    """Base class: a message of one line for the user, an exit code for the shell."""

    exit_code = 1


class UsageError(HvbenchError):
    """The command line, a suite file, a result or a value in one of them is invalid."""

    exit_code = 2


class ProbeError(UsageError):
    """A script calls the probe where, or with what, it cannot measure."""


class DataError(UsageError):
    """The training text is missing, unreadable or too short for the configuration."""


class StorageError(HvbenchError):
    """A result folder or a record cannot be written or read."""

    exit_code = 5


class LaunchError(HvbenchError):
    """Ranks could not be started or connected, or the connection was lost."""

    exit_code = 5


class PointsFailed(HvbenchError):
    """The sweep ran to its end, but some points did not end in `ok`."""

    exit_code = 1


class NotProven(HvbenchError):
    """The parity check ran to its end, but some configurations are not proven to be the same work."""

    exit_code = 1


class InstallError(HvbenchError):
    """Horovod could not be built, or something that the build needs is missing."""

    exit_code = 5


class Interrupted(HvbenchError):
    """The user asked to stop (Ctrl-C or SIGTERM)."""

    exit_code = 130


class RegressionFound(HvbenchError):
    """Something got worse, clearly and by at least the margin, or the loss changed."""

    exit_code = 1


class Inconclusive(HvbenchError):
    """The launches do not say whether something got worse."""

    exit_code = 3


class NotComparable(HvbenchError):
    """The sides ran on different machines or software, or did not do the same work."""

    exit_code = 4


class MissingData(HvbenchError):
    """A run, a baseline, a point or launches that a comparison needs are missing."""

    exit_code = 5

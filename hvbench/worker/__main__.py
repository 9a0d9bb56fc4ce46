"""One rank's worker as an agent starts it: `python -m hvbench.worker DIRECTORY`."""

import sys

from hvbench.worker.jobs import find_directory, main

main(find_directory(sys.argv[1]))

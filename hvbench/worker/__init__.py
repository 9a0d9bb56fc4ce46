"""One rank of one framework: it runs jobs, reads the clock and writes samples. `python -m hvbench.worker DIRECTORY`."""

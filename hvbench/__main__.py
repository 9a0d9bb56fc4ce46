"""`python -m hvbench`: the command line, where the console script is not in the PATH."""

from hvbench.cli import main

main()

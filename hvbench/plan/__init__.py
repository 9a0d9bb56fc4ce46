"""Points -> jobs: what will run and in which order, what is skipped and why, how long it takes, and how often it repeats."""

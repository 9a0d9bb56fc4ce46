"""The gate: pairs of launches and a policy -> a verdict and an exit code. Pure."""

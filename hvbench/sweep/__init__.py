"""A sweep on rank 0: everything between the command line and the workers."""

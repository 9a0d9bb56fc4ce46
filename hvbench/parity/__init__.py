"""Proof that the twins do the same work: traces of a few updates, compared tensor by tensor."""

# Over so many a parity check compares small models, and its tolerances were measured. Here: the command line's help, which
# shows it, loads no other module of this folder.
CHECKED_UPDATES = 20

"""Proof that the twins do the same work: traces of a few updates, compared tensor by tensor."""

"""Idle time of the ranks, the one that the others wait for, and what a straggler on purpose costs."""

"""Pairs of launches of two arms, taken side by side, up to a verdict."""

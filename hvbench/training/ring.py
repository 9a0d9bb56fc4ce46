"""Consistent hashing: which of several places owns a key, so that another place takes over its share and moves nothing else.

Every place has so many points on a ring of 2^64 hashes; a key belongs to the place of the first point at or after its own hash
(Karger et al., STOC 1997; virtual nodes as in Stoica et al., SIGCOMM 2001). Hashes are of SHA-256, the same on every machine.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterable

POINTS = 256  # of a place: its share is then within about 1 / sqrt(256), a sixteenth, of an equal one (one standard deviation)


class Ring:
    """Places 0 … n - 1 on a ring; `owner` is the same wherever a ring of as many places is made."""

    def __init__(self, places: int, *, points: int = POINTS) -> None:
        """Raises ValueError without a place."""
        if places < 1:
            raise ValueError(f"a ring of {places} places owns nothing")
        spots = sorted((_hash(f"{place}/{number}"), place) for place in range(places) for number in range(points))
        self._hashes = [spot for spot, _ in spots]
        self._places = [place for _, place in spots]

    def owner(self, key: str) -> int:
        """The place that owns `key`."""
        return self._places[bisect.bisect_left(self._hashes, _hash(f"key/{key}")) % len(self._places)]

    def share(self, keys: Iterable[str], *, place: int) -> list[str]:
        """Those of `keys` that `place` owns, in their order."""
        return [key for key in keys if self.owner(key) == place]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])

"""The nominal coverage of every interval, unless a caller asks for another."""

from __future__ import annotations

CONFIDENCE = 0.95

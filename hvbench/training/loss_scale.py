"""Dynamic loss scaling for fp16 (Micikevicius et al., arXiv:1710.03740, section 3.2), for both twins."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class LossScale:
    """The factor on the loss that keeps small gradients within fp16's range; constantly 1 where not `enabled`."""

    enabled: bool
    scale: float = 2.0**15
    growth_interval: int = 1000
    clean_steps: int = 0

    def __post_init__(self) -> None:
        if not self.enabled:
            self.scale = 1.0

    def update(self, *, skipped: bool) -> None:
        """Halve after a step that overflowed; double after `growth_interval` steps in a row without an overflow."""
        if not self.enabled:
            return
        if skipped:
            self.scale = max(1.0, self.scale / 2)
            self.clean_steps = 0
            return
        self.clean_steps += 1
        if self.clean_steps == self.growth_interval:
            self.scale = min(2.0**24, self.scale * 2)
            self.clean_steps = 0

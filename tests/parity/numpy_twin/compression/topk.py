"""A rank alone sends all that it has."""

from __future__ import annotations

import numpy as np
from hvbench.frameworks.numpy.compression.feedback import FeedbackAllReduce

from hvbench.frameworks.contract import Arrays


class TopKAllReduce(FeedbackAllReduce):
    """Gradients as they are."""

    def start(self, name: str, gradient: np.ndarray) -> None:
        """Keep one gradient."""
        self.pending[name] = gradient

    def finish(self) -> Arrays:
        """Canonical name -> average."""
        averages, self.pending = self.pending, {}
        return averages

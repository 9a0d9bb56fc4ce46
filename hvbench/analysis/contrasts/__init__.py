"""Points of a run -> contrasts, by the one rule that says "faster" (`analysis.stats.contrasts`), and the price of what it cannot say."""

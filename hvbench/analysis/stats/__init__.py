"""Statistics of launches: estimates, ratios, survival. Pure functions of numbers."""

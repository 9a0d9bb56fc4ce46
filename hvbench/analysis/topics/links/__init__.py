"""Step times on links of different bandwidth."""

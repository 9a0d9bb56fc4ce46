"""What a larger batch costs."""

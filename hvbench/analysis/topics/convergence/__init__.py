"""How far the loss falls, and how fast."""

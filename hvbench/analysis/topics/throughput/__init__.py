"""How fast each configuration trains, and which is the fastest."""

"""Files: written whole or not at all, read within bounds, and the user's cache. Only the standard library is needed."""

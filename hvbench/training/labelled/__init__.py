"""Labelled texts in files: their rows, the tokens and labels of them in the cache, and padded batches."""

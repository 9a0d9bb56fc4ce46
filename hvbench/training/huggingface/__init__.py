"""Weights in the folders of Hugging Face's transformers: which models they are of, how they are read, and how they are written."""

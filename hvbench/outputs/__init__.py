"""Comparisons and verdicts as text, Markdown, CSV, JSON, JUnit XML and GitHub's own formats: pure functions to strings."""

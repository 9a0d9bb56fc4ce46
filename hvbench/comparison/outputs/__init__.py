"""Comparisons and verdicts as text, Markdown, CSV, JSON, JUnit XML and GitHub's formats: pure functions."""

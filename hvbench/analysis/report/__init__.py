"""A run's records -> its report: Markdown, one HTML page, tables and plots."""

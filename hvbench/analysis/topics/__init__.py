"""What a report is about: one module a topic, with its tables, plots and sentences."""

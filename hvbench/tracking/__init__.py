"""Experiment trackers: one tracker run per launch, with its settings, metrics per step and summary.

They are written from the records after everything was measured (`export`), so `hvbench report RUN --track …` exports an old
run as well, and exporting a run twice adds nothing. While a sweep runs, trackers of `LIVE` follow it, each in a process of its
own (`process`, `live`): what they show until then comes from rank 0 alone, and the records replace it.
"""

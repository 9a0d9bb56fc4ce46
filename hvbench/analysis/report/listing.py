"""The topics of a report as a Markdown table: what each of them answers, and what a run must hold for it."""

from __future__ import annotations

from hvbench.analysis.topics import catalogue


def render_topic_list() -> str:
    """Name, question and needs of every topic, in the order of a report."""
    lines = ["| topic | question | it needs |", "| :--- | :--- | :--- |"]
    lines += [f"| {topic.name} | {topic.question} | {topic.needs.words} |" for topic in catalogue.TOPICS]
    return "\n".join(lines) + "\n"

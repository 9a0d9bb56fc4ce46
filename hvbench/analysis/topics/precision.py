"""What a lower precision buys: its speed, its memory, and whether its loss stays with the first precision's."""

from __future__ import annotations

from dataclasses import replace

from hvbench.analysis.contrasts.points import contrast_points
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import Row
from hvbench.analysis.show.effects import MEMORY, PAIRS, Sides, describe_family, finish_clause
from hvbench.analysis.show.panels import describe_value, emulated_precisions
from hvbench.analysis.show.sentences import Draft, Sentence
from hvbench.analysis.topics.choices import Choice, list_choices
from hvbench.analysis.topics.questions import asks_about, was_launched_once
from hvbench.analysis.topics.topic import Need, Topic, has_measured_launches

NAME = "precision"


def asks_about_precision(run: Run) -> bool:
    """Whether the question is what a lower precision buys."""
    return asks_about(run, "precision") and run.compared_axes == ["precision"]


def describe_precisions(run: Run) -> list[Sentence]:
    """Speed, peak memory and loss of every other precision against the first one, in one sentence."""
    if not asks_about_precision(run) or was_launched_once(run):
        return []
    found = [_describe(run, choice) for choice in list_choices(run, ["precision"])]
    if not found:
        return []
    whole = found[0]
    for each in found[1:]:
        whole = whole.followed_by(each)
    price = next((each.price for each in found if each.price), None)
    return [replace(whole, is_open=all(each.is_open for each in found), price=price)]


def _describe(run: Run, choice: Choice) -> Sentence:
    draft, emulated = Draft(), emulated_precisions(run.points)
    one, other = (
        draft.label(describe_value("precision", value, emulated=emulated)) for value in (choice.one, choice.other)
    )
    sides = Sides(one=one, other=other, things=PAIRS)
    family = contrast_points(run, choice.pairs)
    speed = describe_family(draft, family, sides, unmeasured=choice.unmeasured)
    in_memory = Sides(one=one, other=other, things=PAIRS, words=MEMORY, is_continued=True)
    memory = describe_family(draft, contrast_points(run, choice.pairs, metric="peak_rss_bytes"), in_memory)
    parts = [speed.text, memory.text]
    if gaps := [gap for pair in choice.pairs if (gap := _loss_gap(*pair)) is not None]:
        text = f"{max(gaps):.2g}" if max(gaps) < 1 else f"{max(gaps):.1f}"
        parts.append(
            f"its training loss at the end is within {draft.quote(text, max(gaps), 'loss_gap')} % of {other}'s"
        )
    return finish_clause(draft, NAME, replace(speed, text="; ".join(parts)), run, family)


def _loss_gap(one: Row, other: Row) -> float | None:
    """By how many per cent two mean losses differ; None where a launch has none."""
    a, b = float(one["final_loss"]), float(other["final_loss"])
    return 100 * abs(a / b - 1) if a == a and b == b and b else None


TOPIC = Topic(
    name="Precision",
    question="What does a lower precision buy, in speed and in memory, and does the loss stay?",
    needs=Need(words="launches that ended in ok", is_met=has_measured_launches),
    sentences=describe_precisions,
    precedence=38,
    answers=asks_about_precision,
)

"""A sentence of the answer -> how the page shows it: the claim, short and bold, and below it the figures, the rest and the command.

The words are those of the sentence, none is lost: an interval in parentheses becomes a line of figures, what stands behind a
semicolon, or behind a colon with figures of its own, a line of its own, and a command in `backticks` a block that can be copied.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hvbench.analysis.show.cells import INTERVAL
from hvbench.analysis.show.sentences import capitalize

FIGURES = re.compile(rf"{re.escape(INTERVAL)}|\bn = \d|\b(?:rounds?|launch(?:es)?|seeds?|pairs?)\b")
COMMAND = re.compile(r":?\s*`([^`]+)`\.?")
PARENTHESES = re.compile(r"\s*\(([^()]*(?:\([^()]*\)[^()]*)*)\)")


@dataclass(frozen=True, kw_only=True)
class Headline:
    """`claim` is what has to be read; `figures` say how sure it is; `more` are further clauses; `command` what to run next."""

    claim: str
    figures: str = ""
    more: Sequence[str] = ()
    command: str = ""


def split_sentence(text: str) -> Headline:
    """The parts of a sentence as the page shows them."""
    commands = COMMAND.findall(text)
    command = commands[0] if len(commands) == 1 else ""
    plain = COMMAND.sub("", text) if command else text
    first, *clauses = [part for part in split_clauses(plain) if part] or [""]
    first, reason = split_reason(first)
    clauses = [reason, *clauses] if reason else clauses
    claim, figures = take_figures(first)
    more = [f"{capitalize(clause).rstrip('.')}." for clause in clauses]
    if command and more:
        more[-1] = f"{more[-1][:-1]}:"
    return Headline(claim=claim and f"{claim.rstrip('.')}.", figures=figures, more=tuple(more), command=command)


def split_clauses(text: str) -> list[str]:
    """The text at the semicolons that stand in no parentheses."""
    parts, depth = [""], 0
    for letter in text:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == ";" and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def split_reason(clause: str) -> tuple[str, str]:
    """What stands before the first colon, and behind it, where both have figures in parentheses; else the clause and nothing."""
    before, _, behind = clause.partition(": ")
    return (before, behind) if list_figures(before) and list_figures(behind) else (clause, "")


def list_figures(clause: str) -> list[str]:
    """What its parentheses hold, where that says how sure something is."""
    return [found[1] for found in PARENTHESES.finditer(clause) if FIGURES.search(found[1])]


def take_figures(clause: str) -> tuple[str, str]:
    """The clause without the figures that it has in parentheses, and these."""
    figures = list_figures(clause)
    if len(figures) > 1:
        return clause, ""  # each belongs to words of its own
    plain = PARENTHESES.sub(lambda found: "" if found[1] in figures else found[0], clause)
    return plain, "; ".join(figures)

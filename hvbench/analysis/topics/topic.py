"""What a topic of analysis is: a question, what a run must hold for it, and the tables, plots and sentences that answer it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from hvbench.analysis.frame.metrics import STEP
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.forest import Forest
from hvbench.analysis.show.sentences import Sentence
from hvbench.analysis.show.tables import Table


def always(_: Run) -> bool:
    """Every run."""
    return True


def never(_: Run) -> bool:
    """No run."""
    return False


def has_launches(run: Run) -> bool:
    """A run with at least one record, however its launch ended."""
    return bool(run.records)


def has_measured_launches(run: Run) -> bool:
    """A run with at least one launch that ended in `ok` and has a speed."""
    return bool(run.points[STEP].notna().any())


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a run must hold before a topic can say anything, in words that finish "it needs ..."; and the test of it."""

    words: str
    is_met: Callable[[Run], bool]


def _no_tables(_: Run) -> Sequence[Table]:
    return ()


def _no_contrasts(_: Run) -> Sequence[Forest]:
    return ()


def _no_plots(_: Run) -> Mapping[str, Figure]:
    return {}


def _no_sentences(_: Run) -> Sequence[Sentence]:
    return ()


def _no_advice(_: Run) -> Sequence[str]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Topic:
    """One subject of a report. It is registered by being in `catalogue.TOPICS`, and nowhere else.

    `tables` -> tables in the order in which they are read; a table of no rows is left out by not returning it.
    `contrasts` -> what is compared with what, drawn before everything else: beside the answer where the topic gives it.
    `plots` -> file stem (the name of the image below `plots/`) -> figure; its title is the question it answers.
    `sentences` -> sentences for "The answer"; those of the topic with the lowest `precedence` come first.
    `answers` says of which runs they answer the question: those come before the sentences of all other topics, and the
    first of them is the answer. It is judged by what was compared (`run.compared_axes`) and how it was measured.
    `advice` -> plain sentences shown below the fastest configurations.
    `is_in_terminal` says for which runs its tables are also printed by the command line, which has room for few.
    `question_of_scripts` stands in place of `question` where people's own training was measured, of which less is known.
    None of these is asked of a run that does not meet `needs`.
    """

    name: str
    question: str
    needs: Need
    tables: Callable[[Run], Sequence[Table]] = _no_tables
    contrasts: Callable[[Run], Sequence[Forest]] = _no_contrasts
    plots: Callable[[Run], Mapping[str, Figure]] = _no_plots
    sentences: Callable[[Run], Sequence[Sentence]] = _no_sentences
    advice: Callable[[Run], Sequence[str]] = _no_advice
    precedence: int = 100
    answers: Callable[[Run], bool] = never
    is_in_terminal: Callable[[Run], bool] = always
    question_of_scripts: str = ""

    def ask(self, run: Run) -> str:
        """The question as it is asked of this run."""
        return self.question_of_scripts if run.is_of_scripts and self.question_of_scripts else self.question

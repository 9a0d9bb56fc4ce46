"""A sentence of the answer as the page shows it: short, with its figures below it, and not a word lost."""

from __future__ import annotations

import re

import pytest

from hvbench.analysis.report.page.headlines import Headline, split_sentence

CASES = {
    "TensorFlow is 6.2 % faster than PyTorch over the 5 configurations (95 % interval 3.9 to 8.4 %, 5 rounds; 2 to 9 % in each).": Headline(
        claim="TensorFlow is 6.2 % faster than PyTorch over the 5 configurations.",
        figures="95 % interval 3.9 to 8.4 %, 5 rounds; 2 to 9 % in each",
    ),
    "5 rounds cannot say whether PyTorch or TensorFlow is faster; a difference of 5 % takes about 4 more rounds, 6 minutes: "
    "`hvbench sweep quickstart --np 2 --resume -s repeats=9`.": Headline(
        claim="5 rounds cannot say whether PyTorch or TensorFlow is faster.",
        more=("A difference of 5 % takes about 4 more rounds, 6 minutes:",),
        command="hvbench sweep quickstart --np 2 --resume -s repeats=9",
    ),
    "PyTorch with bf16 (emulated) trains at 2,000 tokens/s (n = 3, no interval).": Headline(
        claim="PyTorch with bf16 (emulated) trains at 2,000 tokens/s.", figures="n = 3, no interval"
    ),
    "PyTorch breaks even at 2 Gbit/s (95 % interval 1 to 3, n = 30); TensorFlow breaks even at 4 (95 % interval 3 to 5, n = 30).": Headline(
        claim="PyTorch breaks even at 2 Gbit/s.",
        figures="95 % interval 1 to 3, n = 30",
        more=("TensorFlow breaks even at 4 (95 % interval 3 to 5, n = 30).",),
    ),
    "TensorFlow trains fastest, at 7,047 tokens/s (95 % interval 6,851 to 7,249, n = 5): faster than 8 of the others, by 42 to 79 % "
    "(5 rounds), 3.6 % faster than PyTorch (95 % interval 1.4 to 5.8 %, 5 rounds).": Headline(
        claim="TensorFlow trains fastest, at 7,047 tokens/s.",
        figures="95 % interval 6,851 to 7,249, n = 5",
        more=(
            "Faster than 8 of the others, by 42 to 79 % (5 rounds), 3.6 % faster than PyTorch (95 % interval 1.4 to 5.8 %, 5 rounds).",
        ),
    ),
    "A (95 % interval 1 to 2) and B (95 % interval 3 to 4) differ.": Headline(
        claim="A (95 % interval 1 to 2) and B (95 % interval 3 to 4) differ."
    ),
    "No launch has left a record yet, so there is nothing to say.": Headline(
        claim="No launch has left a record yet, so there is nothing to say."
    ),
    "Set `a` or `b`.": Headline(claim="Set `a` or `b`."),
    "": Headline(claim=""),
}


@pytest.mark.parametrize("text", CASES)
def test_a_sentence_is_a_claim_its_figures_further_clauses_and_a_command(text: str) -> None:
    assert split_sentence(text) == CASES[text]


@pytest.mark.parametrize("text", [*CASES, "a ) b ( c; d ((n = 3) rounds", "; ; (", "x;y (n = 1;2) ; z: `c`; more"])
def test_no_word_is_lost(text: str) -> None:
    def words(said: str) -> list[str]:
        return sorted(re.findall(r"[\w%.=-]*\w", said.lower()))

    found = split_sentence(text)
    assert words(" ".join([found.claim, found.figures, *found.more, found.command])) == words(text)

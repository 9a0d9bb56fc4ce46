"""The words of contrasts: what is more of a speed, of memory, of an update, is said whole wherever only some of the pairs show it."""

from __future__ import annotations

import pytest

from hvbench.analysis.contrasts.points import PointContrast, PointFamily
from hvbench.analysis.frame.metrics import RATE
from hvbench.analysis.show.effects import MEMORY, PER_STEP, SPEED, Sides, Words, describe_family
from hvbench.analysis.show.sentences import Draft
from hvbench.analysis.stats.contrasts import judge_family
from hvbench.analysis.topics.growth import UPDATE

SAYS = [
    (SPEED, "bf16 is faster than fp32 in 2 of 3 pairs of points, by ", ", and slower in 1, by "),
    (PER_STEP, "bf16 is faster per step than fp32 in 2 of 3 pairs of points, by ", ", and slower in 1, by "),
    (MEMORY, "bf16 needs more memory than fp32 in 2 of 3 pairs of points, by ", ", and less in 1, by "),
    (
        UPDATE,
        "bf16 spends more on all-reduce and update per token than fp32 in 2 of 3 pairs of points, by ",
        ", and less in 1, by ",
    ),
]


@pytest.mark.parametrize(("words", "more", "less"), SAYS)
def test_some_of_the_pairs(words: Words, more: str, less: str) -> None:
    """Two pairs 20 % up, one 40 % down, each within 1 %: no mean is called, so what some show is said."""
    logs = [[0.18, 0.181, 0.179, 0.182], [0.18, 0.179, 0.181, 0.182], [-0.4, -0.401, -0.399, -0.402]]
    family = judge_family(logs)
    contrasts = tuple(
        PointContrast(one={"point_id": "a"}, other={"point_id": "b"}, contrast=each) for each in family.contrasts
    )
    told = PointFamily(metric=RATE, contrasts=contrasts, mean=None, family=family)
    text = describe_family(Draft(), told, Sides(one="bf16", other="fp32", things="pairs of points", words=words)).text
    assert text.startswith(more) and less in text, text

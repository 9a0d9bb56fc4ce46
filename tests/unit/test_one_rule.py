"""One rule of "faster": what `hvbench compare` says of a run's frameworks is what its report says, figure by figure."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvbench.analysis.contrasts.points import PointFamily, contrast_points
from hvbench.analysis.frame.metrics import RATE, STEP
from hvbench.analysis.frame.run import Run
from hvbench.analysis.stats.contrasts import Call, Contrast
from hvbench.analysis.topics.frameworks import contrast_frameworks
from hvbench.comparison.compare import compare
from hvbench.comparison.result import Comparison, LaunchSet
from hvbench.comparison.sides import split_by
from hvbench.records.store import RunFolder

PUBLISHED = sorted(path.parent for path in Path("results/reference").glob("**/run.json"))


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.name)
def test_compare_and_report_agree_on_the_frameworks(path: Path) -> None:
    folder = RunFolder(path)
    run = Run(folder.read_records()[0], folder.read_run())
    arms = split_by([LaunchSet(name="run", records=run.records, job="run")], "framework")
    reported = contrast_frameworks(run)
    if not reported:
        pytest.skip("one framework")
    comparison = compare(arms, ignore={"framework"})
    for rivals in reported:
        if rivals.other != comparison.arms[0]:
            continue  # `compare` has one reference
        of_steps = contrast_points(run, [(each.one, each.other) for each in rivals.family.contrasts], metric=STEP)
        for family in (rivals.family, of_steps):
            require_agreement(comparison, family, arm=rivals.one)


def require_agreement(comparison: Comparison, family: PointFamily, *, arm: str) -> None:
    """AssertionError unless every contrast, every word and the mean are the same on both sides."""
    points = {point.point_ids: point for point in comparison.points if point.arm_b == arm}
    assert len(points) == len(family.contrasts)
    for each in family.contrasts:
        point = points[str(each.other["point_id"]), str(each.one["point_id"])]
        (change,) = (change for change in point.changes if change.metric.name == family.metric)
        require_same(change.contrast, each.contrast)
        better, worse = (each.is_faster, each.is_slower) if family.metric == RATE else (each.is_slower, each.is_faster)
        said = {"better": better, "worse": worse, "same": each.contrast.call == Call.EQUAL}
        assert point.mismatch or change.call == next((word for word, is_so in said.items() if is_so), "unclear")
    if not any(point.mismatch for point in points.values()):
        require_same(comparison.means.get((arm, family.metric)), family.mean)


def require_same(one: Contrast | None, other: Contrast | None) -> None:
    """AssertionError unless both are the same but for the order of their sums."""
    assert (one is None) == (other is None)
    if one and other:
        assert (one.call, one.rounds) == (other.call, other.rounds)
        for name in ("ratio", "low", "high", "p_value"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-9)

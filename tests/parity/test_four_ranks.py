"""What ranks exchange beside Horovod's average, on four of them: twin by twin, and shards against two ranks that hold everything."""

from __future__ import annotations

import numpy as np
import pytest

from hvbench.parity.compare import compare_traces
from hvbench.parity.pairs import compare_points
from hvbench.registry import FRAMEWORKS
from tests.parity.points import FOUR_RANKS, STEPS, four_point, optimizer_point, small_tolerances
from tests.parity.test_invariances import join_ranks

SHARED = [choices for choices in FOUR_RANKS if "shard" in choices]


@pytest.mark.parametrize("choices", FOUR_RANKS, ids=lambda choices: " ".join(map(str, choices.values())))
def test_twins_agree(traced, choices):
    parity = compare_points(*(traced[four_point(framework, choices)] for framework in FRAMEWORKS))
    assert parity.problem is None
    assert [deviation for deviation in parity.deviations if not deviation.is_within] == []
    assert parity.is_proven and parity.updates == STEPS
    ranks = traced[four_point(FRAMEWORKS[0], choices)].ranks
    assert len({trace["loss"].tobytes() for trace in ranks.values()}) == len(ranks) == 4, "each has samples of its own"


@pytest.mark.parametrize("choices", SHARED, ids=lambda choices: choices["shard"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_four_ranks_that_share_their_state_train_what_two_do_that_hold_it(traced, framework, choices):
    held = join_ranks(traced[optimizer_point(framework, choices["optimizer"], 2)])
    shared = join_ranks(traced[four_point(framework, choices)])
    logits = min(len(trace["logits"]) for trace in (held, shared))  # of the first samples, which both have on rank 0
    held, shared = ({**trace, "logits": trace["logits"][:logits]} for trace in (held, shared))
    found = compare_traces(shared, held, tolerances=small_tolerances("fp32", "none"))
    assert len(found) > 30 and [each for each in found if not each.is_within] == []
    assert np.isfinite(held["loss"]).all()

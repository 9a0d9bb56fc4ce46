"""Records of every suite about learning, with losses that are known: real classes, made-up samples, the suite's own points.

A launch's validation loss falls from 3 nats above its level to that level; what moves the level is said by the caller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hvbench.analysis.frame.run import Run
from hvbench.records.record import Evaluation, Record
from hvbench.spec.point import Point
from hvbench.spec.suite import Suite, find_suite, load_suite
from tests.unit.sample_records import make_rank, make_record, make_stamp

STEPS, EVERY = 20, 5
Level = Callable[[Point], float]


def make_learner(
    level: float,
    *,
    seed: int = 0,
    seconds: float = 0.1,
    measure: Mapping[str, Any] | None = None,
    accuracy: float | None = None,
    **point: Any,
) -> Record:
    """A launch of two ranks whose validation loss ends at `level` after 20 steps; `seed`: its repeat, which changes what it trains with."""
    evaluations = [
        Evaluation(
            step=step,
            loss=level + 3.0 * (1 - step / STEPS),
            accuracy=accuracy,
            samples=32,
            seconds=0.5,
            training_seconds=seconds * step,
        )
        for step in range(EVERY, STEPS + 1, EVERY)
    ]
    point = {"world_size": 2} | point
    ranks = [
        make_rank(rank, step_seconds=[seconds] * STEPS, loss=[3.0 + seed] * STEPS, evaluations=evaluations)
        for rank in range(2)
    ]
    record = make_record(ranks, repeat=seed, seed_per_repeat=True, parity=make_stamp(), **point)
    settings = {"evaluate_every": EVERY} | dict(measure or {})
    return record.model_copy(update={"measure": record.measure.model_copy(update=settings)})


def make_run(records: list[Record], *, compares: list[str] | None = None) -> Run:
    """A run of these launches whose suite compares these axes."""
    return Run(records, {"compares": compares or [], "command": "hvbench sweep example --np 2"})


def make_suite_run(name: str, level: Level, *, noise: float = 0.003, seeds: int | None = None) -> Run:
    """Every point of a suite, its seeds (or as many as asked): `level` of the point, and of each launch what its seed and chance add.

    Both frameworks learn the same from one seed, to a hundredth of what another seed changes.
    """
    suite: Suite = load_suite(find_suite(name))
    count = seeds or suite.measure.repeats
    records = []
    for point in suite.points():
        common = {**point.model_dump(exclude_unset=True), "world_size": 2}
        of_choice = np.random.default_rng(list(repr({k: v for k, v in common.items() if k != "framework"}).encode()))
        scatter = of_choice.normal(0.0, noise, count)
        for seed in range(count):
            of_seed = 0.05 * math.sin(seed)
            last = scatter[seed] / 100 if point.framework == "tensorflow" else 0.0
            records.append(
                make_learner(
                    level(point) + of_seed + scatter[seed] + last,
                    seed=seed,
                    seconds=0.1 if point.framework == "tensorflow" else 0.125,
                    measure={
                        "target_loss": suite.measure.target_loss and 4.0,
                        "stop_at_target": suite.measure.stop_at_target,
                    },
                    accuracy=0.5 if point.is_classifier or point.judges_pairs else None,
                    **common,
                )
            )
    request = {"question": suite.question, "compares": list(suite.compares), "command": f"hvbench sweep {name} --np 2"}
    return Run(records, request | {"together": [dict(group) for group in suite.together]})

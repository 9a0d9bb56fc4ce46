"""What the settings of points put at risk, told before anything runs."""

from __future__ import annotations

from collections.abc import Sequence

from hvbench.plan.jobs import Job
from hvbench.spec.labels import short_name
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.script import ScriptPoint
from hvbench.training.flops import model_facts
from hvbench.training.loss_scale import LossScale
from hvbench.training.wire import describe_risk


def describe_wire_risks(jobs: Sequence[Job]) -> list[str]:
    """Warnings of points whose gradients the wire's number format cannot hold, one line each."""
    lines: dict[str, None] = {}
    for point in dict.fromkeys(job.point for job in jobs if not isinstance(job.point, ScriptPoint)):
        scale = LossScale(enabled=PRECISIONS[point.precision].loss_scaling).scale
        risk = describe_risk(point, parameters=model_facts(point).trained_parameters, scale=scale)
        if risk:
            lines[f"{short_name(point)}: {risk}"] = None
    return list(lines)

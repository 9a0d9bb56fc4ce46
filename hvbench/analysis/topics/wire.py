"""What the wire's number format lost of the gradients: the shares that underflowed and overflowed, point by point.

fp16 holds no value between 0 and 2^-24, and few bits of those below 2^-14. Many gradients are that small and hardly count, so
what is lost is told as a share of the values and as a share of the gradient's norm, and the second is what is warned of.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import format_percent
from hvbench.analysis.show.record_table import Column, RecordLayout, tabulate_records
from hvbench.analysis.show.tables import Table
from hvbench.analysis.topics.topic import Need, Topic
from hvbench.records.record import Record, WireLook
from hvbench.spec.numerics import PRECISIONS

LARGE_SHARE = 0.01  # of a gradient's norm: plain fp16 loses some 1e-4 of it


def was_looked_at(record: Record) -> bool:
    """Whether its ranks looked at what the wire lost."""
    return any(rank.wire for rank in record.ranks)


def looked_at_wire(run: Run) -> bool:
    """Whether any launch did."""
    return any(map(was_looked_at, run.records))


def looks_of(records: Iterable[Record]) -> list[WireLook]:
    """All ranks' looks."""
    return [look for record in records for rank in record.ranks for look in rank.wire]


def lost_shares(looks: Iterable[WireLook]) -> dict[str, float]:
    """Over all looks: shares of the values that underflow, are zero, or overflow, and of the norm that underflows.

    NaN where there is nothing to divide by.
    """
    looks = list(looks)
    values = sum(look.values for look in looks)
    # Each look's norms without its loss scale.
    squares = sum(((look.norm or 0.0) / look.loss_scale) ** 2 for look in looks)
    lost = sum(((look.underflow_norm or 0.0) / look.loss_scale) ** 2 for look in looks)
    counts = {name: sum(getattr(look, name) for look in looks) for name in ("underflows", "zeros", "overflows")}
    return {
        **{f"{name}_share": count / values if values else math.nan for name, count in counts.items()},
        "underflow_norm_share": math.sqrt(lost / squares) if squares else math.nan,
    }


def is_large(shares: dict[str, float], *, has_loss_scale: bool) -> bool:
    """Whether so much was lost that training is not that of the gradients; a dynamic loss scale sees to overflows itself."""
    return shares["underflow_norm_share"] >= LARGE_SHARE or (shares["overflows_share"] > 0 and not has_loss_scale)


def show_losses(same: Sequence[Record]) -> tuple[dict[str, Any], list[str]]:
    """Raw values and cells of a point: the shares that its wire lost."""
    shares = lost_shares(looks_of(same))
    names = ("underflows_share", "zeros_share", "overflows_share", "underflow_norm_share")
    return {"n": len(same), **shares}, [str(len(same)), *(show_share(shares[name]) for name in names)]


LAYOUT = RecordLayout(
    name="wire",
    title="Gradients lost on the wire",
    notes=(
        "Of the values of each rank's own gradients that are not zero, at the end of n launches: those of which the "
        "number format on the wire keeps fewer than half of its bits, or none; of these, those that it sends as zero; "
        "those that become infinite, on the wire or in its sum over the ranks. Norm: the L2 norm of what underflows "
        "over that of the gradient.",
    ),
    columns=(
        Column(header="n"),
        Column(header="underflow (%)"),
        Column(header="sent as zero (%)"),
        Column(header="overflow (%)"),
        Column(header="underflow (% of the norm)"),
    ),
    is_wanted=was_looked_at,
    fill=lambda same: [show_losses(same)],
)


def wire_tables(run: Run) -> list[Table]:
    """One row per point whose gradients were compressed: what the wire lost of them."""
    return [tabulate_records(run, LAYOUT)]


def show_share(share: float) -> str:
    """A share in percent."""
    return format_percent(share) if math.isfinite(share) else "–"


def find_large_losses(run: Run) -> list[str]:
    """Warnings: one sentence on each point whose wire lost so much that it trained with other gradients."""
    lines = []
    for point_id, records in run.records_by_point.items():
        looks = looks_of(records)
        shares, point = lost_shares(looks), records[0].point
        if looks and is_large(shares, has_loss_scale=PRECISIONS[point.precision].loss_scaling):
            lines.append(
                f"{point.compression} on the wire lost gradients of {point_id}: {show_share(shares['zeros_share'])} % were sent as zero, "
                f"{show_share(shares['overflows_share'])} % overflowed, and what underflowed was "
                f"{show_share(shares['underflow_norm_share'])} % of their norm."
            )
    return lines


def lost_much(run: Run) -> bool:
    """Whether there is anything to warn of."""
    return bool(run.derive(find_large_losses))


TOPIC = Topic(
    name="Wire",
    question="What does the number format on the wire lose of the gradients?",
    needs=Need(words="launches whose gradients were compressed", is_met=looked_at_wire),
    tables=wire_tables,
    is_in_terminal=lost_much,
)

"""The sentence that answers a run on shaped links: below which bandwidth compression makes a step shorter."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL
from hvbench.analysis.show.panels import STYLES
from hvbench.analysis.show.sentences import Draft, Number, Sentence
from hvbench.analysis.topics.links.bandwidth import show_bandwidth
from hvbench.analysis.topics.links.model import LinkModel, Span, models_of

METRIC = "break_even_bits_per_second"


def describe_break_evens(run: Run) -> list[Sentence]:
    """One sentence per compression that was run on links of different bandwidth."""
    models = models_of(run)
    compressions = dict.fromkeys(name for model in models for name in model.local_seconds if name != "none")
    return [_describe([model for model in models if name in model.local_seconds], name) for name in compressions]


def _describe(models: Sequence[LinkModel], compression: str) -> Sentence:
    draft = Draft()
    label = draft.label(compression)
    parts = [_describe_model(draft, model, model.break_even_span(compression)) for model in models]
    return draft.finish(
        "break_even",
        f"Where every link is slow, {label} on the wire makes a step shorter, elsewhere it costs more than it saves: {'; '.join(parts)}.",
    )


def _describe_model(draft: Draft, model: LinkModel, span: Span) -> str:
    name = STYLES[str(model.point["framework"])].label
    if span.centre == 0:
        return f"{name} breaks even nowhere, it always costs"
    if math.isinf(span.centre):
        return f"{name} breaks even nowhere, it always saves"
    centre = _number(draft, span.centre, "break_even")
    count = draft.count(model.launches)
    if math.isnan(span.low) or math.isnan(span.high):
        return f"{name} breaks even at {centre} (no interval, n = {count})"
    low, high = (_number(draft, end, f"break_even_{kind}") for kind, end in (("low", span.low), ("high", span.high)))
    return f"{name} breaks even at {centre} ({INTERVAL} {low} to {high}, n = {count})"


def _number(draft: Draft, bits_per_second: float, kind: str) -> str:
    text = show_bandwidth(bits_per_second)
    draft.numbers.append(Number(text=text, value=bits_per_second, kind=kind, metric=METRIC))
    return text

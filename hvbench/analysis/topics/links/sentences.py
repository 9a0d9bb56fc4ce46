"""The sentences on where compression breaks even: of a run on shaped links the answer, of one on one machine what its steps and bytes make of any link."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL
from hvbench.analysis.show.panels import STYLES
from hvbench.analysis.show.sentences import Draft, Number, Sentence
from hvbench.analysis.show.text import join_names
from hvbench.analysis.topics.links.bandwidth import show_bandwidth
from hvbench.analysis.topics.links.model import LinkModel, Span, machine_models_of, models_of

METRIC = "break_even_bits_per_second"


def describe_break_evens(run: Run) -> list[Sentence]:
    """One sentence per compression that was run on links of different bandwidth."""
    models = models_of(run)
    compressions = dict.fromkeys(name for model in models for name in model.local_seconds if name != "none")
    return [_describe([model for model in models if name in model.local_seconds], name) for name in compressions]


def describe_machine_break_evens(run: Run) -> list[Sentence]:
    """One sentence per compression that ran beside the uncompressed all-reduce, without a shaped link: on which links its step is shorter."""
    models = machine_models_of(run)
    compressions = dict.fromkeys(name for model in models for name in model.local_seconds if name != "none")

    def rank(name: str) -> tuple[float, float]:
        mine = [model for model in models if name in model.local_seconds]
        return -max(model.break_even(name) for model in mine), min(model.payload_bytes[name] for model in mine)

    ordered = sorted(compressions, key=rank)
    return [_describe_machine([model for model in models if name in model.local_seconds], name) for name in ordered]


def _describe_machine(models: Sequence[LinkModel], compression: str) -> Sentence:
    """`Below 1.3 Gbit/s in PyTorch (95 % interval …) and on every link in TensorFlow (…) powersgd on the wire takes a shorter step than uncompressed`."""
    draft = Draft()
    parts = []
    for model in models:
        span = model.break_even_span(compression)
        where = "on every link" if math.isinf(span.centre) else "on no link"
        if math.isfinite(span.centre) and span.centre > 0:
            where = f"below {_number(draft, span.centre, 'break_even')}"
        parts.append(
            f"{where} in {STYLES[str(model.point['framework'])].label} ({_describe_interval(draft, model, span)})"
        )
    label = draft.label(compression)
    return draft.finish(
        "break_even",
        f"{join_names(parts)} {label} on the wire takes a shorter step than the uncompressed all-reduce, computed from its bytes and "
        "the steps on one machine.",
    )


def _describe_interval(draft: Draft, model: LinkModel, span: Span) -> str:
    count = draft.count(model.launches)
    if math.isnan(span.low) or math.isnan(span.high):
        return f"no interval, n = {count}"
    if span.low == span.high:  # always, or never
        return f"n = {count}"
    low, high = (_number(draft, end, f"break_even_{kind}") for kind, end in (("low", span.low), ("high", span.high)))
    return f"{INTERVAL} {low} to {high}, n = {count}"


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
    return f"{name} breaks even at {centre} ({_describe_interval(draft, model, span)})"


def _number(draft: Draft, bits_per_second: float, kind: str) -> str:
    text = show_bandwidth(bits_per_second)
    draft.numbers.append(Number(text=text, value=bits_per_second, kind=kind, metric=METRIC))
    return text

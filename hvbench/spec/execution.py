"""How the model's operations run: compiled or one by one, and which activations are computed twice instead of kept."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hvbench.spec.knob import AnyPoint, Knob, Part, Site
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.objective import OF_TOKENS


def _recomputed(text: str) -> str:
    return "all activations kept" if text == "none" else f"{text} recomputed"


def _attended(text: str) -> str:
    return f"{text} attention"


def _compiled(text: str) -> str:
    return {"none": "not compiled", "default": "compiled"}.get(text, f"compiled, {text}")


def _chunked(text: str) -> str:
    return "logits whole" if text == "0" else f"logits of {text} tokens at a time"


def _more_than_a_micro_batch(point: AnyPoint) -> str | None:
    tokens = point.micro_batch_size * point.sequence_length
    if (point.loss_chunk_tokens or 0) > tokens:
        return f"loss_chunk_tokens {point.loss_chunk_tokens} is more than the {tokens} tokens of a micro-batch"
    return None


def _no_such_mode(point: AnyPoint) -> str | None:
    if point.compile == "max" and point.framework != "pytorch":
        return "compile max is torch.compile's search for the fastest kernels: XLA has one mode, compile default"
    return None


def _no_compiler(point: AnyPoint, site: Site) -> str | None:
    if point.compile == "none":
        return None
    is_on_gpu = point.device == "cuda" or (point.device == "auto" and site.no_cuda(point.framework) is None)
    device = "cuda" if is_on_gpu else "cpu"
    if reason := site.no_compiler(point.framework, device):
        return f"compile {point.compile} {reason}"
    if site.emulates(PRECISIONS[point.precision].compute_dtype, device):
        return f"compile {point.compile}: compilers take out the roundings by which this processor emulates {point.precision}"
    return None


class ExecutionPart(Part):
    """Choices that change time and memory, and no result beyond rounding."""

    title = "Execution"

    compile: Annotated[
        Literal["none", "default", "max"],
        # What a worker's compiler needs of memory, it keeps: of points that are not compiled it would be counted, too.
        Knob(
            in_words=_compiled,
            is_of_launch=True,
            elsewhere=(("max", "default"),),
            impossible=_no_such_mode,
            unavailable=_no_compiler,
        ),
    ] = Field("none", description="forward and backward pass by torch.compile or XLA; max: its slowest search")
    recompute: Annotated[Literal["none", "block", "attention"], Knob(in_words=_recomputed)] = Field(
        "none", description="computed again in the backward pass: each whole block, or the attention half of it"
    )
    attention: Annotated[Literal["fused", "plain"], Knob(in_words=_attended)] = Field(
        "fused",
        description="fused keeps no matrix of all pairs of tokens, its memory grows with the length; plain: the textbook",
    )
    loss_chunk_tokens: Annotated[
        Annotated[int, Field(ge=0, le=1_000_000)] | None,
        Knob(in_words=_chunked, unit="tokens", impossible=_more_than_a_micro_batch, needs=(OF_TOKENS,)),
    ] = Field(None, description="tokens that have logits at a time; 0: all of a micro-batch; left out: 1,024 on a CPU")

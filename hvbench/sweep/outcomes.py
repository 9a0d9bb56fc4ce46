"""What one launch amounts to: the results of all ranks, or their failure, become one outcome. Pure.

Results come from workers and are validated here: what is not what a worker writes is a failure of its rank.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from hvbench.launch.task import Failure
from hvbench.records.record import Outcome, RankSamples
from hvbench.spec.messages import shorten
from hvbench.spec.point import AnyPoint
from hvbench.spec.script import ScriptPoint

# A final loss above this many times that of a uniform guess over all tokens (or classes) is a divergence.
DIVERGED_LOSS_RATIO = 2.0

MAX_MESSAGE = 1000  # characters of an outcome's message

TRANSIENT_FACTS = ("load_before", "load_after", "host")  # of an environment: no property of a host


def read_samples(results: Sequence[dict[str, Any]]) -> tuple[list[RankSamples], Outcome | None]:
    """Every rank's samples; or none, and the outcome of the first rank whose result no worker would write."""
    samples = []
    for rank, result in enumerate(results):
        try:
            Outcome.model_validate(result["outcome"])
            str(result["environment"]["tokens_digest"])
            json.dumps(result["environment"], allow_nan=False)
            samples.append(RankSamples.model_validate(result["samples"]))
        except (ValueError, KeyError, TypeError) as error:  # ValueError: pydantic's too
            why = shorten(str(error).splitlines()[0], limit=200)
            message = f"rank {rank} left a result that is not what a worker writes: {type(error).__name__}: {why}"
            return [], Outcome(status="failed", rank=rank, phase="measure", message=message)
    return samples, None


def sum_tokens(ranks: Sequence[RankSamples]) -> list[RankSamples]:
    """A script's samples with the tokens of each step over all ranks; each rank knows its own. None where one does not say."""
    lists = [rank.step_tokens for rank in ranks]
    is_known = all(lists) and len({len(tokens) for tokens in lists}) == 1
    tokens = [sum(step) for step in zip(*lists, strict=True)] if is_known else []
    return [rank.model_copy(update={"step_tokens": tokens}) for rank in ranks]


def join_outcomes(results: Sequence[dict[str, Any]]) -> Outcome | None:
    """The first outcome that is not ok, if any, before those of ranks that only ended because of another one.

    Ranks that read different text did not train one model.
    """
    digests = [result["environment"]["tokens_digest"] for result in results]
    if len(set(digests)) > 1:
        rank = next(rank for rank, digest in enumerate(digests) if digest != digests[0])
        message = (
            f"its text differs from rank 0's (tokens {digests[rank]} and {digests[0]}): "
            "same Python and same files on all hosts?"
        )
        return Outcome(status="failed", rank=rank, phase="data", message=message)
    outcomes = [Outcome.model_validate(result["outcome"]) for result in results]
    bad = [outcome for outcome in outcomes if outcome.status != "ok"]
    own = [outcome for rank, outcome in enumerate(outcomes) if outcome in bad and outcome.rank == rank]
    first = next(iter([*own, *bad]), None)
    if first and first.message:
        first = first.model_copy(update={"message": first.message[:MAX_MESSAGE]})
    return first


def find_unequal_steps(ranks: Sequence[RankSamples]) -> Outcome | None:
    """`failed` where ranks have trained different numbers of steps: they were no steps of one training."""
    counts = [len(rank.step_seconds) for rank in ranks]
    if len(set(counts)) < 2:
        return None
    fewest, most = counts.index(min(counts)), counts.index(max(counts))
    message = f"trained {counts[fewest]} steps, rank {most} {counts[most]}: every rank has to train as many"
    return Outcome(status="failed", rank=fewest, phase="measure", message=message)


def find_divergence(point: AnyPoint, ranks: Sequence[RankSamples]) -> Outcome | None:
    """`diverged` if the final loss, averaged over the ranks, is not finite or far above that of a uniform guess.

    It is that of the last step whose update fp16 did not drop.

    Decided here, where the losses of all ranks are known: a rank that stopped because of its own loss would leave the
    others waiting in the next all-reduce.
    """
    steps = min((len(rank.loss) for rank in ranks), default=0)
    dropped = set().union(*(rank.skipped_steps for rank in ranks))
    last = next((step for step in reversed(range(steps)) if step not in dropped), None)
    if last is None:
        return None
    if isinstance(
        point, ScriptPoint
    ):  # of which loss means nothing that is known; its probe says where it is not finite
        return None
    losses = [math.nan if rank.loss[last] is None else rank.loss[last] for rank in ranks]
    mean = sum(losses) / len(losses)
    if point.is_regression and math.isfinite(mean):  # of numbers nobody knows what guessing costs
        return None
    guessing = (
        math.log(point.num_classes if point.predicts_labels else point.vocab_size) + math.log(2) * point.judges_pairs
    )
    if mean <= DIVERGED_LOSS_RATIO * guessing:
        return None
    rank = max(range(len(losses)), key=lambda rank: math.inf if math.isnan(losses[rank]) else losses[rank])
    message = (
        f"loss {mean:.4g} at step {last}: more than {DIVERGED_LOSS_RATIO:g} times {guessing:.3g}, that of guessing"
    )
    return Outcome(status="diverged", rank=rank, phase="measure", message=message)


def outcome_of_failure(failure: Failure, *, run_path: str) -> Outcome:
    """The outcome that a record keeps of a failed task; its log relative to the run folder, which may be moved."""
    log = failure.log
    if log and log.startswith(run_path):
        log = log.removeprefix(run_path).lstrip("/")
    kept = replace(failure, log=log, message=failure.message[:MAX_MESSAGE])
    return Outcome(**asdict(kept) | {"status": kept.status.value})


def describe_other_hosts(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`other_hosts`: for each host but the first rank's, the facts in which it differs; nothing on a single host."""
    first = results[0]
    others: dict[str, dict[str, Any]] = {}
    for result in results:
        host = result["samples"]["host"]
        if host != first["samples"]["host"] and host not in others:
            others[host] = {
                key: value
                for key, value in result["environment"].items()
                if key not in TRANSIENT_FACTS and value != first["environment"].get(key)
            }
    return {"other_hosts": others} if others else {}

"""Which runs are compared with each other, and what `hvbench compare` and the gate say of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from hvbench.analysis.show.text import clean_text
from hvbench.comparison.ab.judge import judge_run
from hvbench.comparison.ab.pairs import ARMS, load_pairs, read_ab
from hvbench.comparison.compare import compare
from hvbench.comparison.gate.judgement import Judgement
from hvbench.comparison.gate.policy import Policy
from hvbench.comparison.history import name_revisions
from hvbench.comparison.outputs.comparison import describe_change
from hvbench.comparison.result import Comparison, LaunchSet
from hvbench.errors import MissingData
from hvbench.records.fingerprint import fingerprint_id
from hvbench.records.record import Record
from hvbench.site.atlas import SuiteRuns
from hvbench.site.collect import Place
from hvbench.site.digest import list_problems, name_machine, name_own_revisions, show_time
from hvbench.site.render import render_comparison_body
from hvbench.site.summary import AbSummary, Counts, PairSummary, RunSummary

NEWEST = 6  # runs of a suite on a machine: each is compared with each
FOLLOWING = 100  # newest runs of a suite on a machine: each is compared with the one before
MACHINES = 4  # of a suite: their newest runs are compared with each other


def choose_pairs(suite: SuiteRuns) -> list[tuple[RunSummary, RunSummary]]:
    """The pairs of a suite's runs that have a page, the older run first."""
    place = {run.id: number for number, run in enumerate(suite.runs)}
    chosen: dict[tuple[str, str], tuple[RunSummary, RunSummary]] = {}
    for a, b in list_pairs(suite):
        a, b = sorted((a, b), key=lambda run: place[run.id])
        chosen[a.id, b.id] = (a, b)
    return sorted(chosen.values(), key=lambda pair: (place[pair[1].id], place[pair[0].id]))


def list_pairs(suite: SuiteRuns) -> Iterator[tuple[RunSummary, RunSummary]]:
    """The same in no order."""
    for machine in suite.newest:
        following = suite.newest_of(machine, FOLLOWING + 1)
        yield from zip(following, following[1:], strict=False)
        yield from list_all(following[-NEWEST:])
    yield from list_all(list(suite.newest.values())[:MACHINES])


def list_all(runs: Sequence[RunSummary]) -> Iterator[tuple[RunSummary, RunSummary]]:
    """Each of the runs with each."""
    return ((a, b) for number, a in enumerate(runs) for b in runs[number + 1 :])


def compare_pair(a: LaunchSet, b: LaunchSet, *, ids: tuple[str, str]) -> PairSummary:
    """What `hvbench compare` says of two runs; b against a."""
    comparison = compare([a, b])
    return PairSummary(
        a=ids[0],
        b=ids[1],
        is_comparable=comparison.is_comparable,
        counts=count_calls(comparison),
        called=list_calls(comparison),
        body=render_comparison_body(comparison),
    )


def count_calls(comparison: Comparison) -> Counts:
    """How many figures of decisive metrics are called what."""
    changes = [change for point in comparison.points for change in point.changes if change.metric.is_decisive]
    return Counts(**Counter(change.call for change in changes if change.call))


def list_calls(comparison: Comparison) -> dict[str, dict[str, str]]:
    """Point -> metric -> what B is called there, of all figures that have a word."""
    called = {
        point.point_ids[1]: {change.metric.name: describe_change(change) for change in point.changes if change.call}
        for point in comparison.points
    }
    return {key: words for key, words in called.items() if words}


def digest_ab(place: Place) -> AbSummary:
    """An A/B comparison, judged by the default policy on the day of its pairs; raises UsageError, and MissingData without records."""
    run = read_ab(place.path)
    sets, _ = load_pairs(run)
    records = [record for side in sets for record in side.records]
    if not records:
        raise MissingData("holds no complete pair with a readable record")
    judgement, problems = judge_run(run, policy=Policy(), today=run.created_at[:10])
    newest = max(records, key=lambda record: record.started_at)
    assert judgement.comparison is not None
    return AbSummary(
        id=place.id,
        name=clean_text(place.name),
        suite=clean_text(run.suite, limit=80) or "a suite without a name",
        command=clean_text(str(run.command), limit=1000),
        began=show_time(str(run.created_at), else_=newest.started_at),
        machine=name_machine(newest.environment),
        fingerprints=sorted({fingerprint_id(record) for record in records}),
        arms={arm: clean_text(str(run.arms[arm].get("description") or ""), limit=300) for arm in ARMS},
        revisions={side.name: name_revision_of(side.records) for side in sets},
        pairs=run.pairs,
        verdict=str(judgement.verdict),
        headline=clean_text(describe_verdict(judgement), limit=500),
        problems=list_problems(problems, place),
        body=render_comparison_body(judgement.comparison, judgement=judgement),
    )


def describe_verdict(judgement: Judgement) -> str:
    """The headline of a verdict without what stands beside it: the verdict's name, the suite, the arms."""
    return judgement.headline().partition(f"against {judgement.against})")[2].removeprefix(": ") or str(
        judgement.verdict
    )


def name_revision_of(records: Sequence[Record]) -> str:
    """The revision of the script that ran, or else of hvbench."""
    return clean_text(name_revisions(records), limit=100) or name_own_revisions(records)

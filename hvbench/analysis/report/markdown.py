"""A run -> `report.md`: what was run, what came out, what failed, and how to repeat it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.answer import find_answer, list_advice
from hvbench.analysis.report.contents import list_tables
from hvbench.analysis.report.facts import (
    describe_missing,
    list_environment,
    list_failures,
    list_request,
    list_warnings,
    read_command,
    read_suite,
)
from hvbench.analysis.report.profiles import PERFETTO, list_profiles
from hvbench.analysis.report.quality import describe_quality
from hvbench.analysis.show.render import render_markdown
from hvbench.analysis.show.text import escape_markdown
from hvbench.analysis.topics.parity.stamps import verdict_of
from hvbench.analysis.topics.throughput.fastest import Fastest, list_fastest, title_fastest
from hvbench.records.record import Record


def render_report(run: Run, *, plots: Mapping[str, str], beside: Sequence[str] = ()) -> str:
    """`report.md`. `plots`: file stem of every plot -> its title; `beside`: those that stand beside the answer."""
    blocks = [*_render_head(run), *_render_answer(run, [_render_plot(name, plots[name]) for name in beside])]
    if run.records:
        blocks += [f"## {title_fastest(run)}", render_fastest(list_fastest(run))]
    blocks += [*list_advice(run), "## What was run", *render_request(run)]
    for table in list_tables(run) if run.records else []:
        blocks += [f"## {table.title}", render_markdown(table, with_constants=False).rstrip()]
        blocks.append(f"Raw values and all intervals: [{table.name}.csv](tables/{table.name}.csv)")
    if sentences := describe_quality(run):
        blocks += ["## How sure the figures are", _render_list(sentences, limit=4000)]
    if rest := [_render_plot(name, title) for name, title in plots.items() if name not in beside]:
        blocks += ["## Plots", *rest]
    blocks += render_profiles(run.records)
    blocks += ["## What failed or was skipped", *render_failures(run)]
    blocks += ["## Environment", *render_environment(run.records)] if run.records else []
    return "\n\n".join(blocks) + "\n"


def render_profiles(records: Iterable[Record]) -> list[str]:
    """The longest operators of every rank that was profiled, with its traces; nothing where none was."""
    lines = []
    for profile in list_profiles(records):
        links = "".join(f" [{trace.rpartition('/')[2]}]({trace})" for trace in profile.traces)
        lines.append(f"- {escape_markdown(f'{profile.label}: {profile.longest}', limit=1000)}{links}")
    how = f"Steps after the timed ones, recorded by the framework's profiler; open the traces in {PERFETTO}."
    return ["## Where the time goes", how, "\n".join(lines)] if lines else []


def _render_head(run: Run) -> list[str]:
    blocks = [f"# hvbench: {escape_markdown(read_suite(run))}"]
    if run.request.get("question"):
        blocks.append(f"*{escape_markdown(str(run.request['question']), limit=500)}*")
    return blocks + [f"> {text}" for text in render_warnings(run)]


def _render_plot(name: str, title: str) -> str:
    return f"![{title}](plots/{name}.svg)"


def _render_answer(run: Run, plots: Sequence[str]) -> list[str]:
    blocks = []
    if run.records:
        answer = find_answer(run)
        blocks += ["## The answer", *(escape_markdown(sentence.text, limit=2000) for sentence in answer.headlines)]
        blocks += plots
        details = [sentence.text for sentence in (*answer.details, *answer.certainty)]
        blocks += [_render_list(details, limit=2000)] if details else []
    verdict = verdict_of(run)
    if verdict and verdict.is_proven:
        blocks.append(escape_markdown(f"{verdict.title} {verdict.text}", limit=4000))
    if not run.records:
        blocks.append("**No launch has left a record yet**, so there is nothing to report.")
    return blocks


def _render_list(sentences: Iterable[str], *, limit: int) -> str:
    return "\n".join(f"- {escape_markdown(sentence, limit=limit)}" for sentence in sentences)


def render_warnings(run: Run) -> list[str]:
    """What must be known before any figure is read, one line of Markdown a fact."""
    parts = [(escape_markdown(title), escape_markdown(text, limit=4000)) for title, text in list_warnings(run)]
    return [f"**{title}** {text}" if title else text for title, text in parts]


def render_fastest(fastest: Sequence[Fastest]) -> str:
    """One line per framework: its fastest point, how sure that is, and how many points it is surely faster than."""
    lines = []
    for best in fastest:
        text = f"{escape_markdown(best.where)}, at {best.rate} {best.unit} ({best.interval}). {best.note}".rstrip()
        lines.append(f"- **{best.label}**: {text if best.rate else 'no launch ended in `ok`.'}")
    return "\n".join(lines)


def render_request(run: Run) -> list[str]:
    """The command, when it ran, and what all its points share."""
    lines = [f"- {name}: {escape_markdown(value, limit=2000)}" for name, value in list_request(run).items()]
    blocks = ["\n".join(lines)]
    if command := read_command(run):
        # An indented block: nothing in a single line can end it.
        blocks += ["To reproduce it, run the same command on the same machine and compare:", f"    {command}"]
    return blocks


def render_failures(run: Run) -> list[str]:
    """Every launch that is not `ok`, every point that was skipped, and how many launches have no record."""
    lines = []
    for failure in list_failures(run):
        launch = "" if failure.launch is None else f", launch {failure.launch}"
        reason = f" ({escape_markdown(failure.reason, limit=500)})" if failure.reason else ""
        lines.append(f"- {escape_markdown(failure.point_id, limit=500)}{launch}: **{failure.status}**{reason}")
    missing = describe_missing(run)
    return [*(["\n".join(lines)] if lines else []), *([missing] if missing else [])] or ["Nothing."]


def render_environment(records: Sequence[Record]) -> list[str]:
    """A table of the records' environment: a value that all share, or the values that differ."""
    lines = ["| field | value |", "| :--- | :--- |"]
    for key, text in list_environment(records).items():
        lines.append(f"| {escape_markdown(key)} | {escape_markdown(text, limit=300)} |")
    return ["\n".join(lines)]

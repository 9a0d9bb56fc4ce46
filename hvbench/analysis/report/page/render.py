"""The report as one self-contained HTML page: template, style and script lie beside this file and end up inside it.

It asks the network for nothing, works from a mail attachment, and treats everything that a record says as hostile:
the template escapes, the page's policy allows no script but its own, and control characters are gone.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.answer import find_answer, list_advice
from hvbench.analysis.report.contents import TopicFigures, name_answer_plots, tables_by_topic
from hvbench.analysis.report.facts import (
    describe_missing,
    list_environment,
    list_request,
    list_scripts,
    list_warnings,
    read_command,
    read_suite,
)
from hvbench.analysis.report.page.headlines import split_sentence
from hvbench.analysis.report.page.tables import show_environment, show_failures, show_table
from hvbench.analysis.report.profiles import list_profiles
from hvbench.analysis.report.quality import describe_quality
from hvbench.analysis.show.charts import Chart, Panel, draw_chart
from hvbench.analysis.show.panels import STYLES
from hvbench.analysis.show.text import clean_text
from hvbench.analysis.topics import catalogue
from hvbench.analysis.topics.parity.stamps import Verdict, verdict_of
from hvbench.analysis.topics.throughput.fastest import list_fastest, title_fastest

FOLDER = Path(__file__).parent
MAX_BESIDE = 1  # charts beside the answer: the rest of the first screen says how sure it is
TALL_POINTS = 300.0  # a chart beside the answer that is higher has what is below the answer beside it, too
MAX_CHART_BYTES = 2_800_000  # of all charts together: with the tables, a page stays below 5 MB
ENDS = {"failures": "Failures", "environment": "Environment", "reproduce": "Reproduce"}  # id -> name in the navigation


@dataclass(frozen=True, kw_only=True)
class Remark:
    """A sentence with the look that it has: `proven` or `warning`."""

    kind: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """A topic on the page: its charts, then its tables. One without either is only a name in the navigation."""

    id: str
    title: str
    question: str = ""
    charts: Sequence[Chart] = ()
    alone: Sequence[str] = ()  # names of charts that have a row for themselves
    tables: Sequence[dict[str, Any]] = ()


def render_page(run: Run, *, plots: Sequence[TopicFigures]) -> str:
    """`report.html`. It changes the figures of `plots`: save them to files before."""
    charts = draw_charts(plots)
    beside = [charts[name] for name in name_answer_plots(run, plots) if charts[name].panels][:MAX_BESIDE]
    script, style = ((FOLDER / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: Markup(value.svg) if isinstance(value, Panel) else value,
    )  # fmt: skip
    return environment.get_template("page.html.jinja").render(
        **list_texts(run),
        beside=beside,
        is_tall=any(panel.height_points > TALL_POINTS for chart in beside for panel in chart.panels),
        sections=make_sections(run, plots, {name: chart for name, chart in charts.items() if chart not in beside}),
        cards=list_fastest(run),
        fastest_title=title_fastest(run),
        advice=list_advice(run),
        profiles=[
            (clean_text(f"{each.label}: {each.longest}", limit=1000), each.traces)
            for each in list_profiles(run.records)
        ],
        failures=show_failures(run),
        environment=show_environment(run),
        style=Markup(style + style_frameworks()),
        script=Markup(script),
        script_hash=f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
    )


def list_texts(run: Run) -> dict[str, Any]:
    """What the template says beside sections, by the name that it has there."""
    answer = find_answer(run)
    return {
        "suite": clean_text(read_suite(run)),
        "question": clean_text(str(run.request.get("question") or ""), limit=500),
        "headlines": [split_sentence(sentence.text) for sentence in answer.headlines],
        "details": [sentence.text for sentence in answer.details],
        "certainty": [sentence.text for sentence in answer.certainty],
        "verdict": describe_verdict(verdict_of(run)),
        "warnings": [(clean_text(title), clean_text(text, limit=4000)) for title, text in list_warnings(run)],
        "quality": [clean_text(line, limit=4000) for line in describe_quality(run)],
        "facts": list_facts(run),
        "missing": describe_missing(run),
        "command": read_command(run),
        "request": [(name, clean_text(value, limit=2000)) for name, value in list_request(run).items()],
    }


def draw_charts(plots: Sequence[TopicFigures]) -> dict[str, Chart]:
    """File stem -> the figure as a chart, as long as charts fit on the page."""
    drawn = limit_charts([draw_chart(name, figure) for part in plots for name, figure in part.figures.items()])
    return {chart.name: chart for chart in drawn}


def make_sections(run: Run, plots: Sequence[TopicFigures], charts: Mapping[str, Chart]) -> list[Section]:
    """The parts of the page in their order, as the navigation lists them: a section a topic that has a table or a chart."""
    charts_of = {part.topic.name: [charts[name] for name in part.figures if name in charts] for part in plots}
    tables_of = {part.topic.name: part.tables for part in tables_by_topic(run)} if run.records else {}
    topics = [
        Section(
            id=slug(topic.name),
            title=topic.name,
            question=topic.ask(run),
            charts=charts_of.get(topic.name, ()),
            alone=find_alone(charts_of.get(topic.name, ())),
            tables=[show_table(table) for table in tables_of.get(topic.name, ())],
        )
        for topic in catalogue.TOPICS
    ]
    first = [Section(id="fastest", title="Fastest")] if run.records else []
    ends = [Section(id=name, title=title) for name, title in ENDS.items() if run.records or name != "environment"]
    return [*first, *(section for section in topics if section.tables or section.charts), *ends]


def find_alone(charts: Sequence[Chart]) -> list[str]:
    """The narrow charts that have no neighbour, where two stand abreast and a wide one takes a row: the last of every odd number of them."""
    runs = [list(run) for is_across, run in groupby(charts, key=lambda chart: chart.is_across) if not is_across]
    return [run[-1].name for run in runs if len(run) % 2]


def limit_charts(charts: Iterable[Chart], *, most_bytes: int = MAX_CHART_BYTES) -> list[Chart]:
    """The charts as long as they fit; of any other only its title, and a note that names its file below `plots/`."""
    shown, left = [], most_bytes
    for chart in charts:
        size = sum(len(panel.svg) for panel in (*chart.panels, *chart.legend))
        if size > left:
            note = f"too large for this page, where charts take {most_bytes / 1e6:g} MB: see plots/{chart.name}.svg"
            chart = replace(chart, note="; ".join(filter(None, [chart.note, note])), panels=(), legend=())
        else:
            left -= size
        shown.append(chart)
    return shown


def style_frameworks() -> str:
    """Rules of CSS: each framework's colour in both schemes as the variable of its name, and as `--own` where it is named."""
    light, dark = (
        " ".join(f"--{name}: {getattr(style, scheme)};" for name, style in STYLES.items())
        for scheme in ("page_colour", "dark_page_colour")
    )
    own = [f".{name} {{ --own: var(--{name}); }}" for name in STYLES]
    round_marks = [
        f"td.{name}::before {{ border-radius: {'50%' if style.marker == 'o' else '1px'}; }}"
        for name, style in STYLES.items()
    ]
    schemes = [f":root {{ {light} }}", f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"]
    return "\n".join([*schemes, *own, *round_marks, ""])


def describe_verdict(verdict: Verdict | None) -> Remark | None:
    """Whether the frameworks may be compared; None where there is only one."""
    if verdict is None:
        return None
    return Remark(
        kind="proven" if verdict.is_proven else "warning",
        text=clean_text(f"{verdict.title} {verdict.text}", limit=4000),
    )


def list_facts(run: Run) -> list[tuple[str, str]]:
    """The run at a glance."""
    points = run.points
    if points.empty:
        return []
    known = list_environment(run.records)
    ended_ok = int((points["status"] == "ok").sum())
    cores = f", {known['usable_cores']} cores" if "usable_cores" in known else ""
    facts = {
        "launches": f"{len(points)}, {'all' if ended_ok == len(points) else ended_ok} ok",
        "points": str(points["point_id"].nunique()),
        "ranks": ", ".join(str(value) for value in sorted(points["world_size"].dropna().unique())),
        "machine": f"{known.get('cpu_model') or known.get('cpu model') or ''}{cores}".strip(", "),
        "script": "; ".join(list_scripts(run)),
        "software": name_versions(known),
        "began": min(points["started_at"])[:16].replace("T", " "),
    }
    return [(name, clean_text(value)) for name, value in facts.items() if value]


def name_versions(known: Mapping[str, str]) -> str:
    """`PyTorch 2.13.0, Horovod 0.28.1` of an environment as it is listed."""
    keys = {style.label: f"framework_versions {name}" for name, style in STYLES.items()}
    keys["Horovod"] = "packages horovod"
    versions = ", ".join(f"{label} {known[key]}" for label, key in keys.items() if key in known)
    # The local part of a version says how it was built; the table of the environment has it.
    return re.sub(r"\+hvbench\w+", "", clean_text(versions))


def slug(title: str) -> str:
    """A title as a name in a link."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"

"""A topic in one module, as somebody would add it: the slowest rank of each launch."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.sentences import Draft, Sentence
from hvbench.analysis.show.tables import Table
from hvbench.analysis.topics.topic import Need, Topic, has_launches


def toy_tables(run: Run) -> list[Table]:
    return [
        Table(
            name="toy", title="Slowest ranks", constants={}, notes=("Counted by a toy.",),
            data=pd.DataFrame({"launch": run.points["launch"], "slowest_rank": 1}),
            header=("launch", "slowest rank"), is_number=(True, True), is_brief=(True, True),
            cells=[[str(launch), "1"] for launch in run.points["launch"]],
        )
    ]  # fmt: skip


def toy_plots(run: Run) -> dict[str, Figure]:
    figure = Figure()
    figure.suptitle("Which rank is slow?")
    figure.subplots().bar(["rank 0", "rank 1"], [1.5, 2.5], label="toy-bars")
    return {"toy_ranks": figure}


def toy_sentences(run: Run) -> list[Sentence]:
    return [Draft().finish("toy", f"rank 1 is slow in {len(run.records)} launches.")]


def toy_advice(run: Run) -> list[str]:
    return ["Give rank 1 a core of its own."]


TOPIC = Topic(
    name="Toy ranks",
    question="Which rank is the slowest?",
    needs=Need(words="launches of any kind", is_met=has_launches),
    tables=toy_tables,
    plots=toy_plots,
    sentences=toy_sentences,
    advice=toy_advice,
    precedence=-1,
)

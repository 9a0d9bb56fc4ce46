"""Every topic of a report, in the order in which a report shows them.

A new topic is one entry here: `report.md`, `report.html` with its navigation, the command line's output, the exported
tables and the documentation walk this list.
"""

from __future__ import annotations

from hvbench.analysis.topics import (
    ceilings,
    choices,
    compilation,
    exchange,
    frameworks,
    growth,
    labels,
    largest,
    lengths,
    local_sgd,
    memory,
    noise,
    once,
    overflows,
    precision,
    reading,
    steadiness,
    strategies,
    targets,
    wire,
)
from hvbench.analysis.topics.adaptation import topic as adaptation
from hvbench.analysis.topics.batch import topic as batch
from hvbench.analysis.topics.breakdown import topic as breakdown
from hvbench.analysis.topics.convergence import topic as convergence
from hvbench.analysis.topics.links import topic as links
from hvbench.analysis.topics.parity import topic as parity
from hvbench.analysis.topics.scaling import topic as scaling
from hvbench.analysis.topics.stragglers import topic as stragglers
from hvbench.analysis.topics.throughput import topic as throughput
from hvbench.analysis.topics.topic import Topic

TOPICS: list[Topic] = [
    throughput.FASTEST,
    largest.TOPIC,
    once.TOPIC,
    frameworks.TOPIC,
    throughput.TOPIC,
    choices.TOPIC,
    growth.TOPIC,
    lengths.TOPIC,
    adaptation.TOPIC,
    exchange.TOPIC,
    precision.TOPIC,
    compilation.TOPIC,
    convergence.TOPIC,
    targets.TOPIC,
    labels.TOPIC,
    batch.TOPIC,
    noise.TOPIC,
    overflows.TOPIC,
    wire.TOPIC,
    scaling.TOPIC,
    strategies.TOPIC,
    local_sgd.TOPIC,
    stragglers.TOPIC,
    links.TOPIC,
    breakdown.TOPIC,
    reading.TOPIC,
    ceilings.TOPIC,
    memory.TOPIC,
    parity.TOPIC,
    steadiness.TOPIC,
]

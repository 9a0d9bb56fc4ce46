"""How close training comes to what its framework and machine can do: tables of ceilings and utilization, and a finding.

The figures are those of all ranks together. A set of workers measures each ceiling once, however many points it trains:
n counts sets of workers, not points. Where launches carry what an earlier one read, n counts what was read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from hvbench.analysis.frame.axes import AXES, PRESET_SIZES, order_values
from hvbench.analysis.frame.run import Run
from hvbench.analysis.show.cells import INTERVAL, show_axis, show_estimate, show_interval
from hvbench.analysis.show.panels import STYLES
from hvbench.analysis.show.tables import Layout, Shown, Table, build_table
from hvbench.analysis.stats.estimates import Estimate, estimate_rate, estimate_ratio, summarize_launches, summary_of
from hvbench.analysis.topics.topic import Need, Topic, never
from hvbench.spec.numerics import GEMM_LIBRARIES

# What the ceilings depend on; points that differ in nothing else share them.
CEILING_AXES = (
    "framework", "model", *PRESET_SIZES, "micro_batch_size", "precision", "compression", "gemm", "world_size", "device",
)  # fmt: skip
TOGETHER = "ranks_together_ratio"
SLOW = 0.8  # a framework whose products are surely slower than this share of the other's is named


def ceiling_tables(run: Run) -> list[Table]:
    """Both tables of this module."""
    return [utilization_table(run), ceilings_table(run)]


def measured_ceilings(run: Run) -> bool:
    """Whether any launch measured a ceiling."""
    return bool(run.points["gemm_flops_per_second"].notna().any())


def utilization_table(run: Run) -> Table:
    """One row per point: model FLOP/s, and their share of the framework's and of the machine's best."""
    own, machine = "model_flops_utilization", "model_flops_utilization_of_machine"
    discounted, hardware = "model_flops_utilization_discounted", "hardware_flops_utilization"
    columns = [
        Shown("model GFLOP/s", show_estimate("model_flops_per_second", scale=1e-9)),
        Shown(f"{INTERVAL} (GFLOP/s)", show_interval("model_flops_per_second", scale=1e-9)),
        Shown("MFU (%)", show_estimate(own, scale=100), is_brief=True),
        Shown(f"{INTERVAL} (%)", show_interval(own, scale=100), is_brief=True),
        Shown("MFU, causal mask discounted (%)", show_estimate(discounted, scale=100)),
        Shown(f"{INTERVAL} (discounted)", show_interval(discounted, scale=100)),
        Shown("HFU (%)", show_estimate(hardware, scale=100), is_brief=True),
        Shown(f"{INTERVAL} (HFU)", show_interval(hardware, scale=100)),
        Shown("MFU of machine (%)", show_estimate(machine, scale=100), is_brief=True),
        Shown(f"{INTERVAL} (machine)", show_interval(machine, scale=100)),
    ]
    notes = (
        "Model FLOPs: 6 N + 12 L H Q T a token, nothing recomputed. MFU: their rate over that of the best matrix product "
        "that the same framework reached in the same workers; discounted: without the FLOPs that a causal mask hides from "
        "attention, 6 L H Q (T - 1) a token (the same figure where there is no mask); of machine: over the best of any "
        "framework in this run at this precision, which is chosen by the other repeats and read in the launch's own. The "
        "intervals hold the scatter of the peaks, too. An emulated precision is multiplied in fp32.",
    )
    if run.points[hardware].notna().any():
        notes += (
            "HFU: the same with the FLOPs of the products that the backward pass computes a second time (`recompute`); none "
            "where nothing is recomputed.",
        )
    metrics = ["model_flops_per_second", own, discounted, hardware, machine]
    layout = Layout(name="utilization", title="Utilization", columns=columns, metrics=metrics, notes=notes)
    return build_table(layout, run.points, summary=summary_of(run))


def ceilings_table(run: Run) -> Table:
    """One row per combination of what ceilings depend on: matrix products, memory, all-reduce."""
    columns, metrics = [], []
    for metric, header, scale in (
        ("gemm_flops_per_second", "best product (GFLOP/s)", 1e-9),
        (TOGETHER, "all ranks / one alone", 1.0),
        ("model_gemm_flops_per_second", "model's products (GFLOP/s)", 1e-9),
        ("memory_bandwidth_bytes_per_second", "memory (GB/s)", 1e-9),
        ("allreduce_busbw_bytes_per_second", "all-reduce busbw (GB/s)", 1e-9),
    ):
        columns.append(Shown(header, show_estimate(metric, scale=scale)))
        columns.append(Shown(f"{INTERVAL} ({header.partition(' (')[0]})", show_interval(metric, scale=scale)))
        metrics.append(metric)
    columns.append(Shown("all-reduce on the wire (MiB)", show_estimate("allreduce_bytes", scale=2**-20)))
    metrics.append("allreduce_bytes")
    notes = (
        "All ranks at once, in the workers that train. Best product: of squares and the model's own shapes the one that a "
        "first look found best, read again (records of schema 3 and older hold the first look, which is a little too high). "
        "All ranks / one alone: that product's rate over all ranks over that of rank 0 while the others rest. Model's "
        "products: linear layers and logits of a micro-batch, forward and backward, total FLOPs over total time; "
        "attention's are left out. Memory: scaling an array in place, bytes read and written, the best of a few. busbw: "
        "bytes on the wire / time x 2 (n - 1) / n, the casts of compression included, the best of a few; the bytes are as many as "
        "the gradients have, but at most 64 MiB. Sums over ranks but for busbw.",
        *describe_kept(run.points),
    )
    launches = choose_readings(run.points)
    layout = Layout(name="ceilings", title="Ceilings", columns=columns, metrics=metrics, notes=notes, has_status=False)
    table = build_table(layout, launches, summary=summarize_launches(launches))
    others = [name for name in AXES if name not in CEILING_AXES]
    constants = {name: value for name, value in table.constants.items() if name not in others}
    return replace(table, constants=constants, data=table.data.drop(columns=["point_id", "status", "reason", *others]))


def choose_ceilings(points: pd.DataFrame) -> pd.DataFrame:
    """The launches that measured a ceiling, one for each set of workers and question, named by what it depends on."""
    measured = points[points["gemm_flops_per_second"].notna()].copy()
    if measured.empty:
        return measured
    # A launch without a generation stands for itself; generations are numbered on, so that no two share a number.
    measured["generation"] = measured["generation"].fillna(-1 - measured["launch"])
    measured = measured.drop_duplicates([*CEILING_AXES, "generation"])
    measured["point_id"] = measured[list(CEILING_AXES)].map(str).agg("|".join, axis=1)
    for name in (name for name in AXES if name not in CEILING_AXES):
        measured[name] = measured[name].iloc[0]
    return measured


def choose_readings(points: pd.DataFrame) -> pd.DataFrame:
    """Of `choose_ceilings` one for each reading: what several launches took from the same earlier one counts once."""
    launches = choose_ceilings(points)
    is_kept = launches["ceilings_read_at"].notna()
    return launches[~(is_kept & launches.duplicated([*CEILING_AXES, "ceilings_read_at"]))]


def describe_kept(points: pd.DataFrame) -> list[str]:
    """How many launches took their ceilings from earlier ones, and when those read them."""
    moments = sorted(points["ceilings_read_at"].dropna())
    if not moments:
        return []
    first, last = (moment[:16].replace("T", " ") for moment in (moments[0], moments[-1]))
    when = first if first == last else f"{first} to {last}"
    return [
        f"{len(moments)} launches read the best product alone and took the other ceilings from earlier launches on this machine, of "
        f"{when} UTC; with `fresh_ceilings = true` every launch reads all of them."
    ]


def ceiling_advice(run: Run) -> list[str]:
    """What ranks reach together, and libraries that are slow."""
    return [*describe_ranks_together(run), *describe_slow_libraries(run), *describe_chosen_libraries(run)]


def describe_chosen_libraries(run: Run) -> list[str]:
    """What `gemm = "auto"` stood for: a sentence for each set of shapes whose libraries were measured."""
    found: dict[str, None] = {}
    for record in run.records:
        chosen, seconds = record.environment.get("gemm"), record.environment.get("gemm_seconds")
        if record.is_script or record.point.gemm != "auto" or chosen not in GEMM_LIBRARIES or not is_timed(seconds):
            continue
        others = [name for name in GEMM_LIBRARIES if name != chosen]
        times = [f"{GEMM_LIBRARIES[name]} takes {seconds[name] / seconds[chosen]:.2f} times as long" for name in others]
        found[
            f"gemm = auto took {GEMM_LIBRARIES[chosen]} for PyTorch's fp32 products: {' and '.join(times)} with their shapes."
        ] = None
    return list(found)


def is_timed(seconds: object) -> bool:
    """Whether a record says of every library what it took."""
    return isinstance(seconds, Mapping) and all(
        isinstance(seconds.get(name), float) and seconds[name] > 0 for name in GEMM_LIBRARIES
    )


def describe_ranks_together(run: Run) -> list[str]:
    """A sentence on each number of ranks: what their matrix products reach together, as a multiple of one rank's alone."""
    launches = choose_ceilings(run.points)
    launches = launches[launches[TOGETHER].notna()]
    if (launches["precision"] == "fp32").any():
        launches = launches[launches["precision"] == "fp32"]
    sentences = []
    for world_size in order_values("world_size", launches["world_size"]):
        same = launches[launches["world_size"] == world_size]
        precision = show_axis("precision", same["precision"].iloc[0], is_emulated=bool(same["is_emulated"].any()))
        parts, whose = [], f" one rank's {precision} matrix products"
        for framework in order_values("framework", same["framework"]):
            factor = estimate_rate(_mean_by_workers(same[same["framework"] == framework], TOGETHER).to_numpy())
            parts.append(f"{factor.centre:.2f} times{whose} in {STYLES[framework].label} ({_describe_range(factor)})")
            whose = ""  # once is enough
        sentences.append(f"{world_size} ranks together reach {', '.join(parts)}.")
    return sentences


def describe_slow_libraries(run: Run) -> list[str]:
    """A sentence on each precision in which one framework's products surely reach less than SLOW of the other's rate."""
    launches = choose_ceilings(run.points)
    if (launches["precision"] == "fp32").any():  # an emulated precision would repeat what fp32 says
        launches = launches[~launches["is_emulated"]]
    sentences = []
    for precision in order_values("precision", launches["precision"]):
        same_precision = launches[launches["precision"] == precision]
        for world_size in order_values("world_size", same_precision["world_size"]):
            sentences += _compare_libraries(same_precision[same_precision["world_size"] == world_size])
    return sentences


def _compare_libraries(launches: pd.DataFrame) -> list[str]:
    """The sentence on launches of one precision and world size, or none."""
    best = _mean_by_workers(launches, "gemm_flops_per_second")
    rates = {key: values.to_numpy(dtype="float64") for key, values in best.groupby(["framework", "gemm"])}
    default = {framework: values for (framework, gemm), values in rates.items() if gemm == "default"}
    chosen = {framework: values for (framework, gemm), values in rates.items() if gemm == "auto"}
    default |= chosen
    if len(default) < 2:
        return []
    slow, *_, fast = sorted(default, key=lambda framework: np.log(default[framework]).mean())
    ratio = estimate_ratio(default[slow], default[fast])
    if ratio.high is None or ratio.high >= SLOW:
        return []
    first = launches.iloc[0]
    world_size, precision = first["world_size"], first["precision"]
    ranks = "1 rank" if world_size == 1 else f"{world_size} ranks"
    products = f"{show_axis('precision', precision, is_emulated=first['is_emulated'])} matrix products"
    whose = f"On {ranks} {STYLES[slow].label}'s {products}"
    reached = f"{whose} reach {_describe_share(ratio)} of {STYLES[fast].label}'s rate"
    other = rates.get((slow, "onednn"))
    if other is not None:
        return [f"{reached}, and with gemm=onednn {_describe_share(estimate_ratio(other, default[fast]))}."]
    can_choose = slow == "pytorch" and precision == "fp32" and slow not in chosen
    return [f"{reached}; on a CPU try gemm=onednn." if can_choose else f"{reached}."]


def _mean_by_workers(launches: pd.DataFrame, metric: str) -> pd.Series:
    """Geometric mean of `metric` by framework, library and set of workers, which is the unit of evidence.

    The largest of a set's readings would be the higher, the more points it had.
    """
    logs = np.log(launches[metric].astype("float64"))
    return np.exp(logs.groupby([launches[name] for name in ("framework", "gemm", "generation")]).mean())


def _describe_range(factor: Estimate) -> str:
    if factor.low is None or factor.high is None:
        return f"n = {factor.n}, no interval"
    return f"{INTERVAL} {factor.low:.2f} to {factor.high:.2f}, n = {factor.n}"


def _describe_share(ratio: Estimate) -> str:
    centre = f"{100 * ratio.centre:.0f} %"
    if ratio.low is None or ratio.high is None:
        return f"{centre} (n = {ratio.n}, no interval)"
    return f"{centre} ({INTERVAL} {100 * ratio.low:.0f} to {100 * ratio.high:.0f} %, n = {ratio.n})"


TOPIC = Topic(
    name="Ceilings",
    question="How close does training come to what its framework and machine can do?",
    needs=Need(words="launches that measured the machine's ceilings", is_met=measured_ceilings),
    tables=ceiling_tables,
    advice=ceiling_advice,
    is_in_terminal=never,
)

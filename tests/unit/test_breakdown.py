"""Where the time goes: parts, overlap and the check of their sum against cases computed by hand; table, plot, report."""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np
import pytest

from hvbench.analysis.frame.breakdown import PARTS, break_down
from hvbench.analysis.frame.run import Run
from hvbench.analysis.report.page.render import FOLDER
from hvbench.analysis.report.write import write_report
from hvbench.analysis.show.panels import STYLES
from hvbench.analysis.show.render import render_csv, render_markdown
from hvbench.analysis.stats.estimates import estimate_mean
from hvbench.analysis.topics.breakdown.plot import PART_COLOURS, plot_breakdown
from hvbench.analysis.topics.breakdown.table import breakdown_table
from hvbench.analysis.topics.breakdown.topic import has_breakdown
from hvbench.frameworks.contract import GradientNorms, StepResult
from hvbench.records.record import Ablation, Record
from hvbench.registry import FRAMEWORKS
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.training import corpus
from hvbench.training.batches import Batches
from hvbench.worker.ablation import Ablations, rotate
from hvbench.worker.loop import Loop
from tests.unit.sample_pages import draw_all
from tests.unit.sample_records import make_launch, make_rank, make_record
from tests.unit.test_published_tables import report_texts


def make_ablation(scale: float = 1.0, **changes: list[float]) -> Ablation:
    """Three rounds; a step of 1 s: forward 0.25, backward 0.5, update 0.05, exposed 0.2; all-reduce alone 0.5."""
    kinds = {
        "forward_seconds": [0.25, 0.20, 0.25], "backward_seconds": [0.75, 0.75, 0.70],
        "local_step_seconds": [0.80, 0.80, 0.80], "step_seconds": [1.0, 1.0, 1.5], "allreduce_seconds": [0.5, 0.4, 0.5],
    }  # fmt: skip
    kinds = {name: [value * scale for value in values] for name, values in kinds.items()}
    costs = {"clock_seconds": [1e-6, 2e-6, 1e-6], "barrier_seconds": [1e-3, 1e-3, 1e-3]}
    return Ablation(**(kinds | costs | changes))


def make_ablated(scale: float = 1.0, *, repeat: int = 0, **point: Any) -> Record:
    """Two ranks whose timed steps take 0.98 and wait 0.02 s for data; rank 1 is faster in every kind of ablation."""
    steps: dict[str, Any] = {"step_seconds": [9.0, 0.98 * scale, 0.98 * scale], "data_seconds": [0.02 * scale] * 3}
    ranks = [make_rank(rank, **steps, ablation=make_ablation(scale * (1.0 - 0.1 * rank))) for rank in range(2)]
    return make_record(ranks, repeat=repeat, **point)


# The arithmetic


def test_parts_of_a_hand_computed_step() -> None:
    """Rank 1 takes 1.5 s for the first forward pass, so the slowest rank's rounds are 1.5, 0.2, 0.25: median 0.25."""
    ranks = [
        make_rank(0, step_seconds=[1.0], ablation=make_ablation()),
        make_rank(1, step_seconds=[1.0], ablation=make_ablation(forward_seconds=[1.5, 0.1, 0.1])),
    ]
    values = break_down(ranks, data_seconds=0.02, step_seconds=0.98)
    assert values == pytest.approx(
        {
            "forward_seconds": 0.25,
            "backward_seconds": 0.75 - 0.25,
            "optimizer_seconds": 0.80 - 0.75,
            "exposed_communication_seconds": 1.0 - 0.8,
            "parts_seconds": 0.02 + 1.0,
            "parts_to_step": (0.02 + 1.0) / (0.02 + 0.98),
            "allreduce_alone_seconds": 0.5,
            "overlap": 1 - 0.2 / 0.5,
            "clock_seconds": 1e-6,
            "barrier_seconds": 1e-3,
        }
    )
    assert sum(values[name] for name in PARTS if name != "data_seconds_median") + 0.02 == pytest.approx(
        values["parts_seconds"]
    )


def test_the_slowest_rank_of_each_round_counts_and_not_the_slowest_median() -> None:
    forward = ([0.1, 0.4, 0.1], [0.3, 0.1, 0.1])  # medians 0.1 and 0.1, slowest by round 0.3, 0.4, 0.1
    ranks = [
        make_rank(rank, step_seconds=[1.0], ablation=make_ablation(forward_seconds=values))
        for rank, values in enumerate(forward)
    ]
    assert break_down(ranks, data_seconds=0.0, step_seconds=1.0)["forward_seconds"] == pytest.approx(0.3)


def test_a_part_below_zero_stays_below_zero() -> None:
    faster = make_ablation(step_seconds=[0.79, 0.79, 0.79])
    values = break_down([make_rank(step_seconds=[1.0], ablation=faster)], data_seconds=0.0, step_seconds=0.8)
    assert values["exposed_communication_seconds"] == pytest.approx(-0.01)
    assert values["overlap"] == pytest.approx(1 + 0.01 / 0.5)


def test_one_rank_has_no_all_reduce_and_no_overlap() -> None:
    alone = make_ablation(allreduce_seconds=[])
    values = break_down([make_rank(step_seconds=[1.0], ablation=alone)], data_seconds=0.0, step_seconds=1.0)
    assert "overlap" not in values and "allreduce_alone_seconds" not in values
    assert values["forward_seconds"] == 0.25


@pytest.mark.parametrize(
    "ablations",
    [
        [None, None],
        [make_ablation(), None],
        [make_ablation(), make_ablation(forward_seconds=[0.1])],
        [make_ablation(step_seconds=[0.1]), make_ablation(step_seconds=[0.1])],
        [make_ablation(**{name: [] for name in Ablation.model_fields})] * 2,
    ],
)
def test_rounds_that_some_rank_lacks_give_no_parts(ablations: list[Ablation | None]) -> None:
    ranks = [make_rank(rank, step_seconds=[1.0], ablation=each) for rank, each in enumerate(ablations)]
    assert break_down(ranks, data_seconds=0.0, step_seconds=1.0) == {}


# Over launches


def test_the_table_shows_every_part_with_n_and_half_of_its_interval() -> None:
    scales = (1.0, 1.1, 1.2)
    table = breakdown_table(Run([make_ablated(scale, repeat=repeat) for repeat, scale in enumerate(scales)]))
    (row,) = (dict(zip(table.header, cells, strict=True)) for cells in table.cells)
    half = {name: estimate_mean([part * scale for scale in scales]).high - 1.1 * part for name, part in
            {"forward": 250.0, "backward": 500.0, "exposed communication": 200.0, "optimizer": 50.0, "data": 20.0}.items()}  # fmt: skip
    assert row["n"] == "3"
    assert row["data (ms)"] == f"22.0 ± {half['data']:.1f}"
    assert row["forward (ms)"] == f"275.0 ± {half['forward']:.1f}"
    assert row["backward (ms)"] == f"550.0 ± {half['backward']:.1f}"
    assert row["exposed communication (ms)"] == f"220.0 ± {half['exposed communication']:.1f}"
    assert row["optimizer (ms)"] == f"55.0 ± {half['optimizer']:.1f}"
    assert row["parts / step (%)"] == "102.0" and row["95 % interval (%)"] == "102.0 to 102.0"
    assert row["overlap (%)"] == "60 ± 0"
    assert "the clock adds 1.000 µs" in render_markdown(table) and "takes 1,000 µs" in render_markdown(table)
    assert "exposed_communication_seconds_low" in render_csv(table)


def test_one_launch_has_parts_and_no_interval() -> None:
    table = breakdown_table(Run([make_ablated()]))
    (row,) = (dict(zip(table.header, cells, strict=True)) for cells in table.cells)
    assert row["forward (ms)"] == "250.0 (n=1)" and row["status"] == "ok"
    assert "95 % interval (%)" not in row


def test_parts_that_do_not_add_up_to_the_timed_steps_are_named() -> None:
    slow = make_ablation(step_seconds=[1.04] * 3)  # 0.02 + 1.04 against 0.02 + 0.98
    ranks = [make_rank(step_seconds=[0.98] * 3, data_seconds=[0.02] * 3, ablation=slow)]
    table = breakdown_table(Run([make_record(ranks, world_size=1)]))
    assert table.cells[0][table.header.index("parts / step (%)")] == "106.0 (ablated steps differ from timed ones)"


def test_a_launch_without_ablations_makes_the_points_parts_unknown() -> None:
    """A mean over the launches that have them would look like one over all."""
    run = Run([make_ablated(), make_ablated(repeat=1).model_copy(update={"ranks": [
        make_rank(rank, step_seconds=[1.0, 1.0, 1.0]) for rank in range(2)]})])  # fmt: skip
    assert has_breakdown(run)
    assert breakdown_table(run).data["forward_seconds"].isna().all()


# The plot and the report


def both(**point: Any) -> list[Record]:
    return [
        make_ablated(1.0 + 0.1 * repeat, repeat=repeat, framework=framework, compression=compression, **point)
        for framework in FRAMEWORKS
        for compression in ("none", "fp16")
        for repeat in range(2)
    ]


def test_the_plot_stacks_the_parts_of_every_configuration_of_each_framework() -> None:
    figure = plot_breakdown(Run(both()))
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["PyTorch", "TensorFlow"]
    for panel in figure.axes:
        assert len(panel.patches) == len(PARTS) * 2
        tops = [
            max(bar.get_y() + bar.get_height() for bar in panel.patches if bar.get_x() + 0.3 == pytest.approx(place))
            for place in (0, 1)
        ]
        assert tops == pytest.approx([1020 * 1.05] * 2)
    assert figure.get_suptitle().splitlines()[0].endswith("?") and "(ms)" in figure.get_supylabel()


def test_a_negative_part_hangs_below_zero() -> None:
    negative = make_ablation(step_seconds=[0.79] * 3)
    record = make_record([make_rank(step_seconds=[1.0] * 3, data_seconds=[0.0] * 3, ablation=negative)], world_size=1)
    (panel,) = plot_breakdown(Run([record])).axes
    assert min(bar.get_y() + bar.get_height() for bar in panel.patches) == pytest.approx(-10)
    assert max(bar.get_y() + bar.get_height() for bar in panel.patches) == pytest.approx(800)
    low, high = panel.get_ylim()
    assert low < -10 and high > 1000, "nothing is cut off, the measured step included"


def test_parts_do_not_look_like_frameworks_nor_like_each_other() -> None:
    colours = [*PART_COLOURS.values(), *(style.colour for style in STYLES.values())]
    assert len(set(colours)) == len(colours)


def test_parts_can_be_seen_on_a_dark_page_and_the_first_one_on_paper_too() -> None:
    dark = re.findall(r"--paper: (#\w{6})", (FOLDER / "page.css").read_text())[1]
    assert all(contrast(colour, dark) > 3 for colour in PART_COLOURS.values())
    assert contrast(next(iter(PART_COLOURS.values())), "#ffffff") > 3


def contrast(one: str, other: str) -> float:
    """Of two colours, 1 to 21 (WCAG 2.2)."""
    values = [[int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)] for colour in (one, other)]
    linear = [
        [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in each] for each in values
    ]
    low, high = sorted(0.2126 * red + 0.7152 * green + 0.0722 * blue for red, green, blue in linear)
    return (high + 0.05) / (low + 0.05)


def test_a_lost_point_is_marked_in_its_place() -> None:
    records = [*both(), make_record(status="oom", framework="pytorch", compression="none", micro_batch_size=64)]
    figure = draw_all(records)["breakdown"]
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "oom" in texts


def test_the_report_has_it_where_there_are_ablations_and_nowhere_else(tmp_path) -> None:
    write_report(tmp_path / "with", Run(both()))
    assert {path.name for path in (tmp_path / "with").rglob("breakdown.*")} == {
        "breakdown.csv", "breakdown.md", "breakdown.tex", "breakdown.svg", "breakdown.png",
    }  # fmt: skip
    assert "## Where the time goes" in (tmp_path / "with" / "report.md").read_text()
    without = [make_launch({"framework": "pytorch"})]
    texts = report_texts(without, {})
    assert not [name for name in texts if "breakdown" in name] and "breakdown" not in draw_all(without)
    assert "Where the time goes" not in texts["report.md"]


def test_a_report_of_a_run_with_a_timeline_says_not_to_publish_it() -> None:
    record = make_ablated()
    traced = record.model_copy(update={"environment": {"horovod_settings": {"HOROVOD_TIMELINE": "/a/b.json"}}})
    assert "timeline was recorded" in report_texts([traced], {})["report.md"]
    assert "timeline was recorded" not in report_texts([record], {})["report.md"]


# The driver, with a trainer that writes down what it is asked


class Scribe:
    """A trainer and a runtime of one of two ranks: notes every call, takes its time, and overflows above a loss scale."""

    rank = 0
    world_size = 2
    device = "cpu"

    def __init__(self, *, largest_scale: float = 2.0**20, seconds: float = 0.0) -> None:
        self.calls: list[str] = []
        self.rates: list[float] = []
        self.scales: list[float] = []
        self.batches: list[Any] = []
        self.largest_scale = largest_scale
        self.seconds = seconds
        self.passes = 0  # as the twins count them: a step's backward passes, which decide on its dropout masks
        self.looked_at: list[int] = []  # the first pass of every call that draws masks

    def forward(self, inputs: Any, targets: Any) -> float:
        self.looked_at.append(self.passes)
        self.batches.append(inputs)
        return self.note("forward")

    def backward(self, inputs: Any, targets: Any, *, loss_scale: float) -> float:
        self.looked_at.append(self.passes)
        self.batches.append(inputs)
        return self.note("backward")

    def allreduce_alone(self) -> None:
        self.note("allreduce")

    def train_step(
        self, inputs: Any, targets: Any, *, learning_rate: float, loss_scale: float, with_allreduce: bool = True
    ) -> StepResult:
        self.batches.append(inputs)
        self.rates.append(learning_rate)
        self.scales.append(loss_scale)
        self.note("step" if with_allreduce else "local")
        self.looked_at.append(self.passes)
        self.passes += len(inputs)
        return StepResult(loss=1.0, gradient_norm=1.0, skipped=loss_scale > self.largest_scale)

    def gradient_norms(self, inputs: Any, targets: Any, *, loss_scale: float) -> GradientNorms:
        self.looked_at.append(self.passes)
        return GradientNorms(micro_batches=[float("inf")], averaged=float("inf"))

    def state(self) -> dict[str, Any]:
        self.note("save")
        return {"passes": np.array(self.passes)}

    def rewind(self, passes: int) -> None:
        self.passes -= passes

    def load_state(self, state: dict[str, Any]) -> None:
        self.passes = int(state["passes"])
        self.note("restore")

    def parameters(self) -> dict[str, Any]:
        return {}

    def load_parameters(self, parameters: dict[str, Any]) -> None:
        self.note("replace")

    def average_parameters(self) -> None:
        self.note("average")

    def mean_parameters(self) -> dict[str, Any]:
        self.note("mean")
        return {}

    def own_state(self) -> dict[str, Any]:
        return {}

    def load_own_state(self, state: dict[str, Any]) -> None:
        return None

    def evaluate(self, inputs: Any, targets: Any) -> np.ndarray:
        return np.ones(len(inputs))

    def gather(self, value: float) -> list[float]:
        return [value]

    def barrier(self) -> None:
        self.note("|")

    def synchronize(self) -> None:
        pass

    def peak_device_memory_bytes(self) -> int | None:
        return len(self.calls)  # it can only rise

    def note(self, name: str) -> float:
        time.sleep(self.seconds)
        self.calls.append(name)
        return 0.0


def make_loop(
    scribe: Scribe,
    *,
    precision: str = "fp32",
    passes: int = 1,
    strategy: str = "horovod",
    sync_every: int = 1,
    **settings: int,
) -> Loop:
    """A training of 1 step to warm up and `steps` timed ones by `scribe`, of so many backward passes each."""
    point = Point(
        framework="pytorch", model="tiny", data="synthetic", world_size=scribe.world_size, micro_batch_size=1,
        precision=precision, gradient_accumulation_steps=passes, strategy=strategy, sync_every=sync_every,
    )  # fmt: skip
    batches = Batches(point, corpus.prepare(point.data, vocab_size=point.vocab_size), rank=0)
    measure = MeasureSettings(**({"warmup_steps": 1} | settings))
    return Loop(point, measure, trainer=scribe, batches=batches, runtime=scribe)


def train(scribe: Scribe, **choices: Any) -> tuple[Loop, Ablations]:
    """The training of `make_loop` with its ablations; the calls are in `scribe`'s own list."""
    loop = make_loop(scribe, **choices)
    ablations = Ablations(loop)
    loop.start()
    while not loop.is_done:
        loop.advance()
        ablations.interrupt(enter=lambda phase: scribe.calls.append(phase))
    return loop, ablations


UNTIMED = ["step", "forward", "backward", "local", "step", "allreduce", "|"]  # the first round's; the clock is silent


def test_a_round_of_local_updates_ends_in_an_average_that_is_timed_with_its_step() -> None:
    scribe = Scribe()
    loop, ablations = train(scribe, steps=5, sync_every=3, ablation_rounds=1, evaluate_every=4)
    untimed = [*UNTIMED[1:4], "local", "average", "average", "|"]
    timed = ["|", "forward", "|", "backward", "|", "local", "|", "local", "average", "|", "average", "|", "|", "|"]
    assert scribe.calls == [
        *("save", "average", "restore", "|"),  # before the clock runs, for a framework that builds a graph of it
        *("local", "local", "local", "average", "local"),
        *("mean", "replace", "replace"),  # an evaluation in the middle of a round
        *("local", "local", "average"),
        *("ablation", "save", "local", "average", *untimed, *timed, "restore", "|"),
    ]
    assert loop.samples.averaging_steps == [2, 5]


def test_rounds_stand_between_timed_steps_and_put_back_what_they_changed() -> None:
    """Each times every kind once behind a barrier and starts with another; the ranks go on together."""
    scribe = Scribe()
    loop, ablations = train(scribe, steps=5, ablation_rounds=2)
    first = ["|", "forward", "|", "backward", "|", "local", "|", "step", "|", "allreduce", "|", "|", "|"]
    second = ["|", "backward", "|", "local", "|", "step", "|", "allreduce", "|", "|", "|", "|", "forward"]
    assert scribe.calls == [
        *("|", "step", "step", "step", "step"),  # one to warm up; the first round is due after 5 / 2 timed ones
        *("ablation", "save", *UNTIMED, *first, "restore", "|"),
        *("step", "step"),
        *("ablation", "save", "step", *second, "restore", "|"),
    ]
    assert {name: len(values) for name, values in ablations.samples.items()} == dict.fromkeys(Ablation.model_fields, 2)
    assert Ablation.model_validate(ablations.samples)
    assert len(loop.samples.step_seconds) == len(loop.samples.loss) == 6


def test_a_round_has_the_batch_of_the_step_before_it_and_no_learning_rate() -> None:
    scribe = Scribe()
    loop, _ = train(scribe, steps=1, ablation_rounds=1)
    assert all((inputs == loop.batches.train_batch(1)[0]).all() for inputs in scribe.batches[1:])
    assert (scribe.batches[0] != scribe.batches[1]).any()
    assert set(scribe.rates[2:]) == {0.0} and 0.0 not in scribe.rates[:2]


@pytest.mark.parametrize(("steps", "rounds", "after"), [
    (4, 2, [0, 1, 0, 1]), (3, 2, [0, 1, 1]), (2, 5, [2, 3]), (3, 3, [1, 1, 1]), (5, 1, [0, 0, 0, 0, 1]), (2, 0, [0, 0]),
])  # fmt: skip
def test_rounds_are_spread_over_the_timed_steps(steps: int, rounds: int, after: list[int]) -> None:
    scribe = Scribe()
    train(scribe, steps=steps, ablation_rounds=rounds, warmup_steps=2)
    done, pauses = [], iter(" ".join(scribe.calls).split("ablation")[1:])
    for count in after:  # each round has one local step, and the very first an untimed one
        done.append(next(pauses).count("local") - (sum(done) == 0) if count else 0)
    assert done == after and next(pauses, None) is None


def test_a_round_costs_no_step_and_no_training_seconds_and_its_memory_is_not_the_trainings() -> None:
    scribe = Scribe(seconds=0.005)
    loop, ablations = train(scribe, steps=2, ablation_rounds=2, evaluate_every=3, evaluate_samples=2)
    calls = scribe.calls.index("ablation")
    rounds = sum(sum(values) for values in ablations.samples.values())
    assert loop.paused_seconds > rounds > 2 * 5 * 0.005
    whole, trained = loop.samples.evaluations[-1]["training_seconds"], sum(loop.samples.step_seconds)
    assert trained <= whole < trained + 0.5 * rounds
    assert ablations.peaks["peak_device_memory_bytes"] == calls + 1  # with the phase's name, and before `save`
    assert ablations.peaks["peak_rss_bytes"] > 0


def test_one_rank_times_no_all_reduce() -> None:
    scribe = Scribe()
    scribe.world_size = 1
    _, ablations = train(scribe, steps=1, ablation_rounds=1)
    assert "allreduce" not in scribe.calls and ablations.samples["allreduce_seconds"] == []


def test_an_overflow_lowers_the_rounds_loss_scale_before_anything_is_timed_and_not_the_trainings() -> None:
    """A skipped update would make the optimizer look free."""
    scribe = Scribe(largest_scale=2.0**12)
    loop, _ = train(scribe, precision="fp16", steps=1, ablation_rounds=1)
    training, rounds = scribe.scales[:2], scribe.scales[2:]
    assert training == [2.0**15, 2.0**14] == loop.samples.loss_scale
    assert rounds[:2] == [2.0**13, 2.0**12] and set(rounds[2:]) == {2.0**12}
    assert loop.loss_scale.scale == 2.0**13


def test_rotation_begins_elsewhere_and_loses_nothing() -> None:
    assert [list(rotate(["a", "b", "c"], number)) for number in range(4)] == [
        ["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"],
    ]  # fmt: skip

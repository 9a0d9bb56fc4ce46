"""The memory estimate against sizes computed by hand, and against measured launches."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvbench.analysis.frame.frames import point_frame
from hvbench.analysis.frame.run import Run
from hvbench.analysis.topics.memory import memory_table
from hvbench.records.record import Record
from hvbench.records.store import RunFolder
from hvbench.spec.point import Point
from hvbench.training.memory import KEPT, estimate_memory
from hvbench.worker.local_ceiling import SCALED_BYTES
from tests.unit.sample_records import make_rank, make_record

REFERENCES = sorted(path.parent for path in (Path(__file__).parents[2] / "results" / "reference").glob("*/run.json"))

# tiny: L = 2, W = 32, V = 256, T = 32, H = 2; 34,688 parameters (see test_flops). Micro-batch 4: S = 128 tokens.
PARAMETERS = 34_688
S, W, V, T, H, L = 128, 32, 256, 32, 2, 2
ONCE = {"pytorch": 2 * 4 * W, "tensorflow": 3 * 4 * W}  # values a token while an MLP is differentiated
HOLES = {"pytorch": 0.35, "tensorflow": 0.0}  # of what is kept: free places of the heap between it
PLAIN = {"pytorch": 7, "tensorflow": 15}  # matrices while plain attention is


def estimate(framework: str, *, is_native: bool = False, **fields):
    point = Point(model="tiny", framework=framework, micro_batch_size=4, world_size=2, **fields)
    return estimate_memory(point, is_native=is_native)


@pytest.mark.parametrize("framework", ["pytorch", "tensorflow"])
def test_adamw_in_fp32_needs_four_times_the_parameters(framework: str) -> None:
    found = estimate(framework)
    assert (found.parameter_bytes, found.gradient_bytes, found.optimizer_state_bytes) == (
        4 * PARAMETERS, 4 * PARAMETERS, 8 * PARAMETERS,
    )  # fmt: skip


@pytest.mark.parametrize("framework", ["pytorch", "tensorflow"])
@pytest.mark.parametrize("compression", ["topk", "int8", "powersgd", "onebit"])
def test_residuals_are_as_large_as_the_gradients_and_messages_come_on_top(framework: str, compression: str) -> None:
    plain, less = (estimate(framework, compression=name) for name in ("none", compression))
    values = PARAMETERS - VECTORS if compression == "powersgd" else PARAMETERS
    assert 1 <= (less.copies_bytes - plain.copies_bytes) / (4 * values) <= 3
    assert less.peak_bytes - plain.peak_bytes == less.copies_bytes - plain.copies_bytes


# tiny: tables of 256 + 32 rows, per layer matrices (32, 96), (32, 32), (32, 128), (128, 32), and their vectors.
FACTORED = (256 + 32) + 32 + 2 * ((32 + 96) + (32 + 32) + (32 + 128) + (128 + 32)) + 32
VECTORS = 2 * (4 * 32 + 96 + 32 + 128 + 32) + 2 * 32


@pytest.mark.parametrize(
    ("fields", "values"),
    [
        ({"optimizer": "lamb"}, 2 * PARAMETERS),
        ({"optimizer": "lars"}, PARAMETERS),
        ({"optimizer": "sgd"}, PARAMETERS),
        ({"optimizer": "sgd", "momentum": 0.0}, 0),
        ({"optimizer": "adafactor"}, FACTORED + VECTORS),
    ],
)
@pytest.mark.parametrize("framework", ["pytorch", "tensorflow"])
def test_optimizer_state_is_that_of_the_paper(framework: str, fields: dict, values: int) -> None:
    assert estimate(framework, **fields).optimizer_state_bytes == 4 * values


def test_activations_of_pytorch() -> None:
    found = estimate("pytorch")
    assert found.activation_bytes == int(1.35 * L * 16 * S * W * 4) + 8 * S * W * 4
    assert found.logits_bytes == S * V * 4  # fewer tokens than a chunk
    assert found.copies_bytes == V * W * 4  # the tied embedding's second gradient


def test_activations_of_tensorflow_hold_the_attention_matrix() -> None:
    found = estimate("tensorflow")
    assert found.activation_bytes == (L * (22 * S * W + S * H * T) + 12 * S * W) * 4
    assert found.logits_bytes == 2 * S * V * 4
    assert found.copies_bytes == V * W * 4 + 4 * PARAMETERS  # the clipped gradients


@pytest.mark.parametrize(("framework", "whole", "chunked"), [("pytorch", 4, 1), ("tensorflow", 2, 2)])
def test_logits_are_those_of_a_chunk_and_the_embedding_has_one_gradient_more(framework, whole, chunked) -> None:
    found = {chunk: estimate(framework, loss_chunk_tokens=chunk) for chunk in (0, 48)}
    assert found[0].logits_bytes == whole * S * V * 4
    assert found[48].logits_bytes == chunked * 48 * V * 4
    assert found[48].copies_bytes - found[0].copies_bytes == V * W * 4


@pytest.mark.parametrize(("framework", "strip"), [("pytorch", 0), ("tensorflow", 5 * H * 256)])
def test_attention_keeps_its_matrix_where_it_is_plain_and_one_strip_where_it_is_fused(framework, strip) -> None:
    long, samples = 2048, 4
    tokens = samples * long
    fused = estimate(framework, sequence_length=long).activation_bytes
    plain = estimate(framework, sequence_length=long, attention="plain").activation_bytes
    assert plain - fused == 4 * tokens * ((L + PLAIN[framework]) * H * long - (strip or ONCE[framework]))
    twice = estimate(framework, sequence_length=2 * long).activation_bytes
    assert twice == 2 * fused, "linear in the length"


@pytest.mark.parametrize(
    ("framework", "values"), [("pytorch", 2 * W + 3 * H * T), ("tensorflow", 0.5 * W + 1.25 * H * T)]
)
def test_dropout_adds_masks_and_attention_matrices(framework: str, values: float) -> None:
    more = estimate(framework, dropout=0.1).activation_bytes - estimate(framework).activation_bytes
    without = 3 * H * T if framework == "pytorch" else 1.25 * H * T
    assert more == pytest.approx(L * S * ((1 + HOLES[framework]) * (values - without) + without) * 4, abs=1)


@pytest.mark.parametrize(
    ("framework", "recompute", "kept", "again"),
    [  # values a token: what each block keeps, and what one of them needs while it is recomputed
        ("pytorch", "block", W, 2 * 16 * W),
        ("pytorch", "attention", (1 + 10) * W, 6 * W),
        ("tensorflow", "block", W, 2 * (22 * W + H * T)),
        ("tensorflow", "attention", (1 + 15) * W, 7 * W + H * T),
    ],
)
def test_recomputation_keeps_the_stream_and_one_block_at_a_time(
    framework: str, recompute: str, kept: int, again: int
) -> None:
    whole = (1 + HOLES[framework]) * (L * kept + again) + ONCE[framework]
    assert estimate(framework, recompute=recompute).activation_bytes == int(4 * S * whole)


@pytest.mark.parametrize(
    ("framework", "mask", "matrix"), [("pytorch", W, 3 * H * T), ("tensorflow", 0.25 * W, 1.25 * H * T)]
)
def test_recomputed_masks_are_those_of_one_block(framework: str, mask: float, matrix: float) -> None:
    """Each half of a block has one mask of S W; the MLP's half is kept where attention's alone is recomputed."""
    more = {
        part: estimate(framework, dropout=0.1, recompute=part).activation_bytes
        - estimate(framework, recompute=part).activation_bytes
        for part in ("attention", "block")
    }
    mask *= 1 + HOLES[framework]
    expected = {"block": 4 * S * 2 * (2 * mask + matrix), "attention": 4 * S * (L * mask + mask + matrix)}
    assert more == pytest.approx(expected, abs=1)


@pytest.mark.parametrize("framework", ["pytorch", "tensorflow"])
def test_a_compiler_is_part_of_the_base(framework: str) -> None:
    more = estimate(framework, compile="default").base_bytes - estimate(framework).base_bytes
    assert more == KEPT[framework].compiler_bytes > 0


UNREAD = {  # values a token and block that only gradients of frozen weights would read: of W, and of M = 4 W
    "bias": (2, 1), "lora": (1, 1), "prefix": (2, 1), "adapter": (2, 1)
}  # fmt: skip


@pytest.mark.parametrize("framework", ["pytorch", "tensorflow"])
@pytest.mark.parametrize("adaptation", UNREAD)
def test_frozen_weights_keep_no_inputs(framework: str, adaptation: str) -> None:
    """Of linear layers; heads are kept by PyTorch's kernel for itself."""
    is_pytorch, all_values = framework == "pytorch", {"pytorch": 16 * W, "tensorflow": 22 * W}[framework]
    (of_width, of_mlp), matrix = UNREAD[adaptation], 0 if is_pytorch else L * H * T
    kept = all_values - (of_width + (not is_pytorch)) * W - of_mlp * 4 * W
    kept += {"prefix": 2 * W * is_pytorch, "adapter": 2 * (W + 5 * (2 if is_pytorch else 3))}.get(adaptation, 0)
    summands = {"lora": 2 * 3 * W, "adapter": 2 * 2 * W}.get(adaptation, 0)  # freed for their sum
    holes = 0.6 if is_pytorch else 0.0
    whole = L * ((1 + holes) * kept + holes * summands) + matrix + ONCE[framework]
    found = estimate(framework, adaptation=adaptation, adapter_size=5).activation_bytes
    assert found == pytest.approx(4 * S * whole, abs=1)


@pytest.mark.parametrize("framework", ["pytorch", "tensorflow"])
def test_blocks_in_front_of_the_first_that_trains_keep_nothing(framework: str) -> None:
    sizes = {"num_layers": 6, "objective": "classification"}
    full, head = (estimate(framework, **sizes, **more).activation_bytes for more in ({}, {"adaptation": "head"}))
    assert head == 4 * S * ONCE[framework]
    for layers in (1, 3):
        some = estimate(framework, **sizes, adaptation="last_layers", trained_layers=layers).activation_bytes
        assert some - head == pytest.approx(layers / 6 * (full - head), abs=1)


def test_native_bf16_halves_the_operands_of_products_and_adds_rounded_weights() -> None:
    found = estimate("pytorch", precision="bf16", is_native=True)
    assert found.activation_bytes == int(1.6 * L * S * W * (2 * 4 + 14 * 2)) + 8 * S * W * 4
    assert found.copies_bytes == V * W * 4 + 2 * PARAMETERS
    assert found.logits_bytes == S * V * 4 + 2 * S * V


def test_emulated_bf16_keeps_fp32_operands_and_adds_rounded_weights_in_fp32() -> None:
    found, plain = estimate("pytorch", precision="bf16"), estimate("pytorch")
    assert found.activation_bytes == plain.activation_bytes
    assert found.copies_bytes == plain.copies_bytes + 4 * PARAMETERS


@pytest.mark.parametrize(("framework", "more"), [("pytorch", 0), ("tensorflow", 4 * PARAMETERS)])
def test_accumulation_adds_a_copy_of_the_gradients_in_tensorflow(framework: str, more: int) -> None:
    once, often = estimate(framework), estimate(framework, gradient_accumulation_steps=4)
    assert often.peak_bytes - once.peak_bytes == often.accumulation_bytes == more


def test_compression_adds_the_gradients_in_the_wire_format() -> None:
    assert estimate("pytorch", compression="fp16").copies_bytes - estimate("pytorch").copies_bytes == 2 * PARAMETERS


def test_the_peak_is_the_sum_of_its_parts() -> None:
    found = estimate("pytorch")
    assert (
        found.peak_bytes
        == 16 * PARAMETERS + found.activation_bytes + 4 * S * V + V * W * 4 + KEPT["pytorch"].base_bytes
    )


def test_twice_the_micro_batch_is_twice_the_activations_and_nothing_else() -> None:
    one, two = (estimate_memory(Point(model="tiny", micro_batch_size=b, world_size=1), is_native=False) for b in (2, 4))
    grown = {name for name in vars(one) if getattr(one, name) != getattr(two, name)}
    assert grown == {"activation_bytes", "logits_bytes"}
    assert (
        two.activation_bytes == pytest.approx(2 * one.activation_bytes, abs=1)
        and two.logits_bytes == 2 * one.logits_bytes
    )


# Beside a measurement


def test_the_remainder_is_the_peak_less_what_is_known() -> None:
    ranks = [make_rank(rank, step_seconds=[1.0, 1.0], start_rss_bytes=start, peak_rss_bytes=peak)
             for rank, (start, peak) in enumerate([(1_000_000, 3_000_000), (1_500_000, 2_900_000)])]  # fmt: skip
    row = point_frame([make_record(ranks, micro_batch_size=4)]).iloc[0]
    assert row["activation_bytes"] == 3_000_000 - 1_000_000 - 16 * PARAMETERS  # all of the rank with the highest peak
    assert row["estimated_peak_bytes"] == estimate("pytorch").peak_bytes
    assert row["start_rss_bytes"] == 1_500_000


def test_the_record_says_whether_a_precision_is_native() -> None:
    ranks = [make_rank(step_seconds=[1.0, 1.0])]
    estimates = [
        point_frame([make_record(ranks, precision="bf16", environment=environment)]).iloc[0]["estimated_peak_bytes"]
        for environment in ({}, {"native_bfloat16": False}, {"native_bfloat16": True})
    ]
    assert estimates[0] == estimates[1] > estimates[2]


def test_a_gpu_has_no_estimate_of_its_hosts_memory() -> None:
    row = point_frame([make_record([make_rank(step_seconds=[1.0, 1.0], device="cuda")])]).iloc[0]
    assert row[["estimated_peak_bytes", "activation_bytes", "parameter_bytes"]].isna().all()


def test_the_table_shows_the_error_of_the_estimate() -> None:
    expected = estimate("pytorch").peak_bytes
    ranks = [make_rank(rank, step_seconds=[1.0, 1.0], peak_rss_bytes=2 * expected) for rank in range(2)]
    table = memory_table(Run([make_record(ranks, micro_batch_size=4)]))
    assert table.cells[0][table.header.index("estimate / peak - 1 (%)")] == "-50"


# Until when a framework's workers imported what they do not need, and its bytes: pandas and matplotlib, PyTorch's compiler.
UNNEEDED = {"tensorflow": ("2026-11-23T04", 88 * 2**20), "pytorch": ("2026-11-26T23:40", 68 * 2**20)}
# Until when all logits of a micro-batch were there at once.
WHOLE_LOGITS_UNTIL = "2026-11-27T18:30"
# Until when ceilings were measured in the worker that trained, and what TensorFlow's allocator for oneDNN kept of them.
POOL_UNTIL, POOL_BYTES = "2026-11-27T12", {"tensorflow": 3 * SCALED_BYTES["cpu"], "pytorch": 0}


def estimate_whole_logits(record: Record) -> int:
    """What the estimate lacks of a record's peak where its logits were not chunked."""
    whole = record.point.model_copy(update={"loss_chunk_tokens": 0})
    return (
        estimate_memory(whole, is_native=False).logits_bytes
        - estimate_memory(record.point, is_native=False).logits_bytes
    )


@pytest.mark.parametrize("folder", REFERENCES, ids=lambda path: path.name)
def test_the_estimate_is_near_what_the_committed_runs_measured(folder: Path) -> None:
    """Within 15 %; the machines that a reference run may come from have allocators of their own."""
    records = RunFolder(folder).read_records()[0]
    points = point_frame(records).dropna(subset=["estimated_peak_bytes"])
    assert len(points)
    began = max(record.started_at for record in records)
    whole = [estimate_whole_logits(record) if began < WHOLE_LOGITS_UNTIL else 0 for record in records]
    more = dict(zip((record.point.point_id for record in records), whole, strict=True))
    unneeded = {name: size if began < until else 0 for name, (until, size) in UNNEEDED.items()}
    estimate = points["estimated_peak_bytes"] + points["framework"].map(unneeded) + points["point_id"].map(more)
    has_pool = points["ceilings_read_at"].isna() & (began < POOL_UNTIL)
    pool = points["framework"].map(POOL_BYTES).where(has_pool, 0)
    least, most = estimate / points["peak_rss_bytes"], (estimate + pool) / points["peak_rss_bytes"]
    assert ((most >= 0.85) & (least <= 1.15)).all(), list(zip(least, most, strict=True))

"""No change of the code renames a point: ids, fields and their order are those of every suite and record published so far."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hvbench.spec.point import Point
from hvbench.spec.suite import apply_scale, find_suite, load_suite

ROOT = Path(__file__).parents[2]
# Suite, and the name of its scale where it is another -> the ids of its points. A suite that changes is written anew here;
# a change of Point must leave all of them as they are.
SUITES: dict[str, list[str]] = json.loads(Path(__file__).with_name("point_ids.json").read_text(encoding="utf-8"))
EARLIER_DEFAULTS = {"gemm": "default"}  # of fields whose default has changed since: ids of before are theirs
FIELDS = [
    "framework", "model", "family", "num_layers", "num_heads", "num_kv_heads", "hidden_size", "mlp_size", "vocab_size", "sequence_length",
    "tied_embeddings", "rope_theta", "objective",
    "num_classes", "pretraining", "pretraining_steps", "world_size", "micro_batch_size", "gradient_accumulation_steps",
    "precision", "compression", "gemm", "device", "compile", "recompute", "attention", "loss_chunk_tokens", "strategy", "reduction", "controller", "fusion_threshold_bytes",
    "cycle_time_seconds", "autotune", "gradient_predivide", "link_bits_per_second", "optimizer", "learning_rate",
    "lr_scaling", "reference_batch_size", "schedule", "lr_warmup_steps", "schedule_steps", "batch_warmup_steps",
    "momentum", "trust_coefficient", "beta1", "beta2", "epsilon", "weight_decay", "max_gradient_norm", "dropout", "data",
    "encoding", "seed", "initial_checkpoint",
]  # fmt: skip


@pytest.mark.parametrize("name", SUITES)
def test_a_suites_points_keep_their_ids(name: str) -> None:
    suite_name, _, scale = name.partition(" ")
    suite = load_suite(find_suite(suite_name))
    points = (apply_scale(suite, scale) if scale else suite).points()
    as_before = [point.model_copy(update=EARLIER_DEFAULTS) for point in points]
    assert [point.point_id for point in as_before] == SUITES[name]


def test_a_default_that_has_changed_names_the_points_that_it_changes_and_no_others() -> None:
    """Until `gemm` could be chosen, PyTorch multiplied by its own library: that is what those ids mean."""
    for framework, precision, device, is_another in (
        ("pytorch", "fp32", "auto", True),
        ("pytorch", "fp32", "cuda", False),
        ("pytorch", "bf16", "auto", False),
        ("tensorflow", "fp32", "auto", False),
    ):
        point = Point(framework=framework, precision=precision, device=device)
        earlier = point.model_copy(update=EARLIER_DEFAULTS)
        assert (point.point_id != earlier.point_id) == is_another
    ids = {gemm: Point(framework="pytorch", gemm=gemm).point_id[-8:] for gemm in ("auto", "default", "onednn")}
    assert len(set(ids.values())) == 3 and (ids["default"], ids["onednn"]) == ("af79328e", "ea8c048c")


def test_every_published_record_still_has_the_id_of_its_point() -> None:
    records = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / "results" / "reference").rglob("records/*.json"))
    ]
    measured = [record for record in records if "point" in record]
    assert len(measured) > 150
    other = [record["point_id"] for record in measured if Point(**record["point"]).point_id != record["point_id"]]
    assert other == []


def test_a_point_is_a_flat_table_of_the_same_fields_in_the_same_order() -> None:
    """Records, tables and the command line name a field alone. A new one may stand anywhere among these."""
    assert [name for name in Point().model_dump() if name in FIELDS] == FIELDS
    assert list(Point.model_fields) == list(Point().model_dump())

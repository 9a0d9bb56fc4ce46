"""Point and MeasureSettings: what they accept, what they fill in, and what makes two points the same."""

from __future__ import annotations

import re
from typing import get_args

import pytest
from pydantic import ValidationError

from hvbench.errors import UsageError
from hvbench.registry import FRAMEWORKS
from hvbench.spec.batch import BatchPart
from hvbench.spec.knob import Kind, Part, Spec, choices_of, groups_of, kind_of, knobs_of, presets_of
from hvbench.spec.messages import did_you_mean, shorten, validate
from hvbench.spec.model import MODEL_PRESETS, ModelPart
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings


def refuse(cls: type, **values: object) -> str:
    with pytest.raises(UsageError) as caught:
        validate(cls, values, where="here")
    message = str(caught.value)
    assert message.startswith("here: ") and message.isprintable()
    return message.removeprefix("here: ")


# What is filled in


@pytest.mark.parametrize("model", MODEL_PRESETS)
def test_a_preset_is_written_out_in_the_point(model: str) -> None:
    point = Point(model=model)
    assert point.model_dump().items() >= MODEL_PRESETS[model].items()
    assert point.hidden_size % point.num_heads == 0


def test_a_given_size_wins_over_the_preset() -> None:
    point = Point(model="tiny", sequence_length=64)
    assert (point.sequence_length, point.num_layers) == (64, 2)


def test_a_point_survives_json() -> None:
    point = Point(framework="tensorflow", world_size=2, learning_rate=3e-4, data="größer.txt")
    assert Point.model_validate_json(point.model_dump_json()) == point


def test_every_framework_name_is_accepted() -> None:
    assert [Point(framework=name).framework for name in FRAMEWORKS] == list(FRAMEWORKS)
    assert FRAMEWORKS[0] == "pytorch" == Point().framework and "tensorflow" in FRAMEWORKS


def test_another_framework_name_is_refused_with_the_known_ones() -> None:
    names = " or ".join([", ".join(f"'{name}'" for name in FRAMEWORKS[:-1]), f"'{FRAMEWORKS[-1]}'"])
    assert refuse(Point, framework="jax") == f'framework = "jax": must be {names}'


# Parts


def test_every_field_belongs_to_one_part() -> None:
    """Of two parts that declare the same field, one would silently win."""
    parts = [part for part in reversed(Point.__mro__) if issubclass(part, Part) and part not in (Part, Point)]
    declared = [name for part in parts for name in part.model_fields]
    assert declared == list(Point.model_fields)
    assert [name for names in groups_of(Point).values() for name in names] == declared


def test_every_part_is_a_frozen_model_by_itself() -> None:
    batch = BatchPart(micro_batch_size=4, gradient_accumulation_steps=2, world_size=3)
    assert batch.global_batch_size == 24
    assert ModelPart(model="tiny").model_dump(exclude_defaults=True) == {"model": "tiny", **MODEL_PRESETS["tiny"]}
    with pytest.raises(ValidationError):
        batch.micro_batch_size = 1


def test_tables_begin_with_columns_in_one_order() -> None:
    places = [knob.column for knob in knobs_of(Point).values() if knob.column is not None]
    assert sorted(places) == list(range(len(places)))


@pytest.mark.parametrize("model", [Point, MeasureSettings], ids=lambda model: model.__name__)
def test_every_field_is_of_a_known_kind(model: type[Spec]) -> None:
    kinds = {name: kind_of(field) for name, field in model.model_fields.items()}
    assert all((kinds[name] is Kind.CHOICE) == bool(choices_of(field)) for name, field in model.model_fields.items())
    assert all(
        isinstance(field.default, bool) == (kinds[name] is Kind.SWITCH) for name, field in model.model_fields.items()
    )


# Batch arithmetic


def test_global_batch_and_tokens_per_step_count_all_ranks() -> None:
    point = Point(model="tiny", micro_batch_size=8, gradient_accumulation_steps=4, world_size=2)
    assert point.global_batch_size == 8 * 4 * 2
    assert point.tokens_per_step == 8 * 4 * 2 * 32


# Identity


def test_the_point_id_is_stable() -> None:
    """A field that is renamed or gets another default changes ids: --resume then runs all of it again."""
    assert Point(gemm="default").point_id == "pytorch-small-b8x1-fp32-none-af79328e"
    assert Point().point_id == "pytorch-small-b8x1-fp32-none-ad32ffa2"


def test_the_point_id_differs_whenever_a_field_differs() -> None:
    changed = {
        "framework": "tensorflow", "model": "tiny", "family": "llama", "num_kv_heads": 2, "mlp_size": 64,
        "tied_embeddings": False, "rope_theta": 500.0, "num_layers": 3, "num_heads": 8, "hidden_size": 128,
        "vocab_size": 257, "sequence_length": 16, "world_size": 3, "micro_batch_size": 9,
        "gradient_accumulation_steps": 2,
        "precision": "bf16", "compression": "fp16", "topk_share": 0.1, "int8_bucket": 64, "powersgd_rank": 2, "onebit_warmup_steps": 5, "onebit_bucket": 64, "gemm": "onednn", "device": "cpu", "learning_rate": 2e-3, "schedule": "constant",
        "lr_warmup_steps": 11, "schedule_steps": 999, "beta1": 0.8, "beta2": 0.9, "epsilon": 1e-7, "weight_decay": 0.0,
        "max_gradient_norm": 0.0, "data": "synthetic", "seed": 1, "objective": "masked_lm", "next_sentence": True, "num_classes": 9,
        "pretraining": "causal_lm", "pretraining_steps": 3, "initial_checkpoint": "a", "optimizer": "lamb", "encoding": "cp1252",
        "lr_scaling": "sqrt", "reference_batch_size": 32, "batch_warmup_steps": 5, "momentum": 0.8,
        "trust_coefficient": 0.01, "dropout": 0.1, "recompute": "block", "compile": "default", "attention": "plain", "loss_chunk_tokens": 0,
        "activation": "gelu_tanh", "initial_weights": "a", "adaptation": "lora", "lora_rank": 4, "lora_alpha": 8.0, "lora_targets": "linear",
        "adapter_size": 8, "prefix_length": 8, "trained_layers": 2, "layer_lr_decay": 0.9,
        "segmentation": "overlap", "segmentation_stride": 5, "packing": False, "input": "framework", "input_workers": 2, "length_warmup_steps": 5,
        "text_field": "body", "second_text_field": "answer", "label_field": "topic", "split_seed": 1, "padding": "packed", "length_buckets": 8,
        "group_by_length": True, "attention_mask": "causal", "pretraining_data": "a", "pretraining_learning_rate": 1e-4,
        "plateau_factor": 0.5, "plateau_patience": 3,
        "strategy": "native", "reduction": "adasum", "controller": "mpi", "fusion_threshold_bytes": 0,
        "cycle_time_seconds": 2e-3, "autotune": True, "gradient_predivide": 2.0, "link_bits_per_second": 10**9,
        "straggler_seconds": 0.05, "shard": "gradients", "servers": 2, "staleness_bound": 3,
        "sync_every": 4, "sync_start": 5, "sync_warmup_steps": 6, "sync_moments": "reset", "outer_optimizer": "nesterov",
        "outer_learning_rate": 0.5, "outer_momentum": 0.8,
    }  # fmt: skip
    with_one_value: set[str] = set()
    assert set(changed) == set(Point.model_fields) - with_one_value
    ids = {Point(**{key: value}).point_id for key, value in changed.items()}
    assert len(ids | {Point().point_id}) == len(changed) + 1


def test_an_optimizer_brings_its_defaults_and_what_is_set_by_hand_stays() -> None:
    lamb = Point(optimizer="lamb")
    assert (lamb.epsilon, lamb.beta2, lamb.weight_decay) == (1e-6, 0.999, 0.01)
    assert Point(optimizer="lamb", epsilon=1e-8, beta2=0.95).epsilon == 1e-8
    assert Point(optimizer="adamw") == Point()
    assert Point.model_validate(lamb.model_dump()) == lamb


def test_every_optimizers_defaults_are_fields_that_may_have_these_values() -> None:
    (optimizers,) = (get_args(Point.model_fields["optimizer"].annotation),)
    assert list(presets_of(Point)["optimizer"]) == list(optimizers)
    for name, preset in presets_of(Point)["optimizer"].items():
        point = Point(optimizer=name)
        assert {key: getattr(point, key) for key in preset} == preset


def test_the_point_id_is_a_file_name_whatever_the_data_path() -> None:
    assert re.fullmatch(r"[a-z0-9-]+", Point(data="../../etc/*?").point_id)


def test_equal_values_give_equal_ids_whether_written_as_integer_or_float() -> None:
    assert Point(learning_rate=1).point_id == Point(learning_rate=1.0).point_id


def test_points_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Point().seed = 1


# What is refused, and how


def test_an_unknown_key_is_met_with_the_closest_known_one() -> None:
    message = refuse(Point, microbatch_size=4)
    assert message.startswith('unknown key "microbatch_size" (did you mean "micro_batch_size"?); allowed: framework, ')


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("framework", "jax", "framework = \"jax\": must be 'pytorch' or 'tensorflow'"),
        (
            "model",
            {"x": 1},
            "model = {'x': 1}: must be 'tiny', 'small', 'gpt2', 'gpt2-medium', 'llama-tiny', 'llama-1b', 'bert-tiny' or 'bert-base'",
        ),
        ("micro_batch_size", 0, "micro_batch_size = 0: must be greater than or equal to 1"),
        ("micro_batch_size", "4", 'micro_batch_size = "4": must be a valid integer'),
        ("micro_batch_size", 4.0, "micro_batch_size = 4.0: must be a valid integer"),
        ("micro_batch_size", True, "micro_batch_size = true: must be a valid integer"),
        ("learning_rate", True, "learning_rate = true: must be a valid number"),
        ("learning_rate", float("nan"), "learning_rate = NaN: must be a finite number"),
        ("learning_rate", float("inf"), "learning_rate = Infinity: must be a finite number"),
        ("max_gradient_norm", float("inf"), "max_gradient_norm = Infinity: must be a finite number"),
        ("learning_rate", 0.0, "learning_rate = 0.0: must be greater than 0"),
        ("beta1", 1.0, "beta1 = 1.0: must be less than 1"),
        ("vocab_size", 255, "vocab_size = 255: must be greater than or equal to 256"),
        ("seed", -1, "seed = -1: must be greater than or equal to 0"),
        ("seed", 2**31, "seed = 2147483648: must be less than 2147483648"),
        ("world_size", 0, "world_size = 0: must be greater than or equal to 1"),
        ("data", "", 'data = "": must have at least 1 character'),
        ("data", "a\nb", 'data = "a\\nb": must be text without control characters'),
        ("data", "\x1b[31m", 'data = "\\u001b[31m": must be text without control characters'),
        ("data", "\x9b31m", 'data = "\\u009b31m": must be text without control characters'),
        ("data", "a\u2028b", 'data = "a\\u2028b": must be text without control characters'),
        ("data", "\u202egnp", 'data = "\\u202egnp": must be text without control characters'),
        ("data", 3, "data = 3: must be a valid string"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(field: str, value: object, message: str) -> None:
    assert refuse(Point, **{field: value}) == message


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("warmup_steps", 0, "warmup_steps = 0: must be greater than or equal to 1"),
        ("steps", 0, "steps = 0: must be greater than or equal to 1"),
        ("repeats", 101, "repeats = 101: must be less than or equal to 100"),
        ("target_loss", 0.0, "target_loss = 0.0: must be greater than 0"),
        ("timeout_seconds", -1.0, "timeout_seconds = -1.0: must be greater than 0"),
    ],
)
def test_a_bad_measurement_setting_is_named_likewise(field: str, value: object, message: str) -> None:
    assert refuse(MeasureSettings, **{field: value}) == message


def test_a_number_too_long_to_be_written_out_is_refused_in_one_line() -> None:
    assert refuse(Point, seed=16**5000) == "seed = a number with thousands of digits: must be less than 2147483648"


# Helpers of messages


def test_a_hint_needs_a_close_word() -> None:
    assert did_you_mean("step", ["steps", "seed"]) == ' (did you mean "steps"?)'
    assert did_you_mean("qqqq", ["steps", "seed"]) == ""


@pytest.mark.parametrize("value", ["a" * 1000, "\n" * 1000, ["x"] * 1000, {"k": "v" * 1000}, 10**4000, object()])
def test_a_shortened_value_is_one_printable_line_of_bounded_length(value: object) -> None:
    text = shorten(value, limit=60)
    assert len(text) <= 60 and text.isprintable()

"""Fields that need each other: one that is set in vain is refused where it has no effect anywhere, and said where it has some."""

from __future__ import annotations

from pathlib import Path

import pytest

import hvbench
from hvbench.cli import run
from hvbench.errors import UsageError
from hvbench.spec.effect import describe_idle_points, find_idle
from hvbench.spec.knob import Kind, choices_of, kind_of, knobs_of
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from hvbench.spec.suite import Suite, apply_overrides, list_suites, load_suite, parse_suite

# Fields that change what runs, or what is measured, whatever the others are; `seed_per_repeat` and `force_emulated` ask for what
# one launch, or a sweep without ceilings, does anyhow.
ALONE = {
    "framework", "model", "family", "num_layers", "num_heads", "hidden_size", "mlp_size", "vocab_size", "sequence_length", "objective", "world_size",
    "micro_batch_size", "gradient_accumulation_steps", "precision", "device", "controller", "sync_every", "fusion_threshold_bytes",
    "cycle_time_seconds", "autotune", "gradient_predivide", "servers", "staleness_bound", "link_bits_per_second", "straggler_seconds", "optimizer", "learning_rate", "layer_lr_decay", "lr_scaling",
    "schedule", "shard", "weight_decay", "max_gradient_norm", "dropout", "data", "input", "seed", "initial_checkpoint", "recompute",
    "attention",
    "warmup_steps", "steps", "epochs", "repeats", "evaluate_every", "seed_per_repeat", "checkpoint_every", "noise_every", "force_emulated",
    "ceilings", "turns", "ablation_rounds", "profile_rounds", "precision_target", "timeout_seconds", "memory_limit_bytes",
}  # fmt: skip
CASES = [  # a field that is set, what it needs, and what gives it that
    ("evaluate_samples=32", "evaluate_every", "evaluate_every=5"),
    ("target_loss=5.0", "evaluate_every", "evaluate_every=5"),
    ("keep_best=true", "evaluate_every", "evaluate_every=5"),
    ("patience=3", "evaluate_every", "evaluate_every=5"),
    ("stop_at_target=true", "target_loss", "target_loss=5.0 evaluate_every=5"),
    ("fresh_ceilings=true", "ceilings", "ceilings=true"),
    ("budget_seconds=60.0", "precision_target", "precision_target=0.02"),
    ("topk_share=0.1", "compression topk", "compression=topk"),
    ("powersgd_rank=2", "compression powersgd", "compression=powersgd"),
    ("int8_bucket=64", "compression int8", "compression=int8"),
    ("onebit_bucket=64", "compression onebit", "compression=onebit"),
    ("onebit_warmup_steps=5", "compression onebit", "compression=onebit"),
    ("momentum=0.5", "optimizer sgd or lars", "optimizer=sgd"),
    ("momentum=0.5", "optimizer sgd or lars", "optimizer=lars"),
    ("trust_coefficient=0.01", "optimizer lars", "optimizer=lars"),
    ("beta1=0.5", "optimizer adamw or lamb", ""),
    ("beta2=0.5", "optimizer adamw or lamb", "optimizer=lamb"),
    ("epsilon=1e-4", "optimizer adamw or adafactor or lamb", "optimizer=adafactor"),
    ("reference_batch_size=64", "lr_scaling linear or sqrt", "lr_scaling=sqrt"),
    ("schedule_steps=500", "schedule cosine or linear", "schedule=linear"),
    ("plateau_factor=0.5", "schedule plateau", "schedule=plateau"),
    ("plateau_patience=5", "schedule plateau", "schedule=plateau"),
    ("packing=false", "segmentation documents", "segmentation=documents"),
    ("input_workers=2", "input framework", "input=framework"),
    ("segmentation_stride=16", "segmentation overlap", "segmentation=overlap"),
    ("text_field=body", "data that ends in .jsonl or .csv or .conll", "data=mine.csv objective=classification"),
    ("second_text_field=answer", "objective classification or regression", "data=mine.jsonl objective=regression"),
    ("label_field=topic", "objective classification or token_classification or regression", "data=mine.csv objective=classification"),
    ("split_seed=1", "data that ends in .jsonl or .csv or .conll", "data=mine.csv objective=classification"),
    ("padding=packed", "objective classification or token_classification or regression", "data=mine.csv objective=classification"),
    ("length_buckets=8", "objective classification or token_classification or regression", "data=mine.csv objective=classification"),
    ("group_by_length=true", "data that ends in .jsonl or .csv or .conll", "data=mine.JSONL objective=classification"),
    ("pretraining_data=mine.txt", "pretraining causal_lm or masked_lm", "objective=classification pretraining=masked_lm data=mine.csv"),
    ("pretraining_learning_rate=1e-4", "pretraining causal_lm or masked_lm", "objective=classification pretraining=masked_lm"),
    ("attention_mask=causal", "objective classification or token_classification or regression", "objective=classification"),
    ("num_classes=4", "objective classification or token_classification", "objective=classification"),
    ("loss_chunk_tokens=64", "objective causal_lm or masked_lm", "objective=masked_lm"),
    ("activation=gelu_tanh", "family gpt2 or bert", "family=gpt2"),
    ("activation=relu", "family gpt2 or bert", "model=bert-tiny"),
    ("rope_theta=500.0", "family llama", "family=llama"),
    ("rope_theta=500.0", "family llama", "model=llama-tiny"),
    ("lora_rank=4", "adaptation lora", "adaptation=lora"),
    ("lora_alpha=8.0", "adaptation lora", "adaptation=lora"),
    ("lora_targets=linear", "adaptation lora", "adaptation=lora"),
    ("adapter_size=16", "adaptation adapter", "adaptation=adapter"),
    ("prefix_length=4", "adaptation prefix", "adaptation=prefix"),
    ("trained_layers=2", "adaptation last_layers", "adaptation=last_layers"),
    ("pretraining_steps=50", "pretraining causal_lm or masked_lm", "pretraining=masked_lm objective=classification"),
    ("sync_start=5", "sync_every above 1", "sync_every=4"),
    ("sync_warmup_steps=5", "sync_every above 1", "sync_every=4"),
    ("sync_moments=keep", "sync_every above 1", "sync_every=4"),
    ("outer_optimizer=nesterov", "sync_every above 1", "sync_every=4"),
    ("outer_learning_rate=0.5", "sync_every above 1", "sync_every=4 outer_optimizer=nesterov"),
    ("outer_momentum=0.5", "sync_every above 1", "sync_every=4 outer_optimizer=nesterov"),
]  # fmt: skip
WITHOUT = {
    "activation": "family=llama",
    "fresh_ceilings": "ceilings=false",
    "beta1": "optimizer=sgd",
    "beta2": "optimizer=sgd",
    "epsilon": "optimizer=sgd",
    "schedule_steps": "schedule=constant",
    "loss_chunk_tokens": "objective=classification",
    "text_field": "objective=classification",
    "second_text_field": "objective=token_classification data=mine.jsonl",
    "label_field": "data=mine.csv",
    "split_seed": "objective=classification data=mine.txt",
    "padding": "data=mine.csv",
    "length_buckets": "data=mine.csv",
    "group_by_length": "objective=classification",
}


def asked(words: str) -> list[str]:
    return [word for word in words.split() if word]


def load(words: str) -> Suite:
    return apply_overrides(parse_suite("", name="run", where="hvbench run"), asked(words), option="")


@pytest.mark.parametrize(("setting", "needed", "given"), CASES)
def test_a_field_set_in_vain_is_refused_and_what_it_needs_is_named(setting: str, needed: str, given: str) -> None:
    name = setting.partition("=")[0]
    with pytest.raises(UsageError) as refused:
        load(f"{setting} {WITHOUT.get(name, '')}")
    message = str(refused.value)
    assert message.startswith(f"hvbench run: {name} = ") and f" has no effect without {needed}: " in message
    assert load(f"{setting} {given}").points(), "in any order"
    assert load(f"{given} {setting}").points()


def test_a_target_without_evaluations_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["run", "steps=20", "target_loss=5.0", "stop_at_target=true", "--np", "1"]) == 2
    assert capsys.readouterr().err == (
        "hvbench: hvbench run: target_loss = 5.0 has no effect without evaluate_every: set that too, or leave target_loss out\n"
    )
    assert run(["plan", "smoke", "-s", "stop_at_target=true"]) == 2
    assert "stop_at_target = true has no effect without target_loss" in capsys.readouterr().err
    (tmp_path / "mine.toml").write_text("[measure]\npatience = 3\n")
    assert run(["plan", "mine.toml"]) == 2
    assert capsys.readouterr().err.startswith("hvbench: mine.toml: patience = 3 has no effect without evaluate_every")
    with pytest.raises(UsageError, match="^hvbench.run_point: target_loss = 5.0 has no effect"):
        hvbench.run_point(target_loss=5.0)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.toml"}, "nothing was begun"


@pytest.mark.parametrize("model", [Point, MeasureSettings], ids=lambda model: model.__name__)
def test_every_knob_has_an_effect_alone_or_says_what_it_needs(model: type) -> None:
    tried = {setting.partition("=")[0] for setting, _, _ in CASES}
    for name, knob in knobs_of(model).items():
        has_rule = bool(knob.needs or knob.impossible)
        assert has_rule or name in ALONE, f"{name}: declare what it needs, or add it to ALONE"
        assert not knob.needs or name in tried, f"{name}: its need has no case"
        for need in knob.needs:
            field = model.model_fields[need.field]
            known = {Kind.CHOICE: choices_of(field), Kind.TEXT: ("stdlib", "mine.jsonl")}.get(
                kind_of(field), (0, None, 1, 2)
            )
            assert {bool(need.holds(value)) for value in known} == {True, False}, "it can be met, and missed"


def test_defaults_are_set_in_vain_by_nobody() -> None:
    assert find_idle(Point()) == find_idle(MeasureSettings()) == {}
    for optimizer in choices_of(Point.model_fields["optimizer"]):
        assert find_idle(Point(optimizer=optimizer)) == {}, "nor by a preset"


def test_an_axis_counts_where_it_has_an_effect() -> None:
    suite = load("momentum=0.0,0.5 optimizer=adamw,sgd")
    points = suite.points()
    assert len(points) == 4
    assert describe_idle_points(points) == ["momentum has no effect at 2 points: it needs optimizer sgd or lars"]
    with pytest.raises(UsageError, match="momentum = 0.0 has no effect"):
        load("momentum=0.0,0.5 optimizer=adamw,lamb")


def test_what_a_suite_sets_may_lose_its_effect_by_an_override() -> None:
    suite = parse_suite("[point]\nschedule_steps = 50\n", name="s", where="s.toml")
    assert apply_overrides(suite, ["schedule=constant"]).points()
    with pytest.raises(
        UsageError, match="^s.toml: schedule_steps = 50 has no effect without schedule cosine or linear"
    ):
        parse_suite('[point]\nschedule = "constant"\nschedule_steps = 50\n', name="s", where="s.toml")
    with pytest.raises(UsageError, match=r"^s.toml: \[scale.big\]: momentum = 0.5 has no effect"):
        parse_suite("[scale.big]\npoint = {momentum = 0.5}\n", name="s", where="s.toml")


@pytest.mark.parametrize("path", list_suites(), ids=lambda path: path.stem)
def test_no_shipped_suite_sets_anything_in_vain(path: Path) -> None:
    assert load_suite(path).name == path.stem

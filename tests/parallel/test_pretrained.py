"""GPT-2s, Llamas and BERTs that transformers writes start both twins, and what hvbench exports is what transformers loads.

One sweep on one rank trains both twins from such a folder; the logits of transformers' own model are the judge throughout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hvbench.cli import run as run_command_line
from hvbench.parity.norms import relative_error
from hvbench.records.record import Record
from hvbench.records.store import RunFolder
from hvbench.registry import FRAMEWORKS
from hvbench.spec.point import Point
from hvbench.training import corpus
from hvbench.training.checkpoints import read_parameters
from hvbench.training.huggingface.start import identify_weights, load_weights
from hvbench.training.masking import IGNORED
from hvbench.training.packages import make_batches
from tests import patience

pytestmark = pytest.mark.slow

STEPS, LENGTH, VOCABULARY = 4, 24, 300
SIZES = {"num_layers": 2, "num_heads": 2, "hidden_size": 32, "vocab_size": VOCABULARY, "sequence_length": LENGTH}
GROUPED = {
    "family": "llama",
    "num_heads": 4,
    "num_kv_heads": 2,
    "mlp_size": 64,
    "rope_theta": 500.0,
    "tied_embeddings": False,
}
TANH, EXACT = {"activation": "gelu_tanh"}, {"activation": "gelu"}
# Folder -> the fields of its point.
FOLDERS: dict[str, dict[str, Any]] = {
    "whole": TANH, "shards_float16": TANH, "bfloat16": TANH, "exact": EXACT, "llama": GROUPED,
    "tied_llama": {**GROUPED, "tied_embeddings": True, "num_kv_heads": 4},
    "bert": {"family": "bert"},
    "bert_decoder": {"family": "bert", "objective": "causal_lm"},
}  # fmt: skip
TRAINED = ("whole", "llama", "bert")
ERROR = 1e-5

SUITE = """
[point]
data = "text.txt"
micro_batch_size = 4
gemm = "default"
num_layers = 2
hidden_size = 32
vocab_size = 300
sequence_length = 24
[axes]
framework = ["pytorch", "tensorflow"]
[[together]]
initial_weights = ["whole", "llama", "bert"]
family = ["gpt2", "llama", "bert"]
objective = ["causal_lm", "causal_lm", "masked_lm"]
num_heads = [2, 4, 2]
num_kv_heads = [2, 2, 2]
mlp_size = [128, 64, 128]
activation = ["gelu_tanh", "gelu", "gelu"]
rope_theta = [10000.0, 500.0, 10000.0]
tied_embeddings = [true, false, true]
[measure]
warmup_steps = 1
steps = {steps}
checkpoint_every = 2
ceilings = false
"""

# Logits of a twin: of every folder, and after every checkpoint.
TWIN = """
import sys
import numpy as np
from hvbench.frameworks import load_framework
from hvbench.spec.numerics import PRECISIONS
from hvbench.spec.point import Point

framework, source, target = sys.argv[1:]
asked = dict(np.load(source))
tokens, runtime = asked.pop("tokens"), load_framework(framework, "runtime").Runtime(
    rank=0, world_size=1, local_rank=0, threads=1, device="cpu"
)
module, models = load_framework(framework, "trainer"), {}
for name, value in asked.items():
    key, _, parameter = name.partition("|")
    models.setdefault(key, {})[parameter] = value
found = {}
for key, weights in models.items():
    point = Point.model_validate_json(str(weights.pop("point")))
    found[key] = module.Trainer(point, weights, precision=PRECISIONS["fp32"], runtime=runtime).logits(tokens)
np.savez(target, **found)
"""


def make_folder(path: Path, text: Path, *, dtype: str = "float32", max_shard_size: str = "5GB") -> None:
    """A model that transformers writes, with a tokenizer of the text; no value is zero."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        BertLMHeadModel,
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
    )

    torch.manual_seed(0)
    fields = FOLDERS[path.name]
    common = {"vocab_size": VOCABULARY, "bos_token_id": VOCABULARY - 1, "eos_token_id": VOCABULARY - 1}
    if fields.get("family") == "llama":
        sizes = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 64}
        rope = {"rope_type": "default", "rope_theta": fields["rope_theta"]}
        about = LlamaConfig(
            **sizes, **common, num_key_value_heads=fields["num_kv_heads"], max_position_embeddings=2 * LENGTH,
            rms_norm_eps=1e-5, rope_parameters=rope, tie_word_embeddings=fields["tied_embeddings"],
        )  # fmt: skip
        model = LlamaForCausalLM(about)
    elif fields.get("family") == "bert":
        sizes = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 128}
        is_causal = fields.get("objective") == "causal_lm"
        about = BertConfig(**sizes, **common, max_position_embeddings=2 * LENGTH, is_decoder=is_causal)
        model = (BertLMHeadModel if is_causal else BertForMaskedLM)(about)
    else:
        sizes = {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 2 * LENGTH}
        name = {"gelu": "gelu", "gelu_tanh": "gelu_new"}[fields["activation"]]
        model = GPT2LMHeadModel(GPT2Config(activation_function=name, **sizes, **common))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.to(getattr(torch, dtype)).save_pretrained(path, max_shard_size=max_shard_size)
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train([str(text)], vocab_size=VOCABULARY, special_tokens=["<|endoftext|>"], show_progress=False)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer).save_pretrained(path)


def reference_logits(path: Path, tokens: np.ndarray) -> np.ndarray:
    """What transformers' own model makes of a folder, in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    is_masked = json.loads((path / "config.json").read_text())["architectures"] == ["BertForMaskedLM"]
    kind = AutoModelForMaskedLM if is_masked else AutoModelForCausalLM
    model, about = kind.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    assert not about["missing_keys"] and not about["unexpected_keys"] and not about["mismatched_keys"]
    with torch.no_grad():
        return model.eval()(torch.from_numpy(tokens).long()).logits.numpy()


def twin_logits(folder: Path, framework: str, asked: Mapping[str, Any], tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Key -> logits of the twin with these weights; `asked`: key -> (point, weights)."""
    arrays = {f"{key}|{name}": value for key, (_, weights) in asked.items() for name, value in weights.items()}
    points = {f"{key}|point": np.array(point.model_dump_json()) for key, (point, _) in asked.items()}
    np.savez(folder / f"{framework}-asked.npz", tokens=tokens, **arrays, **points)
    words = [sys.executable, "-c", TWIN, framework, f"{framework}-asked.npz", f"{framework}.npz"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=patience.SECONDS)
    assert done.returncode == 0, done.stderr
    return dict(np.load(folder / f"{framework}.npz"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models, the run that started from one of each family, and its exports."""
    folder = tmp_path_factory.mktemp("pretrained")
    text = folder / "text.txt"
    text.write_text(Path(json.__file__).with_name("decoder.py").read_text() * 3)
    options = {"shards_float16": {"dtype": "float16", "max_shard_size": "30KB"}, "bfloat16": {"dtype": "bfloat16"}}
    for name in FOLDERS:
        make_folder(folder / name, text, **options.get(name, {}))
    (folder / "tuned.toml").write_text(SUITE.format(steps=STEPS - 1))
    words = [
        sys.executable,
        "-m",
        "hvbench",
        "sweep",
        "tuned.toml",
        "--np",
        "1",
        "--out",
        "tuned",
        "--no-parity",
        "--no-report",
    ]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=patience.SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "28 tensors from whole, the first 24 of its 48 positions" in done.stdout + done.stderr
    here = Path.cwd()
    os.chdir(folder)
    try:
        for (framework, name), record in records_of(folder).items():
            assert run_command_line(["export", "tuned", record.point_id, f"{framework}-{name}-export"]) == 0
    finally:
        os.chdir(here)
    return folder


@pytest.fixture(scope="module")
def tokens(whole: Path) -> np.ndarray:
    return np.random.default_rng(3).integers(VOCABULARY, size=(3, LENGTH), dtype=np.int32)


def point_of(whole: Path, name: str) -> Point:
    """A point that starts from a folder."""
    where = {"initial_weights": str(whole / name), "data": str(whole / "text.txt"), "gemm": "default"}
    return Point(**{**SIZES, **FOLDERS[name], **where})


def checkpoint_of(whole: Path, record: Record) -> dict[str, np.ndarray]:
    """The parameters after the last step."""
    path = whole / "tuned" / "checkpoints" / record.key / f"step-{STEPS:07d}.safetensors"
    return read_parameters(str(path), record.point)


def records_of(whole: Path) -> dict[tuple[str, str], Record]:
    """(framework, folder that it started from) -> its record."""
    records, problems = RunFolder(whole / "tuned").read_records()
    assert problems == [] and {record.outcome.status for record in records} == {"ok"}
    return {(record.point.framework, record.point.initial_weights): record for record in records}


@pytest.fixture(scope="module")
def logits(whole: Path, tokens: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Framework -> the twin's logits by folder, and after the last step of its training."""
    found = {}
    for framework in FRAMEWORKS:
        asked = {name: (point_of(whole, name), load_weights(point_of(whole, name))) for name in FOLDERS}
        for name in TRAINED:
            record = records_of(whole)[framework, name]
            asked[f"trained {name}"] = (record.point, checkpoint_of(whole, record))
        found[framework] = twin_logits(whole, framework, asked, tokens)
    return found


each_framework = pytest.mark.parametrize("framework", FRAMEWORKS)
each_trained = pytest.mark.parametrize("name", TRAINED)


@each_framework
@pytest.mark.parametrize("name", FOLDERS)
def test_a_twin_has_the_logits_of_the_model_that_it_started_from(
    whole, tokens, logits, framework: str, name: str
) -> None:
    expected = reference_logits(whole / name, tokens)
    assert np.abs(expected).max() > 1
    assert relative_error(logits[framework][name], expected) < ERROR


@each_framework
@each_trained
def test_a_launch_trains_from_the_folder_on_tokens_of_its_tokenizer(
    whole, framework: str, name: str, monkeypatch
) -> None:
    monkeypatch.chdir(whole)
    record = records_of(whole)[framework, name]
    text = corpus.prepare(record.point.data, **record.point.tokenization)
    inputs, targets = make_batches(record.point, text, rank=0).train_batch(0)
    logits = reference_logits(whole / name, inputs[0]).astype(np.float64)
    log_sums = np.log(np.exp(logits).sum(axis=-1))
    losses = log_sums - np.take_along_axis(logits, np.maximum(targets[0], 0)[..., None], axis=-1)[..., 0]
    losses = losses[targets[0] != IGNORED]
    assert record.ranks[0].loss[0] == pytest.approx(losses.mean(), rel=1e-5)
    assert record.environment["initial_weights"] == identify_weights(record.point)
    assert record.environment["tokens_digest"] == text.tokens_digest


@each_framework
@each_trained
def test_transformers_loads_what_is_exported_and_it_is_what_was_trained(
    whole, tokens, logits, framework: str, name: str
) -> None:
    from transformers import AutoTokenizer

    folder, mine = whole / f"{framework}-{name}-export", logits[framework]
    assert relative_error(reference_logits(folder, tokens), mine[f"trained {name}"]) < ERROR
    assert relative_error(mine[f"trained {name}"], mine[name]) > 1e-3, "it has learned something"
    old, new = (AutoTokenizer.from_pretrained(each) for each in (whole / name, folder))
    assert new("def scan_once(x):").input_ids == old("def scan_once(x):").input_ids


@each_trained
def test_an_exported_folder_is_where_training_may_start(whole, name: str) -> None:
    record = records_of(whole)["pytorch", name]
    point = record.point.model_copy(update={"initial_weights": str(whole / f"pytorch-{name}-export")})
    expected, found = checkpoint_of(whole, record), load_weights(point)
    assert found.keys() == expected.keys() and all(np.array_equal(found[key], expected[key]) for key in expected)

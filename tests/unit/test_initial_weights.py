"""`initial_weights`: what is read of a Hugging Face folder, and the one line that each folder is refused with.

The folders are written by hvbench's own export; `tests/parallel/test_pretrained.py` has those that transformers writes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hvbench.errors import DataError, UsageError
from hvbench.plan.skip import is_installed, reason_to_skip
from hvbench.registry import FRAMEWORKS
from hvbench.spec.point import Point
from hvbench.sweep.tasks import name_text
from hvbench.training import corpus
from hvbench.training.huggingface.export import make_byte_tokenizer, write_model
from hvbench.training.huggingface.folder import INDEX, identify_folder
from hvbench.training.huggingface.start import check_weights, identify_weights, load_weights
from hvbench.training.masking import special_token
from hvbench.training.weights import initial_weights
from tests.unit.test_sweep import prepare

SIZES = {"num_layers": 2, "num_heads": 2, "hidden_size": 8, "vocab_size": 256, "sequence_length": 12}
MODEL = "model.safetensors"


def make_point(folder: Path, **fields: object) -> Point:
    return Point(**{**SIZES, "initial_weights": str(folder), "data": "synthetic", **fields})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole one, of `SIZES`, whose values are far from any seed's."""
    point = Point(**SIZES)
    random = np.random.default_rng(5)
    weights = {name: value + random.standard_normal(value.shape) for name, value in initial_weights(point).items()}
    write_model(tmp_path / "gpt2", point, weights, tokenizer=make_byte_tokenizer())
    return tmp_path / "gpt2"


def change_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_tensors(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    arrays = load_file(folder / MODEL)
    change(arrays)
    save_file(arrays, folder / MODEL, metadata={"format": "pt"})


def shard(folder: Path) -> dict[str, str]:
    """Two files with an index instead of one; the index."""
    arrays = load_file(folder / MODEL)
    (folder / MODEL).unlink()
    names = sorted(arrays)
    parts = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
    for file, part in parts.items():
        save_file({name: arrays[name] for name in part}, folder / file)
    index = {name: file for file, part in parts.items() for name in part}
    (folder / INDEX).write_text(json.dumps({"weight_map": index}))
    return index


def write_brain_halves(folder: Path) -> dict[str, np.ndarray]:
    """The file in bfloat16, written byte by byte; the values that it holds."""
    arrays = load_file(folder / MODEL)
    header, parts, end = {}, [], 0
    for name, value in arrays.items():
        halves = (value.view(np.uint32) >> 16).astype("<u2")
        header[name] = {"dtype": "BF16", "shape": list(value.shape), "data_offsets": [end, end + halves.nbytes]}
        parts.append(halves.tobytes())
        end += halves.nbytes
    text = json.dumps(header).encode()
    (folder / MODEL).write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))
    return {name: (value.view(np.uint32) & 0xFFFF0000).view(np.float32) for name, value in arrays.items()}


# What is read


def test_every_parameter_comes_from_its_tensor(folder: Path) -> None:
    point, tensors = make_point(folder), load_file(folder / MODEL)
    weights = load_weights(point)
    assert {name: value.shape for name, value in weights.items()} == {
        name: value.shape for name, value in initial_weights(point).items()
    }
    assert {value.dtype for value in weights.values()} == {np.dtype("float32")}
    read = [weights["token_embedding"], weights["block1.attention.qkv.weight"], weights["final_norm.bias"]]
    names = ("wte.weight", "h.1.attn.c_attn.weight", "ln_f.bias")
    assert all(np.array_equal(a, tensors[f"transformer.{name}"]) for a, name in zip(read, names, strict=True))
    assert len({value.tobytes() for value in weights.values()}) == len(weights) == len(tensors)


def test_shards_links_and_tensors_without_a_head_are_read_as_one_file(folder: Path, tmp_path: Path) -> None:
    expected = load_weights(make_point(folder))
    change_tensors(
        folder,
        lambda arrays: [arrays.update({name.removeprefix("transformer."): arrays.pop(name)}) for name in [*arrays]],
    )
    shard(folder)
    linked = tmp_path / "snapshot"  # as the Hub's cache has them
    linked.mkdir()
    for path in folder.iterdir():
        (linked / path.name).symlink_to(path)
    found = load_weights(make_point(linked))
    assert found.keys() == expected.keys() and all(np.array_equal(found[name], expected[name]) for name in found)
    assert identify_folder(str(linked)) == identify_folder(str(folder))


def test_sixteen_bits_are_widened(folder: Path) -> None:
    exact = write_brain_halves(folder)
    found = load_weights(make_point(folder))
    assert np.array_equal(found["block0.mlp.up.weight"], exact["transformer.h.0.mlp.c_fc.weight"])
    save_file({name: value.astype(np.float16) for name, value in exact.items()}, folder / MODEL)
    halves = load_weights(make_point(folder))["block0.mlp.up.weight"]
    assert np.array_equal(halves, exact["transformer.h.0.mlp.c_fc.weight"].astype(np.float16).astype(np.float32))


def test_shorter_sequences_take_the_first_positions_and_a_classifier_keeps_its_own_projection(folder: Path) -> None:
    point = make_point(folder, sequence_length=5, objective="classification")
    assert "first 5 of its 12 positions" in check_weights(point) and "projection from the seed" in check_weights(point)
    weights = load_weights(point)
    assert np.array_equal(weights["position_embedding"], load_file(folder / MODEL)["transformer.wpe.weight"][:5])
    assert initial_weights(point).keys() - weights.keys() == {"classifier.weight", "classifier.bias"}
    assert point.is_causal, "as it was trained"


def test_a_head_of_the_embeddings_values_and_the_buffers_of_old_files_are_no_spare_tensors(folder: Path) -> None:
    change_config(folder, tie_word_embeddings=False)
    change_tensors(
        folder,
        lambda arrays: arrays.update(
            {
                "lm_head.weight": arrays["transformer.wte.weight"].copy(),
                "transformer.h.0.attn.bias": np.ones((1, 1, 12, 12), dtype=np.float32),
                "transformer.h.1.attn.masked_bias": np.array(-1e4, dtype=np.float32),
            }
        ),
    )
    assert len(load_weights(make_point(folder))) == len(initial_weights(make_point(folder)))


def test_what_transformers_takes_for_a_key_that_is_left_out(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["activation_function"], config["n_inner"], config["tie_word_embeddings"]
    (folder / "config.json").write_text(json.dumps(config))
    assert load_weights(make_point(folder, activation="gelu_tanh"))


# What is refused: a change of the folder, and what the line says


def index_entry(value: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        index = shard(folder)
        index["transformer.wte.weight"] = value
        (folder / INDEX).write_text(json.dumps({"weight_map": index}))

    return change


def replace_weights(name: str, content: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / MODEL).unlink()
        (folder / name).write_bytes(content)

    return change


def lie_about_size(folder: Path) -> None:
    content = (folder / MODEL).read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["transformer.wte.weight"]["shape"] = [1_000_000, 8]
    text = json.dumps(header).encode()
    (folder / MODEL).write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])


def config(**values: object) -> Callable[[Path], None]:
    return lambda folder: change_config(folder, **values)


def tensors(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], None]:
    return lambda folder: change_tensors(folder, change)


SPARE = np.zeros(3, dtype=np.float32)
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "no such folder on this host"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json: cannot be read: No such file"),
    "config is no JSON": (lambda folder: (folder / "config.json").write_text("{"), "config.json: not JSON"),
    "config is a list": (lambda folder: (folder / "config.json").write_text("[]"), "config.json: must hold an object"),
    "another family": (config(model_type="t5"), 'model_type "t5", not gpt2; read are gpt2, llama, bert'),
    "no family": (config(model_type=None), "model_type null, not gpt2"),
    "other sizes": (
        config(n_layer=3, n_embd=16),
        "num_layers 3 (the point: 2), hidden_size 16 (the point: 8); it fits with -s num_layers=3 -s hidden_size=16",
    ),
    "fewer positions": (config(n_positions=7), "sequence_length 7 (the point: 12); it fits with -s sequence_length=7"),
    "a size in words": (config(n_head="two"), 'n_head = "two": must be a whole number above 0'),
    "another activation": (config(activation_function="swish"), 'activation_function = "swish": computed are gelu, gelu_new'),
    "the other GELU": (config(activation_function="gelu_new"), "fits with -s activation=gelu_tanh"),
    "another width": (config(n_inner=16), "mlp_size 16 (the point: 32); it fits with -s mlp_size=16"),
    "another epsilon": (config(layer_norm_epsilon=1e-6), "layer_norm_epsilon 1e-06 (hvbench: 1e-05)"),
    "unscaled attention": (config(scale_attn_weights=False), "scale_attn_weights false (hvbench: true)"),
    "untied": (config(tie_word_embeddings=False), "lm_head.weight is not its token embedding"),
    "another head": (
        tensors(lambda arrays: arrays.update({"lm_head.weight": arrays["transformer.wte.weight"] + 1})),
        "lm_head.weight is not its token embedding",
    ),
    "a pickle": (replace_weights("pytorch_model.bin", b"\x80\x02."), "pytorch_model.bin: only safetensors is read"),
    "no weights": (lambda folder: (folder / MODEL).unlink(), "has no model.safetensors; convert them once"),
    "no tensors file at all": (replace_weights(MODEL, b""), "not a whole safetensors file"),
    "truncated": (lambda folder: (folder / MODEL).write_bytes((folder / MODEL).read_bytes()[:-4]), "not a whole safetensors"),
    "a header that lies": (lie_about_size, "not a whole safetensors file"),
    "a header without end": (replace_weights(MODEL, b"\xff" * 64), "not a whole safetensors file"),
    "missing": (
        tensors(lambda arrays: [arrays.pop(f"transformer.h.1.ln_{n}.weight") for n in (1, 2)]),
        'lacks the tensor "h.1.ln_1.weight" and 1 more',
    ),
    "spare": (
        tensors(lambda arrays: arrays.update({"transformer.h.2.ln_1.weight": SPARE})),
        'has, and the model has no place for, the tensor "h.2.ln_1.weight"',
    ),
    "another shape": (
        tensors(lambda arrays: arrays.update({"transformer.ln_f.bias": SPARE})),
        "ln_f.bias has shape [3], its config.json means [8]",
    ),
    "another dtype": (
        tensors(lambda arrays: arrays.update({"transformer.ln_f.bias": np.zeros(8, dtype=np.int64)})),
        'ln_f.bias is of dtype "I64"; read are F32, F16, BF16',
    ),
    "an index that is none": (lambda folder: (folder / INDEX).write_text("{}"), "has no weight_map"),
    "a missing shard": (index_entry("c.safetensors"), 'names "c.safetensors", which is not in the folder'),
    "another folder's shard": (index_entry("../a.safetensors"), "must be a .safetensors file of this folder"),
    "another shard": (index_entry("a.safetensors"), "is not in a.safetensors, where the index says it is"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_that_does_not_fit_is_one_line(folder: Path, case: str) -> None:
    change, message = REFUSED[case]
    change(folder)
    with pytest.raises(DataError) as caught:
        check_weights(make_point(folder))
    assert message in str(caught.value)
    assert str(caught.value).isprintable() and folder.name in str(caught.value)
    with pytest.raises(DataError):
        load_weights(make_point(folder))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"initial_checkpoint": "a"}, "initial_weights and initial_checkpoint both say where training starts"),
        ({"objective": "classification", "pretraining": "causal_lm"}, "initial_weights and pretraining both say"),
        ({"objective": "masked_lm"}, "initial_weights are of a causal language model"),
    ],
    ids=str,
)
def test_what_no_point_can_be(fields: dict[str, str], reason: str) -> None:
    assert reason in reason_to_skip(make_point(Path("a"), world_size=2, **fields), world_size=2)


# Llama: linear layers the other way round, queries, keys and values apart, an output projection of its own

LLAMA = {
    **SIZES,
    "family": "llama",
    "num_heads": 4,
    "num_kv_heads": 2,
    "hidden_size": 16,
    "mlp_size": 24,
    "rope_theta": 500.0,
}
ROPE = {"rope_type": "default", "rope_theta": 500.0}


def write_llama(path: Path, **fields: object) -> tuple[Point, dict[str, np.ndarray]]:
    """A folder, a point that starts from it, and the weights in it."""
    point = Point(**{**LLAMA, **fields}, data="synthetic", initial_weights=str(path))
    random = np.random.default_rng(6)
    weights = {name: value + random.standard_normal(value.shape) for name, value in initial_weights(point).items()}
    write_model(path, point, weights, tokenizer=make_byte_tokenizer())
    return point, {name: value.astype(np.float32) for name, value in weights.items()}


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_llamas_parameters_come_back_from_its_tensors(tmp_path: Path, is_tied: bool) -> None:
    point, weights = write_llama(tmp_path / "llama", tied_embeddings=is_tied)
    found, arrays = load_weights(point), load_file(tmp_path / "llama" / MODEL)
    assert found.keys() == weights.keys() and all(np.array_equal(found[name], weights[name]) for name in weights)
    assert ("lm_head.weight" in arrays) is not is_tied and len(arrays) == 2 * 9 + 2 + (not is_tied)
    keys = arrays["model.layers.1.self_attn.k_proj.weight"]
    assert keys.shape == (8, 16) and np.array_equal(keys.T, weights["block1.attention.qkv.weight"][:, 16:24])


REFUSED_LLAMAS: dict[str, tuple[Callable[[Path], object], str]] = {
    "scaled positions": (config(rope_parameters={**ROPE, "rope_type": "llama3"}), 'rope_type "llama3" (hvbench: "default")'),
    "of earlier versions": (
        config(rope_parameters=None, rope_theta=500.0, rope_scaling={"type": "linear"}),
        'rope_type "linear" (hvbench: "default")',
    ),
    "another theta": (config(rope_parameters={**ROPE, "rope_theta": 1e6}), "it fits with -s rope_theta=1000000.0"),
    "another epsilon": (config(rms_norm_eps=1e-6), "rms_norm_eps 1e-06 (hvbench: 1e-05)"),
    "biases": (config(attention_bias=True), "attention_bias true (hvbench: false)"),
    "heads of another size": (config(head_dim=8), "head_dim 8 (hvbench: hidden_size / num_attention_heads)"),
    "other heads of keys": (config(num_key_value_heads=None), "num_kv_heads 4 (the point: 2); it fits with -s num_kv_heads=4"),
    "untied": (config(tie_word_embeddings=False), "it fits with -s tied_embeddings=false"),
    "a head that is tied to nothing": (
        tensors(lambda arrays: arrays.update({"lm_head.weight": arrays["model.embed_tokens.weight"] + 1})),
        "lm_head.weight is not its token embedding",
    ),
    "no keys": (
        tensors(lambda arrays: arrays.pop("model.layers.0.self_attn.k_proj.weight")),
        'lacks the tensor "layers.0.self_attn.k_proj.weight"',
    ),
    "a GPT-2": (config(model_type="gpt2"), 'model_type "gpt2", not llama; it fits with -s family=gpt2'),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_LLAMAS)
def test_a_llama_that_does_not_fit_is_one_line(tmp_path: Path, case: str) -> None:
    point, _ = write_llama(tmp_path / "llama")
    change, message = REFUSED_LLAMAS[case]
    change(tmp_path / "llama")
    with pytest.raises(DataError) as caught:
        check_weights(point)
    assert message in str(caught.value) and str(caught.value).isprintable()


# BERT: biases in three parts, tensors of heads that other objectives read, and the names of earlier files


def write_bert(path: Path, **fields: object) -> tuple[Point, dict[str, np.ndarray]]:
    """A folder, a point that starts from it, and the weights in it."""
    point = Point(**{**SIZES, "family": "bert", **fields}, data="synthetic", initial_weights=str(path))
    random = np.random.default_rng(7)
    weights = {name: value + random.standard_normal(value.shape) for name, value in initial_weights(point).items()}
    write_model(path, point, weights, tokenizer=make_byte_tokenizer())
    return point, {name: value.astype(np.float32) for name, value in weights.items()}


def name_as_before(arrays: dict[str, np.ndarray]) -> None:
    """What earlier files call the norms' parameters, and what they hold beside."""
    for name in [name for name in arrays if ".LayerNorm." in name]:
        old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        arrays[old] = arrays.pop(name)
    arrays["bert.embeddings.position_ids"] = np.arange(12)[None]
    arrays["cls.predictions.decoder.bias"] = arrays["cls.predictions.bias"].copy()
    arrays["cls.predictions.decoder.weight"] = arrays["bert.embeddings.word_embeddings.weight"].copy()
    arrays["cls.seq_relationship.weight"] = np.ones((2, 8), np.float32)


@pytest.mark.parametrize("is_old", [False, True])
def test_a_berts_parameters_come_back_from_its_tensors(tmp_path: Path, is_old: bool) -> None:
    point, weights = write_bert(tmp_path / "bert")
    arrays = load_file(tmp_path / "bert" / MODEL)
    if is_old:
        change_tensors(tmp_path / "bert", name_as_before)
    found = load_weights(point)
    assert found.keys() == weights.keys() and all(np.array_equal(found[name], weights[name]) for name in weights)
    values = arrays["bert.encoder.layer.1.attention.self.value.bias"]
    assert np.array_equal(values, weights["block1.attention.qkv.bias"][16:])
    assert np.array_equal(arrays["cls.predictions.transform.dense.weight"].T, weights["head.weight"])


def test_a_classifier_takes_the_pooler_of_a_bert_that_has_one(tmp_path: Path) -> None:
    model, _ = write_bert(tmp_path / "bert")
    point = model.model_copy(update={"objective": "classification", "num_classes": 3})
    assert "pooler.bias, pooler.weight, which it lacks, from the seed" in check_weights(point)
    assert initial_weights(point).keys() - load_weights(point).keys() == {
        "pooler.weight", "pooler.bias", "classifier.weight", "classifier.bias"
    }  # fmt: skip
    point, weights = write_bert(tmp_path / "tuned", objective="classification", num_classes=3)
    assert "lacks" not in check_weights(point)
    assert np.array_equal(load_weights(point)["pooler.weight"], weights["pooler.weight"])
    assert json.loads((tmp_path / "tuned" / "config.json").read_text())["id2label"].keys() == {"0", "1", "2"}


def test_a_bert_that_judges_pairs_takes_and_leaves_both_heads(tmp_path: Path) -> None:
    point, weights = write_bert(tmp_path / "bert", next_sentence=True)
    found, judged = load_weights(point), "cls.seq_relationship.weight"
    assert found.keys() == weights.keys() and all(np.array_equal(found[name], weights[name]) for name in weights)
    assert np.array_equal(load_file(tmp_path / "bert" / MODEL)[judged].T, weights["next_sentence.weight"])
    assert json.loads((tmp_path / "bert" / "config.json").read_text())["architectures"] == ["BertForPreTraining"]
    model, _ = write_bert(tmp_path / "model")
    lacking = point.model_copy(update={"initial_weights": model.initial_weights})
    assert "next_sentence.bias, next_sentence.weight, pooler.bias, pooler.weight, which it lacks" in check_weights(
        lacking
    )


REFUSED_BERTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "another epsilon": (config(layer_norm_eps=1e-5), "layer_norm_eps 1e-05 (hvbench: 1e-12)"),
    "other segments": (config(type_vocab_size=1), "type_vocab_size 1 (hvbench: 2)"),
    "a decoder": (
        config(is_decoder=True),
        "says is_decoder: it is a causal language model, which masked_lm would show what comes after; it fits with -s objective=causal_lm",
    ),
    "a decoder that is none": (config(is_decoder="yes"), 'is_decoder = "yes": must be true or false'),
    "relative positions": (config(position_embedding_type="relative_key"), 'position_embedding_type "relative_key"'),
    "another activation": (config(hidden_act="relu"), "it fits with -s activation=relu"),
    "no head": (tensors(lambda arrays: arrays.pop("cls.predictions.bias")), 'lacks the tensor "cls.predictions.bias"'),
    "a GPT-2": (config(model_type="gpt2"), 'model_type "gpt2", not bert; it fits with -s family=gpt2'),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_BERTS)
def test_a_bert_that_does_not_fit_is_one_line(tmp_path: Path, case: str) -> None:
    point, _ = write_bert(tmp_path / "bert")
    change, message = REFUSED_BERTS[case]
    change(tmp_path / "bert")
    with pytest.raises(DataError) as caught:
        check_weights(point)
    assert message in str(caught.value) and str(caught.value).isprintable()


@pytest.mark.parametrize("is_decoder", [False, True])
def test_what_a_berts_folder_says_of_its_mask(tmp_path: Path, is_decoder: bool) -> None:
    """A folder of a causal language model is none of a model that sees all, unless that is asked for; an encoder may become one."""
    point, _ = write_bert(tmp_path / "bert", objective="causal_lm" if is_decoder else "masked_lm")
    about = json.loads((tmp_path / "bert" / "config.json").read_text())
    assert about["is_decoder"] is is_decoder
    assert about["architectures"] == ["BertLMHeadModel" if is_decoder else "BertForMaskedLM"]
    model = point.model_copy(update={"objective": "causal_lm"})
    assert ("a causal mask, which its config.json does not say" in check_weights(model)) is not is_decoder
    classifier = point.model_copy(update={"objective": "classification"})
    for mask in ("causal", "none"):
        assert "pooler" in check_weights(classifier.model_copy(update={"attention_mask": mask}))
    if not is_decoder:
        assert "mask" not in check_weights(classifier)
        return
    with pytest.raises(DataError, match=r"classification would show .*; it fits with -s attention_mask=causal$"):
        check_weights(classifier)


def test_special_tokens_are_those_of_the_folders_tokenizer(tmp_path: Path, text: str) -> None:
    from tokenizers import AddedToken, Tokenizer

    point = write_bert(tmp_path / "bert", vocab_size=300)[0].model_copy(update={"data": text})
    assert [special_token(name, point) for name in ("[MASK]", "[CLS]")] == [0, 0xFF], (
        "bytes, as they are numbered there"
    )
    named = tmp_path / "named" / "tokenizer.json"
    named.parent.mkdir()
    tokenizer = Tokenizer.from_str(make_byte_tokenizer())
    tokenizer.add_special_tokens([AddedToken("[MASK]", special=True), AddedToken("[CLS]", special=True)])
    tokenizer.save(str(named))
    other = point.model_copy(update={"initial_weights": str(named.parent)})
    assert [special_token(name, other) for name in ("[MASK]", "[CLS]")] == [256, 257]
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "tokenizer.json").write_text(make_word_tokenizer())
    with pytest.raises(DataError, match=r"words/tokenizer.json: has no token \[MASK\], which the samples need"):
        special_token("[MASK]", point.model_copy(update={"initial_weights": str(tmp_path / "words")}))


def make_word_tokenizer() -> str:
    """tokenizer.json of two whole words."""
    from tokenizers import Tokenizer, models

    return Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?")).to_str()


# The text is read with the folder's tokenizer


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"line {number} of some text, and the next one\n" for number in range(400)))
    return str(path)


def write_tokenizer(folder: Path, text: str, *, tokens: int = 300) -> None:
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train([text], vocab_size=tokens, show_progress=False)
    tokenizer.enable_truncation(4)
    tokenizer.save(str(folder / "tokenizer.json"))


def test_tokens_are_those_of_the_folders_tokenizer(folder: Path, text: str, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    write_tokenizer(folder, text)
    point = make_point(folder, data=text, vocab_size=320)
    found = corpus.prepare(text, **point.tokenization, cache=tmp_path / "cache")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    content = Path(text).read_text()
    whole = tokenizer.decode([*found.train, *found.validation])
    assert whole == content and len(found.train) < len(content) / 2 and found.vocabulary_size == 300
    own = corpus.prepare(text, vocab_size=320, cache=tmp_path / "cache")
    assert own.digest != found.digest, "another entry of the cache"
    assert corpus.count_file_tokens(text, **point.tokenization, cache=tmp_path / "cache") == [
        ("text.txt", len(found.train), len(found.validation))
    ]
    write_tokenizer(folder, text, tokens=310)
    changed = corpus.prepare(text, **point.tokenization, cache=tmp_path / "cache")
    assert changed.digest not in (found.digest, own.digest)
    assert str(folder) in name_text(point) and name_text(point) != name_text(
        point.model_copy(update={"initial_weights": None})
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory; a text is read with the tokenizer of its model"),
        ("{}", "not a tokenizer"),
        (300, "has tokens up to number 299, vocab_size is 280"),
    ],
    ids=["missing", "none", "too large"],
)
def test_a_tokenizer_that_does_not_fit_is_one_line(
    folder: Path, text: str, tmp_path: Path, content: str | int | None, message: str
) -> None:
    (folder / "tokenizer.json").unlink()
    if isinstance(content, int):
        write_tokenizer(folder, text, tokens=content)
    elif content:
        (folder / "tokenizer.json").write_text(content)
    settings = make_point(folder, data=text, vocab_size=280).tokenization
    with pytest.raises(DataError) as caught:
        corpus.prepare(text, **settings, cache=tmp_path / "cache")
    assert str(caught.value).isprintable() and f"tokenizer.json: {message}" in str(caught.value)


# A run says what it started from, and goes on with nothing else


@pytest.mark.skipif(not all(map(is_installed, FRAMEWORKS)), reason="points of other frameworks are skipped")
def test_a_run_keeps_its_digests_and_is_not_resumed_with_other_weights(folder: Path, tmp_path: Path) -> None:
    sizes = "\n".join(f"{name} = {value}" for name, value in SIZES.items())
    suite = (
        f'[point]\ndata = "synthetic"\nmicro_batch_size = 2\ninitial_weights = "{folder}"\n{sizes}\n'
        '[axes]\nframework = ["pytorch", "tensorflow"]\n[measure]\nsteps = 2\n'
    )
    sweep = prepare(tmp_path / "run", text=suite)
    expected = identify_weights(make_point(folder))
    assert sweep.folder.read_run()["initial_weights"] == {str(folder): expected} and set(expected) == {"digest"}
    for task in sweep.make_tasks(sweep.plan.jobs):
        assert task.job["weights_digest"] == expected["digest"]
    sweep.folder.close()
    prepare(tmp_path / "run", text=suite, resume=True).folder.close()
    change_tensors(folder, lambda arrays: arrays.update({"transformer.ln_f.bias": np.ones(8, dtype=np.float32)}))
    with pytest.raises(UsageError, match=r"what it starts from has changed since it was begun: initial_weights"):
        prepare(tmp_path / "run", text=suite, resume=True)

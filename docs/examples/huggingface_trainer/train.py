"""A Hugging Face `Trainer`: a small BERT learns to say from a docstring which package of Python's library it is of.

    pip install torch transformers accelerate
    python train.py                        # one process
    torchrun --nproc-per-node 2 train.py   # two
    hvbench sweep bench.toml --np 2        # measured, in both ways

It runs without hvbench as well. Nothing is downloaded: the texts are those of this Python, and model and tokenizer are new.
"""

from __future__ import annotations

import argparse
import ast
import os
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments, set_seed

try:
    from hvbench.probe.huggingface import ProbeCallback
except ImportError:  # not installed: nothing is measured
    ProbeCallback = None

PACKAGES = ("asyncio", "email", "http", "importlib", "logging", "multiprocessing", "unittest", "xml")
PADDING = "[PAD]"


def main(options: argparse.Namespace) -> None:
    """Train, with an evaluation now and then."""
    set_seed(options.seed)
    texts = [(text, label) for label, name in enumerate(PACKAGES) for text in read_docstrings(name)]
    samples = encode(texts, vocab_size=options.vocab, length=options.length)
    config = BertConfig(
        vocab_size=options.vocab,
        hidden_size=options.width,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=4 * options.width,
        max_position_embeddings=options.length,
        num_labels=len(PACKAGES),
    )
    callbacks = []
    if ProbeCallback:
        callbacks.append(ProbeCallback(tokens_per_step=options.batch * options.length))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=options.batch,
            max_steps=options.steps,
            learning_rate=1e-3,
            seed=options.seed,
            logging_steps=1,
            eval_strategy="steps",
            eval_steps=options.evaluate_every,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            average_tokens_across_devices=False,  # for losses that are means over tokens; this one is over texts
            use_cpu=not torch.cuda.is_available(),
            ddp_backend="gloo" if "RANK" in os.environ and not torch.cuda.is_available() else None,
        )
        Trainer(
            model=BertForSequenceClassification(config),
            args=arguments,
            train_dataset=[sample for place, sample in enumerate(samples) if place % 8],
            eval_dataset=samples[::8][:64],
            callbacks=callbacks,
        ).train()


def read_docstrings(package: str) -> Iterator[str]:
    """Docstrings of the modules, classes and functions of a package of the standard library."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for path in sorted(Path(sysconfig.get_path("stdlib"), package).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, documented) and (text := ast.get_docstring(node)):
                yield text


def encode(texts: list[tuple[str, int]], *, vocab_size: int, length: int) -> list[dict[str, object]]:
    """Samples for the Trainer, every text as `length` tokens of a vocabulary made of these texts."""
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator([text for text, _ in texts], vocab_size=vocab_size, special_tokens=[PADDING])
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=tokenizer.token_to_id(PADDING), pad_token=PADDING)
    encodings = tokenizer.encode_batch([text for text, _ in texts])
    return [
        {"input_ids": encoding.ids, "attention_mask": encoding.attention_mask, "labels": label}
        for encoding, (_, label) in zip(encodings, texts, strict=True)
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8, help="texts a rank and step")
    parser.add_argument("--length", type=int, default=64, help="tokens of a text")
    parser.add_argument("--width", type=int, default=64, help="hidden size")
    parser.add_argument("--vocab", type=int, default=2000, help="tokens of the vocabulary")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--evaluate-every", type=int, default=50, metavar="STEPS")
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())

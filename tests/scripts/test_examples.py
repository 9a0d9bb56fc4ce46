"""The examples of docs/examples train without hvbench, under it on one rank and on two, and a slower revision of each is found.

Two ranks train what one does with both ranks' samples: their gradients are averaged, and both have the same weights.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

from hvbench.records.record import Record
from hvbench.records.store import RunFolder

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
NAMES = ["horovod_pytorch", "keras_fit", "huggingface_trainer"]
SMALL = {"horovod_pytorch": ["batch=256"], "keras_fit": ["batch=32"], "huggingface_trainer": ["length=32"]}
COUNTED = {
    "horovod_pytorch": 256,
    "keras_fit": 32,
    "huggingface_trainer": 8 * 32,
}  # pictures, or tokens, a rank and step
BIN = Path(sys.executable).parent
ALONE = {"HOROVOD_CONTROLLER": "gloo", "HOROVOD_CPU_OPERATIONS": "gloo"}  # hvd.init() without a launcher

MIRRORED = """
import tensorflow as tf

from hvbench import probe

strategy = tf.distribute.MultiWorkerMirroredStrategy()
with probe.training() as training:
    while True:
        with training.step():
            summed = strategy.reduce("SUM", strategy.run(lambda: tf.constant(1.0)), axis=None)
        training.log(loss=summed)
"""


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A folder for an example, whose runs leave nothing behind in the repository."""
    return tmp_path / "own"


def copy(name: str, folder: Path) -> Path:
    return Path(
        shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns("__pycache__", "run", "results"))
    )


def call(words: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        words,
        cwd=folder,
        env=os.environ | {"PATH": path} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=550,
    )


ALONE_WORDS = ("hvbench", "sweep", "bench.toml", "--np", "2")
MPIRUN_WORDS = ("mpirun", "--oversubscribe", "-np", "2", "hvbench", "sweep", "bench.toml")
AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def sweep(folder: Path, *options: str, words: Sequence[str] = ALONE_WORDS) -> list[Record]:
    """Records of the suite in `folder`, of few steps, all ok."""
    chosen = [word for option in ("steps=3", "warmup_steps=2", "repeats=1", *options) for word in ("-s", option)]
    done = call([*words, "--out", "run", "--no-report", *chosen], folder, **AS_ROOT)
    assert done.returncode == 0, done.stdout
    records, problems = RunFolder(folder / "run").read_records()
    assert problems == []
    return records


@pytest.mark.parametrize("name", [NAMES[0], *(pytest.param(name, marks=pytest.mark.long) for name in NAMES[1:])])
def test_an_example_runs_where_hvbench_is_not_installed(name: str, copied: Path, tmp_path: Path) -> None:
    hiding = tmp_path / "hiding"
    hiding.mkdir()
    (hiding / "sitecustomize.py").write_text("import sys\nsys.modules['hvbench'] = None\n", encoding="utf-8")
    copy(name, copied)
    done = call([sys.executable, "train.py", "--steps", "3"], copied, PYTHONPATH=str(hiding), **ALONE)
    assert done.returncode == 0, done.stdout
    assert [path.name for path in copied.iterdir() if path.suffix not in (".py", ".toml", ".md")] == []


def losses_of_both_ranks_in_pytorch(train: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """Rank -> the losses of its samples, step by step, of one model that trains on the samples of both."""
    import torch

    options = argparse.Namespace(batch=256, steps=5, seed=0)
    streams = []
    for rank in range(2):
        monkeypatch.setattr(train.hvd, "rank", lambda rank=rank: rank)
        streams.append(list(train.load(options)))
    torch.manual_seed(0)
    model = train.make_model(32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02 * 2, momentum=0.9)
    found = []
    for batches in zip(*streams, strict=True):
        losses = [torch.nn.functional.cross_entropy(model(pictures), labels) for pictures, labels in batches]
        optimizer.zero_grad()
        (sum(losses) / 2).backward()
        optimizer.step()
        found.append([loss.item() for loss in losses])
    return list(map(list, zip(*found, strict=True)))


def losses_of_both_ranks_in_keras(train: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """The same of the example that Keras fits."""
    import keras
    import tensorflow as tf

    options = argparse.Namespace(batch=32, seed=0)
    streams = []
    for rank in range(2):
        monkeypatch.setattr(train.hvd, "rank", lambda rank=rank: rank)
        streams.append(train.load(options).take(5))
    keras.utils.set_random_seed(0)
    model = train.make_model(32)
    optimizer = keras.optimizers.SGD(0.02 * 2, momentum=0.9)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    found = []
    for batches in zip(*streams, strict=True):
        with tf.GradientTape() as tape:
            losses = [loss_of(labels, model(pictures)) for pictures, labels in batches]
            mean = sum(losses) / 2
        optimizer.apply(tape.gradient(mean, model.trainable_variables), model.trainable_variables)
        found.append([float(loss) for loss in losses])
    return list(map(list, zip(*found, strict=True)))


REFERENCES = {"horovod_pytorch": losses_of_both_ranks_in_pytorch, "keras_fit": losses_of_both_ranks_in_keras}


def load_script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.parent.name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "ranks"),
    [
        ("horovod_pytorch", "1,2"),
        ("keras_fit", "1"),
        ("huggingface_trainer", "1"),
        *(pytest.param(name, "1,2", marks=pytest.mark.long) for name in NAMES[1:]),
    ],
)
def test_an_example_is_measured(name: str, ranks: str, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = sweep(copy(name, copied), *SMALL[name], f"world_size={ranks}")
    assert sorted(str(record.point.world_size) for record in records) == ranks.split(",")
    for record in records:
        world_size = record.point.world_size
        assert record.outcome.status == "ok" and len(record.ranks) == world_size
        for rank in record.ranks:
            assert len(rank.step_seconds) == 5 and min(rank.step_seconds) > 0
            assert all(loss is not None and math.isfinite(loss) for loss in rank.loss)
            assert rank.step_tokens == [COUNTED[name] * world_size] * 5
        if world_size == 2 and name in REFERENCES:
            expected = REFERENCES[name](load_script(copied / "train.py"), monkeypatch)
            assert [rank.loss for rank in record.ranks] == [pytest.approx(losses, rel=1e-4) for losses in expected]


@pytest.mark.long
def test_two_ranks_of_a_trainer_train_what_one_does_with_twice_the_batch(copied: Path) -> None:
    """Without dropout, whose masks are each rank's own."""
    script = copy("huggingface_trainer", copied) / "train.py"
    labels = "        num_labels=len(PACKAGES),\n"
    text = script.read_text(encoding="utf-8")
    assert text.count(labels) == 1
    certain = f"{labels}        hidden_dropout_prob=0.0,\n        attention_probs_dropout_prob=0.0,\n"
    script.write_text(text.replace(labels, certain), encoding="utf-8")
    suite = '[script]\ncommand = "python train.py --length 32 --batch {batch}"\n[axes]\n'
    suite += "world_size = [1, 2]\nbatch = [16, 8]\n"
    suite += "".join(f"[[exclude]]\nworld_size = {n}\nbatch = {batch}\n" for n, batch in ((1, 8), (2, 16)))
    (copied / "bench.toml").write_text(suite, encoding="utf-8")
    of_one, of_two = sorted(sweep(copied), key=lambda record: record.point.world_size)
    assert len(of_two.ranks) == 2
    for rank in of_two.ranks:  # the Trainer logs the mean over the ranks
        assert rank.loss == pytest.approx(of_one.ranks[0].loss, rel=1e-4)


def test_ranks_find_each_other_by_tf_config_where_mpirun_started_them(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(MIRRORED, encoding="utf-8")
    (tmp_path / "bench.toml").write_text('[script]\ncommand = "python train.py"\n', encoding="utf-8")
    (record,) = sweep(tmp_path, words=MPIRUN_WORDS)
    assert [rank.loss for rank in record.ranks] == [[2.0] * 5] * 2


# A line of the example -> the same with a copy that nobody needs, many times as long as a step; and the operator that makes it.
SLOWER = {
    "horovod_pytorch": (
        "                loss.backward()\n",
        "                pictures.repeat(100_000 // len(pictures), 1, 1, 1)\n                loss.backward()\n",
        "aten::copy_",
    ),
    "keras_fit": (
        "        super().apply(hvd.grouped_allreduce(grads), trainable_variables)\n",
        "        copies = [tf.tile(grad[None], [500] + [1] * len(grad.shape))[0] for grad in grads]\n"
        "        super().apply(hvd.grouped_allreduce(copies), trainable_variables)\n",
        "Tile",
    ),
    "huggingface_trainer": (
        "        Trainer(\n",
        "        class Careful(Trainer):\n"
        "            def compute_loss(self, model, inputs, **more):\n"
        "                torch.cat([value.detach().flatten() for value in model.parameters()]).repeat(100).sum().item()\n"
        "                return super().compute_loss(model, inputs, **more)\n"
        "\n"
        "        Careful(\n",
        "aten::copy_",
    ),
}


# Steps as short as they get, beside which the copy is long: it has to be found on a busy machine, too.
SHORT = {"horovod_pytorch": ("-s", "batch=32"), "keras_fit": (), "huggingface_trainer": ()}


@pytest.fixture
def repository(copied: Path, request: pytest.FixtureRequest) -> Path:
    """A git repository of the example that the test is of, with one commit, tagged `before`."""
    copy(request.node.callspec.params["name"], copied)
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "as it is"], ["tag", "before"]):
        git(copied, *words)
    return copied


@pytest.mark.parametrize("name", [NAMES[0], *(pytest.param(name, marks=pytest.mark.long) for name in NAMES[1:])])
def test_a_needless_copy_a_step_is_a_regression_that_names_the_operator(name: str, repository: Path) -> None:
    before, after, operator = SLOWER[name]
    script = repository / "train.py"
    text = script.read_text(encoding="utf-8")
    assert text.count(before) == 1
    script.write_text(text.replace(before, after), encoding="utf-8")
    git(repository, "commit", "-qam", "a needless copy")
    done = gate(
        repository, name, "--a", "rev=before", "--b", "rev=main", "-s", "steps=20", "-s", "warmup_steps=2", *SHORT[name]
    )
    assert done.returncode == 1, done.stdout
    assert re.search(rf"step time .* worse .* what grew most: {operator} \+", done.stdout), done.stdout


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_equal_revisions_of_an_example_are_no_regression(name: str, repository: Path) -> None:
    """They pass on a machine that does nothing else; one that is busy may not tell, but must not call one slower."""
    git(repository, "commit", "-qm", "the same", "--allow-empty")
    done = gate(repository, name, "--a", "rev=before", "--b", "rev=main")
    assert done.returncode in (0, 3), done.stdout
    assert not re.search(r"inconclusive +.*peak memory", done.stdout), done.stdout


def git(folder: Path, *words: str) -> None:
    name = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", "-C", str(folder), *name, *words], check=True, capture_output=True)


def gate(folder: Path, name: str, *options: str) -> subprocess.CompletedProcess[str]:
    """`hvbench ab` of the smallest point of the example's suite on one rank."""
    words = ["hvbench", "ab", "bench.toml", "--np", "1", "-s", "world_size=1", "-s", SMALL[name][0]]
    return call([*words, "-s", "profile_rounds=1", "--budget", "450", *options], folder)

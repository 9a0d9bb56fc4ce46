"""The examples of docs/examples train without hvbench, under it on one rank and on two, and a slower revision of each is found."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hvbench.records.record import Record
from hvbench.records.store import RunFolder

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
NAMES = ["horovod_pytorch", "keras_fit", "huggingface_trainer"]
SMALL = {"horovod_pytorch": ["batch=32"], "keras_fit": ["batch=32"], "huggingface_trainer": ["length=32"]}
COUNTED = {
    "horovod_pytorch": 32,
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


def sweep(folder: Path, *options: str) -> list[Record]:
    """Records of the suite in `folder`, of few steps, all ok."""
    chosen = [word for option in ("steps=3", "warmup_steps=2", "repeats=1", *options) for word in ("-s", option)]
    done = call(["hvbench", "sweep", "bench.toml", "--np", "2", "--out", "run", "--no-report", *chosen], folder)
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


@pytest.mark.parametrize(
    ("name", "ranks"),
    [
        ("horovod_pytorch", "1,2"),
        ("keras_fit", "2"),
        ("huggingface_trainer", "2"),
        *(pytest.param(name, "1,2", marks=pytest.mark.long) for name in NAMES[1:]),
    ],
)
def test_an_example_is_measured(name: str, ranks: str, copied: Path) -> None:
    records = sweep(copy(name, copied), *SMALL[name], f"world_size={ranks}")
    assert sorted(str(record.point.world_size) for record in records) == ranks.split(",")
    for record in records:
        world_size = record.point.world_size
        assert record.outcome.status == "ok" and len(record.ranks) == world_size
        for rank in record.ranks:
            assert len(rank.step_seconds) == 5 and min(rank.step_seconds) > 0
            assert all(loss is not None and math.isfinite(loss) for loss in rank.loss)
            assert rank.step_tokens == [COUNTED[name] * world_size] * 5


def test_ranks_find_each_other_by_tf_config(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(MIRRORED, encoding="utf-8")
    (tmp_path / "bench.toml").write_text('[script]\ncommand = "python train.py"\n', encoding="utf-8")
    (record,) = sweep(tmp_path)
    assert [rank.loss for rank in record.ranks] == [[2.0] * 5] * 2


# A line of the example -> the same with work that nobody needs, as long as a step or longer: short steps are noisy.
SLOWER = {
    "horovod_pytorch": (
        "                loss.backward()\n",
        "                for _ in range(200):\n"
        "                    torch.cat([value.detach().clone().flatten() for value in model.parameters()]).norm().item()\n"
        "                loss.backward()\n",
    ),
    "keras_fit": (
        "        super().apply(hvd.grouped_allreduce(grads), trainable_variables)\n",
        "        copies = [tf.sort(tf.reshape(grad, [-1])) for _ in range(4) for grad in grads]\n"
        "        with tf.control_dependencies(copies):\n"
        "            super().apply(hvd.grouped_allreduce([tf.identity(grad) for grad in grads]), trainable_variables)\n",
    ),
    "huggingface_trainer": (
        "        Trainer(\n",
        "        class Careful(Trainer):\n"
        "            def compute_loss(self, model, *inputs, **more):\n"
        "                for _ in range(300):\n"
        "                    torch.cat([value.detach().flatten() for value in model.parameters()]).norm().item()\n"
        "                return super().compute_loss(model, *inputs, **more)\n"
        "\n"
        "        Careful(\n",
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_a_slower_revision_of_an_example_is_a_regression_and_an_equal_one_passes(name: str, copied: Path) -> None:
    copy(name, copied)
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "as it is"]):
        git(copied, *words)
    git(copied, "commit", "-qm", "the same", "--allow-empty")
    equal = gate(copied, name)
    assert equal.returncode in (0, 3), equal.stdout  # a busy machine may not tell; it must not call it slower
    before, after = SLOWER[name]
    script = copied / "train.py"
    text = script.read_text(encoding="utf-8")
    assert text.count(before) == 1
    script.write_text(text.replace(before, after), encoding="utf-8")
    git(copied, "commit", "-qam", "needless work")
    slower = gate(copied, name)
    assert slower.returncode == 1 and "step time" in slower.stdout, slower.stdout


def git(folder: Path, *words: str) -> None:
    name = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    subprocess.run(["git", "-C", str(folder), *name, *words], check=True, capture_output=True)


def gate(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    """`hvbench ab` of the newest revision and the first."""
    words = ["hvbench", "ab", "bench.toml", "--np", "1", "--a", "rev=HEAD~1", "--b", "rev=HEAD", "-s", "world_size=1"]
    return call([*words, "-s", SMALL[name][0], "-s", "steps=60", "--budget", "450"], folder)

"""Adding a framework is adding one folder: a copy of the package gets `numpy_twin` as `frameworks/numpy`, and nothing else.

What runs in the copy is the real program: parity of the third framework with the others, a sweep over all three.
"""

from __future__ import annotations

import ast
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hvbench
from hvbench.parity.compare import compare_traces
from hvbench.parity.run import read_trace
from hvbench.parity.tolerances import tolerances_for
from hvbench.training.optimizers import state_shapes
from tests.parity.alone import OPTIMIZER_KNOBS, OPTIMIZER_RATES, optimizer_gradients, optimizer_weights, small_point
from tests.parity.numpy_twin.optimizer import make_optimizer
from tests.parity.points import LOCAL_SGD, local_point
from tests.parity.test_optimizers import updates_of_the_paper
from tests.unit.test_house_rules import public_interface

PACKAGE = Path(hvbench.__file__).parent
FIRST = PACKAGE / "frameworks" / "pytorch"
TWIN = Path(__file__).parent / "numpy_twin"
OF_SEVERAL_RANKS = ("hierarchical.py", "shard.py")  # reached by points of several ranks alone, which numpy has not
# What parameter servers update by, too.
SHARED = {name: PACKAGE / "frameworks" / f"numpy_{name}" for name in ("norms.py", "optimizer.py")}
ALL = ("pytorch", "numpy", "tensorflow")
FILES = sorted({path.relative_to(FIRST).as_posix() for path in FIRST.rglob("*.py")} - set(OF_SEVERAL_RANKS))
SUITE = """
question = "Does a third framework fit in?"
[point]
model = "llama-tiny"
tied_embeddings = false
num_layers = 1
micro_batch_size = 2
[axes]
framework = ["tensorflow", "pytorch", "numpy"]
[measure]
warmup_steps = 1
steps = 2
"""

GRADIENTS = """
import json
from hvbench.parity.norms import relative_error
from tests.parity.alone import FAMILIES, FP64, Twin, lively_weights, record_documents, record_labelled, small_point

twins = [Twin(name) for name in ("pytorch", "numpy")]
errors = []
for case in ("lora", "prefix", "adapter_bert_masked_lm"):
    found = []
    for twin in twins:
        point = small_point(twin.framework, **FAMILIES[case])
        trainer = twin.trainer(point, lively_weights(point), precision=FP64)
        found.append(trainer.gradients(*twin.batches(point).train_batch(0), loss_scale=1.0))
    first, other = found
    assert first.keys() == other.keys()
    errors += [(case, relative_error(other[name], first[name])) for name in first]
for record in (record_labelled, record_documents):
    first, other = map(record, twins)
    assert first.keys() == other.keys()
    errors += [(record.__name__, relative_error(other[name], first[name])) for name in first if first[name].any()]
print(json.dumps(errors))
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package that has one folder more."""
    folder = tmp_path_factory.mktemp("extended")
    shutil.copytree(PACKAGE, folder / "hvbench")  # compiled files too: all processes start sooner
    shutil.copytree(PACKAGE.parent / "suites", folder / "suites")
    shutil.copytree(TWIN, folder / "hvbench" / "frameworks" / "numpy")
    (folder / "three.toml").write_text(SUITE)
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The real program, with the package that lies in `folder`."""
    return subprocess.run(
        [sys.executable, "-m", "hvbench", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=550,
    )


@pytest.mark.parametrize("name", FILES)
def test_it_has_the_files_and_the_public_names_of_the_twins(name: str) -> None:
    twin, third = (
        public_interface(ast.parse(path.read_text(encoding="utf-8")).body)
        for path in (FIRST / name, SHARED.get(name, TWIN / name))
    )
    assert third == twin


@pytest.mark.parametrize("name", OPTIMIZER_KNOBS)
def test_its_optimizers_follow_their_papers_and_keep_what_the_twins_keep(name: str) -> None:
    point = small_point("pytorch", **{"optimizer": name, **OPTIMIZER_KNOBS[name]})
    values, expected = optimizer_weights(point), updates_of_the_paper(name)
    optimizer = make_optimizer(values, point=point)
    for step, rate in enumerate(OPTIMIZER_RATES):
        state = optimizer.state()
        optimizer = make_optimizer(values, point=point)
        optimizer.load_state(state)
        optimizer.update(optimizer_gradients(point, step), learning_rate=rate)
        for key, value in values.items():
            np.testing.assert_allclose(
                value, expected[key][step], rtol=1e-12, atol=1e-12, err_msg=f"{key}, step {step}"
            )
    kept = {f"{slot}/{key}": shape for slot, shapes in state_shapes(point).items() for key, shape in shapes.items()}
    assert {key: value.shape for key, value in state.items()} == kept | {"updates": ()}


def test_it_has_the_gradients_of_the_first_twin(extended: Path) -> None:
    """In float64, of every parameter that trains, where LoRA, adapters and prefixes add some; and losses, logits and gradients of labels and documents."""
    done = subprocess.run(
        [sys.executable, "-c", GRADIENTS],
        cwd=extended,
        env=os.environ | {"PYTHONPATH": f"{extended}{os.pathsep}{PACKAGE.parent}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    errors = json.loads(done.stdout)
    assert {case for case, _ in errors} == {
        "lora", "prefix", "adapter_bert_masked_lm", "record_labelled", "record_documents"
    }  # fmt: skip
    assert max(error for _, error in errors) < 1e-12


def test_two_of_its_ranks_make_the_local_updates_of_the_twins(extended: Path, traced, tmp_path: Path) -> None:
    """In fp32, within the tolerances of the twins themselves: every rank's losses and norms, and the update that they have in common."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.parity.local_ranks", str(tmp_path)],
        cwd=extended,
        env=os.environ | {"PYTHONPATH": f"{extended}{os.pathsep}{PACKAGE.parent}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for number, choices in enumerate(LOCAL_SGD):
        twin = traced[local_point("pytorch", choices)]
        for rank, trace in twin.ranks.items():
            third = read_trace(tmp_path / f"{number}-rank{rank}.npz")
            found = compare_traces(third, trace, tolerances=tolerances_for(twin.point, is_native=False))
            assert len(found) > 30 and [each for each in found if not each.is_within] == []


def test_its_name_is_known_everywhere(extended: Path) -> None:
    refused = run(extended, "plan", "three.toml", "-s", "framework=jax")
    assert refused.returncode == 2
    assert refused.stderr.endswith("framework = \"jax\": must be 'pytorch', 'numpy' or 'tensorflow'\n"), refused.stderr
    schema = json.loads(run(extended, "suites", "--schema").stdout)
    assert schema["anyOf"][0]["properties"]["point"]["properties"]["framework"]["enum"] == list(ALL)
    assert "numpy" in run(extended, "doctor").stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "precisions"),
    [
        (("model=tiny", "precision=fp32,fp16"), ("fp32", "fp16")),
        (("model=bert-tiny", "next_sentence=true", "num_layers=1", "precision=fp32"), ("fp32",)),
    ],
    ids=["gpt2", "bert"],
)
def test_hvbench_parity_proves_it_within_the_tolerances_of_the_twins(
    extended: Path, words: tuple[str, ...], precisions: tuple[str, ...]
) -> None:
    words = (*words, "gradient_accumulation_steps=2", "optimizer=lamb")
    done = run(extended, "parity", *words, "--np", "1", "--json", "figures.json")
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((extended / "figures.json").read_text())
    compared = {
        (each["configuration"]["precision"], each["configuration"]["optimizer"], *each["frameworks"])
        for each in figures
    }
    trained = itertools.product(precisions, ("lamb",), ALL[:1], ALL[1:])
    assert compared == set(trained)
    assert all(each["is_proven"] and len(each["deviations"]) > 100 for each in figures)
    assert "pytorch and numpy" in done.stdout and "pytorch, numpy and tensorflow over 20 updates" in done.stdout


@pytest.mark.slow
def test_a_sweep_over_all_three_is_stamped_and_its_report_names_them(extended: Path) -> None:
    done = run(extended, "sweep", "three.toml", "--np", "1", "--out", "run")
    assert done.returncode == 0, done.stderr
    assert "parity done: all 3 frameworks do the same work in 2 comparisons" in done.stderr
    records = [json.loads(path.read_text()) for path in (extended / "run" / "records").glob("*.json")]
    assert sorted(record["point"]["framework"] for record in records) == sorted(ALL)
    assert all(record["outcome"]["status"] == "ok" and record["parity"]["is_proven"] for record in records)
    report = (extended / "run" / "report.md").read_text()
    page = (extended / "run" / "report.html").read_text()
    for name, title in zip(ALL, ("PyTorch", "NumPy", "TensorFlow"), strict=True):
        assert f"**{title}**" in report
        assert f'class="card {name}"' in page and f"--{name}: #" in page
    assert "trained 20 updates in all frameworks" in report and "NOT" not in report


@pytest.mark.parametrize(
    ("words", "np_", "line"),
    [
        ((), "2", "numpy trains on one rank, not on 2"),
        (("dropout=0.1",), "1", "numpy has no dropout: give dropout=0"),
    ],
)
def test_what_it_cannot_train_ends_its_point_with_one_line(
    extended: Path, words: tuple[str, ...], np_: str, line: str
) -> None:
    out = f"refused{np_}"
    done = run(extended, "run", "framework=numpy", "model=tiny", "steps=1", *words, "--np", np_, "--out", out)
    assert line in done.stderr and "Traceback" not in done.stderr

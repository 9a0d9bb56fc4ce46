"""The rules that keep the house in order, held by reading the source: imports, purity, printing, twins, names.

A rule with an exception names it here, so that a new one has to be argued for in a change of this file.
"""

from __future__ import annotations

import ast
import graphlib
import itertools
import re
import subprocess
import sys
import time
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

import hvbench
from hvbench.cli.group import hvbench as command_line
from hvbench.records.environment import describe_environment, describe_load
from hvbench.records.record import Evaluation, GradientNoise, ModelFacts, Outcome, Overflow, RankSamples, Record
from hvbench.registry import FRAMEWORKS as TWINS
from hvbench.registry import describe_framework
from hvbench.spec.knob import Spec
from hvbench.spec.point import Point
from hvbench.spec.settings import MeasureSettings
from tests import patience

PACKAGE = Path(hvbench.__file__).parent


# Reading the source


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
PACKAGES = {module_name(path) for path in PACKAGE.rglob("__init__.py")}


def below(*prefixes: str) -> list[str]:
    return [name for name in MODULES if any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)]


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Everything that the source imports, wherever the import stands; `from a import b` gives `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports(module: str, *libraries: str) -> set[str]:
    """Which of `libraries`, or of what is below them, `module` imports."""
    found = imported_names(MODULES[module])
    return {name for name in found if any(name == library or name.startswith(f"{library}.") for library in libraries)}


def calls(tree: ast.AST) -> Iterator[str]:
    """Dotted names of everything that is called."""
    return (ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call))


# 1. Imports go down the flow


def test_nothing_imports_the_command_line() -> None:
    outside = set(MODULES) - set(below("hvbench.cli")) - {"hvbench.__main__"}  # which is the command line
    assert not {name: found for name in outside if (found := imports(name, "hvbench.cli"))}


def test_imports_have_no_cycle() -> None:
    graph = {name: {found for found in imported_names(tree) if found in MODULES} for name, tree in MODULES.items()}
    for name in PACKAGES - {"hvbench.cli", "hvbench.install", "hvbench.frameworks", "hvbench.probe"}:
        graph[name] = set()  # packages that only hold a docstring or a version
    list(graphlib.TopologicalSorter(graph).static_order())


# The stages, in the order of the flow: each imports only what stands before it, so no two of them import each other.
FLOW = (
    "errors", "registry", "io", "spec", "records", "training", "install", "launch", "frameworks", "analysis", "plan",
    "tracking", "communication", "parity", "worker", "probe", "sweep", "comparison", "site", "cli",
)  # fmt: skip
ENTRANCES = {"hvbench", "hvbench.__main__"}  # the public API and the command line, which reach for what they need


def stage_of(module: str) -> str:
    """`spec` of `hvbench.spec.point`."""
    return module.split(".")[1]


def test_the_tree_shows_the_stages_and_nothing_else() -> None:
    shown = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    files = {"__init__.py", "__main__.py", "errors.py", "registry.py"}
    assert shown == files | {stage for stage in FLOW if f"{stage}.py" not in files}
    assert len(shown - files) <= 18


@pytest.mark.parametrize("module", sorted(set(MODULES) - ENTRANCES))
def test_imports_go_down_the_flow(module: str) -> None:
    allowed = FLOW[: FLOW.index(stage_of(module)) + 1]
    found = {name for name in imported_names(MODULES[module]) if name in MODULES and name not in ENTRANCES}
    assert {name for name in found if stage_of(name) not in allowed} == set()


def test_folders_do_not_import_each_other() -> None:
    """Also below the stages: of two folders, neither within the other, one at most imports the other."""

    def folder(module: str) -> str:
        return module if module in PACKAGES else module.rpartition(".")[0]

    graph: dict[str, set[str]] = {}
    for module in set(MODULES) - ENTRANCES:
        here = folder(module)
        there = {folder(name) for name in imported_names(MODULES[module]) if name in MODULES and name not in ENTRANCES}
        apart = {
            each for each in there if not f"{each}.".startswith(f"{here}.") and not f"{here}.".startswith(f"{each}.")
        }
        graph.setdefault(here, set()).update(apart)
    list(graphlib.TopologicalSorter(graph).static_order())


# Beside that order, what some stages have no business with.
MAY_IMPORT = {
    "hvbench.io": ["errors"],
    "hvbench.spec": ["errors", "registry", "io.untrusted"],
    "hvbench.records.environment": ["registry", "records", "spec.place"],
    "hvbench.install": ["errors", "io.cache", "records.limits"],
    "hvbench.launch": [
        "errors",
        "install.stack",  # of an environment that a framework has of its own
        "io.atomic",
        "io.surroundings",
        "io.untrusted",
        "records.environment",
        "records.float32",
        "records.switches",
        "registry",
        "spec",
    ],
    "hvbench.frameworks": [
        "registry",
        "spec",
        "records.environment",
        "launch.rendezvous",
        "launch.handshake",  # how parameter servers and ranks let each other in
        "launch.servers",
        "launch.own_process",
        "training",
    ],
    "hvbench.analysis": [
        "errors",
        "io",
        "registry",
        "spec",
        "records",
        "training.memory",
        "training.evaluation",
        "training.entities",
        "training.flops",
        "training.metrics",
        "training.schedule",
    ],  # the estimate beside, one mean, what a mask hides, metrics of labels, one count of tokens
    "hvbench.tracking": [
        "errors",
        "io.atomic",
        "io.lines",
        "io.untrusted",
        "spec",
        "records",
        "launch.own_process",  # of processes beside a sweep: they run where nothing else does, and leave nothing
        "launch.script",
        "analysis.frame",
    ],
    "hvbench.comparison.gate.look": ["analysis.stats.moderated", "analysis.stats.ratios"],
    "hvbench.comparison.gate.rule": ["analysis.stats.ratios", "comparison.gate.look"],
}


@pytest.mark.parametrize("stage", MAY_IMPORT)
def test_a_stage_imports_only_what_it_needs(stage: str) -> None:
    allowed = {
        "hvbench",
        "hvbench.io",
        "hvbench.records",
        *below(stage),
        *below(*(f"hvbench.{name}" for name in MAY_IMPORT[stage])),
    }
    for module in below(stage):
        found = {name for name in imported_names(MODULES[module]) if name in MODULES}
        packages = {name for name in found if any(other.startswith(f"{name}.") for other in allowed)}
        assert found - packages <= allowed, module


@pytest.mark.parametrize("module", below("hvbench.launch"))
def test_the_launchers_side_needs_no_framework_and_no_numpy(module: str) -> None:
    unwanted = ("torch", "tensorflow", "keras", "numpy", "pandas", "horovod.torch", "horovod.tensorflow")
    assert not imports(module, *unwanted)


ADAPTERS = {"hvbench.probe.keras"}  # imported by people's own training alone, which has imported the framework


@pytest.mark.parametrize("twin", TWINS)
def test_a_framework_is_imported_by_its_own_twin_alone(twin: str) -> None:
    outside = set(MODULES) - set(below(f"hvbench.frameworks.{twin}")) - ADAPTERS
    assert not {name: found for name in outside if (found := imports(name, *describe_framework(twin).libraries))}


@pytest.mark.parametrize("twin", TWINS)
def test_what_a_framework_says_of_itself_imports_only_the_registry(twin: str) -> None:
    assert set(imported_names(MODULES[f"hvbench.frameworks.{twin}"])) <= {
        "hvbench.registry", *(f"hvbench.registry.{name}" for name in ("Framework", "Kept", "KeptBlock", "Look")),
    }  # fmt: skip


MAY_LIST = {"hvbench.install.stack"}  # Horovod can be built for these two; what builds it must know how


def test_nothing_else_in_hvbench_lists_the_frameworks() -> None:
    """A tuple, dict or comparison with every name of FRAMEWORKS is a place that somebody who adds one has to find."""
    listed = {
        name
        for name in set(MODULES) - MAY_LIST
        for node in ast.walk(MODULES[name])
        if isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict)
        and set(TWINS)
        <= {getattr(item, "value", None) for item in getattr(node, "elts", None) or getattr(node, "keys", ())}
    }
    assert not listed


@pytest.mark.parametrize(("twin", "other"), list(itertools.permutations(TWINS, 2)))
def test_a_twin_does_not_know_the_other(twin: str, other: str) -> None:
    for module in below(f"hvbench.frameworks.{twin}"):
        assert not imports(module, f"hvbench.frameworks.{other}"), module


# Pure: no file, no clock, no process, no network

PURE = (
    "hvbench.analysis.contrasts",
    "hvbench.analysis.frame.metrics",
    "hvbench.analysis.frame.shape",
    "hvbench.analysis.report.quality",
    "hvbench.analysis.stats.contrasts",
    "hvbench.analysis.stats.decision",
    "hvbench.analysis.stats.estimates",
    "hvbench.analysis.stats.moderated",
    "hvbench.analysis.stats.ratios",
    "hvbench.analysis.stats.survival",
    "hvbench.analysis.topics.links.model",
    "hvbench.analysis.topics.parity.losses",
    "hvbench.analysis.topics.batch.noise",
    "hvbench.analysis.topics.scaling.efficiency",
    "hvbench.analysis.topics.batch.tradeoff",
    "hvbench.communication.cost",
    "hvbench.communication.predict",
    "hvbench.communication.summary",
    "hvbench.comparison.calls",
    "hvbench.comparison.changes",
    "hvbench.comparison.compare",
    "hvbench.comparison.result",
    "hvbench.comparison.sides",
    "hvbench.comparison.gate.checks",
    "hvbench.comparison.gate.judge",
    "hvbench.comparison.gate.judgement",
    "hvbench.comparison.gate.look",
    "hvbench.comparison.gate.rule",
    "hvbench.launch.turns.scheduler",
    "hvbench.plan.precision",
    "hvbench.plan.repeats",
    "hvbench.records.fingerprint",
    "hvbench.spec",
    "hvbench.sweep.search.found",
    "hvbench.sweep.search.goals",
    "hvbench.sweep.search.pruning",
    "hvbench.sweep.search.question",
    "hvbench.sweep.search.report",
    "hvbench.sweep.search.space",
    "hvbench.training",
)
CLOCKS = ("time", "datetime")
OUTSIDE_WORLD = (
    "os", "io", "sys", "pathlib", "shutil", "tempfile", "fcntl", "socket", "subprocess", "signal", "threading",
    "multiprocessing", "urllib", "logging", "resource", "ctypes", "platform", "sysconfig", "glob", "random",
)  # fmt: skip
READ_FILES_BY_NATURE = {
    *(
        f"hvbench.training.{name}"
        for name in (
            "corpus",
            "corpus_cache",
            "documents",
            "files",
            "text",
            "packages",
            "labelled.rows",
            "labelled.formats",
            "labelled.corpus",
            "labelled.snippets",
            "checkpoints",
            "shards",
            "tokenizer_file",
            "huggingface.export",
            "huggingface.folder",
        )  # fmt: skip
    ),
    "hvbench.spec.suite",
}  # and still have no clock


@pytest.mark.parametrize("module", below(*PURE))
def test_pure_modules_do_no_io_and_read_no_clock(module: str) -> None:
    if module in READ_FILES_BY_NATURE:
        assert not imports(module, *CLOCKS)
        return
    assert not imports(module, *CLOCKS, *OUTSIDE_WORLD)
    assert not {"open", "print", "input", "exec", "eval"} & set(calls(MODULES[module]))


@pytest.mark.parametrize("module", below(*PURE))
def test_pure_modules_draw_no_random_number_without_a_seed(module: str) -> None:
    drawn = [
        call for call in calls(MODULES[module]) if re.search(r"\brandom\.", call) and call.startswith(("np.", "numpy."))
    ]
    assert {call.rpartition(".")[2] for call in drawn} <= {"default_rng", "Generator", "PCG64"}


# 2. The command line is light


def loaded_by(*arguments: str) -> set[str]:
    """Names of all modules that a fresh interpreter has loaded after running `arguments`."""
    code = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr));" + arguments[0]
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments[1:]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        timeout=patience.SECONDS,
    )
    assert result.returncode == 0, result.stderr
    return set(result.stderr.splitlines()[-1].split())


HEAVY = {"torch", "tensorflow", "keras", "pandas", "matplotlib", "scipy", "numpy", "tokenizers", "horovod", "mpi4py"}


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        ("import hvbench", ()),
        ("from hvbench import probe\nwith probe.training() as training, training.step(): training.log(loss=1)", ()),
        ("from hvbench.cli import main; main()", ("--help",)),
        ("from hvbench.cli import main; main()", ("sweep", "--help")),
        ("from hvbench.cli import main; main()", ("suites",)),
    ],
    ids=["import hvbench", "hvbench.probe", "hvbench --help", "hvbench sweep --help", "hvbench suites"],
)
def test_it_loads_nothing_heavy(code: str, arguments: tuple[str, ...], record_property: typing.Any) -> None:
    begun = time.perf_counter()
    loaded = loaded_by(code, *arguments)
    record_property(
        "wall_seconds", time.perf_counter() - begun
    )  # shown in a JUnit report; a busy machine fails no test
    assert not loaded & HEAVY


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        ("from hvbench.cli import main; main()", ("--help",)),
        (
            "from hvbench import probe; import hvbench.probe.launched",
            (),
        ),  # what it takes is the script's time, not hvbench's
    ],
    ids=["hvbench --help", "hvbench.probe"],
)
def test_it_waits_for_no_model_of_the_configuration(code: str, arguments: tuple[str, ...]) -> None:
    """pydantic alone takes longer to import than everything else that `hvbench --help` needs."""
    assert not loaded_by(code, *arguments) & {"pydantic", "numpy"}


def test_planning_a_sweep_loads_neither_a_framework_nor_pandas_nor_matplotlib() -> None:
    loaded = loaded_by("from hvbench.cli import main; main()", "plan", "smoke", "--np", "2")
    assert not loaded & (HEAVY - {"numpy"})


def test_every_module_of_the_launchers_side_loads_no_numpy_and_no_framework() -> None:
    loaded = loaded_by("import " + ", ".join(name for name in below("hvbench.launch") if not name.endswith("__main__")))
    assert not loaded & HEAVY


# Only the command line speaks

SPEAKERS = [*below("hvbench.cli"), "hvbench.install.__main__"]
SPEAKING = re.compile(
    r"(print|input|exit|quit|breakpoint|click\..*|sys\.exit|os\._exit|os\.abort|traceback\.print_\w+|sys\.(stdout|stderr)\..*|warnings\.warn)"
)
MAY_CALL = {
    "hvbench.worker.__main__": {
        "sys.stdout.flush", "sys.stderr.flush", "os._exit",  # Horovod's own exit would wait for ranks that are gone
    },
    "hvbench.worker.failure": {"traceback.print_exc"},  # into the worker's own log
    "hvbench.worker.ceiling_process": {"traceback.print_exc", "os._exit"},  # a process beside a worker, into the same log
    "hvbench.launch.session": {"os._exit"},  # the second Ctrl-C
    "hvbench.launch.own_process": {"os._exit"},  # an agent that is gone before its worker has begun
    "hvbench.launch.script": {"os._exit"},  # what could not become the script
    "hvbench.launch.supervisor": {"os._exit"},  # it ends as its script did
    "hvbench.worker.faults": {"os._exit"},  # one of the faults that tests commit on purpose
}  # fmt: skip


@pytest.mark.parametrize("module", [name for name in MODULES if name not in SPEAKERS])
def test_only_the_command_line_prints_or_exits(module: str) -> None:
    spoken = {call for call in calls(MODULES[module]) if SPEAKING.fullmatch(call)}
    assert spoken <= MAY_CALL.get(module, set())
    raised = (node.exc for node in ast.walk(MODULES[module]) if isinstance(node, ast.Raise) and node.exc)
    assert not any("SystemExit" in ast.unparse(error) for error in raised)
    assert not imports(module, "click", "rich")


# 4. Nobody unpickles, nobody runs data


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_unpickled_or_executed(module: str) -> None:
    assert not imports(module, "pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib")
    called = set(calls(MODULES[module]))
    assert not called & {"eval", "exec", "compile", "__import__"}
    assert not {call for call in called if call.endswith((".recv", ".read_pickle", ".to_pickle"))}
    keywords = (node for node in ast.walk(MODULES[module]) if isinstance(node, ast.keyword))
    assert {ast.unparse(node.value) for node in keywords if node.arg == "allow_pickle"} <= {"False"}


# 3. The twins are mirrors

Signature = list[tuple[str, str, str | None]]  # name, kind, default of each parameter


def signature(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Signature:
    """Names, kinds and defaults of the parameters; annotations are the framework's own and left out."""
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(positional) - len(given.defaults)) + [ast.unparse(value) for value in given.defaults]
    found: Signature = [
        (each.arg, "positional only" if each in given.posonlyargs else "positional", default)
        for each, default in zip(positional, defaults, strict=True)
    ]
    if given.vararg:
        found.append((given.vararg.arg, "*", None))
    for each, value in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        found.append((each.arg, "keyword", value and ast.unparse(value)))
    if given.kwarg:
        found.append((given.kwarg.arg, "**", None))
    return found


def is_public(name: str) -> bool:
    return not name.startswith("_") or name == "__init__"


def public_interface(body: list[ast.stmt]) -> list[tuple]:
    """Public constants, functions, properties, classes and their methods, in the order of the source."""
    found: list[tuple] = []
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and is_public(node.name):
            decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
            found.append((type(node).__name__, node.name, decorators, signature(node)))
        elif isinstance(node, ast.ClassDef) and is_public(node.name):
            found.append(("class", node.name, public_interface(node.body)))
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found += [("constant", ast.unparse(target)) for target in targets if is_public(ast.unparse(target))]
    return found


def twin_files(twin: str) -> list[str]:
    return sorted(
        path.relative_to(PACKAGE / "frameworks" / twin).as_posix()
        for path in (PACKAGE / "frameworks" / twin).rglob("*.py")
    )


def test_the_twins_have_the_same_files() -> None:
    assert [twin_files(twin) for twin in TWINS] == [twin_files(TWINS[0])] * len(TWINS)
    assert {"runtime.py", "model.py", "optimizer.py", "allreduce.py", "step.py"} <= set(twin_files(TWINS[0]))


@pytest.mark.parametrize("name", twin_files(TWINS[0]))
def test_the_twins_have_the_same_public_names_in_the_same_order_with_the_same_signatures(name: str) -> None:
    below_twin = name.removesuffix(".py").removesuffix("__init__").rstrip("/").replace("/", ".")
    modules = [f"hvbench.frameworks.{twin}.{below_twin}".rstrip(".") for twin in TWINS]
    first, *others = (public_interface(MODULES[module].body) for module in modules)
    assert others == [first] * len(others)


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize(
    ("protocol", "file"),
    [("Runtime", "runtime"), ("TrainingState", "state"), ("TrainingStep", "step"), ("Trainer", "trainer")],
)
def test_a_twin_has_every_method_of_the_contract_in_its_order(twin: str, protocol: str, file: str) -> None:
    def methods(module: str) -> list[tuple]:
        body = next(
            node for node in MODULES[module].body if isinstance(node, ast.ClassDef) and node.name == protocol
        ).body
        return [entry[1:] for entry in public_interface(body) if entry[0] == "FunctionDef" and entry[1] != "__init__"]

    assert methods(f"hvbench.frameworks.{twin}.{file}") == methods("hvbench.frameworks.contract")


@pytest.mark.parametrize(
    "drifted",
    [
        "class A:\n def f(self, x, *, y=1): ...",  # renamed
        "class A:\n def g(self, x, y=1): ...",  # another kind
        "class A:\n def g(self, x, *, y=2): ...",  # another default
        "class A:\n def g(self, *, x, y=1): ...",
        "class A:\n def g(self, x, *, y=1, z=0): ...",
        "class A:\n def g(self, x, *, y=1): ...\n def h(self): ...",
        "class A:\n @property\n def g(self, x, *, y=1): ...",
        "B = 1\nclass A:\n def g(self, x, *, y=1): ...",
        "class A(): ...",
    ],
)
def test_the_comparison_of_the_twins_sees_a_drift(drifted: str) -> None:
    agreed = public_interface(ast.parse("class A:\n def g(self, x: int, *, y=1): ...\n def _own(self): ...").body)
    assert public_interface(ast.parse(drifted).body) != agreed
    idiom = (
        "class A:\n 'Another docstring.'\n def g(self, x: 'Tensor', *, y=1) -> int: return 1\n def _else(self, z): ..."
    )
    assert public_interface(ast.parse(idiom).body) == agreed


# 7. Every number has its unit in its name

UNITS = r"(seconds|bytes|tokens|samples|steps|flops|cores|ticks)"
WITH_UNIT = re.compile(rf"(\w+_)?{UNITS}(_per_(second|step|token|rank))?")
# Numbers that count or place something, or that have no unit; the name says which.
UNITLESS = {
    "ablation_rounds", "profile_rounds", "precision_target", "patience", "epochs",  # counts of rounds, a fraction, a count of evaluations
    "rank", "local_rank", "threads", "generation", "schema_version", "repeat", "repeats",
    "step", "first_step", "evaluate_every", "checkpoint_every", "noise_every",  # a position in, and a distance of, steps
    "parameters", "trained_parameters", "parameters_in_flops", "targets",  # how many
    "staleness",  # how many updates
    "loss", "last_loss", "accuracy", "target_loss", "gradient_norm", "micro_gradient_norms", "learning_rate", "loss_scale",
    "cgroup_cpu_quota", "load_average", "omp_num_threads",  # named by the system that reports them
}  # fmt: skip


def is_number(annotation: typing.Any) -> bool:
    """Whether a value of this annotation is a number, or a list of numbers, or maybe one."""
    if typing.get_origin(annotation) in (types.UnionType, typing.Union, list, typing.Annotated):
        return any(is_number(part) for part in typing.get_args(annotation))
    return annotation in (int, float)


@pytest.mark.parametrize(
    "model",
    [RankSamples, Evaluation, GradientNoise, Overflow, ModelFacts, MeasureSettings, Outcome, Record],
    ids=lambda m: m.__name__,
)
def test_every_number_in_a_record_has_its_unit_in_its_name(model: type[Spec]) -> None:
    numbers = [name for name, field in model.model_fields.items() if is_number(field.annotation)]
    without = [name for name in numbers if not WITH_UNIT.fullmatch(name) and name not in UNITLESS]
    assert not without, f"add the unit to the name, or the name to UNITLESS: {without}"


def test_every_number_of_the_environment_has_its_unit_in_its_name() -> None:
    facts = describe_environment() | describe_load()
    numbers = [name for name, value in facts.items() if isinstance(value, int | float) and not isinstance(value, bool)]
    assert numbers
    assert [name for name in numbers if not WITH_UNIT.fullmatch(name) and name not in UNITLESS] == []


# 6. One word per idea, everywhere


def test_one_field_means_one_thing() -> None:
    """A key on the command line is looked up in both tables, so no name may be in both."""
    assert not set(Point.model_fields) & set(MeasureSettings.model_fields)


@pytest.mark.parametrize("model", [Point, MeasureSettings], ids=lambda m: m.__name__)
def test_every_field_that_a_user_sets_is_described(model: type[Spec]) -> None:
    assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_every_command_and_option_has_its_help() -> None:
    for name, command in command_line.commands.items():
        assert command.help, name
        for parameter in command.params:
            assert parameter.param_type_name == "argument" or parameter.help, f"{name} {parameter.name}"

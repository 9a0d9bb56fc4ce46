"""Advice holds: each command and option that a message or a document names is one that the command has, and takes.

Messages are read from the source: every string in it that is no docstring, with `…` where a value stands. An option that
is named without a command is looked for in every command that can say the message.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import hvbench as package
from hvbench.cli.group import hvbench
from hvbench.comparison.ab.arms import parse_arm, require_fixed_fields
from hvbench.plan.jobs import make_plan
from hvbench.spec.suite import apply_overrides, find_suite, load_suite, parse_suite

PACKAGE = Path(package.__file__).parent
ROOT = PACKAGE.parent
OPTION = re.compile(r"(?<![\w/=-])(--[a-z][a-z-]+|-[A-Za-z])(?=[\s,;:.)=`'\"]|$)")
COMMAND = re.compile(r"hvbench ((?:[a-z]+(?:-[a-z]+)*)(?: [^\n;`]*)?)")
OTHERS = ("install", "frameworks")  # strings that other programs read, or none at all

LAUNCHING = ("sweep", "run", "search", "tune", "allreduce", "parity")
# Where messages with options of hvbench's own are made -> the commands whose users read them.
SAID_BY: dict[str, tuple[str, ...]] = {
    "launch/task.py": ("sweep", "run", "search", "tune", "allreduce"),  # the others leave its advice out
    "cli/display/watching.py": ("sweep", "run"),
    "launch/session.py": LAUNCHING,
    "launch/host_list.py": LAUNCHING,
    "launch/environments.py": (*LAUNCHING, "doctor", "install-horovod"),
    "plan/doctor.py": ("install-horovod",),
    "plan/search.py": ("sweep", "plan"),
    "launch/submit.py": ("submit",),
    "sweep/prepare.py": ("sweep", "run", "search", "tune"),
    "sweep/resume.py": ("sweep", "run", "search", "tune"),
    "sweep/options.py": ("sweep", "run"),
    "sweep/export.py": ("export",),
    **dict.fromkeys((f"sweep/search/{name}.py" for name in ("ask", "goals", "space")), ("search",)),
    "training/huggingface/export.py": ("export",),
    "training/huggingface/start.py": ("sweep", "run", "search", "tune"),
    "training/products.py": ("sweep", "run", "tune", "parity"),
    "worker/faults.py": ("sweep", "run"),
    "io/folders.py": ("sweep", "run", "search", "tune", "allreduce", "ab", "site"),
    "analysis/topics/convergence/words.py": ("sweep", "run"),
    "communication/run.py": ("allreduce",),
    "communication/options.py": ("allreduce",),
    "communication/forecast.py": ("predict",),
    "comparison/ab/arms.py": ("ab",),
    "comparison/ab/run.py": ("ab",),
    "comparison/ab/launches.py": ("ab",),
    "comparison/read.py": ("compare",),
    "site/folder.py": ("site",),
    "site/serve.py": ("site",),
    "spec/schema.py": ("sweep", "plan"),
    "spec/reference.py": ("sweep", "plan"),
    "tracking/trackers.py": ("sweep", "run", "report"),
    "cli/launches/allreduce.py": ("allreduce",),
    "cli/launches/parity.py": ("parity",),
    "cli/launches/tune.py": ("tune",),
    "cli/options.py": ("sweep", "run"),
    "cli/__init__.py": LAUNCHING,
    "cli/lab.py": LAUNCHING,  # of what is run in there
    "cli/submit.py": LAUNCHING,  # of what is submitted
    "cli/suites.py": ("sweep", "plan"),
    "cli/display/plan.py": ("plan",),
    "spec/suite.py": ("sweep", "plan", "run", "tune", "parity", "ab"),
}
NOT_OURS = {"tracking/mlflow.py", "tracking/tensorboard.py", "launch/hosts.py", "analysis/report/page/render.py"}


def strings_of(path: Path) -> Iterator[str]:
    """Every string of a module that is no docstring and no part of another; `…` stands for a value."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    seen: set[int] = set()
    for node in nodes:
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            seen.add(id(body[0].value))
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            seen.update(id(inner) for inner in ast.walk(node) if inner is not node)
            yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in seen:
            yield node.value


MESSAGES = [
    (str(path.relative_to(PACKAGE)), text)
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.relative_to(PACKAGE).parts[0] not in OTHERS
    for text in strings_of(path)
    if " " in text
]
EXAMPLES = [
    *(
        (f"{name} --help", line.strip())
        for name, command in hvbench.commands.items()
        for line in (command.help or "").splitlines()
    ),
    *(
        ("hvbench --help", line.strip())
        for line in (hvbench.help or "").splitlines() + (hvbench.epilog or "").splitlines()
    ),
    *(
        (path.name, line.strip().removeprefix("$ "))
        for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
        for line in path.read_text(encoding="utf-8").splitlines()
    ),
]


def options_of(name: str) -> set[str]:
    command = hvbench.commands[name]
    return {option for each in command.params for option in (*each.opts, *each.secondary_opts)} | {"--help"}


def own_options(text: str) -> set[str]:
    """The options in a message that are not those of another program that it names."""
    text = re.sub(r" -m (pip|venv)\b", "", text)
    return set(OPTION.findall(re.sub(r"(horovodrun|mpirun|srun|ssh|pip( [a-z]+)?)( -[\w-]+)+", "", text)))


def words_of(line: str) -> list[str] | None:
    """The words of an example's hvbench command; None for a line that is none."""
    found = re.match(r"(?:horovodrun [^#]*?|mpirun [^#]*?|srun [^#]*?)?hvbench ([a-z].*)", line)
    if not found:
        return None
    text = re.split(r"\s{2,}|\s#|\s[|>]|&&", found[1])[0]
    try:
        words = shlex.split(text)
    except ValueError:
        return None
    return words if words[0] in hvbench.commands else None


def parse(words: list[str]) -> None:
    """Raises click.UsageError where the command does not take these words."""
    command: click.Command = hvbench
    while isinstance(command, click.Group):
        command, words = command.commands[words[0]], words[1:]
    context = click.Context(command, ignore_unknown_options=command.ignore_unknown_options)
    context.allow_interspersed_args = command.allow_interspersed_args
    _, left, _ = command.make_parser(context).parse_args(list(words))
    assert not left


COMMANDS = sorted({(where, " ".join(words)): words for where, line in EXAMPLES if (words := words_of(line))}.items())


def test_there_are_examples_and_messages_to_look_at() -> None:
    assert len(COMMANDS) > 60 and {where for (where, _), _ in COMMANDS} >= {"README.md", "ab --help", "ci.md"}
    assert sum("hvbench " in text for _, text in MESSAGES) > 40


@pytest.mark.parametrize("words", [words for _, words in COMMANDS], ids=[" ".join(key) for key, _ in COMMANDS])
def test_an_example_is_a_command_line_that_is_taken(words: list[str]) -> None:
    if "…" not in "".join(words):
        parse(words)


@pytest.mark.parametrize(("where", "text"), [each for each in MESSAGES if COMMAND.search(each[1])])
def test_a_command_in_a_message_exists_and_has_its_options(where: str, text: str) -> None:
    for found in COMMAND.finditer(text):
        name = found[1].split()[0].rstrip(":.,)")
        if name not in hvbench.commands:
            assert name in ("suite", "suites") or not OPTION.search(found[1]), f"{where}: no command {name}: {text}"
            continue
        said = found[1].partition(" -- ")[0]
        if name != "install-horovod":
            assert set(OPTION.findall(said)) <= options_of(name), f"{where}: {text}"


@pytest.mark.parametrize(
    ("where", "text"),
    [each for each in MESSAGES if own_options(each[1]) and not COMMAND.search(each[1]) and each[0] not in NOT_OURS],
)
def test_an_option_in_a_message_is_one_of_every_command_that_says_it(where: str, text: str) -> None:
    own = where.removeprefix("cli/").removesuffix(".py").replace("_", "-")
    commands = SAID_BY.get(where) or ((own,) if own in hvbench.commands else ())
    assert commands, f"{where}: which command says {text!r}? SAID_BY has to know"
    for name in commands:
        assert own_options(text) <= options_of(name), f"{where}: {name} has no such option: {text}"


OWN = '[script]\ncommand = "python train.py {batch} {dtype}"\n[axes]\nbatch = [8, 16]\ndtype = ["fp32", "bf16"]\n'
AB = [words for _, words in COMMANDS if words[0] == "ab"]


@pytest.mark.parametrize("words", AB, ids=[" ".join(words) for words in AB])
def test_an_example_of_ab_names_arms_that_the_suite_allows(words: list[str]) -> None:
    command = hvbench.commands["ab"]
    values, _, _ = command.make_parser(click.Context(command)).parse_args(words[1:])
    name = values.get("suite")
    if not isinstance(name, str) or "/" in name and not (ROOT / name).exists():
        name = "smoke"
    is_own = name.endswith(".toml") and not (ROOT / name).exists()  # somebody's own script
    named = ROOT / name if name.endswith(".toml") else find_suite(name)
    suite = parse_suite(OWN, name="own", where=name) if is_own else load_suite(named)
    suite = apply_overrides(suite, values.get("overrides") or [])
    arms = [
        parse_arm(
            arm, [each for each in values.get(arm) or [] if not each.startswith(("env=", "rev="))], fields=suite.fields
        )
        for arm in "ab"
    ]
    require_fixed_fields(arms, suite)


ASKED = [words for _, words in COMMANDS if words[0] in ("sweep", "plan", "run", "tune") and "…" not in "".join(words)]


@pytest.mark.parametrize("words", ASKED, ids=[" ".join(words) for words in ASKED])
def test_an_example_names_a_suite_and_fields_that_exist(words: list[str]) -> None:
    command = hvbench.commands[words[0]]
    values, _, _ = command.make_parser(click.Context(command)).parse_args(words[1:])
    overrides = values.get("overrides") or []
    if words[0] in ("sweep", "plan"):
        name = values.get("suite")
        name = name if isinstance(name, str) else "quickstart"
        if name.endswith(".toml") and not (ROOT / name).exists():
            return  # the reader's own
        suite = load_suite(ROOT / name if name.endswith(".toml") else find_suite(name))
    else:
        suite = apply_overrides(parse_suite("", name="run", where="x"), values.get("values") or [], option="")
    suite = apply_overrides(suite, overrides)
    make_plan(suite.points(), suite.measure, world_size=2)

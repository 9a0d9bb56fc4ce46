"""`hvbench init`: a suite of one's own, from a few questions."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from hvbench.cli.completers import complete_field
from hvbench.cli.options import override_option
from hvbench.errors import HvbenchError, UsageError

RANKS = click.IntRange(1, 4096)
DEFAULT_RANKS = 2
# What [measure] says unless -s does.
MEASURE = {"warmup_steps": "2", "steps": "10", "repeats": "5"}


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What no option said: asked for on a terminal; elsewhere the default, or a UsageError that names the option."""

    is_terminal: bool

    def ask(self, text: str, check: Callable[[str], Any], *, option: str, default: str | None = None) -> Any:
        """What `check` makes of the answer; it raises an error for what cannot be one, and the question comes again."""

        def accept(answer: str) -> Any:
            try:
                return check(answer)
            except HvbenchError as error:
                raise click.UsageError(str(error)) from None

        if self.is_terminal:
            return click.prompt(text, default=default, value_proc=accept)
        if default is None:
            raise UsageError(f"{option} is missing, and there is no terminal to ask on; see hvbench init --help")
        return check(default)


@click.command()
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="The file to write, such as own.toml.")
@click.option(
    "--axis",
    "axes",
    multiple=True,
    metavar="FIELD[=VALUE,VALUE]",
    shell_complete=complete_field,
    help="What is compared: a field of a point. Without values: those that can run here, or a few. May be repeated.",
)
@click.option("--framework", metavar="NAME,…", help="Frameworks that train every point. Default: all.")
@click.option("--model", metavar="NAME", help="Preset of the model's sizes. Default: that of hvbench plan --fields.")
@click.option("--np", "ranks", type=RANKS, metavar="N", help=f"Ranks to launch it on. Default: {DEFAULT_RANKS}.")
@click.option("--question", metavar="TEXT", help="What is asked, one line. Default: in the words of what is compared.")
@override_option
def init(
    output: Path | None, axes: tuple[str, ...], framework: str | None, model: str | None, ranks: int | None,
    question: str | None, overrides: tuple[str, ...],
) -> None:  # fmt: skip
    """Write a suite: a TOML file that asks one question, with each line explained.

    \b
    hvbench init                                       asks what to compare, of which model, in which frameworks
    hvbench init --output own.toml --axis precision    asks nothing, as in a script
    hvbench init --output own.toml --axis optimizer=adamw,lamb --model tiny -s evaluate_every=5

    What no option says is asked for on a terminal; elsewhere it has its default, or is said to be missing.
    """
    from hvbench.io.atomic import explaining_write_errors, write_new_file
    from hvbench.registry import FRAMEWORKS
    from hvbench.spec.point import Point
    from hvbench.spec.starter import propose_question, render_suite
    from hvbench.spec.suite import parse_suite, suite_of_words

    questions = Questions(is_terminal=sys.stdin.isatty())
    if output:
        require_new(output)
    if not axes:
        if questions.is_terminal:
            show_fields()
        axes = (questions.ask("What to compare, as FIELD or FIELD=VALUE,VALUE", require_field, option="--axis"),)
    compared = dict(require_field(text).partition("=")[::2] for text in axes)
    words = []
    for name, given, default in (
        ("model", model, Point.model_fields["model"].default),
        ("framework", framework, ",".join(FRAMEWORKS)),
    ):
        if name in compared and given:
            raise UsageError(f"--{name} {given}: --axis {name} says that already")
        if name not in compared:
            text = f"{name.capitalize()}, one or several separated by commas"
            given = given or questions.ask(text, accepting(name), option=f"--{name}", default=default)
            words.append(f"{name}={given}")
    ranks = ranks or questions.ask(
        "Ranks", lambda text: RANKS.convert(text, None, None), option="--np", default=str(DEFAULT_RANKS)
    )
    for name, values in compared.items():
        if not values:
            default = suggest_values(name, [*words, *overrides], ranks=ranks, is_needed=not questions.is_terminal)
            text = f"Values of {name}, separated by commas"
            check = accepting(name, [*words, *overrides])
            values = questions.ask(text, check, option="--axis", default=default)
        words.append(f"{name}={values}")
    suite = suite_of_words([*words, *choose_measure(overrides), *overrides], where="hvbench init")
    if single := [name for name in compared if name not in suite.axes]:
        raise UsageError(f"--axis {single[0]}: one value compares nothing; give two or more, {single[0]}=VALUE,VALUE")
    proposed = propose_question({name: suite.axes[name] for name in compared})
    question = question or questions.ask("What is asked", str, option="--question", default=proposed)
    output = output or questions.ask(
        "File", lambda text: require_new(Path(text)), option="--output", default=suggest_file(compared, questions)
    )
    text = render_suite(
        replace(suite, question=question, compares=list(compared)), path=shlex.quote(str(output)), ranks=ranks
    )
    try:
        points = parse_suite(text, name=output.stem, where=str(output)).points()
    except UsageError as error:  # such as a choice that is the same in one of the frameworks
        raise UsageError(
            f"--axis {', '.join(compared)}: {error}; give other values, or a --framework that has them"
        ) from None
    with explaining_write_errors(output):
        write_new_file(output, text)
    click.echo(f"{output}: {len(points)} points; next: hvbench plan {shlex.quote(str(output))} --np {ranks}")


def show_fields() -> None:
    """Print the fields of a point, part by part."""
    from hvbench.spec.knob import groups_of
    from hvbench.spec.point import Point

    click.echo("Fields of a training; hvbench plan --fields says what each means:")
    for title, names in groups_of(Point).items():
        click.echo(click.wrap_text(f"{title}: {', '.join(names)}", 100, "  ", "    "))


def require_field(text: str) -> str:
    """`text`, which begins with the name of a field of a point; raises UsageError."""
    from hvbench.spec.messages import did_you_mean, shorten
    from hvbench.spec.point import Point

    name = text.partition("=")[0]
    if name not in Point.model_fields:
        hint = did_you_mean(name, list(Point.model_fields))
        raise UsageError(f"--axis {shorten(text)}: no field of a training{hint}; hvbench plan --fields lists them")
    return text


def accepting(name: str, words: Sequence[str] = ()) -> Callable[[str], str]:
    """What returns the values of a field, separated by commas, and raises UsageError where it cannot have them beside `words`."""
    from hvbench.spec.suite import suite_of_words

    def accept(text: str) -> str:
        suite_of_words([*words, f"{name}={text}"], where=f"--{name}")
        return text

    return accept


def suggest_values(name: str, words: Sequence[str], *, ranks: int, is_needed: bool) -> str | None:
    """Values of a field, separated by commas, at which a training could run here if every framework were installed.

    None where there are no two of them; where they are needed raises UsageError.
    """
    from hvbench.plan.skip import reason_to_skip
    from hvbench.spec.fields import PointFields
    from hvbench.spec.starter import propose_values

    fields, where = PointFields(), f"--axis {name}"
    base = fixed_fields(words)
    fitting: list[str] = []
    reasons: list[str] = []
    for value in propose_values(name, fields.make_point(base, where=where)):
        try:
            point = fields.make_point({**base, name: value, "world_size": ranks}, where=where)
        except UsageError:  # beyond its bounds
            continue
        if reason := reason_to_skip(point, world_size=ranks, assumes_frameworks=True):
            reasons.append(reason)
        else:
            fitting.append(value if isinstance(value, str) else json.dumps(value))
    if len(fitting) > 1:
        return ",".join(fitting)
    if is_needed:
        why = f" ({reasons[0]})" if reasons else ""
        raise UsageError(f"{where}: no two values suggest themselves here{why}; give them, --axis {name}=VALUE,VALUE")
    return None


def fixed_fields(words: Sequence[str]) -> dict[str, Any]:
    """Field of a point -> its value, of those words that fix one; raises UsageError."""
    from hvbench.spec.choices import split_choices
    from hvbench.spec.fields import PointFields
    from hvbench.spec.point import Point

    given = {key: text for key, _, text in (word.partition("=") for word in words) if key in Point.model_fields}
    return {
        key: PointFields().parse(key, text, where=f"{key}={text}")
        for key, text in given.items()
        if text and len(split_choices(text, where=f"{key}={text}")) == 1
    }


def choose_measure(overrides: Sequence[str]) -> list[str]:
    """What [measure] says, but for what -s says."""
    given = {text.partition("=")[0] for text in overrides}
    replaced = given | ({"steps"} if "epochs" in given else set())
    return [f"{name}={value}" for name, value in MEASURE.items() if name not in replaced]


def suggest_file(names: Sequence[str], questions: Questions) -> str | None:
    """A name for the file, after what is compared; where nobody is asked, none."""
    return f"{'_'.join(names)}.toml" if questions.is_terminal else None


def require_new(path: Path) -> Path:
    """`path`, which can name a suite and names nothing yet; raises UsageError."""
    from hvbench.spec.suite import require_name

    if path.suffix != ".toml" or not str(path).isprintable():
        raise UsageError(f"--output {path}: a suite is a file that ends in .toml")
    require_name(path)
    if path.exists() or path.is_symlink():
        raise UsageError(f"--output {path}: is there already, and is not overwritten; give another name")
    return path

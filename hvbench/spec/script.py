"""ScriptPoint: one run of people's own training, a command with values for the names in its braces.

A suite with a table [script] expands to these instead of Points. Nothing here runs anything: a suite is data.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from string import Formatter
from typing import Annotated, Any, ClassVar

from pydantic import (
    BeforeValidator,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from hvbench.errors import UsageError
from hvbench.registry import SCRIPT
from hvbench.spec.batch import RANKS
from hvbench.spec.knob import Count, Spec, Text
from hvbench.spec.messages import did_you_mean, shorten, validate
from hvbench.spec.script_variables import MOST, why_not_set, why_not_value
from hvbench.spec.script_variables import NAME as VARIABLE

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}", re.ASCII)
MAX_VALUES = 40
MAX_WORDS = 1000
Value = bool | Annotated[int, Field(gt=-(2**53), lt=2**53)] | Annotated[float, Field(allow_inf_nan=False)] | Text
VALUE = TypeAdapter(Value)
Written = Annotated[  # the value of a variable: a whole number needs no quotes
    Text,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    WithJsonSchema({"type": ["string", "integer"]}),
]
ALLOWED = "must be true, false, a finite number below 2^53, or text of 1 to 4096 characters without control characters"
OWN_FIELDS = ("world_size", "seed")  # that every script has, whether its command names them or not


class Script(Spec):
    """The table [script] of a suite: what is launched, one process a rank."""

    command: Text = Field(
        description="with the names of axes in braces; no shell reads it, unless `shell` asks for one"
    )
    repository: Text = Field(
        ".", description="folder that it runs in, seen from the suite's file; its revision and files are recorded"
    )
    shell: bool = Field(False, description="let a shell read the command; values come to it as arguments, not as text")
    environment: dict[str, Written] = Field(
        {},
        max_length=MOST,
        description="`[script.environment]`: variables of its processes, recorded; names of axes in braces here, too",
    )

    @property
    def names(self) -> list[str]:
        """The names in braces, in order: those of the command, then those of its variables."""
        texts = [self.command, *self.environment.values()]
        return list(dict.fromkeys(name for text in texts for name in names_in(text)))


class ScriptPoint(Spec):
    """One configuration of a script. Its `point_id` identifies it across runs and machines, whatever the revision."""

    # What hvbench asks of any point, and a script does not choose.
    framework: ClassVar[str] = SCRIPT
    strategy: ClassVar[str] = "horovod"
    device: ClassVar[str] = "auto"
    link_bits_per_second: ClassVar[int | None] = None
    needs_mpirun: ClassVar[bool] = False
    is_served: ClassVar[bool] = False
    is_pretrained: ClassVar[bool] = False
    is_repeatable: ClassVar[bool] = True
    initial_checkpoint: ClassVar[str | None] = None

    command: Text = Field(description="the suite's, with names in braces")
    shell: bool = False
    environment: dict[Annotated[str, StringConstraints(pattern=f"^{VARIABLE.pattern}$")], Text] = Field(
        {}, max_length=MOST, description="variable -> the value that the suite sets, with names in braces"
    )
    values: dict[Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")], Value] = Field(
        {}, max_length=MAX_VALUES, description="name in braces -> its value"
    )
    world_size: Annotated[Count | None, RANKS] = Field(None, description="ranks that train")
    seed: int = Field(0, ge=0, lt=2**31, description="HVBENCH_SEED of the script, and {seed}")

    @model_validator(mode="after")
    def _names_have_values(self) -> ScriptPoint:
        known = {*self.values, *OWN_FIELDS}
        for text in (self.command, *self.environment.values()):
            for name in names_in(text):
                if name not in known:
                    raise ValueError(f"{{{name}}} has no value")
        return self

    def __hash__(self) -> int:
        return hash(self._canonical)

    @cached_property
    def _canonical(self) -> str:
        return json.dumps(self.model_dump(exclude_defaults=True), sort_keys=True, separators=(",", ":"))

    @cached_property
    def point_id(self) -> str:
        """A file-name-safe name that a person can read, ended by a digest of every field."""
        words = [self.program, *(f"{name}{show_value(value)}" for name, value in self.values.items())]
        name = "-".join(filter(None, (re.sub(r"[^\w.+]+", "_", word, flags=re.ASCII).strip("_.+") for word in words)))
        name = name.replace("+", "_")[:100].rstrip("-._") or SCRIPT
        return f"{name}-{hashlib.sha256(self._canonical.encode()).hexdigest()[:8]}"

    @property
    def program(self) -> str:
        """The script's file name without its ending: the first word of the command that ends in .py, or else the first."""
        return name_program(self.command).removesuffix(".py")

    def value_of(self, name: str) -> Any:
        """What a name in braces stands for; raises KeyError."""
        return getattr(self, name) if name in OWN_FIELDS else self.values[name]

    def arguments(self) -> list[str]:
        """The words that are executed, every value within one word; the suite has been checked, so that there are some."""
        if self.shell:
            return shell_words(self.command, self.value_of)
        return [self._with_values(word) for word in shlex.split(self.command)]

    def variables(self) -> dict[str, str]:
        """Environment variable -> value, of those that the suite sets."""
        return {name: self._with_values(text) for name, text in self.environment.items()}

    @property
    def full_command(self) -> str:
        """The command behind its variables, as a shell would be given them, with names in braces."""
        return " ".join([*show_variables(self.environment), self.command])

    def _with_values(self, text: str) -> str:
        return replace_names(text, lambda name: show_value(self.value_of(name)))


def show_variables(environment: Mapping[str, str]) -> list[str]:
    """`NAME=value` of each, as a shell would be given it."""
    return [f"{name}={shlex.quote(value)}" for name, value in environment.items()]


def name_program(command: str) -> str:
    """The file name of a command's script: its first word that ends in .py, or else its first."""
    try:
        words = shlex.split(command)
    except ValueError:  # a shell may read it otherwise
        words = command.split()
    names = [word.rpartition("/")[2] for word in words]
    return next((name for name in names if name.endswith(".py")), names[0] if names else "")


def show_value(value: Any) -> str:
    """A value as the script gets it: `true`, `0.1`, `bf16`."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def names_in(command: str) -> list[str]:
    """The names in braces, in order; raises ValueError for braces that hold none. `{{` and `}}` are braces themselves."""
    names = []
    try:
        parts = list(Formatter().parse(command))
    except ValueError as error:
        raise ValueError(f"{error}; a brace of its own is written twice") from None
    for _, name, form, conversion in parts:
        if name is None:
            continue
        if not NAME.fullmatch(name) or form or conversion:
            raise ValueError(
                f"braces hold the name of an axis, not {shorten(name)}; a brace of its own is written twice"
            )
        names.append(name)
    return names


def replace_names(text: str, replacement: Callable[[str], str]) -> str:
    """`text` with each name in braces replaced."""
    return "".join(
        before + (replacement(name) if name is not None else "") for before, name, *_ in Formatter().parse(text)
    )


def shell_words(command: str, value_of: Callable[[str], Any]) -> list[str]:
    """`sh -c` with the command, in which every name is a positional parameter: no value is read as part of a program."""
    names = list(dict.fromkeys(names_in(command)))
    places = {name: f'"${{{number}}}"' for number, name in enumerate(names, start=1)}
    text = replace_names(command, places.__getitem__)
    return ["/bin/sh", "-c", text, "sh", *(show_value(value_of(name)) for name in names)]


def require_unquoted(command: str) -> None:
    """Raise ValueError where a shell's command has a name in quotes: there its value would not stay one word."""
    mark, escaped = "", False
    for position, letter in enumerate(command):
        if escaped or (letter == "\\" and mark != "'"):
            escaped = not escaped
        elif mark:
            if letter == "{" and command[position + 1 : position + 2] != "{" and command[position - 1] != "{":
                raise ValueError("a name in braces stands in quotes; hvbench quotes its value itself")
            mark = "" if letter == mark else mark
        elif letter in "\"'":
            mark = letter


def check_script(values: Mapping[str, Any], *, where: str) -> Script:
    """The table [script] as it was read; raises UsageError."""
    script = validate(Script, values, where=f"{where}: [script]")
    try:
        names_in(script.command)
        if script.shell:
            require_unquoted(script.command)
        words = [] if script.shell else shlex.split(script.command)
    except ValueError as error:
        raise UsageError(f"{where}: [script] command = {shorten(script.command)}: {error}") from None
    if not script.shell and not 0 < len(words) <= MAX_WORDS:
        raise UsageError(f"{where}: [script] command = {shorten(script.command)}: must have 1 to {MAX_WORDS} words")
    for name, value in script.environment.items():
        check_variable(name, value, where=where)
    return script


def check_variable(name: str, value: str, *, where: str) -> None:
    """Raise UsageError for a variable of [script.environment] that no script can be given; names in braces are looked up later."""
    if reason := why_not_set(name):
        raise UsageError(f"{where}: [script.environment] {shorten(name)}: {reason}")
    try:
        is_whole = not names_in(value)
    except ValueError as error:
        raise UsageError(f"{where}: [script.environment] {name} = {shorten(value)}: {error}") from None
    if is_whole and (reason := why_not_value(name, replace_names(value, str))):
        raise UsageError(f"{where}: [script.environment] {name} = {shorten(value)}: {reason}")


def require_names(script: Script, given: Iterable[str], *, where: str) -> None:
    """Raise UsageError where a name in braces has no axis, or an axis no braces."""
    named, given = script.names, list(given)
    of_command = names_in(script.command)
    for name in named:
        if name not in given and name not in OWN_FIELDS:
            place = "[script] command" if name in of_command else "[script.environment]"
            raise UsageError(
                f"{where}: {place} names {{{name}}}{did_you_mean(name, given)}, and there is no such axis; "
                f"give it values under [axes], or one under [point]; there are: {', '.join(given) or 'none'}"
            )
    for name in given:
        if name not in named and name not in OWN_FIELDS:
            raise UsageError(
                f"{where}: {name} is not in the command{did_you_mean(name, named)}, so it would change nothing: write {{{name}}} there; the command "
                f"names {', '.join(named) or 'nothing'}"
            )


def make_script_point(script: Script, values: Mapping[str, Any], *, where: str) -> ScriptPoint:
    """The point of one combination of values; raises UsageError."""
    own = {name: value for name, value in values.items() if name in OWN_FIELDS}
    others = {name: value for name, value in values.items() if name not in OWN_FIELDS}
    given = script.model_dump(include={"command", "shell", "environment"})
    point = validate(ScriptPoint, {**given, "values": others, **own}, where=where)
    for name, value in point.variables().items():
        if reason := why_not_value(name, value):
            raise UsageError(f"{where}: [script.environment] {name} = {shorten(value)}: {reason}")
    return point


def check_name(name: str, *, where: str) -> None:
    """Raise UsageError for a name that no axis may have."""
    if not NAME.fullmatch(name):
        raise UsageError(f"{where}: {shorten(name)}: the name of an axis has letters, digits and _, at most 40")


def check_value(name: str, value: Any, *, where: str) -> None:
    """Raise UsageError for a value that no command can take."""
    fields = {name: value} if name in OWN_FIELDS else {"values": {name: value}}
    try:
        VALUE.validate_python(value, strict=True)
    except ValidationError as error:
        raise UsageError(f"{where}: {name} = {shorten(value)}: {ALLOWED}") from error
    validate(ScriptPoint, {"command": SCRIPT, **fields}, where=where)


def require_one_type(name: str, choices: Sequence[Any], *, where: str) -> None:
    """Raise UsageError where the values of an axis are of several types: tables could not sort them."""
    kinds = {type(choice) for choice in choices}
    if len(kinds) > 1 and kinds != {int, float}:
        words = " and ".join(
            sorted({bool: "switches", int: "numbers", float: "numbers"}.get(kind, "text") for kind in kinds)
        )
        raise UsageError(f"{where} {name}: {words} in one axis; write all of them in quotes, or none")

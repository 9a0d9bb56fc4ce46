"""`hvbench completion`: the tab key of a shell."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

SHELLS = ("bash", "zsh", "fish")
# Bash cuts words at these, a field from its value among them, and replaces what stands behind the last one.
BREAKS = "=:@,"


@add_completion_class
class Bash(BashComplete):
    """Bash, which leaves it to the program to put words together that it has cut at `=`."""

    source_template = Path(__file__).with_name("completion.bash").read_text(encoding="utf-8")

    def get_completion_args(self) -> tuple[list[str], str]:
        """(the words before the one that is completed, what there is of that one)."""
        line = os.environ.get("COMPLETED", "")
        words = split_arg_string(line)[1:]
        incomplete = words.pop() if words and not line[-1].isspace() else ""
        breaks = [place for place, letter in enumerate(incomplete) if letter in os.environ.get("BREAKS", BREAKS)]
        self.kept = breaks[-1] + 1 if breaks else 0
        return words, incomplete

    def format_completion(self, item: CompletionItem) -> str:
        """`plain,VALUE`: what bash puts behind the last place where it cuts."""
        return f"{item.type},{item.value[self.kept :]}"


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what lets SHELL complete commands, options, suites, runs, and fields with their values.

    \b
    hvbench completion bash >> ~/.bashrc              bash 4.4 or newer
    hvbench completion zsh >> ~/.zshrc
    hvbench completion fish > ~/.config/fish/completions/hvbench.fish

    A shell that is open already has to read that file again.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    program = kind(context.find_root().command, {}, "hvbench", "_HVBENCH_COMPLETE")
    click.echo(program.source_template % program.source_vars(), nl=False)

"""`hvbench install-horovod`: build Horovod against what is installed here."""

from __future__ import annotations

import click


@click.command("install-horovod", context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def install_horovod(arguments: tuple[str, ...]) -> int:
    """Build Horovod against the PyTorch, TensorFlow, MPI and CUDA that are installed here."""
    from hvbench.install.__main__ import main

    return main(list(arguments))

"""`hvbench install-horovod`: build Horovod against what is installed here, or in the environment of a framework."""

from __future__ import annotations

import click

from hvbench.cli.options import env_option


@click.command("install-horovod", context_settings={"ignore_unknown_options": True}, add_help_option=False)
@env_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def install_horovod(arguments: tuple[str, ...]) -> int:
    """Build Horovod against the PyTorch, TensorFlow, MPI and CUDA that are installed here, and in each framework's own environment.

    With --env FRAMEWORK=FOLDER only in these.
    """
    from hvbench.install.__main__ import main
    from hvbench.launch.environments import install_there, list_environments

    named, all_of_them = list_environments()
    if "--help" in arguments or not named:
        code = main(list(arguments))
        if code or "--help" in arguments:
            return code
    for environment in named or all_of_them:
        click.echo(f"In {environment.folder}, of {environment.framework}:")
        if code := install_there(environment, arguments):
            return code
    return 0

"""`hvbench export`: a trained model as a folder that transformers loads."""

from __future__ import annotations

from pathlib import Path

import click

from hvbench.cli.completers import complete_run
from hvbench.io.folders import RESULTS


@click.command()
@click.argument("run", metavar="RUN", shell_complete=complete_run)
@click.argument("point", metavar="POINT")
@click.argument("folder", type=click.Path(path_type=Path), metavar="FOLDER")
@click.option(
    "--repeat", type=click.IntRange(min=0), metavar="N", help="Which launch. Default: the first with a checkpoint."
)
@click.option("--step", type=click.IntRange(min=1), metavar="N", help="After how many steps. Default: its last.")
@click.option("--no-tokenizer", is_flag=True, help="Leave tokenizer.json out, as where the text is gone.")
@click.option("--force", is_flag=True, help="Write into a folder that is not empty; other files in it stay.")
def export(
    run: str, point: str, folder: Path, repeat: int | None, step: int | None, no_tokenizer: bool, force: bool
) -> None:
    """Write a checkpoint of POINT in RUN into FOLDER as transformers has it: config.json, model.safetensors, tokenizer.json.

    RUN is a folder or SUITE@latest. POINT is a point_id, or a part that only one point's id has, such as its last eight
    characters. The run needs checkpoints: train with -s checkpoint_every=STEPS.

    \b
    hvbench run model=tiny steps=20 checkpoint_every=10 --np 2 --out trained
    hvbench export trained pytorch-tiny my-gpt2
    python -c "import transformers; transformers.AutoModelForCausalLM.from_pretrained('my-gpt2')"

    The way back is initial_weights=FOLDER. Exported are language models; the positions are those that were trained.

    \b
    Exit codes: 0 written · 2 usage, or a model that transformers does not have · 5 no such checkpoint, or FOLDER cannot be
    written
    """
    from hvbench.comparison.runs import find_run
    from hvbench.sweep.export import Wanted, export_model

    wanted = Wanted(point=point, repeat=repeat, step=step)
    options = {"force": force, "with_tokenizer": not no_tokenizer}
    trained, files = export_model(find_run(run, root=RESULTS), wanted, folder, **options)
    click.echo(f"{folder}: {trained.record.key} after step {trained.step}: {', '.join(files)}")
    if "tokenizer.json" not in files and not no_tokenizer:
        click.echo("no tokenizer: the model was trained on synthetic tokens")

"""Commands that apply trained methods to a user's networks."""

from pathlib import Path

import click

from reference_experiments.cli.datasets import reporting
from reference_experiments.datasets.format import SPLITS
from reference_experiments.inference import FORMATS, edit, tell

__all__ = ["edit_command", "predict_command"]

TRAINED = click.argument("trained", type=click.Path(exists=True, file_okay=False, path_type=Path))
NETWORKS = click.argument("networks", type=click.Path(exists=True, file_okay=False, path_type=Path))
SPLIT = click.option("--split", type=click.Choice(SPLITS), help="Only these networks of a dataset.")


@click.command(name="edit")
@TRAINED
@NETWORKS
@click.argument("output", type=click.Path(file_okay=False, path_type=Path))
@click.option("--format", "form", type=click.Choice(FORMATS), default=FORMATS[0], show_default=True)
@SPLIT
@reporting
def edit_command(trained: Path, networks: Path, output: Path, form: str, split: str | None) -> None:
    """Edit NETWORKS, a dataset or a folder of safetensors files or state dicts, and write them to OUTPUT.

    TRAINED is the folder of a method that `run dilate` or `run contrast` trained: RESULTS/DATASET/METHOD-seedN.
    """
    count = edit(trained, networks, output, form, split)
    click.echo(f"{count} edited networks are in {output}, and the first one's edit is drawn in edit.png.")


@click.command(name="predict")
@TRAINED
@NETWORKS
@click.argument("output", type=click.Path(dir_okay=False, path_type=Path))
@SPLIT
@reporting
def predict_command(trained: Path, networks: Path, output: Path, split: str | None) -> None:
    """Tell accuracies or classes of NETWORKS, a dataset or a folder of safetensors files or state dicts, in a CSV file.

    TRAINED is the folder of a method that `run` trained: RESULTS/DATASET/METHOD-seedN.
    """
    click.echo(f"What is told of {tell(trained, networks, output, split)} networks is in {output}.")

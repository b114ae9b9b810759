"""Commands that apply trained methods to a user's networks."""

from pathlib import Path

import click

from reference_experiments.cli.options import check_option, reports_errors
from reference_experiments.inference import FORMATS, edit, predict
from reference_experiments.sources.splits import SPLITS

__all__ = ["edit_command", "predict_command"]

TRAINED = click.argument("trained", type=click.Path(exists=True, file_okay=False, path_type=Path))
NETWORKS = click.argument("networks", type=click.Path(exists=True, file_okay=False, path_type=Path))
SPLIT = click.option("--split", type=click.Choice(SPLITS), help="Only these networks of a dataset.")


@click.command(name="edit")
@TRAINED
@NETWORKS
@click.argument("output", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default=FORMATS[0],
    show_default=True,
    help="Format of the edited networks.",
)
@SPLIT
@check_option
@reports_errors
def edit_command(trained: Path, networks: Path, output: Path, form: str, split: str | None, check: bool) -> None:
    """Edit NETWORKS, a dataset or a folder of safetensors files or state dicts, and write them to OUTPUT.

    TRAINED is the folder of a method that `run table6-dilate` or `run table6-contrast` trained: RESULTS/DATASET/METHOD-seedN.
    """
    count = edit(trained, networks, output, form, split, check)
    click.echo(f"{count} edited networks are in {output}, and the first one's edit is drawn in edit.png.")


@click.command(name="predict")
@TRAINED
@NETWORKS
@click.argument("output", type=click.Path(dir_okay=False, path_type=Path))
@SPLIT
@check_option
@reports_errors
def predict_command(trained: Path, networks: Path, output: Path, split: str | None, check: bool) -> None:
    """Predict accuracies or classes of NETWORKS, a dataset or a folder of safetensors files or state dicts, to a CSV file.

    TRAINED is the folder of a method that `run` trained: RESULTS/DATASET/METHOD-seedN.
    """
    count = predict(trained, networks, output, split, check)
    click.echo(f"Predictions for {count} networks are in {output}.")

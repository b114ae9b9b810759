"""Commands of the demonstrations."""

from functools import partial
from pathlib import Path

import click

from reference_experiments.cli.options import backend_option, folder_option, reports_errors, seed_option
from reference_experiments.demos.quickstart import PRESETS, quickstart
from reference_experiments.sources.images import IMAGE_SETS

__all__ = ["models_command", "quickstart_command", "residual_command", "survey_command"]

NEXT = """Next:
  nox -s conformance                     check every layer on every backend
  nox -s quickstart -- --backend {other}{space}   the same experiment in {other}
  nox -s quickstart -- --seed 1          the same experiment with other networks
"""


@click.command(name="quickstart")
@backend_option
@click.option(
    "--scale", type=click.Choice(list(PRESETS)), default="full", show_default=True, help="Size of the experiment."
)
@seed_option
@folder_option("Folder of the results.")
@reports_errors
def quickstart_command(backend: str, scale: str, seed: int, output: Path | None) -> None:
    """Read digits from the weights of INRs, then predict accuracies of classifiers; an interrupted run goes on."""
    folder = output or Path("results") / f"quickstart-{backend}-{scale}-seed{seed}"
    quickstart(backend, scale, seed, folder)
    click.echo(f"Results and figures (inrs/inrs.png, predictions.png, permutation.png) are in {folder}.\n")
    other = "jax" if backend == "torch" else "torch"
    click.echo(NEXT.format(other=other, space=" " * (5 - len(other))))


@click.command(name="models")
@click.option(
    "--page", type=click.Path(exists=True, dir_okay=False, path_type=Path), default="docs/models.md", show_default=True
)
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), default="results/models", show_default=True)
@reports_errors
def models_command(page: Path, output: Path) -> None:
    """Derive, verify and count the weight spaces of real architectures, and write the tables into a page."""
    from reference_experiments.demos.model_table import model_table, operation_table, write_page  # needs both backends

    write_page(page, {"operations": operation_table, "models": partial(model_table, output)})


@click.command(name="survey")
@click.option(
    "--page",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default="docs/architectures.md",
    show_default=True,
)
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), default="results/survey", show_default=True)
@reports_errors
def survey_command(page: Path, output: Path) -> None:
    """Derive and verify the weight spaces of many architectures, and write the table into a page; needs timm, transformers."""
    from reference_experiments.demos.model_table import write_page  # needs both backends
    from reference_experiments.demos.survey import survey_table

    write_page(page, {"survey": partial(survey_table, output, say=click.echo)}, "survey")


@click.command(name="residual")
@click.option("--images", type=click.Choice(IMAGE_SETS), default="digits", show_default=True, help="Set of images.")
@click.option(
    "--scale", type=click.Choice(["smoke", "full"]), default="full", show_default=True, help="Size of the experiment."
)
@seed_option
@folder_option("Folder of the results.")
@reports_errors
def residual_command(images: str, scale: str, seed: int, output: Path | None) -> None:
    """Predict the test accuracy of small residual CNNs from their weights (PyTorch); an interrupted run resumes."""
    from reference_experiments.demos.residual import residual  # needs torch

    residual(images, scale, seed, output or Path("results") / f"residual-{images}-{scale}-seed{seed}")

"""Command line of the experiments."""

from functools import partial
from pathlib import Path

import click

from reference_experiments.cli.datasets import convert_group, make_group, reporting, summarize_command, verify_command
from reference_experiments.cli.experiments import report_command, run_command
from reference_experiments.cli.inference import edit_command, predict_command
from reference_experiments.demos.quickstart import SCALES, quickstart
from reference_experiments.engines.base import BACKENDS
from reference_experiments.sources.images import IMAGE_SETS

NEXT = """Next:
  nox -s conformance                     check every layer on every backend
  nox -s quickstart -- --backend {other}{space}   the same experiment in {other}
  nox -s quickstart -- --seed 1          the same experiment with other networks
"""


@click.group()
def main() -> None:
    """Experiments of nfn-core."""


@main.command(name="quickstart")
@click.option("--backend", type=click.Choice(BACKENDS), default="torch", show_default=True)
@click.option("--scale", type=click.Choice(list(SCALES)), default="full", show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), help="Folder of the results.")
@reporting
def quickstart_command(backend: str, scale: str, seed: int, output: Path | None) -> None:
    """Predict the test accuracy of small image classifiers from their weights; an interrupted run goes on."""
    folder = output or Path("results") / f"quickstart-{backend}-{scale}-seed{seed}"
    quickstart(backend, scale, seed, folder)
    click.echo(f"Results and figures (predictions.png, permutation.png) are in {folder}.\n")
    other = "jax" if backend == "torch" else "torch"
    click.echo(NEXT.format(other=other, space=" " * (5 - len(other))))


@main.command(name="models")
@click.option(
    "--page", type=click.Path(exists=True, dir_okay=False, path_type=Path), default="docs/models.md", show_default=True
)
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), default="results/models", show_default=True)
@reporting
def models_command(page: Path, output: Path) -> None:
    """Derive, verify and count the weight spaces of real architectures, and write the tables into a page."""
    from reference_experiments.demos.model_table import model_table, operation_table, write_page  # needs both backends

    write_page(page, {"operations": operation_table, "models": partial(model_table, output)})


@main.command(name="residual")
@click.option("--images", type=click.Choice(IMAGE_SETS), default="digits", show_default=True)
@click.option("--scale", type=click.Choice(["smoke", "full"]), default="full", show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), help="Folder of the results.")
@reporting
def residual_command(images: str, scale: str, seed: int, output: Path | None) -> None:
    """Predict the test accuracy of small residual CNNs from their weights (PyTorch); an interrupted run goes on."""
    from reference_experiments.demos.residual import residual  # needs torch

    residual(images, scale, seed, output or Path("results") / f"residual-{images}-{scale}-seed{seed}")


main.add_command(run_command)
main.add_command(report_command)
main.add_command(edit_command)
main.add_command(predict_command)
main.add_command(make_group)
main.add_command(convert_group)
main.add_command(verify_command)
main.add_command(summarize_command)

if __name__ == "__main__":
    main()

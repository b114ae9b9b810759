"""Commands that run experiments and report on their results."""

import os
import subprocess
import sys
from pathlib import Path

import click

from reference_experiments.cli.datasets import reporting
from reference_experiments.engines.base import BACKENDS, engine
from reference_experiments.experiments.base import EXPERIMENTS, SCALES
from reference_experiments.files import ExperimentError, MissingDataError
from reference_experiments.methods.registry import METHODS
from reference_experiments.report import report
from reference_experiments.runner import dataset_of, run

__all__ = ["report_command", "run_command"]


NAMES = list(dict.fromkeys([*METHODS, *(method for e in EXPERIMENTS.values() for method in e.methods)]))


@click.command(name="run")
@click.argument("name", type=click.Choice(list(EXPERIMENTS)))
@click.option("--backend", type=click.Choice(BACKENDS), default="torch", show_default=True)
@click.option("--scale", type=click.Choice(SCALES), default="small", show_default=True)
@click.option("--dataset", "datasets", multiple=True, help="Only these of the experiment's datasets.")
@click.option(
    "--data",
    multiple=True,
    type=(str, click.Path(exists=True, file_okay=False, path_type=Path)),
    metavar="DATASET FOLDER",
    help="Take a dataset from a folder (of `make` or `convert`) instead of making it.",
)
@click.option("--method", "methods", multiple=True, type=click.Choice(NAMES), help="Only these methods.")
@click.option("--seeds", type=click.IntRange(min=1), help="Trainings of each method; by default the scale's.")
@click.option("--gpu", is_flag=True, help="Train on GPUs.")
@click.option(
    "--devices", type=click.IntRange(min=1), default=1, show_default=True, help="Devices to split batches over."
)
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), help="Folder of the results.")
@reporting
def run_command(
    name: str,
    backend: str,
    scale: str,
    datasets: tuple[str, ...],
    data: tuple[tuple[str, Path], ...],
    methods: tuple[str, ...],
    seeds: int | None,
    gpu: bool,
    devices: int,
    output: Path | None,
) -> None:
    """Run an experiment: table2, table3 (with 16 and 17), table4, table5, dilate and contrast (6 and 18), table19, fits.

    Interrupted, it goes on.
    """
    experiment, folders = EXPERIMENTS[name], dict(data)
    for title in (*datasets, *folders):
        if title not in experiment.makers:
            raise click.BadParameter(f"{title!r} is none of {name}'s datasets: {', '.join(experiment.makers)}.")
    chosen = {}
    for title in datasets or folders or experiment.makers:
        try:
            chosen[title] = dataset_of(name, title, scale, backend, folders.get(title))
        except MissingDataError as error:
            if datasets or folders:  # asked for by name
                raise
            click.echo(f"{title} is left out: {error}", err=True)
    if not chosen:
        raise ExperimentError(f"there are no networks for {name}: see above.")
    if backend == "torch" and devices > 1 and "RANK" not in os.environ:
        launch = (
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={devices}",
            "--local-ranks-filter=0",
        )
        command = [sys.executable, *launch, "-m", "reference_experiments", *sys.argv[1:]]
        sys.exit(subprocess.run(command, check=False).returncode)
    engine(backend).use(gpu, devices)
    folder = output or Path("results") / f"{name}-{scale}-{backend}"
    run(
        name,
        scale,
        backend,
        folder,
        chosen,
        methods or experiment.methods,
        range(seeds or experiment.scales[scale].seeds),
    )
    click.echo(f"Results are in {folder}; `report {folder}` makes a page of them.")


@click.command(name="report")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), default=Path("results"))
@reporting
def report_command(folder: Path) -> None:
    """Set the results under FOLDER beside the paper's, as report.md and report.html."""
    click.echo(f"{report(folder)} and report.html beside it.")

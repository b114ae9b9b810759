"""Commands that run experiments and report on their results."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click

from reference_experiments.cli.options import (
    backend_option,
    check_option,
    folder_option,
    reports_errors,
    scale_option,
)
from reference_experiments.datasets.format import WeightDataset
from reference_experiments.datasets.generation import SCALES, make
from reference_experiments.datasets.image_inrs import SirenMaker
from reference_experiments.engines.base import BACKENDS, engine
from reference_experiments.experiments import EXPERIMENTS
from reference_experiments.experiments.classification import TABLE3
from reference_experiments.files import ExperimentError, MissingDataError
from reference_experiments.methods.registry import METHODS
from reference_experiments.report import report
from reference_experiments.reproduce import reproduce
from reference_experiments.runner import dataset_of, run

__all__ = ["gpu_job_command", "report_command", "reproduce_command", "run_command"]


NAMES = list(dict.fromkeys([*METHODS, *(method for e in EXPERIMENTS.values() for method in e.methods)]))


@click.command(name="run")
@click.argument("name", type=click.Choice(list(EXPERIMENTS)))
@backend_option
@scale_option
@click.option("--only", "datasets", multiple=True, metavar="DATASET", help="Only these of the experiment's datasets.")
@click.option(
    "--dataset-dir",
    "folders",
    multiple=True,
    type=(str, click.Path(exists=True, file_okay=False, path_type=Path)),
    metavar="DATASET FOLDER",
    help="Take a dataset from a folder of `make` or `convert`.",
)
@click.option("--method", "methods", multiple=True, type=click.Choice(NAMES), help="Only these methods.")
@click.option("--seeds", type=click.IntRange(min=1), help="Trainings of each method; by default the scale's.")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Time for the steps of one training, into which their number is made to fit; by default the scale's number.",
)
@click.option("--gpu", is_flag=True, help="Make networks and train on GPUs.")
@click.option(
    "--devices", type=click.IntRange(min=1), default=1, show_default=True, help="Devices to split batches over."
)
@check_option
@folder_option("Folder of the results.")
@reports_errors
def run_command(
    name: str,
    backend: str,
    scale: str,
    datasets: tuple[str, ...],
    folders: tuple[tuple[str, Path], ...],
    methods: tuple[str, ...],
    seeds: int | None,
    minutes: float | None,
    gpu: bool,
    devices: int,
    check: bool,
    output: Path | None,
) -> None:
    """Run an experiment: the tables of the paper (3 with 16 and 17, 6 with 18), or a study of how SIRENs are fitted.

    An interrupted run resumes where it stopped.
    """
    experiment, given = EXPERIMENTS[name], dict(folders)
    for title in (*datasets, *given):
        if title not in experiment.makers:
            raise click.BadParameter(f"{title!r} is none of {name}'s datasets: {', '.join(experiment.makers)}.")
    chosen = {}
    for title in datasets or given or experiment.makers:
        try:
            chosen[title] = dataset_of(experiment, title, scale, backend, given.get(title), check, gpu)
        except MissingDataError as error:
            if datasets or given:  # asked for by name
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
        minutes,
    )
    click.echo(f"Results are in {folder}; `report {folder}` makes a page of them.")


TITLES = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "cifar10": "CIFAR-10", "digits": "MNIST"}
"""What table 3 calls sets of images; scikit-learn's digits take MNIST's place in a rehearsal."""


@click.command(name="gpu-job")
@click.option("--images", type=click.Choice(list(TITLES)), default="mnist", show_default=True, help="Set of images.")
@click.option("--backend", type=click.Choice(BACKENDS), default="jax", show_default=True, help="Array library.")
@click.option(
    "--scale",
    type=click.Choice(SCALES),
    default="paper",
    show_default=True,
    help="Size of the experiment.",
)
@click.option(
    "--method",
    "methods",
    multiple=True,
    type=click.Choice(TABLE3.methods),
    default=["NFN_NP"],
    show_default=True,
    help="Methods to train, with seed 0.",
)
@click.option(
    "--copies", type=click.IntRange(min=1), default=3, show_default=True, help="SIRENs of each training image."
)
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), default=7, show_default=True, help="See `run`.")
@click.option("--gpu/--cpu", default=True, show_default=True, help="Where it runs.")
@folder_option("Folder of networks and results.")
@reports_errors
def gpu_job_command(
    images: str,
    backend: str,
    scale: str,
    methods: tuple[str, ...],
    copies: int,
    minutes: float,
    gpu: bool,
    output: Path | None,
) -> None:
    """Train table 3's networks at the paper's width, in a given time on one GPU.

    SIRENs have the fit of the scale `small`. Only the files of the images must be at hand. An interrupted job resumes where it
    stopped. What must come back are the .json files beside the trainings' folders.
    """
    usual = SirenMaker.at_scale(images, scale, 0, backend, copies=copies, fit=None if scale == "smoke" else "small")
    maker = usual if scale == "smoke" else replace(usual, shard=1000)
    folder = output or Path("results") / f"gpu-job-{images}-{scale}-{backend}"
    make(maker, folder / "networks", gpu=gpu)
    engine(backend).use(gpu)
    dataset = WeightDataset(folder / "networks")
    run("table3", scale, backend, folder, {TITLES[images]: dataset}, methods, range(1), minutes)
    click.echo(f"Results are in {folder}.")


@click.command(name="report")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), default=Path("results"))
@reports_errors
def report_command(folder: Path) -> None:
    """Compare the results under FOLDER with the paper's, in report.md and report.html."""
    click.echo(f"{report(folder)} and report.html are written.")


@click.command(name="reproduce")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), default=Path("results"))
@reports_errors
def reproduce_command(folder: Path) -> None:
    """Say in reproduce.md with which commands the results under FOLDER are made, and what that takes."""
    click.echo(f"{reproduce(folder)} is written.")

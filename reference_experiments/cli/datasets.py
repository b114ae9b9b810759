"""Commands that make, check and convert datasets of networks."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from reference_experiments.cli.options import maker_command, reports_errors
from reference_experiments.datasets.conversion import (
    read_dwsnets,
    read_siren_folders,
    read_small_cnn_zoo,
    write_small_cnn_zoo,
)
from reference_experiments.datasets.format import Networks, WeightDataset, finish, shard_path, write_shard
from reference_experiments.datasets.generation import SCALES, Maker, dataset_dir, make
from reference_experiments.datasets.image_inrs import SirenMaker, contact_sheet
from reference_experiments.datasets.lottery_tickets import TICKET_CNN_PRESETS, TICKET_MLP_PRESETS, TicketMaker
from reference_experiments.datasets.model_zoos import ZooMaker
from reference_experiments.datasets.shape_inrs import ShapeMaker, slices
from reference_experiments.datasets.summary import accuracy_table, draw_accuracies, summarize
from reference_experiments.files import claimed, digest, write
from reference_experiments.networks.sirens import STARTS
from reference_experiments.sources.images import IMAGE_SETS

__all__ = ["convert_group", "make_group", "summarize_command", "verify_command"]


def of_images(default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Option of a maker that takes images."""
    return click.option(
        "--images", type=click.Choice(IMAGE_SETS), default=default, show_default=True, help="Set of images."
    )


@click.group(name="make")
def make_group() -> None:
    """Make a dataset of networks; run an interrupted command again to resume it."""


@make_group.command(name="image-inrs")
@of_images("mnist")
@click.option(
    "--start",
    type=click.Choice(STARTS),
    default=STARTS[0],
    show_default=True,
    help="Initial weights: the paper's; those of DWSNets' datasets, with their fit (up to 1,000 steps, or 40 dB); or the "
    "same for all networks.",
)
@click.option("--copies", type=click.IntRange(min=1), help="Networks for each training image; by default the scale's.")
@click.option("--fit", type=click.Choice(SCALES), help="Scale whose fit is taken; by default that of --scale.")
@maker_command
def image_inrs(
    images: str,
    start: str,
    copies: int | None,
    fit: str | None,
    backend: str,
    scale: str,
    seed: int,
    **options: Any,
) -> None:
    """SIRENs fitted to images (section D.3)."""
    dataset = _make(SirenMaker.at_scale(images, scale, seed, backend, start, copies, fit), **options)
    contact_sheet(dataset.folder / "contact-sheet.png", dataset)


@make_group.command(name="shape-inrs")
@click.option(
    "--shapes",
    default="modelnet10",
    show_default=True,
    help="modelnet10; primitives (boxes, cones, tori and so on, drawn from the seed, for trying things out); or a folder "
    "of classes of point clouds (.npy) or meshes (.off, .obj), or of ScanNet-10's .h5 files.",
)
@maker_command
def shape_inrs(
    shapes: str,
    backend: str,
    scale: str,
    seed: int,
    **options: Any,
) -> None:
    """SIRENs fitted to unsigned distances of shapes (section D.3)."""
    dataset = _make(ShapeMaker.at_scale(shapes, scale, seed, backend), **options)
    slices(dataset.folder / "slices.png", dataset)


@make_group.command(name="cnn-zoo")
@of_images("cifar10")
@maker_command
def cnn_zoo(
    images: str,
    backend: str,
    scale: str,
    seed: int,
    **options: Any,
) -> None:
    """CNNs with drawn hyperparameters (table 2), also in the published layout of the Small CNN Zoo."""
    dataset = _make(ZooMaker.at_scale(images, "cnn", scale, seed, backend), **options)
    _report(dataset)
    about = dataset.about
    names = {"initializer": "config.w_init", "optimizer": "config.optimizer", "activation": "config.activation"}
    numbers = {
        "learning_rate": "config.learning_rate",
        "weight_decay": "config.l2reg",
        "deviation": "config.init_std",
        "dropout": "config.dropout",
        "fraction": "config.train_fraction",
        "accuracy": "test_accuracy",
        "loss": "test_loss",
        "train accuracy": "train_accuracy",
        "train loss": "train_loss",
    }
    rows = [
        {new: about[f"{old}s"][int(dataset.columns[old][k])] for old, new in names.items()}
        | {new: float(dataset.columns[old][k]) for old, new in numbers.items()}
        | {
            "config.dataset": images,
            "modeldir": int(dataset.columns["run"][k]),
            "step": int(dataset.columns["epoch"][k]),
        }
        for k in range(len(dataset))
    ]
    write_small_cnn_zoo(dataset.folder / "small-cnn-zoo", dataset.shards, rows)


@make_group.command(name="mlp-zoo")
@click.option("--layers", type=click.Choice(["3", "5"]), default="3", show_default=True, help="Number of layers.")
@of_images("mnist")
@maker_command
def mlp_zoo(
    layers: str,
    images: str,
    backend: str,
    scale: str,
    seed: int,
    **options: Any,
) -> None:
    """MLPs of 128 units with drawn hyperparameters (section E.5)."""
    _report(_make(ZooMaker.at_scale(images, f"mlp{layers}", scale, seed, backend), **options))


@make_group.command(name="tickets")
@click.option("--network", type=click.Choice(["mlp", "cnn"]), default="mlp", show_default=True, help="Kind of network.")
@of_images("mnist")
@maker_command
def tickets(
    network: str,
    images: str,
    backend: str,
    scale: str,
    seed: int,
    **options: Any,
) -> None:
    """Initial weights and masks of winning tickets (section D.2); the paper's CNNs are of cifar10."""
    scales = TICKET_MLP_PRESETS if network == "mlp" else TICKET_CNN_PRESETS
    dataset = _make(TicketMaker(images, f"ticket-{network}", scales[scale], seed, backend), **options)
    for name in ("dense accuracy", "ticket accuracy", "random accuracy"):
        click.echo(
            f"{name}: {dataset.columns[name].mean():.4f} ± {dataset.columns[name].std():.4f} over {len(dataset)}"
        )


@click.command(name="verify")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@reports_errors
def verify_command(folder: Path) -> None:
    """Compare a dataset's shards with their checksums, and look for networks that are there twice."""
    dataset = WeightDataset(folder)
    dataset.verify()
    click.echo(f"{folder}: {len(dataset)} networks in {len(dataset.shards)} whole shards.")


@click.command(name="summarize")
@click.argument("folders", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="Where the page goes.")
@reports_errors
def summarize_command(folders: tuple[Path, ...], output: Path) -> None:
    """Make a page of datasets: headers with checksums, tables and figures, without the networks."""
    click.echo(summarize(folders, output))


@click.group(name="convert")
def convert_group() -> None:
    """Turn published datasets into ours."""


SOURCE = click.argument("source", type=click.Path(exists=True, path_type=Path))
OUTPUT = click.argument("output", type=click.Path(file_okay=False, path_type=Path))


@convert_group.command(name="siren-folders")
@SOURCE
@OUTPUT
@click.option("--prefix", default="randinit_test", show_default=True, help="Prefix of the class folders.")
@click.option("--split-points", nargs=2, type=int, default=(45000, 50000), show_default=True)
@click.option(
    "--augmented", type=click.IntRange(min=0), default=0, show_default=True, help="Further sets of training networks."
)
@reports_errors
def convert_siren_folders(
    source: Path, output: Path, prefix: str, split_points: tuple[int, int], augmented: int
) -> None:
    """Folders of state dicts, as the paper publishes its SIRENs."""
    _convert(read_siren_folders(source, prefix, split_points, augmented), output)


@convert_group.command(name="small-cnn-zoo")
@SOURCE
@OUTPUT
@click.option("--order", type=click.Path(exists=True, path_type=Path), help="The paper's split file.")
@click.option("--step", type=int, default=86, show_default=True, help="Checkpoint to keep.")
@reports_errors
def convert_small_cnn_zoo(source: Path, output: Path, order: Path | None, step: int) -> None:
    """The three files of the Small CNN Zoo."""
    _convert(read_small_cnn_zoo(source, order, step), output)


@convert_group.command(name="dwsnets")
@SOURCE
@OUTPUT
@reports_errors
def convert_dwsnets(source: Path, output: Path) -> None:
    """A file of splits of DWSNets' INRs, in the folder of their state dicts."""
    _convert(read_dwsnets(source), output)


def _make(maker: Maker, output: Path | None, devices: int | None, gpu: bool, scheduler: str | None) -> WeightDataset:
    """Make a dataset and print what it is."""
    folder = output or dataset_dir(maker)
    make(maker, folder, devices, gpu, scheduler)
    dataset = WeightDataset(folder)
    found = dataset.about["quality"][maker.quality]
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
    click.echo(f"{folder}: {len(dataset)} networks; {maker.quality}: {numbers}.")
    return dataset


def _report(dataset: WeightDataset) -> None:
    """Write and print the distribution of accuracies, and what they depend on."""
    table = accuracy_table(dataset)
    write(dataset.folder / "quality.md", lambda path: path.write_text(table))
    draw_accuracies(dataset.folder / "accuracies.png", dataset)
    click.echo(table)


def _convert(networks: Networks, folder: Path, size: int = 2000) -> None:
    """Write networks as a dataset, and say what the reader left out."""
    contents = hashlib.sha256()
    for arrays in (networks.weights, networks.columns):
        for name, x in arrays.items():
            contents.update(f"{name} {x.dtype} {x.shape}".encode() + np.ascontiguousarray(x).data)
    settings = {"converted": networks.about, "networks": len(networks), "contents": contents.hexdigest()}
    with claimed(folder, settings):
        (folder / "dataset.json").unlink(missing_ok=True)
        starts = range(0, len(networks), size)
        for k, start in enumerate(starts):
            part = slice(start, start + size)
            weights, columns = (
                {n: x[part] for n, x in arrays.items()} for arrays in (networks.weights, networks.columns)
            )
            shard = Networks(networks.space, weights, columns, networks.about)
            write_shard(shard_path(folder, k), shard, k, digest(settings))
        finish(folder, len(starts), digest(settings), {})
    counts = np.bincount(networks.columns["split"], minlength=3)
    click.echo(f"{folder}: {counts[0]} training, {counts[1]} validation and {counts[2]} test networks.")
    for what in networks.about.get("left_out", []):
        click.echo(f"Left out: {what}.")

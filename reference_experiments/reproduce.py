"""What it takes to make the results: the command, the measured time, and the operations at the paper's scale."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nfn_core import MissingDependencyError, WeightSpace
from reference_experiments.datasets.format import space_from_json
from reference_experiments.experiments import EXPERIMENTS
from reference_experiments.experiments.base import Experiment
from reference_experiments.files import write
from reference_experiments.methods.ticket_vae import TicketVAE
from reference_experiments.report import read_results

__all__ = ["operations", "reproduce"]


RATE = 10e12
"""Operations a second that times on a GPU assume: of the order of the 15e12 that `gpu-job` had on a shared H200."""


def reproduce(folder: Path) -> Path:
    """Write ``reproduce.md`` for all results under a folder.

    Parameters
    ----------
    folder : pathlib.Path
        As `reference_experiments.report.report` takes it.

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    ExperimentError
        If there are no results, or a file is damaged or no result.
    MissingDependencyError
        If PyTorch, which counts the operations, is not installed.
    """
    page = [
        "# How to make these results\n",
        "Each row is one command. It makes the networks first, if they are not there. Minutes are of one training, measured "
        "while the results were made, often beside other work on the machine. Operations are multiplications and "
        "additions of forward and backward pass in all steps of one training, counted by PyTorch. Hours on a GPU are these "
        f"operations at {RATE:.0e} a second, of the order that an H200 had while four trainings shared it. Results of the scale "
        "`paper` with fewer steps are made by the command `gpu-job`.\n",
    ]
    for (name, scale, backend), datasets in read_results(folder).items():
        page.append(f"## `run {name} --scale {scale} --backend {backend}`\n")
        machines = {r["environment"]["machine"] for rows in datasets.values() for m in rows.values() for r in m}
        page.append(f"{EXPERIMENTS[name].title}. Made on {'; '.join(sorted(machines))}.\n")
        page.append(
            "| options | trainings | minutes of one | steps x batch | operations | operations at `paper` | hours on a GPU "
            "at `paper` |\n|---|---|---|---|---|---|---|"
        )
        for dataset, rows in datasets.items():
            page += [_row(name, dataset, method, results) for method, results in rows.items()]
        page.append("")
    write(folder / "reproduce.md", lambda path: path.write_text("\n".join(page)))
    return folder / "reproduce.md"


def _row(name: str, dataset: str, method: str, results: list[dict[str, Any]]) -> str:
    """Row of one method."""
    experiment, first = EXPERIMENTS[name], results[0]
    minutes = [r["seconds"] / 60 for r in results]
    recipe = first["recipe"]
    space = (
        space_from_json(first["data"]["space"]) if "space" in first["data"] else None
    )  # earlier versions left it out
    paper = replace(experiment.scales["paper"].recipe, **experiment.variant(method).recipe)
    cells = []
    for scale, steps in ((first["scale"], recipe["steps"] * recipe["batch"]), ("paper", paper.steps * paper.batch)):
        each = None if space is None else operations(experiment, dataset, method, scale, space)
        cells.append(None if each is None else each * steps)
    shown = ["" if count is None else f"{count:.1e}" for count in cells]
    hours = "" if cells[1] is None else f"{cells[1] / RATE / 3600:.2g}"
    span = f"{min(minutes):.1f}" if len(minutes) == 1 else f"{min(minutes):.1f} to {max(minutes):.1f}"
    options = f'`--only "{dataset}" --method "{method}"`'
    return f"| {options} | {len(results)} | {span} | {recipe['steps']:,} x {recipe['batch']} | {shown[0]} | {shown[1]} | {hours} |"


def operations(experiment: Experiment, dataset: str, method: str, scale: str, space: WeightSpace) -> float | None:
    """Operations of forward and backward pass for one network.

    Parameters
    ----------
    experiment : Experiment
        The experiment.
    dataset, method, scale : str
        One of its datasets, methods and presets.
    space : WeightSpace
        Weight space of the networks.

    Returns
    -------
    float, optional
        Multiplications and additions; None for methods that do not take the weights themselves.
    """
    try:
        import nfn_torch
        import torch
        from torch.utils.flop_counter import FlopCounterMode
    except ImportError as error:
        raise MissingDependencyError(
            f"operations are counted by PyTorch ({error}): install nfn-core[torch]."
        ) from error
    rng, count, variant = np.random.default_rng(0), 2, experiment.variant(method)

    def drawn(channels: int) -> dict[str, np.ndarray]:
        shapes = {t.name: (count, *t.shape, channels) for t in space.tensors}
        return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}

    config = replace(experiment.config(scale, dataset), **variant.config)
    built = experiment.task.build(variant.method, space, drawn(1), config)
    if built.summary is not None or built.sees != "weights" or built.autoencoder is not None:
        return None
    layer = built.layer
    inputs = drawn(2 + layer.latent if isinstance(layer, TicketVAE) else 1)  # a mask and noise too
    features: Any = nfn_torch.WeightSpaceFeatures({name: torch.from_numpy(x) for name, x in inputs.items()})
    with FlopCounterMode(display=False) as counter:
        found = nfn_torch.NFModule(layer, 0)(features)
        sum(x.sum() for x in (found.values() if isinstance(found, Mapping) else [found])).backward()
    return float(counter.get_total_flops()) / count

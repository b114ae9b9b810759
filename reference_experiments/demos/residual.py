"""Demonstration: predict the test accuracy of small residual CNNs, trained here on real images, from their weights.

The networks are plain `torch.nn.Module`s whose weight space is derived from their computation; nothing about residual
networks is written by hand. They are trained many at once, each with its own learning rate, weight decay, initial
scale, share of the data and length, as in the quickstart.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import click
import nfn_torch
import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from nfn_core import __version__
from reference_experiments.demos.quickstart import DemoPreset, Zoo, compare, split_zoo, tabulate, train_shards
from reference_experiments.engines.base import Recipe, engine
from reference_experiments.files import claimed, write
from reference_experiments.methods.base import MethodConfig
from reference_experiments.sources.images import load_images

__all__ = ["PRESETS", "ResidualCNN", "residual"]

BATCH, MOMENTUM = 32, 0.9
COMPARED = ("NFN_NP", "STATNN")


class ResidualCNN(nn.Module):
    """Two residual blocks of one width between a convolution of stride 2 and a linear layer on the pooled channels."""

    def __init__(self, inputs: int, width: int = 8, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(inputs, width, 3, 2, 1)
        self.first = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for _ in range(2)])
        self.second = nn.ModuleList([nn.Conv2d(width, width, 3, padding=1) for _ in range(2)])
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Classify images (batch, inputs, height, width)."""
        x = self.stem(x)
        for inner, outer in zip(self.first, self.second, strict=True):
            x = x + outer(torch.relu(inner(torch.relu(x))))
        return cast("Tensor", self.head(torch.relu(x).mean((2, 3))))


PRESETS = {
    "smoke": DemoPreset(
        24, 12, 20, MethodConfig((2, 2, 2), (1,), (8, 8), mlp=8), Recipe("binary", 4, 8, 1e-3, 1e-2, eval_every=2)
    ),
    "full": DemoPreset(
        800,
        100,
        600,
        MethodConfig((16,) * 3, (1,), (128, 128), mlp=128),
        Recipe("binary", 450, 32, 1e-3, 1e-2, eval_every=15),
    ),
}


def residual(images: str, scale: str, seed: int, folder: Path) -> list[dict[str, Any]]:
    """Run all of it, or what an interrupted run left undone.

    Parameters
    ----------
    images : str
        One of `reference_experiments.sources.images.IMAGE_SETS`.
    scale : str
        One of `PRESETS`.
    seed : int
        Seed of everything.
    folder : Path
        Where files are written.

    Returns
    -------
    list of dict
        For each method what `reference_experiments.demos.quickstart.evaluate` measures.

    Raises
    ------
    ExperimentError
        If the folder holds another run, or the images are not to be had.
    """
    chosen = PRESETS[scale]
    settings = {"images": images, "scale": scale, "seed": seed, "version": __version__, **asdict(chosen)}
    with claimed(folder, settings):
        zoo = make_zoo(images, chosen, seed, folder)
        results = compare(engine("torch"), zoo, COMPARED, chosen, seed, folder)
        table = tabulate(results, [zoo])
        write(folder / "table.md", lambda path: path.write_text(table))
    click.echo(table)
    return results


def make_zoo(images: str, scale: DemoPreset, seed: int, folder: Path) -> Zoo:
    """Train networks shard by shard, or read the shards that are there; networks that diverged are left out."""
    data = load_images(images)
    train, test = (
        torch.from_numpy(x).permute(0, 3, 1, 2).float() / x.max() for x in (data.train_images, data.test_images[:1000])
    )
    labels = torch.from_numpy(data.train_labels)
    model = ResidualCNN(train.shape[1])
    space = nfn_torch.weight_space(model, train[:2])

    def train_shard(start: int) -> dict[str, np.ndarray]:
        weights = _train(model, train, labels, scale, seed + start)
        with torch.no_grad():
            scores = vmap(lambda w: functional_call(model, w, (test,)))(weights)
        accuracy = (scores.argmax(-1) == torch.from_numpy(data.test_labels[:1000])).float().mean(1)
        return {name: x.numpy() for name, x in (weights | {"accuracy": accuracy}).items()}

    def features(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        networks = zip(*(found[view.name] for view in space.views), strict=True)
        return space.stack([{v.name: x for v, x in zip(space.views, one, strict=True)} for one in networks])

    shards = train_shards(folder / "zoo", "", scale, train_shard, "residual networks")
    return split_zoo(f"residual CNN on {images}", space.space, shards, features, seed)


def _train(model: nn.Module, images: Tensor, labels: Tensor, scale: DemoPreset, seed: int) -> dict[str, Tensor]:
    """Train a shard of networks side by side by gradient descent with momentum; weights are (networks, *shape)."""
    random = torch.Generator().manual_seed(seed)
    count = scale.shard

    def log_uniform(low: float, high: float) -> Tensor:
        return low * (high / low) ** torch.rand(count, generator=random)

    rate, decay, size = log_uniform(3e-3, 1e-1), log_uniform(1e-5, 3e-2), log_uniform(0.3, 2.0)
    share, steps = log_uniform(0.03, 1.0), log_uniform(scale.longest / 20, scale.longest).round()
    weights = {
        name: torch.randn(count, *p.shape, generator=random) * _wide(size, p) * (2 / p[0].numel()) ** 0.5
        if p.ndim > 1
        else torch.zeros(count, *p.shape)
        for name, p in model.named_parameters()
    }
    owned = torch.stack([torch.randperm(len(labels), generator=random) for _ in range(count)])

    def loss(w: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(functional_call(model, dict(w), (x,)), y)

    grads, momentum = vmap(grad(loss)), {name: torch.zeros_like(w) for name, w in weights.items()}
    for step in range(int(steps.max())):
        places = (torch.rand(count, BATCH, generator=random) * (share * len(labels)).ceil()[:, None]).long()
        chosen = owned.gather(1, places)
        found = grads(weights, images[chosen], labels[chosen])
        moving = (rate * (step < steps)).float()
        for name, w in weights.items():
            momentum[name] = MOMENTUM * momentum[name] + found[name] + _wide(decay, w[0]) * w
            weights[name] = w - _wide(moving, w[0]) * momentum[name]
    return weights


def _wide(column: Tensor, p: Tensor) -> Tensor:
    """One number a network, to be broadcast over a tensor of one."""
    return column.reshape(-1, *[1] * p.ndim)

"""A dataset of networks as PyTorch loads it, and its classifiers as modules."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from nfn_core import WeightSpace
from reference_experiments.datasets.format import WeightDataset

__all__ = ["Pixels", "TorchNetworks", "classifier"]


class TorchNetworks(Dataset[tuple[dict[str, torch.Tensor], torch.Tensor]]):
    """Networks with a target each, for `torch.utils.data.DataLoader`; a network's tensors are views of the file.

    Parameters
    ----------
    dataset : WeightDataset
        The dataset.
    target : str
        Column of the targets, ``"label"`` or ``"accuracy"`` for instance.
    indices : sequence of int or numpy.ndarray, optional
        Networks to take, of a split for instance, as `WeightDataset.positions` takes them; by default all.
    """

    def __init__(self, dataset: WeightDataset, target: str, indices: Sequence[int] | np.ndarray | None = None) -> None:
        self.dataset, self.targets = dataset, torch.from_numpy(dataset.column(target))
        self.indices = np.arange(len(dataset)) if indices is None else dataset.positions(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Features of one network, each of shape (*axes, 1), and its target."""
        number = int(self.indices[index])
        found = self.dataset.network(number)
        return {name: torch.from_numpy(x) for name, x in found.items()}, self.targets[number]


class Pixels(nn.Module):
    """Images (batch, channels, height, width) in one row each, (batch, height * width * channels)."""

    def forward(self, images: Tensor) -> Tensor:
        """Flatten them."""
        return images.movedim(1, -1).flatten(1)


def classifier(
    space: WeightSpace, weights: Mapping[str, np.ndarray], activation: type[nn.Module] = nn.ReLU
) -> nn.Module:
    """A network of a zoo, or one pruned by a ticket, as an ordinary module; what `zoo.classify` is in any array library.

    Parameters
    ----------
    space : WeightSpace
        The weight space of a dataset of classifiers.
    weights : mapping of str to numpy.ndarray
        One network's tensors, each of shape (*axes) or, as `WeightDataset.network` has them, (*axes, 1).
    activation : type of torch.nn.Module
        Between the layers.

    Returns
    -------
    torch.nn.Module
        From images (batch, channels, height, width) to class scores (batch, classes).
    """
    layers: list[nn.Module] = []
    before = 0  # axes of the weight before
    for i in range(1, len(space.tensors) // 2 + 1):
        rows, columns, *filters = space.by_name[f"W{i}"].shape
        layer: nn.Conv2d | nn.Linear
        if filters:
            layer = nn.Conv2d(columns, rows, 3, stride=2, padding=1)
        else:
            layers += [Pixels()] if i == 1 else [nn.AdaptiveAvgPool2d(1), nn.Flatten()] if before == 4 else []
            layer = nn.Linear(columns, rows)
        before = layer.weight.ndim
        own = {"weight": torch.tensor(weights[f"W{i}"]), "bias": torch.tensor(weights[f"v{i}"])}
        layer.load_state_dict({name: x.reshape(layer.get_parameter(name).shape) for name, x in own.items()})
        layers += [layer, activation()]
    return nn.Sequential(*layers[:-1])

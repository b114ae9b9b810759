"""A dataset of networks as PyTorch loads it."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from reference_experiments.datasets import WeightDataset

__all__ = ["TorchNetworks"]


class TorchNetworks(Dataset[tuple[dict[str, torch.Tensor], torch.Tensor]]):
    """Networks with a target each, for `torch.utils.data.DataLoader`; a network's tensors are views of the file.

    Parameters
    ----------
    dataset : WeightDataset
        The dataset.
    target : str
        Column of the targets, ``"label"`` or ``"accuracy"`` for instance.
    indices : sequence of int, optional
        Networks to take, of a split for instance; by default all.
    """

    def __init__(self, dataset: WeightDataset, target: str, indices: Sequence[int] | np.ndarray | None = None) -> None:
        self.dataset, self.targets = dataset, torch.from_numpy(dataset.columns[target])
        self.indices = np.arange(len(dataset)) if indices is None else np.asarray(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Features of one network, each of shape (*axes, 1), and its target."""
        number = int(self.indices[index])
        found = self.dataset.network(number)
        return {name: torch.from_numpy(x) for name, x in found.items()}, self.targets[number]

"""State dicts in and out, and SIRENs as ordinary PyTorch modules."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np

from nfn_core import MissingDependencyError, WeightSpace
from reference_experiments.files import ExperimentError, write
from reference_experiments.networks.sirens import render

try:
    import torch
except ImportError as error:
    raise MissingDependencyError(f"state dicts need PyTorch ({error}): install nfn-core[torch].") from error

__all__ = ["Siren", "read_state_dict", "write_state_dict"]


class Siren(torch.nn.Module):
    """A SIREN, whose state dict holds the tensors of its weight space under their names.

    Parameters
    ----------
    space : WeightSpace
        Weight space of an MLP.
    """

    def __init__(self, space: WeightSpace) -> None:
        super().__init__()
        for t in space.tensors:
            self.register_parameter(t.name, torch.nn.Parameter(torch.zeros(t.shape)))

    def forward(self, points: torch.Tensor) -> torch.Tensor:
        """Map coordinates (points, inputs) to values (points, channels)."""
        values: torch.Tensor = render(dict(self.named_parameters()), points.T, torch.sin).T
        return values


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Read a state dict; nothing but tensors is ever unpickled.

    Raises
    ------
    ExperimentError
        If the file is missing, damaged or no state dict.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        return {str(name): x.numpy(force=True) for name, x in found.items()}
    except Exception as error:  # torch.load raises whatever pickle and zip find
        raise ExperimentError(f"{path} is missing, damaged, or no state dict ({error!r}): get it again.") from error


def write_state_dict(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a state dict, which `torch.load` reads with ``weights_only=True``."""
    buffer = BytesIO()
    torch.save({name: torch.tensor(x) for name, x in tensors.items()}, buffer)
    write(path, lambda p: p.write_bytes(buffer.getvalue()))

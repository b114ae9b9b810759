"""State dicts in and out, and SIRENs as ordinary PyTorch modules."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from zipfile import ZIP_STORED, ZipFile, is_zipfile

import numpy as np

from nfn_core import MissingDependencyError, WeightSpace
from reference_experiments.files import reading, write
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
    """Read a state dict, bfloat16 as float32; nothing but tensors is ever unpickled.

    Raises
    ------
    ExperimentError
        If the file is missing, damaged or no state dict, or a tensor claims more than the file holds.
    """
    found: dict[str, np.ndarray] = {}
    with reading(path, "state dict"):
        if is_zipfile(path):
            with ZipFile(path) as file:
                if any(entry.compress_type != ZIP_STORED for entry in file.infolist()):
                    raise ValueError("it is compressed, as torch.save never does")
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except UnpicklingError as error:  # torch's message advises to unpickle it all the same
            raise ValueError("it holds more than tensors") from error
        for name, x in state.items():
            if x.layout == torch.strided and x.numel() * x.element_size() > x.untyped_storage().nbytes():
                raise ValueError(f"tensor {name!r} of shape {tuple(x.shape)} repeats the few numbers it has")
            if x.dtype.is_floating_point and x.element_size() == 1:
                raise TypeError(
                    f"tensor {name!r} is of dtype {x.dtype}, which NumPy has no type for: save it as float32"
                )
            found[str(name)] = (x.float() if x.dtype == torch.bfloat16 else x).numpy(force=True)
    return found


def write_state_dict(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a state dict, which `torch.load` reads with ``weights_only=True``."""
    buffer = BytesIO()
    torch.save({name: torch.tensor(x) for name, x in tensors.items()}, buffer)
    write(path, lambda p: p.write_bytes(buffer.getvalue()))

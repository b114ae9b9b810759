"""nfn-core in PyTorch: descriptions from `nfn_core` become `torch.nn.Module`s. No mathematics lives here.

`NFModule` materialises the parameters of any layer or network description; `WeightSpaceFeatures` is a typed batch of
features; `save` and `load` exchange parameters with every other backend.
"""

from pathlib import Path

from nfn_core.errors import MissingDependencyError

try:
    import torch
except ImportError as error:
    raise MissingDependencyError(f"nfn_torch needs PyTorch ({error}): install nfn-core[torch].") from error

from nfn_core import Layer, load_parameters, save_parameters
from nfn_torch.features import WeightSpaceFeatures
from nfn_torch.models import stack, stream, unstack, weight_space
from nfn_torch.modules import NFModule

__all__ = [
    "NFModule",
    "WeightSpaceFeatures",
    "load",
    "save",
    "stack",
    "stream",
    "unstack",
    "weight_space",
]


def save(path: str | Path, module: NFModule) -> None:
    """Write a module's parameters to a safetensors file.

    Parameters
    ----------
    path : str or pathlib.Path
        File to write.
    module : NFModule
        The module.

    Raises
    ------
    MissingDependencyError
        If safetensors is not installed.
    """
    params = {name: p.detach().contiguous() for name, p in module.named_arrays().items()}
    save_parameters(path, module.layer, params, "torch")


def load(
    path: str | Path,
    layer: Layer | None = None,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> NFModule:
    """Read a module from a file written by any backend.

    Parameters
    ----------
    path : str or pathlib.Path
        File to read.
    layer : Layer, optional
        The description that the file must belong to; by default the one in the file.
    dtype : torch.dtype, optional
        Dtype of the parameters, by default the one they were saved with.
    device : torch.device or str, optional
        Device of the parameters, by default the CPU.

    Returns
    -------
    NFModule
        The module.

    Raises
    ------
    ParameterError
        If the file is damaged or belongs to another layer.
    """
    found, params = load_parameters(path, layer, "torch")
    kept = next((p.dtype for p in params.values()), None)
    module = NFModule(found, dtype=dtype or kept, device=device)
    module.load_state_dict(params)
    return module

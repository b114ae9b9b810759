"""nfn-core in PyTorch: descriptions from `nfn_core` become `torch.nn.Module`s. No mathematics lives here.

`NFModule` materialises the parameters of any layer or network description; `WeightSpaceFeatures` is a typed batch of
features; `save` and `load` exchange parameters with every other backend.
"""

from pathlib import Path

from nfn_core.errors import MissingDependencyError

try:
    import torch  # noqa: F401
except ImportError as error:
    raise MissingDependencyError(f"nfn_torch needs PyTorch ({error}): install nfn-core[torch].") from error

from nfn_core import load_parameters, save_parameters
from nfn_torch.features import WeightSpaceFeatures
from nfn_torch.models import stack, stream, unstack, unstack_modules, weight_space
from nfn_torch.modules import NFModule

__all__ = [
    "NFModule",
    "WeightSpaceFeatures",
    "load",
    "unstack_modules",
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


def load(path: str | Path, module: NFModule) -> None:
    """Read parameters from a file written by any backend into a module, casting to its dtype and device.

    Parameters
    ----------
    path : str or pathlib.Path
        File to read.
    module : NFModule
        The module to fill, made from the description the file was saved with.

    Raises
    ------
    ParameterError
        If the file is damaged or belongs to another layer.
    """
    module.load_state_dict(load_parameters(path, module.layer, "torch"))

"""nfn-core in PyTorch: descriptions from `nfn_core` become `torch.nn.Module`s. No mathematics lives here.

`NFModule` materializes the parameters of any layer or network description; `WeightSpaceFeatures` is a typed batch of
features; `save` and `load` exchange parameters with every other backend.
"""

from nfn_core.errors import MissingDependencyError

try:
    import torch  # noqa: F401
except ImportError as error:
    raise MissingDependencyError(f"nfn_torch needs PyTorch ({error}): install nfn-core[torch].") from error

from nfn_torch.features import WeightSpaceFeatures
from nfn_torch.models import stack, stream, unstack, weight_space
from nfn_torch.modules import NFModule, load, save

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

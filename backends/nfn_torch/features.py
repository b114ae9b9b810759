"""A typed batch of weight-space features."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from nfn_core.checks import shown
from nfn_core.errors import SpecError

__all__ = ["WeightSpaceFeatures"]


class WeightSpaceFeatures(dict[str, torch.Tensor]):
    """Features of a weight space: tensor names mapped to tensors of shape (batch, *axes, channels).

    A dictionary that torch treats as a pytree, so it passes through `torch.func`, `torch.compile`, `torch.export`, data
    loaders and data-parallel scattering. `torch.load` reads it from files of `torch.save` without executing code in them.
    """

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "WeightSpaceFeatures":
        """Apply a function to every tensor.

        Parameters
        ----------
        function : callable
            From tensor to tensor.

        Returns
        -------
        WeightSpaceFeatures
            The results under the same names.

        Raises
        ------
        SpecError
            If `function` is no function.
        """
        if not callable(function):
            raise SpecError(f"function must be a function of a tensor, not {shown(function)}.")
        return WeightSpaceFeatures({name: function(x) for name, x in self.items()})

    def to(self, *args: Any, **kwargs: Any) -> "WeightSpaceFeatures":
        """Move or cast every tensor, with the arguments of `torch.Tensor.to`."""
        return self.map(lambda x: x.to(*args, **kwargs))

    def __reduce__(self) -> tuple[Any, ...]:
        """For `torch.save`: the class and a plain dictionary, which `torch.load` with ``weights_only=True`` takes."""
        return type(self), (dict(self),)


def _flatten(features: WeightSpaceFeatures) -> tuple[list[torch.Tensor], list[str]]:
    return list(features.values()), list(features)


def _unflatten(tensors: Any, names: list[str]) -> WeightSpaceFeatures:
    return WeightSpaceFeatures(zip(names, tensors, strict=True))


def _flatten_with_keys(features: WeightSpaceFeatures) -> tuple[list[tuple[Any, torch.Tensor]], list[str]]:
    return [(pytree.MappingKey(name), x) for name, x in features.items()], list(features)


pytree.register_pytree_node(
    WeightSpaceFeatures,
    _flatten,
    _unflatten,
    serialized_type_name="nfn_torch.WeightSpaceFeatures",
    flatten_with_keys_fn=_flatten_with_keys,
)
torch.serialization.add_safe_globals([WeightSpaceFeatures])

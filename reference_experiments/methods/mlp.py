"""The MLP baselines, which see all entries of a network in one row (section 3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from nfn_core import FeatureError, Layer, MLPHead, Sequential, WeightSpace, check_features
from nfn_core.arrays import Array, Features, namespace_of
from nfn_core.layers.base import Execution
from reference_experiments.methods.augmentations import permuted
from reference_experiments.methods.base import Method, Problem, register

__all__ = ["Flatten", "Unflatten"]


@dataclass(frozen=True)
class Flatten(Layer):
    """All entries of a network in one row: tensors in the space's order, entries in C order, channels last.

    Parameters
    ----------
    space : WeightSpace
        The space of the features.
    """

    space: WeightSpace

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Array:
        """Return an array of shape (batch, space.size * channels)."""
        xp = check_features(self.space, x)
        flat = ((x[t.name], t.size) for t in self.space.tensors)
        return xp.concat([xp.reshape(y, (y.shape[0], size * y.shape[-1])) for y, size in flat], axis=1)


@dataclass(frozen=True)
class Unflatten(Layer):
    """Features of one channel out of a row: `Flatten` undone.

    Parameters
    ----------
    space : WeightSpace
        The space of the features.
    """

    space: WeightSpace

    def forward(self, params: Mapping[str, Array], x: Array, execution: Execution) -> Features:
        """Cut an array of shape (batch, space.size) into tensors."""
        xp, out, start = namespace_of(x), {}, 0
        if x.shape[1:] != (self.space.size,):
            raise FeatureError(f"Unflatten: expected shape (batch, {self.space.size}), not {tuple(x.shape)}.")
        for t in self.space.tensors:
            out[t.name] = xp.reshape(x[:, start : start + t.size], (x.shape[0], *t.shape, 1))
            start += t.size
        return out


@register("MLP", "MLP_Aug", "MLP-4000", "MLP-4000_Aug", "MLP-8000", "MLP-8000_Aug")
def _mlp(name: str, problem: Problem) -> Method:
    """Two hidden layers on all entries; the name may give their width, and the augmentation by permuted neurons."""
    space = problem.space
    _, _, width = name.removesuffix("_Aug").partition("-")
    hidden = int(width or problem.config.mlp)
    layer = Sequential((problem.scale, Flatten(space), MLPHead((space.size, hidden, hidden, problem.outputs))))
    return Method(name, layer, augment=partial(permuted, space.group("HNP")) if name.endswith("_Aug") else None)

"""Methods that predict a network's test accuracy from its weights: neural functionals and the paper's baselines."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.preprocessing import StandardScaler

from nfn_core import Layer, MLPHead, Normalize, SinusoidalEncoding, WeightSpace, invariant_network
from reference_experiments.engines import Inputs

__all__ = ["Method", "flatten", "methods", "statistics"]

HIDDEN = 128
QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Method:
    """A predictor: what it makes of the features on the host, and the network that takes it from there."""

    name: str
    prepare: Callable[[Mapping[str, np.ndarray]], Inputs]
    layer: Layer


def statistics(features: Mapping[str, np.ndarray]) -> np.ndarray:
    """STATNN's features: mean, variance and five quantiles of every tensor (Unterthiner et al., 2020).

    Parameters
    ----------
    features : mapping of str to numpy.ndarray
        Each of shape (batch, *axes, channels).

    Returns
    -------
    numpy.ndarray
        Shape (batch, 7 times the number of tensors), float32. A tensor of one entry has variance 0.
    """
    columns = []
    for x in features.values():
        flat = x.reshape(len(x), -1)
        columns += [flat.mean(axis=1), flat.var(axis=1), *np.quantile(flat, QUANTILES, axis=1)]
    return np.stack(columns, axis=1).astype(np.float32)


def flatten(features: Mapping[str, np.ndarray]) -> np.ndarray:
    """All entries of a network in one row, shape (batch, entries)."""
    return np.concatenate([x.reshape(len(x), -1) for x in features.values()], axis=1)


def methods(space: WeightSpace, features: Mapping[str, np.ndarray], channels: Mapping[str, int]) -> list[Method]:
    """All methods for one weight space, normalised by the training networks.

    Parameters
    ----------
    space : WeightSpace
        The networks' weight space.
    features : mapping of str to numpy.ndarray
        Training features, each (batch, *axes, 1).
    channels : mapping of str to int
        Channels of the NF-layers of ``"NP"``, ``"HNP"`` and ``"PT"``.

    Returns
    -------
    list of Method
        NFN_NP, NFN_HNP and NFN_PT (section 3), STATNN, and an MLP on flattened weights.
    """
    np_group, hnp = space.group("NP"), space.group("HNP")
    scale = Normalize.from_features(space, dict(features))
    encoding = SinusoidalEncoding(space)

    def nfn(name: str) -> Layer:
        width = channels[name]
        return invariant_network(
            hnp if name == "HNP" else np_group,
            [1, width, width, width],
            [HIDDEN, HIDDEN, 1],
            pool=hnp,  # keeps input and output neurons apart, as the paper's code does
            before=[scale] if name == "HNP" else [scale, encoding],
            pointwise=name == "PT",
        )

    def vector(name: str, summary: Callable[[Mapping[str, np.ndarray]], np.ndarray]) -> Method:
        columns = summary(features)
        scaler = StandardScaler().fit(columns)
        return Method(name, lambda u: scaler.transform(summary(u)), MLPHead((columns.shape[1], HIDDEN, HIDDEN, 1)))

    neural_functionals = [Method(f"NFN_{name}", dict, nfn(name)) for name in ("NP", "HNP", "PT")]
    return [*neural_functionals, vector("STATNN", statistics), vector("flat MLP", flatten)]

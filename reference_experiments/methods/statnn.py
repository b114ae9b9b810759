"""STATNN: statistics of the weights (Unterthiner et al., 2020)."""

from collections.abc import Mapping

import numpy as np

from nfn_core import MLPHead, Sequential
from reference_experiments.methods.base import Method, Problem, register

__all__ = ["statistics"]


QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


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


@register("STATNN")
def _statnn(name: str, problem: Problem) -> Method:
    """An MLP on standardized statistics."""
    from sklearn.preprocessing import StandardScaler  # slow to load

    scaler, width = StandardScaler().fit(statistics(problem.features)), problem.config.mlp
    layer = Sequential((MLPHead((7 * len(problem.space.tensors), width, width, problem.outputs)),))
    return Method(name, layer, lambda features: scaler.transform(statistics(features)))

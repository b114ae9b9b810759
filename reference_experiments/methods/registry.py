"""All methods by name: importing this module imports, and so registers, them."""

from collections.abc import Mapping

import numpy as np

from nfn_core import WeightSpace
from reference_experiments.files import ExperimentError
from reference_experiments.methods import dwsnets, image_space, inr2vec, mlp, neural_functionals, sine_readers, statnn  # noqa: F401
from reference_experiments.methods.base import METHODS, Method, MethodConfig, Problem

__all__ = ["METHODS", "build"]


def build(
    name: str, space: WeightSpace, features: Mapping[str, np.ndarray], outputs: int, config: MethodConfig
) -> Method:
    """Build a method, normalized by training networks.

    Parameters
    ----------
    name : str
        One of `METHODS`.
    space : WeightSpace
        The networks' weight space.
    features : mapping of str to numpy.ndarray
        Features of training networks, each (networks, *axes, 1).
    outputs : int
        Number of outputs: classes, or 1.
    config : MethodConfig
        Widths.

    Returns
    -------
    Method
        The method.

    Raises
    ------
    ExperimentError
        If there is no such method.
    """
    if name not in METHODS:
        raise ExperimentError(f"there is no method {name!r} here: choose among {', '.join(METHODS)}.")
    return METHODS[name](name, Problem(space, features, outputs, config))

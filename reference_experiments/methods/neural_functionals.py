"""The neural functionals of the paper, NFN_HNP, NFN_NP and NFN_PT, and the same with gates and norms."""

from typing import Any

from nfn_core import (
    GaussianFourierFeatures,
    Group,
    Layer,
    Normalize,
    SinusoidalEncoding,
    invariant_network,
)
from reference_experiments.methods.base import Method, MethodConfig, Problem, register

__all__ = ["GATED", "functional"]


def functional(name: str, scale: Normalize, config: MethodConfig) -> tuple[Group, tuple[int, ...], list[Layer]]:
    """Group, NF-layers' channels, and input layers of a neural functional.

    Parameters
    ----------
    name : {"NFN_HNP", "NFN_NP", "NFN_NP without IO-encoding", "NFN_PT"}
        The method.
    scale : Normalize
        Normalization of the networks' space.
    config : MethodConfig
        Widths.

    Returns
    -------
    Group, tuple of int, list of Layer
        Of one input channel.
    """
    space, before = scale.space, list[Layer]([scale])
    if config.fourier is not None:
        before.append(GaussianFourierFeatures(1, *config.fourier))
    if name in ("NFN_NP", "NFN_PT"):
        before.append(SinusoidalEncoding(space, *config.encoding))
    if name == "NFN_HNP":
        return space.group("HNP"), config.hnp_channels, before
    return space.group("NP"), config.channels, before


GATED: dict[str, Any] = {"activation": "silu", "gate": True, "norm": "batch"}
"""Options of the gated methods."""


@register(
    *("NFN_HNP", "NFN_NP", "NFN_NP without IO-encoding", "NFN_PT"),
    *("NFN_HNP gated", "NFN_NP gated", "NFN_PT gated"),
)
def _neural_functional(name: str, problem: Problem) -> Method:
    """NF-layers, invariant pooling and a head."""
    config = problem.config
    published = name.removesuffix(" gated")
    group, channels, before = functional(published, problem.scale, config)
    network = invariant_network(
        group,
        [1, *channels],
        [*config.head, problem.outputs],
        pool=problem.space.group("HNP"),  # keeps input and output neurons apart, as the paper's code does
        before=before,
        pointwise=published == "NFN_PT",
        head_dropout=config.head_dropout,
        pool_norm=name != published,
        **(GATED if name != published else {}),
    )
    return Method(name, network)

"""The neural functionals of the paper, NFN_HNP, NFN_NP and NFN_PT, the same with gates and norms, and with more symmetries."""

from typing import Any

from nfn_core import (
    BiasPhases,
    CanonicalScales,
    GaussianFourierFeatures,
    GradedFourierFeatures,
    Group,
    Layer,
    Normalize,
    SinusoidalEncoding,
    WeightSpace,
    invariant_network,
)
from reference_experiments.methods.augmentations import moving
from reference_experiments.methods.base import Method, MethodConfig, Problem, register
from reference_experiments.networks.sirens import OMEGA

__all__ = ["functional"]


def functional(name: str, scale: Normalize, config: MethodConfig) -> tuple[Group, tuple[int, ...], dict[str, Any]]:
    """Group, NF-layers' channels, and options of the builders for a neural functional.

    Parameters
    ----------
    name : str
        ``"NFN_HNP"``, ``"NFN_NP"``, ``"NFN_NP without IO-encoding"`` or ``"NFN_PT"``, or one of them with ``" gated"``; or
        ``"NFN_HNP low-rank"``.
    scale : Normalize
        Normalization of the networks' space.
    config : MethodConfig
        Widths.

    Returns
    -------
    Group, tuple of int, dict of str to object
        Of one input channel; options of `nfn_core.equivariant_network` and `nfn_core.invariant_network`.
    """
    published = name.removesuffix(" gated").removesuffix(" low-rank")
    space = scale.space
    before: list[Layer] = [] if config.fourier is not None and config.raw_fourier else [scale]
    if config.fourier is not None:
        before.append(GaussianFourierFeatures(1, *config.fourier))
    if published in ("NFN_NP", "NFN_PT"):
        before.append(SinusoidalEncoding(space, *config.encoding))
    options: dict[str, Any] = {
        "before": before,
        "pointwise": published == "NFN_PT",
        **(config.gating.layers if name.endswith(" gated") else {}),
    }
    if name.endswith(" low-rank"):
        options["rank"] = config.rank
    if published == "NFN_HNP":
        return space.group("HNP"), config.channels if "rank" in options else config.hnp_channels, options
    return space.group("NP"), config.channels, options


@register(
    *("NFN_HNP", "NFN_NP", "NFN_NP without IO-encoding", "NFN_PT"),
    *("NFN_HNP gated", "NFN_NP gated", "NFN_PT gated", "NFN_HNP low-rank"),
    *("NFN_HNP gated with phases", "NFN_HNP in canonical scales"),
)
def _neural_functional(name: str, problem: Problem) -> Method:
    """NF-layers, invariant pooling and a head; with gates trained on moved images if the configuration says so."""
    config, scale, before = problem.config, problem.scale, list[Layer]()
    plain = name.removesuffix(" with phases").removesuffix(" in canonical scales")
    if plain != name:  # the networks are turned into other features first
        form, space = _form(name, problem.space)
        scale, before = Normalize.from_features(space, form.apply({}, problem.features)), [form]
    gated = plain.endswith(" gated")
    group, channels, options = functional(plain, scale, config)
    options["before"] = [*before, *options["before"]]
    network = invariant_network(
        group,
        [1, *channels],
        [*config.head, problem.outputs],
        pool=scale.space.group("HNP"),  # keeps input and output neurons apart, as the paper's code does
        head_dropout=config.head_dropout,
        **options,
        **(config.gating.pooling if gated else {}),
    )
    return Method(name, network, augment=moving(config) if gated else None)


def _form(name: str, space: WeightSpace) -> tuple[Layer, WeightSpace]:
    """Biases as cosines and sines, or the canonical form of ReLU networks; and the space of the features."""
    if name.endswith(" in canonical scales"):
        return CanonicalScales(space), space
    phases = BiasPhases(_signed(space), OMEGA)
    return phases, phases.target.space


@register("NFN_HNP signed", "NFN_HNP signed with phases")
def _signed_functional(name: str, problem: Problem) -> Method:
    """NFN_HNP gated, of features graded by the signs of sine neurons; with phases biases are cosines and sines too."""
    config = problem.config
    group, before, features = _signed(problem.space), list[Layer](), problem.features
    if name.endswith("phases"):
        phases = BiasPhases(group, OMEGA)
        group, features = phases.target, phases.apply({}, features)
        before.append(phases)
    before.append(Normalize.from_features(group.space, features, center=False))
    if config.fourier is not None:
        waves = GradedFourierFeatures(group, 1, *config.fourier)
        group = waves.target
        before.append(waves)
    network = invariant_network(
        group,
        [1, *config.hnp_channels],
        [*config.head, problem.outputs],
        pool_norm=True,
        head_dropout=config.head_dropout,
        before=before,
        # bounded gates: products of unbounded gates and features are all outliers
        **config.gating.layers | {"activation": "sigmoid"},
    )
    return Method(name, network, augment=moving(config))


def _signed(space: WeightSpace) -> Group:
    """The group of a sine network: hidden neurons are permuted and change signs."""
    ends = {*space.inputs, *space.outputs}
    return space.group("HNP", [s for s in space.sizes if s not in ends])

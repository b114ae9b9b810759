"""Methods that know that a network is a SIREN: messages that respect signs, and values of its function at points."""

from collections.abc import Mapping
from dataclasses import dataclass

from nfn_core import BatchNorm, Layer, MLPHead, Sequential, SignedMessages, WeightSpace
from nfn_core.arrays import Array, namespace_of
from nfn_core.checks import check_counts
from nfn_core.features import check_features
from nfn_core.layers.base import Execution
from nfn_core.layers.parameters import ParameterSpec
from reference_experiments.methods.augmentations import moving
from reference_experiments.methods.base import Method, Problem, register
from reference_experiments.networks.sirens import OMEGA, render

__all__ = ["Probes"]


@dataclass(frozen=True)
class Probes(Layer):
    """Values of SIRENs at points: learned ones (Kahana et al., ProbeGen, 2024, without a generator), or drawn ones.

    Parameters
    ----------
    space : WeightSpace
        Weight space of an MLP.
    points : int
        Number of points.
    learned : bool
        Whether the points are trained.

    Raises
    ------
    SpecError
        If the number of points is not positive.
    """

    space: WeightSpace
    points: int
    learned: bool = True

    def __post_init__(self) -> None:
        check_counts(self, "points")

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return the points, shape (inputs, points)."""
        shape = (self.space.by_name["W1"].shape[-1], self.points)
        return {"points": ParameterSpec(shape, "normal", value=0.6, trainable=self.learned)}

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Array:
        """Map features of one channel to an array of shape (batch, channels of the image * points)."""
        check_features(self.space, x, 1)
        weights = {name: y[..., 0] for name, y in x.items()}
        xp = namespace_of(params["points"])
        values = render(weights, params["points"], xp.sin)
        return xp.reshape(values, (values.shape[0], values.shape[1] * values.shape[2]))


DRAWN = {f"Values at {count} drawn points": count for count in (16, 64, 256)}
"""Numbers of points of the methods that see values at points which are not learned."""


@register("SignedMessages", "SignedMessages without activations", "LearnedProbes", *DRAWN)
def _sine_reader(name: str, problem: Problem) -> Method:
    """A reader of weights, or of the function, and a head; trained on moved images if the configuration says so."""
    config, space = problem.config, problem.space
    points, channels = config.messages
    head = config.head
    layer: Layer
    if name.startswith("SignedMessages"):
        options = {"points": points, "channels": channels, "head": head, "omega": OMEGA}
        options["activations"] = name == "SignedMessages"
        layer = SignedMessages.from_features(space, problem.features, problem.outputs, **options)
    else:
        points = DRAWN.get(name, points)
        values = points * space.sizes[space.outputs[0]]
        mlp = MLPHead((values, *head, problem.outputs), dropout=0.1)
        layer = Sequential((Probes(space, points, name not in DRAWN), BatchNorm(None, values), mlp))
    return Method(name, layer, augment=moving(config))

"""An editor of SIRENs that edits the image, and takes learned steps of descent towards it in the weights.

It sees the image that a SIREN encodes at every pixel, so it is no reader of weights alone. Its steps are gradients of the
weights, which respect permutations of neurons and sign flips of sine neurons as the weights do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nfn_core import Activation, Composite, Layer, Sequential, WeightSpace
from nfn_core.arrays import Array, Features, device_of, namespace_of
from nfn_core.checks import check_counts
from nfn_core.layers.base import Execution
from nfn_core.layers.parameters import ParameterSpec
from reference_experiments.methods.image_space import Convolution, GroupNorm
from reference_experiments.networks.sirens import coordinates, render

__all__ = ["DescentEditor", "descent", "propagate"]


STEP = 2e-3
"""Length of a step at the start, in units of the weights."""


@dataclass(frozen=True)
class DescentEditor(Composite):
    """Edits SIRENs by a few steps of descent towards an image that a small convolutional network predicts from theirs.

    A step is u / √(u² + s²), entry by entry, times a length. u is the gradient over its root mean square in a network's
    tensor, with momentum. Lengths and s are learned for each step and tensor.

    Parameters
    ----------
    space : WeightSpace
        Weight space of SIRENs.
    side : int
        Height and width of their images, in pixels.
    channels : int
        Channels of the convolutional network.
    rounds : int
        Number of steps.

    Raises
    ------
    SpecError
        If a number is not positive.
    """

    space: WeightSpace
    side: int
    channels: int = 16
    rounds: int = 5

    def __post_init__(self) -> None:
        check_counts(self, "side", "channels", "rounds")

    def children(self) -> dict[str, Layer]:
        """Return the network that maps images to the change of them."""
        colors, hidden = self.space.sizes[self.space.outputs[0]], self.channels
        layers: list[Layer] = []
        for inputs in (colors, hidden):
            layers += [Convolution(inputs, hidden), GroupNorm(hidden), Activation("silu")]
        return {"change": Sequential((*layers, Convolution(hidden, colors)))}

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return the network's parameters; factors of its output and of momentum; and of steps, shape (rounds, tensors)."""
        steps = (self.rounds, len(self.space.tensors))
        return super().parameter_specs() | {
            "scale": ParameterSpec((), "constant", value=0.1),
            "momentum": ParameterSpec((), "constant", value=0.5),
            "length": ParameterSpec(steps, "constant", value=0.0),
            "softness": ParameterSpec(steps, "constant", value=0.0),
        }

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Features:
        """Edit features, each of shape (batch, *axes, 1)."""
        weights: dict[str, Any] = {name: y[..., 0] for name, y in x.items()}
        like = next(iter(weights.values()))
        xp: Any = namespace_of(like)
        points = xp.asarray(coordinates(self.side, self.side), dtype=like.dtype, device=device_of(like))
        lengths, softness = STEP * xp.exp(params["length"]), xp.exp(params["softness"])
        moving: dict[str, Any] = {}
        target: Any = None
        for k in range(self.rounds):
            activations, slopes, values = propagate(weights, points, xp)
            if target is None:
                image = xp.reshape(xp.permute_dims(values, (0, 2, 1)), (len(like), self.side, self.side, -1))
                change = self.call("change", params, image, execution)
                flat = xp.reshape(change, (len(like), self.side**2, -1))
                target = values + params["scale"] * xp.permute_dims(flat, (0, 2, 1))
            for i, (name, grad) in enumerate(descent(weights, activations, slopes, target - values, xp).items()):
                axes = tuple(range(1, grad.ndim))
                grad = grad / (xp.sqrt(xp.mean(grad * grad, axis=axes, keepdims=True)) + 1e-8)
                moving[name] = grad + params["momentum"] * moving[name] if k else grad
                step = moving[name] / xp.sqrt(moving[name] ** 2 + softness[k, i] ** 2)
                weights[name] = weights[name] + lengths[k, i] * step
        return {name: xp.expand_dims(weights[name], axis=-1) for name in x}


def propagate(weights: Mapping[str, Any], points: Any, xp: Any) -> tuple[list[Any], list[Any], Any]:
    """Apply SIRENs, and keep what their gradients need.

    Returns
    -------
    list, list, array
        Inputs of every layer, the points first, each (networks, neurons, points); the cosine of every sine; the values,
        shape (networks, channels, points).
    """
    activations, slopes = [points], []

    def sine(angles: Any) -> Any:
        activations.append(xp.sin(angles))
        slopes.append(xp.cos(angles))
        return activations[-1]

    values = render(weights, points, sine)
    return activations, slopes, values


def descent(
    weights: Mapping[str, Any], activations: list[Any], slopes: list[Any], error: Any, xp: Any
) -> dict[str, Any]:
    """Gradients of ``sum(error * values)`` by the weights, without the factor ω of every sine: backpropagation by hand.

    Parameters
    ----------
    weights : mapping of str to array
        Tensors of shape (networks, *axes).
    activations, slopes : list of array
        From `propagate`.
    error : array
        Shape (networks, channels, points).
    xp : module
        Array namespace.

    Returns
    -------
    dict of str to array
        Gradients of the weights' shapes.
    """
    grads: dict[str, Any] = {}
    for i in range(len(activations), 0, -1):
        inputs = activations[i - 1]
        if inputs.ndim == 2:  # the points, which all networks share
            grads[f"W{i}"] = xp.matmul(error, xp.permute_dims(inputs, (1, 0)))
        else:
            grads[f"W{i}"] = xp.matmul(error, xp.permute_dims(inputs, (0, 2, 1)))
        grads[f"v{i}"] = xp.sum(error, axis=-1)
        if i > 1:
            error = xp.matmul(xp.permute_dims(weights[f"W{i}"], (0, 2, 1)), error) * slopes[i - 2]
    return grads

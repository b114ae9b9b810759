"""Image-space references (section E.2): a residual network on pixels and PointNet on points, and the layers they need.

Layers here take arrays of shape (batch, *places, channels): pixels of images, points, rows of a matrix. Where the
original networks use batch normalization, whose running statistics are no function of the input, these use group
normalization (Wu and He 2018).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from nfn_core import Activation, Composite, FeatureError, Layer, MLPHead, Sequential, SpecError
from nfn_core.arrays import Array, namespace_of
from nfn_core.checks import check_choice, check_counts
from nfn_core.layers.base import Execution
from nfn_core.layers.hub_map import product
from nfn_core.layers.parameters import ParameterSpec
from reference_experiments.methods.base import Method, Problem, register
from reference_experiments.networks.classifiers import patches

__all__ = ["Block", "Convolution", "GroupNorm", "Linear", "PlacePool", "pointnet", "resnet18", "shared_mlp"]

GROUP = 16


@dataclass(frozen=True)
class Linear(Layer):
    """The same fully-connected map at every place.

    Parameters
    ----------
    inputs, outputs : int
        Channels of input and output.

    Raises
    ------
    SpecError
        If a number is not positive.
    """

    inputs: int
    outputs: int

    def __post_init__(self) -> None:
        check_counts(self, "inputs", "outputs")

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return a weight (inputs, outputs) and a bias (outputs,), uniform in ±1/√inputs."""
        fan_in = ((self.outputs, self.inputs),)
        return {
            "weight": ParameterSpec((self.inputs, self.outputs), "uniform", fan_in),
            "bias": ParameterSpec((self.outputs,), "uniform", fan_in),
        }

    def forward(self, params: Mapping[str, Array], x: Array, execution: Execution) -> Array:
        """Map (batch, *places, inputs) to (batch, *places, outputs)."""
        _check_channels(self, x, self.inputs)
        return product(x, params["weight"], params["bias"])


@dataclass(frozen=True)
class Convolution(Layer):
    """Convolution of images with zero padding and without constants, as a product of patches and a matrix.

    Parameters
    ----------
    inputs, outputs : int
        Channels of input and output.
    size, stride : int
        Side of the square filter, odd, and distance of two patches, in pixels.

    Raises
    ------
    SpecError
        If a number is not positive, or the size is even.
    """

    inputs: int
    outputs: int
    size: int = 3
    stride: int = 1

    def __post_init__(self) -> None:
        check_counts(self, "inputs", "outputs", "size", "stride")
        if self.size % 2 == 0:
            raise SpecError(f"size must be odd, so that a filter has a middle, not {self.size}.")

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return the filters, shape (size² * inputs, outputs): rows, columns, then channels; He et al.'s normal."""
        rows = self.size**2 * self.inputs
        return {"weight": ParameterSpec((rows, self.outputs), "kaiming", ((self.outputs, rows),))}

    def forward(self, params: Mapping[str, Array], x: Array, execution: Execution) -> Array:
        """Map (batch, height, width, inputs) to (batch, ⌈height / stride⌉, ⌈width / stride⌉, outputs)."""
        _check_channels(self, x, self.inputs)
        return product(patches(x, namespace_of(x), self.size, self.stride), params["weight"], None)


@dataclass(frozen=True)
class GroupNorm(Layer):
    """Group normalization: over all places and the channels of a group, with a scale and a shift of each channel.

    Parameters
    ----------
    channels : int
        Number of channels: at most 16, which are one group, or a multiple of 16, of which every 16 are one.
    epsilon : float
        Added to the variance.

    Raises
    ------
    SpecError
        If the channels do not make up groups.
    """

    channels: int
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        check_counts(self, "channels")
        if self.channels > GROUP and self.channels % GROUP:
            raise SpecError(f"channels must be at most {GROUP} or a multiple of {GROUP}, not {self.channels}.")

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return a scale and a shift of shape (channels,)."""
        return {
            "scale": ParameterSpec((self.channels,), "constant", value=1.0),
            "shift": ParameterSpec((self.channels,), "constant", value=0.0),
        }

    def forward(self, params: Mapping[str, Array], x: Array, execution: Execution) -> Array:
        """Normalize an array of shape (batch, *places, channels)."""
        _check_channels(self, x, self.channels)
        xp, size = namespace_of(x), min(self.channels, GROUP)
        y = xp.reshape(x, (*x.shape[:-1], self.channels // size, size))
        axes = (*range(1, y.ndim - 2), y.ndim - 1)
        y = y - xp.mean(y, axis=axes, keepdims=True)
        y = y / xp.sqrt(xp.mean(y * y, axis=axes, keepdims=True) + self.epsilon)
        return xp.reshape(y, x.shape) * params["scale"] + params["shift"]


@dataclass(frozen=True)
class PlacePool(Layer):
    """Pooling over all places.

    Parameters
    ----------
    pooling : {"max", "mean"}
        How.

    Raises
    ------
    SpecError
        If the pooling is unknown.
    """

    pooling: Literal["max", "mean"]

    def __post_init__(self) -> None:
        check_choice("pooling", self.pooling, ("max", "mean"))

    def forward(self, params: Mapping[str, Array], x: Array, execution: Execution) -> Array:
        """Map (batch, *places, channels) to (batch, channels)."""
        pooled: Array = getattr(namespace_of(x), self.pooling)(x, axis=tuple(range(1, x.ndim - 1)))
        return pooled


@dataclass(frozen=True)
class Block(Composite):
    """Residual block of two convolutions (He et al. 2016); where shapes change, the shortcut is a 1x1 convolution.

    Parameters
    ----------
    inputs, outputs : int
        Channels of input and output; `outputs` as in `GroupNorm`.
    stride : int
        Of the first convolution.

    Raises
    ------
    SpecError
        As `Convolution` and `GroupNorm`.
    """

    inputs: int
    outputs: int
    stride: int
    path: Sequential = field(init=False, repr=False, compare=False)
    shortcut: Sequential = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        first = Convolution(self.inputs, self.outputs, 3, self.stride)
        second = Convolution(self.outputs, self.outputs)
        norm, same = GroupNorm(self.outputs), self.stride == 1 and self.inputs == self.outputs
        projection = () if same else (Convolution(self.inputs, self.outputs, 1, self.stride), norm)
        object.__setattr__(self, "path", Sequential((first, norm, Activation("relu"), second, norm)))
        object.__setattr__(self, "shortcut", Sequential(projection))

    def children(self) -> dict[str, Layer]:
        """Return path and shortcut."""
        return {"path": self.path, "shortcut": self.shortcut}

    def forward(self, params: Mapping[str, Array], x: Array, execution: Execution) -> Array:
        """Map (batch, height, width, inputs) to (batch, ⌈height / stride⌉, ⌈width / stride⌉, outputs)."""
        change = self.call("path", params, x, execution)
        kept = self.call("shortcut", params, x, execution)
        out: Array = Activation("relu").forward({}, change + kept, execution)
        return out


def resnet18(channels: int, classes: int, width: int = 64) -> Sequential:
    """ResNet-18 for small images (He et al. 2016): a 3x3 stem without pooling, four stages of two blocks.

    Parameters
    ----------
    channels : int
        Channels of the images.
    classes : int
        Number of classes.
    width : int
        Channels of the first stage; 2, 4 and 8 times as many in the others. At most 16 or a multiple of 16.

    Returns
    -------
    Sequential
        From images of shape (batch, height, width, channels) to scores of shape (batch, classes).

    Raises
    ------
    SpecError
        As `GroupNorm`.
    """
    layers: list[Layer] = [Convolution(channels, width), GroupNorm(width), Activation("relu")]
    before = width
    for stage in range(4):
        after = width * 2**stage
        layers += [Block(before, after, stride=1 if stage == 0 else 2), Block(after, after, stride=1)]
        before = after
    return Sequential((*layers, PlacePool("mean"), MLPHead((before, classes))))


def shared_mlp(sizes: Sequence[int]) -> Sequential:
    """PointNet's core: one MLP at every place, then the maximum over places.

    Parameters
    ----------
    sizes : sequence of int
        Width of every layer, inputs first; hidden ones are followed by `GroupNorm` and ReLU.

    Returns
    -------
    Sequential
        From arrays of shape (batch, places, sizes[0]) to (batch, sizes[-1]), whatever the order of the places.

    Raises
    ------
    SpecError
        As `Linear` and `GroupNorm`.
    """
    *hidden, last = pairwise(sizes)
    layers: list[Layer] = []
    for inputs, outputs in hidden:
        layers += [Linear(inputs, outputs), GroupNorm(outputs), Activation("relu")]
    return Sequential((*layers, Linear(*last), PlacePool("max")))


def pointnet(
    classes: int,
    widths: Sequence[int] = (64, 64, 64, 128, 1024),
    head: Sequence[int] = (512, 256),
    dropout: float = 0.3,
) -> Sequential:
    """PointNet that classifies (Qi et al. 2017), without its networks that align points and features (T-Nets).

    The last shared layer is followed by ReLU only, and the head has no normalization.

    Parameters
    ----------
    classes : int
        Number of classes.
    widths : sequence of int
        Widths of the MLP of every point.
    head : sequence of int
        Hidden widths of the head.
    dropout : float
        Rate of dropout in the head.

    Returns
    -------
    Sequential
        From points of shape (batch, points, 3) to scores of shape (batch, classes).

    Raises
    ------
    SpecError
        As `shared_mlp` and `MLPHead`.
    """
    layers = shared_mlp((3, *widths)).layers
    return Sequential((*layers, Activation("relu"), MLPHead((widths[-1], *head, classes), dropout=dropout)))


def _check_channels(layer: Layer, value: Array, channels: int) -> None:
    """Raise a FeatureError unless the last axis has so many channels."""
    if value.shape[-1] != channels:
        raise FeatureError(
            f"{type(layer).__name__}: expected {channels} channels on the last axis, but the shape is "
            f"{tuple(value.shape)}."
        )


@register("ResNet-18")
def _resnet18(name: str, problem: Problem) -> Method:
    """Of the images that INRs of the space encode."""
    colors = problem.space.sizes[problem.space.outputs[0]]
    return Method(name, resnet18(colors, problem.outputs, problem.config.resnet), sees="images")


@register("PointNet")
def _pointnet(name: str, problem: Problem) -> Method:
    """Of points of the shapes that INRs encode."""
    return Method(name, pointnet(problem.outputs, *problem.config.pointnet), sees="points")

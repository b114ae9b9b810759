"""Methods that tell something of a network from its weights: neural functionals and the paper's baselines."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from sklearn.preprocessing import StandardScaler

from nfn_core import (
    GaussianFourierFeatures,
    Group,
    Layer,
    MLPHead,
    Normalize,
    Sequential,
    SinusoidalEncoding,
    WeightSpace,
    invariant_network,
)
from reference_experiments.engines.base import Inputs
from reference_experiments.files import ExperimentError
from reference_experiments.methods.dwsnets import dwsnet
from reference_experiments.methods.image_space import pointnet, resnet18
from reference_experiments.methods.inr2vec import Autoencoder, ImplicitDecoder, encoder
from reference_experiments.methods.mlp import Flatten, permuted
from reference_experiments.training import Part

__all__ = ["METHODS", "Method", "Sizes", "build", "functional", "statistics"]

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
METHODS = (
    "NFN_HNP",
    "NFN_NP",
    "NFN_NP without IO-encoding",
    "NFN_PT",
    "DWSNets",
    "STATNN",
    "MLP",
    "MLP_Aug",
    "MLP-4000",
    "MLP-4000_Aug",
    "MLP-8000",
    "MLP-8000_Aug",
    "inr2vec",
    "ResNet-18",
    "PointNet",
)
"""All methods; the last two see the images or shapes themselves and are there for reference (section E.2)."""


@dataclass(frozen=True)
class Sizes:
    """Widths of all methods in one experiment.

    Parameters
    ----------
    channels : tuple of int
        Channels of the NF-layers of NP and PT.
    hnp_channels : tuple of int
        Those of HNP, whose matrices are larger.
    head : tuple of int
        Hidden units of the head after the invariant pooling.
    head_dropout : float
        Its dropout.
    fourier : tuple of (int, float), optional
        Number and scale of the Gaussian Fourier features of every entry; without it entries come as they are.
    encoding : tuple of (float, int)
        Maximum frequency and bands of the sinusoidal IO-encoding.
    mlp : int
        Units of each hidden layer of MLP, MLP_Aug and STATNN.
    dws : tuple of int
        Channels of the layers of DWSNets.
    resnet : int
        Channels of ResNet-18's first stage.
    pointnet : tuple of (tuple of int, tuple of int)
        Widths of PointNet's MLP for every point, and of its head.
    inr2vec : tuple of int
        Widths of inr2vec's encoder; the last is the length of the embedding.
    """

    channels: tuple[int, ...]
    hnp_channels: tuple[int, ...]
    head: tuple[int, ...]
    head_dropout: float = 0.0
    fourier: tuple[int, float] | None = None
    encoding: tuple[float, int] = (10.0, 6)
    mlp: int = 1000
    dws: tuple[int, ...] = (32, 32, 32, 32)
    resnet: int = 64
    pointnet: tuple[tuple[int, ...], tuple[int, ...]] = ((64, 64, 64, 128, 1024), (512, 256))
    inr2vec: tuple[int, ...] = (512, 512, 1024, 1024, 1024)


@dataclass(frozen=True)
class Method:
    """A network, and what is done on the host before it.

    Parameters
    ----------
    name : str
        One of `METHODS`.
    layer : Layer
        The network.
    summary : callable, optional
        From features, each (batch, *axes, channels), to an array (batch, columns) that the network takes instead.
    augment : Group, optional
        Group whose random elements permute every network of a training batch.
    sees : {"weights", "images", "points"}
        What the network takes: features, or of the shape behind an INR the image (batch, height, width, channels) or
        points (batch, points, 3).
    autoencoder : Autoencoder, optional
        Trained first; the network then takes its embeddings.
    """

    name: str
    layer: Layer
    summary: Callable[[Mapping[str, np.ndarray]], np.ndarray] | None = None
    augment: Group | None = None
    sees: Literal["weights", "images", "points"] = "weights"
    autoencoder: Autoencoder | None = None

    @property
    def parameters(self) -> int:
        """Number of trained parameters; an autoencoder's decoder, which tells nothing, is not counted."""
        layers = [self.layer, *([] if self.autoencoder is None else [self.autoencoder.encoder])]
        return sum(layer.parameter_count for layer in layers)

    def part(self, features: Callable[[np.ndarray], dict[str, np.ndarray]], targets: np.ndarray) -> Part:
        """Networks of a split as this method takes them.

        Parameters
        ----------
        features : callable
            From positions in the split to features.
        targets : numpy.ndarray
            Shape (networks,).

        Returns
        -------
        Part
            Summaries are made here, once; features are read when they are asked for.
        """
        if self.summary is not None:
            pieces = np.array_split(np.arange(len(targets)), -(-len(targets) // 256))
            columns = np.concatenate([self.summary(features(piece)) for piece in pieces])
            return Part(lambda chosen, rng: columns[chosen], targets)

        def inputs(chosen: np.ndarray, rng: np.random.Generator | None) -> Inputs:
            found = features(chosen)
            return found if rng is None or self.augment is None else permuted(self.augment, found, rng)

        return Part(inputs, targets)


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


def build(name: str, space: WeightSpace, features: Mapping[str, np.ndarray], outputs: int, sizes: Sizes) -> Method:
    """Build a method, normalised by training networks.

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
    sizes : Sizes
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
    hnp, scale = space.group("HNP"), Normalize.from_features(space, dict(features))
    kind, _, units = name.removesuffix("_Aug").partition("-")
    if kind == "MLP":
        hidden = int(units or sizes.mlp)
        layer = Sequential((scale, Flatten(space), MLPHead((space.size, hidden, hidden, outputs))))
        return Method(name, layer, augment=hnp if name.endswith("_Aug") else None)
    if name == "STATNN":
        scaler = StandardScaler().fit(statistics(features))
        columns = 7 * len(space.tensors)
        layer = Sequential((MLPHead((columns, sizes.mlp, sizes.mlp, outputs)),))
        return Method(name, layer, lambda u: scaler.transform(statistics(u)))
    if name == "ResNet-18":
        colours = space.sizes[space.outputs[0]]  # of an image that an INR of this space draws
        return Method(name, resnet18(colours, outputs, sizes.resnet), sees="images")
    if name == "PointNet":
        return Method(name, pointnet(outputs, *sizes.pointnet), sees="points")
    if name == "inr2vec":
        embed = encoder(space, sizes.inr2vec, before=[scale])
        length = sizes.inr2vec[-1]
        decoder = ImplicitDecoder(length, space.sizes[space.inputs[0]], length // 2)
        return Method(
            name, MLPHead((length, length // 2, length // 4, outputs)), autoencoder=Autoencoder(embed, decoder)
        )
    if name == "DWSNets":
        return Method(name, dwsnet(space, (1, *sizes.dws), (outputs,), before=[scale]))
    group, channels, before = functional(name, scale, sizes)
    network = invariant_network(
        group,
        [1, *channels],
        [*sizes.head, outputs],
        pool=hnp,  # keeps input and output neurons apart, as the paper's code does
        before=before,
        pointwise=name == "NFN_PT",
        head_dropout=sizes.head_dropout,
    )
    return Method(name, network)


def functional(name: str, scale: Normalize, sizes: Sizes) -> tuple[Group, tuple[int, ...], list[Layer]]:
    """Group, NF-layers' channels, and input layers of a neural functional.

    Parameters
    ----------
    name : {"NFN_HNP", "NFN_NP", "NFN_NP without IO-encoding", "NFN_PT"}
        The method.
    scale : Normalize
        Normalisation of the networks' space.
    sizes : Sizes
        Widths.

    Returns
    -------
    Group, tuple of int, list of Layer
        Of one input channel.
    """
    space, before = scale.space, list[Layer]([scale])
    if sizes.fourier is not None:
        before.append(GaussianFourierFeatures(1, *sizes.fourier))
    if name in ("NFN_NP", "NFN_PT"):
        before.append(SinusoidalEncoding(space, *sizes.encoding))
    if name == "NFN_HNP":
        return space.group("HNP"), sizes.hnp_channels, before
    return space.group("NP"), sizes.channels, before

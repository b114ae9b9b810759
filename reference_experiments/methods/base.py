"""What a method is: a network, and what is done on the host before it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from nfn_core import Composite, Layer, Normalize, WeightSpace
from reference_experiments.engines.base import Inputs, Split

__all__ = ["Gating", "METHODS", "Method", "MethodConfig", "Problem", "register"]


Augment = Callable[[dict[str, np.ndarray], np.random.Generator], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Gating:
    """What gated neural functionals have and published ones have not.

    Parameters
    ----------
    activation : str
        Elementwise map of the gates, or of the layers without gates, and of the head.
    gate : bool
        Whether half the channels are multiplied by the activation of the other half.
    norm : {"layer", "batch", "set", "instance"}, optional
        Normalization after every NF-layer.
    pool_norm : bool
        Whether the pooled invariants are normalized over the batch.
    statistics : tuple of str
        Statistics of the pooling, as in `nfn_core.InvariantPool`; by default its own.
    """

    activation: str = "silu"
    gate: bool = True
    norm: str | None = "batch"
    pool_norm: bool = True
    statistics: tuple[str, ...] = ()

    @property
    def layers(self) -> dict[str, Any]:
        """Options of the stack of NF-layers, as the builders take them."""
        return {"activation": self.activation, "gate": self.gate, "norm": self.norm}

    @property
    def pooling(self) -> dict[str, Any]:
        """Options of the pooling, as `nfn_core.invariant_network` takes them."""
        return {"pool_norm": self.pool_norm, "statistics": self.statistics}


@dataclass(frozen=True)
class MethodConfig:
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
    raw_fourier : bool
        Whether Fourier features are of the weights as they are, as in the paper's code; otherwise of normalized weights.
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
    messages : tuple of (int, int)
        Points, and features of each neuron, of SignedMessages; points of LearnedProbes.
    descent : tuple of (int, int, int)
        Side of the images, channels and steps of the editor Descent.
    augmentation : tuple of (float, float, float)
        Largest rotation (radians), relative scaling and translation of the images or shapes that gated neural
        functionals, SignedMessages and LearnedProbes are trained on, drawn anew in every step.
    mirror : bool
        Whether they are mirrored too, at random.
    rank : int
        Rank of the NF-layers of NFN_HNP low-rank.
    gating : Gating
        Gates, norms and pooling of the gated neural functionals.
    """

    channels: tuple[int, ...]
    hnp_channels: tuple[int, ...]
    head: tuple[int, ...]
    head_dropout: float = 0.0
    fourier: tuple[int, float] | None = None
    raw_fourier: bool = False
    encoding: tuple[float, int] = (10.0, 6)
    mlp: int = 1000
    dws: tuple[int, ...] = (32, 32, 32, 32)
    resnet: int = 64
    pointnet: tuple[tuple[int, ...], tuple[int, ...]] = ((64, 64, 64, 128, 1024), (512, 256))
    inr2vec: tuple[int, ...] = (512, 512, 1024, 1024, 1024)
    messages: tuple[int, int] = (64, 64)
    descent: tuple[int, int, int] = (28, 16, 5)
    augmentation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    mirror: bool = False
    rank: int = 16
    gating: Gating = Gating()

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> "MethodConfig":
        """Read what `dataclasses.asdict` made of a configuration, and JSON of that."""
        gating = {"gating": Gating(**settings["gating"])} if "gating" in settings else {}
        return cls(**settings | gating)


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
    augment : callable, optional
        From features of a training batch and a source of random numbers to the features that are learned from.
    sees : {"weights", "images", "points"}
        What the network takes: features, or of the shape behind an INR the image (batch, height, width, channels) or
        points (batch, points, 3).
    autoencoder : Composite, optional
        Trained first; the network then takes the embeddings of its child ``encoder``.
    """

    name: str
    layer: Layer
    summary: Callable[[Mapping[str, np.ndarray]], np.ndarray] | None = None
    augment: Augment | None = None
    sees: Literal["weights", "images", "points"] = "weights"
    autoencoder: Composite | None = None

    @property
    def parameters(self) -> int:
        """Number of trained parameters; an autoencoder's decoder, which predicts nothing, is not counted."""
        encoder = None if self.autoencoder is None else self.autoencoder.children()["encoder"]
        return self.layer.parameter_count + (0 if encoder is None else encoder.parameter_count)

    def split(self, features: Callable[[np.ndarray], dict[str, np.ndarray]], targets: np.ndarray) -> Split:
        """Networks of a split as this method takes them.

        Parameters
        ----------
        features : callable
            From positions in the split to features.
        targets : numpy.ndarray
            Shape (networks,).

        Returns
        -------
        Split
            Summaries are made here, once; features are read when they are asked for.
        """
        if self.summary is not None:
            pieces = np.array_split(np.arange(len(targets)), -(-len(targets) // 256))
            columns = np.concatenate([self.summary(features(piece)) for piece in pieces])
            return Split(lambda chosen, rng: columns[chosen], targets)

        def inputs(chosen: np.ndarray, rng: np.random.Generator | None) -> Inputs:
            found = features(chosen)
            return found if rng is None or self.augment is None else self.augment(found, rng)

        return Split(inputs, targets)


@dataclass(frozen=True)
class Problem:
    """What a method is built for.

    Parameters
    ----------
    space : WeightSpace
        The networks' weight space.
    features : mapping of str to numpy.ndarray
        Features of training networks, each (networks, *axes, 1), by which inputs are normalized.
    outputs : int
        Number of outputs: classes, or 1.
    config : MethodConfig
        Widths.
    """

    space: WeightSpace
    features: Mapping[str, np.ndarray]
    outputs: int
    config: MethodConfig

    @cached_property
    def scale(self) -> Normalize:
        """Normalization by the training networks."""
        return Normalize.from_features(self.space, dict(self.features))


Builder = Callable[[str, Problem], Method]
METHODS: dict[str, Builder] = {}
"""Functions that build methods, by the methods' names."""


def register(*names: str) -> Callable[[Builder], Builder]:
    """Register a function that builds methods of some names."""

    def add(builder: Builder) -> Builder:
        METHODS.update(dict.fromkeys(names, builder))
        return builder

    return add

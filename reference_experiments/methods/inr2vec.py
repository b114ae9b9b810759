"""inr2vec (De Luigi et al. 2023, *Deep Learning on Implicit Neural Representations of Shapes*), a baseline of table 4.

An encoder embeds the weights of a network; with a decoder from embedding and coordinate to the distance that the network
represents there, it learns without labels. A small MLP (`MLPHead`) then classifies the frozen embeddings. The encoder
sees a matrix whose rows it treats alike but whose columns, the hidden neurons, it does not: it is not invariant.

Batch normalization, whose running statistics are no function of the input, is replaced by group normalization, and left
out of the classifier.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np

from nfn_core import Activation, Composite, FeatureError, Layer, MLPHead, Sequential, SpecError, WeightSpace
from nfn_core.arrays import Array, namespace_of
from nfn_core.checks import check_counts
from nfn_core.features import check_features
from nfn_core.layers.base import Execution
from nfn_core.layers.hub_map import product
from reference_experiments.engines.base import Engine, Inputs, Recipe, Split
from reference_experiments.methods.base import Method, Problem, register
from reference_experiments.methods.image_space import Linear, shared_mlp
from reference_experiments.networks.sirens import render
from reference_experiments.training import fit, predict

__all__ = ["Autoencoder", "DISTANCES", "ImplicitDecoder", "POINTS", "RowStack", "embedded", "encoder"]

POINTS, DISTANCES = "points", "distances"
"""Names under which an autoencoder's input holds them, in addition to the weight space's tensors."""
DRAWN = 512
"""Points of each network in a step of the autoencoder."""

FREQUENCIES = 10


@dataclass(frozen=True)
class RowStack(Layer):
    """Stacks a network's tensors into one matrix, whose columns are the H hidden neurons of a layer.

    A tensor's last axis of hidden neurons runs along the columns, its other axis along the rows; what has no hidden
    neurons, the last bias, is left out. For ``WeightSpace.mlp([3, 128, 1])`` the 5 rows of 128 numbers are the three
    columns of W(1), v(1), and the row of W(2). Of deeper networks the original stacks W(i) and v(i) for 1 < i < L only,
    which here would be nothing; it finds that first and last layer make no difference.

    Parameters
    ----------
    space : WeightSpace
        Space of an MLP whose hidden layers have one width.

    Raises
    ------
    SpecError
        If there is no hidden layer, or hidden layers differ in width.
    """

    space: WeightSpace

    def __post_init__(self) -> None:
        widths = {self.space.sizes[label] for label in self._hidden}
        if len(widths) != 1:
            raise SpecError(f"inr2vec needs hidden layers of one width, but the widths are {sorted(widths)}.")

    @property
    def _hidden(self) -> list[str]:
        """Hidden neuron sets."""
        return [label for label in self.space.sizes if label not in (*self.space.inputs, *self.space.outputs)]

    @property
    def columns(self) -> int:
        """Number of hidden neurons of a layer, H."""
        return self.space.sizes[self._hidden[0]]

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Array:
        """Return an array of shape (batch, rows, columns) from features of one channel."""
        xp = check_features(self.space, x, 1)
        stacked = []
        for t in self.space.tensors:
            axes = [a for a, label in enumerate(t.labels) if label in self._hidden]
            if axes:
                others = [a + 1 for a in range(len(t.shape)) if a != axes[-1]]
                y = xp.permute_dims(x[t.name][..., 0], (0, *others, axes[-1] + 1))
                stacked.append(xp.reshape(y, (y.shape[0], t.size // self.columns, self.columns)))
        return xp.concat(stacked, axis=1)


def encoder(
    space: WeightSpace, widths: Sequence[int] = (512, 512, 1024, 1024, 1024), *, before: Sequence[Layer] = ()
) -> Sequential:
    """Encoder: one MLP for every row, then the maximum over rows.

    Parameters
    ----------
    space : WeightSpace
        As in `RowStack`.
    widths : sequence of int
        Widths of the MLP's layers; the last is the embedding's.
    before : sequence of Layer
        Normalization of the features, applied first.

    Returns
    -------
    Sequential
        From features of one channel to embeddings of shape (batch, widths[-1]).

    Raises
    ------
    SpecError
        As `RowStack` and `shared_mlp`.
    """
    rows = RowStack(space)
    return Sequential((*before, rows, *shared_mlp((rows.columns, *widths)).layers))


@dataclass(frozen=True)
class ImplicitDecoder(Composite):
    """Decoder: from an embedding and a point's coordinates to one number, the logit of the distance there.

    Coordinates x become x, sin(2ᵏ x), cos(2ᵏ x) for k = 0, ..., 9. Two hidden layers follow the first; to their output
    a second projection of embedding and coordinates is added; two more and the output follow.

    Parameters
    ----------
    embedding : int
        Length of an embedding.
    coordinates : int
        Coordinates of a point.
    hidden : int
        Width of all hidden layers.

    Raises
    ------
    SpecError
        If a number is not positive.
    """

    embedding: int = 1024
    coordinates: int = 3
    hidden: int = 512
    parts: dict[str, Layer] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_counts(self, "embedding", "coordinates", "hidden")
        entry = Linear(self.embedding + self.coordinates * (2 * FREQUENCIES + 1), self.hidden)
        layers = (Linear(self.hidden, self.hidden), Activation("relu")) * 2
        before, after = Sequential(layers), Sequential((*layers, Linear(self.hidden, 1)))
        object.__setattr__(self, "parts", {"first": entry, "skip": entry, "before": before, "after": after})

    def children(self) -> dict[str, Layer]:
        """Return the layers; `first` and `skip` are two projections of embedding and coordinates."""
        return self.parts

    def forward(self, params: Mapping[str, Array], x: tuple[Array, Array], execution: Execution) -> Array:
        """Map embeddings (batch, embedding) and points (batch, points, coordinates) to (batch, points)."""
        embeddings, points = x
        xp = namespace_of(embeddings, points)
        if points.ndim != 3 or points.shape[0] != embeddings.shape[0] or points.shape[-1] != self.coordinates:
            raise FeatureError(
                f"points: expected shape ({embeddings.shape[0]}, points, {self.coordinates}), not {tuple(points.shape)}."
            )
        angles = [2.0**k * points for k in range(FREQUENCIES)]
        places = xp.concat([points, *(wave(angle) for angle in angles for wave in (xp.sin, xp.cos))], axis=-1)

        def enter(part: str) -> Array:  # the embedding's share is computed once for all points
            weight, n = params[f"{part}.weight"], self.embedding
            shares = product(embeddings, weight[:n, :], params[f"{part}.bias"]), product(places, weight[n:, :], None)
            y: Array = Activation("relu").forward({}, xp.expand_dims(shares[0], axis=1) + shares[1], execution)
            return y

        y = self.call("before", params, enter("first"), execution) + enter("skip")
        logits: Array = self.call("after", params, y, execution)[..., 0]
        return logits


@dataclass(frozen=True)
class Autoencoder(Composite):
    """Encoder and decoder together.

    Parameters
    ----------
    encoder : Layer
        From features to embeddings; its parameters are ``"encoder.NAME"``.
    decoder : ImplicitDecoder
        From embeddings and points to logits; its parameters are ``"decoder.NAME"``.
    """

    encoder: Layer
    decoder: ImplicitDecoder

    def children(self) -> dict[str, Layer]:
        """Return both."""
        return {"encoder": self.encoder, "decoder": self.decoder}

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Array:
        """Embed features, or learn from them.

        From features alone the embeddings, (batch, embedding). With points (batch, points, coordinates) and distances
        in [0, 1] there (batch, points), under `POINTS` and `DISTANCES`, each network's binary cross-entropy, (batch,).
        """
        features = {name: z for name, z in x.items() if name not in (POINTS, DISTANCES)}
        embeddings: Array = self.call("encoder", params, features, execution)
        if POINTS not in x or DISTANCES not in x:
            return embeddings
        xp, y = namespace_of(embeddings), x[DISTANCES]
        logits = self.call("decoder", params, (embeddings, x[POINTS]), execution)
        size = xp.abs(logits)
        return xp.mean((size + logits) / 2 - logits * y + xp.log1p(xp.exp(-size)), axis=1)


def embedded(
    library: Engine, autoencoder: Autoencoder, parts: Mapping[str, Split], recipe: Recipe, seed: int, folder: Path
) -> dict[str, Split]:
    """Train an autoencoder on the training networks, and embed the networks of all splits.

    Points are drawn uniformly in [-1, 1]ⁿ, and distances are those that the network itself represents there, 1 at most.
    The original draws more of them near the surface, 10,000 for each of 16 networks, for 300 epochs.

    Parameters
    ----------
    library : Engine
        Array library.
    autoencoder : Autoencoder
        What is trained.
    parts : mapping of str to Split
        Networks of each split, SIRENs as `reference_experiments.networks.sirens.render` takes them.
    recipe : Recipe
        How a classifier of the embeddings is trained: steps and batch are taken from it, the rest from the original.
    seed : int
        Seed of everything.
    folder : pathlib.Path
        Where the autoencoder's checkpoint is.

    Returns
    -------
    dict of str to Split
        Embeddings (networks, embedding) of each split, with the same targets.
    """

    def with_points(part: Split) -> Split:
        def inputs(chosen: np.ndarray, rng: np.random.Generator | None) -> Inputs:
            features = cast("dict[str, np.ndarray]", part.inputs(chosen, None))
            drawn = (rng or np.random.default_rng(0)).uniform(
                -1, 1, (len(chosen), DRAWN, autoencoder.decoder.coordinates)
            )
            points = drawn.astype(np.float32)
            values = render({name: x[..., 0] for name, x in features.items()}, points.swapaxes(1, 2), np.sin)
            return features | {POINTS: points, DISTANCES: np.clip(values[:, 0], 0, 1).astype(np.float32)}

        return Split(inputs, part.targets)

    own = replace(recipe, loss="custom", learning_rate=1e-4, weight_decay=1e-2, dtype="float32")
    training, validation = (with_points(parts[split]) for split in ("training", "validation"))
    learner, _ = fit(library, f"autoencoder, seed {seed}", autoencoder, training, validation, own, seed, folder)

    def embed(part: Split) -> Split:
        embeddings = predict(learner, part)
        return Split(lambda chosen, rng: embeddings[chosen], part.targets)

    return {split: embed(part) for split, part in parts.items()}


@register("inr2vec")
def _inr2vec(name: str, problem: Problem) -> Method:
    """An encoder trained without labels, then a small MLP on its frozen embeddings."""
    space, widths = problem.space, problem.config.inr2vec
    length = widths[-1]
    decoder = ImplicitDecoder(length, space.sizes[space.inputs[0]], length // 2)
    head = MLPHead((length, length // 2, length // 4, problem.outputs))
    return Method(name, head, autoencoder=Autoencoder(encoder(space, widths, before=[problem.scale]), decoder))

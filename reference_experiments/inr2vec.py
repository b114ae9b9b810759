"""inr2vec (De Luigi et al. 2023, *Deep Learning on Implicit Neural Representations of Shapes*), a baseline of table 4.

An encoder embeds the weights of a network; with a decoder from embedding and coordinate to the distance that the network
represents there, it learns without labels. A small MLP (`MLPHead`) then classifies the frozen embeddings. The encoder
sees a matrix whose rows it treats alike but whose columns, the hidden neurons, it does not: it is not invariant.

Batch normalisation, whose running statistics are no function of the input, is replaced by group normalisation, and left
out of the classifier.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nfn_core import Activation, FeatureError, Layer, Sequential, SpecError, WeightSpace
from nfn_core.arrays import Array, check_features, namespace_of
from nfn_core.hub_map import product
from nfn_core.layers import Execution, check_positive
from nfn_core.parameters import ParameterSpec
from reference_experiments.references import Linear, shared_mlp, within

__all__ = ["POINTS", "Autoencoder", "ImplicitDecoder", "RowStack", "encoder"]

POINTS = "points"
"""Name under which an autoencoder's input holds the points, beside the weight space's tensors."""

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

    def forward(self, params: Mapping[str, Array], value: Mapping[str, Array], how: Execution) -> Array:
        """Return an array of shape (batch, rows, columns) from features of one channel."""
        xp = check_features(self.space, value, 1)
        stacked = []
        for t in self.space.tensors:
            axes = [a for a, label in enumerate(t.labels) if label in self._hidden]
            if axes:
                others = [a + 1 for a in range(len(t.shape)) if a != axes[-1]]
                x = xp.permute_dims(value[t.name][..., 0], (0, *others, axes[-1] + 1))
                stacked.append(xp.reshape(x, (x.shape[0], t.size // self.columns, self.columns)))
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
        Normalisation of the features, applied first.

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
class ImplicitDecoder(Layer):
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
        check_positive(embedding=self.embedding, coordinates=self.coordinates, hidden=self.hidden)
        entry = Linear(self.embedding + self.coordinates * (2 * FREQUENCIES + 1), self.hidden)
        layers = (Linear(self.hidden, self.hidden), Activation("relu")) * 2
        before, after = Sequential(layers), Sequential((*layers, Linear(self.hidden, 1)))
        object.__setattr__(self, "parts", {"first": entry, "skip": entry, "before": before, "after": after})

    def parameters(self) -> dict[str, ParameterSpec]:
        """Return the parameters of all parts."""
        return {f"{part}.{name}": s for part, layer in self.parts.items() for name, s in layer.parameters().items()}

    def forward(self, params: Mapping[str, Array], value: tuple[Array, Array], how: Execution) -> Array:
        """Map embeddings (batch, embedding) and points (batch, points, coordinates) to (batch, points)."""
        embeddings, points = value
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
            return Activation("relu").forward({}, xp.expand_dims(shares[0], axis=1) + shares[1], how)

        x = self.parts["before"].forward(within(params, "before"), enter("first"), how) + enter("skip")
        return self.parts["after"].forward(within(params, "after"), x, how)[..., 0]


@dataclass(frozen=True)
class Autoencoder(Layer):
    """Encoder and decoder together: from weights and points to the logits of the distances there.

    The original fits logits to distances scaled to [0, 1] by binary cross-entropy, with AdamW, learning rate 10⁻⁴,
    weight decay 10⁻², batches of 16 networks and 10,000 points each, for 300 epochs. Parameters ``"encoder.NAME"`` are
    those of `encoder`.

    Parameters
    ----------
    encoder : Layer
        From features to embeddings.
    decoder : ImplicitDecoder
        From embeddings and points to logits.
    """

    encoder: Layer
    decoder: ImplicitDecoder

    def parameters(self) -> dict[str, ParameterSpec]:
        """Return the parameters of both."""
        parts: dict[str, Layer] = {"encoder": self.encoder, "decoder": self.decoder}
        return {f"{part}.{name}": spec for part, layer in parts.items() for name, spec in layer.parameters().items()}

    def forward(self, params: Mapping[str, Array], value: Mapping[str, Array], how: Execution) -> Array:
        """Map features, and points (batch, points, coordinates) under `POINTS`, to (batch, points)."""
        if POINTS not in value:
            raise FeatureError(f"an autoencoder needs points beside the features, under {POINTS!r}: got {list(value)}.")
        features = {name: x for name, x in value.items() if name != POINTS}
        embeddings = self.encoder.forward(within(params, "encoder"), features, how)
        return self.decoder.forward(within(params, "decoder"), (embeddings, value[POINTS]), how)

"""Canonical forms: weights of the same function that scalings of neurons, or changes of basis of factors, do not change.

A ReLU network keeps its function when a hidden neuron's incoming weights and bias are multiplied by λ > 0 and its outgoing
weights by 1/λ. A product BA of two factors stays the same when they become BM and M⁻¹A. No finite set of hubs respects
such groups. A canonical form does: a function of the weights whose value is the same for all weights that the group takes
to each other. Any network after it is invariant. For editing, the inverse transformation after the network makes it
equivariant.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nfn_core.arrays import Array, Features, device_of, namespace_of, widened
from nfn_core.checks import check_kind, plain_names, plain_tuple, shown
from nfn_core.errors import SpecError
from nfn_core.features import check_features
from nfn_core.layers.base import Execution, Layer
from nfn_core.layers.composite import Composite
from nfn_core.spaces import TensorSpec, WeightSpace

__all__ = ["CanonicalFactors", "CanonicalScales", "InCanonicalScales"]


@dataclass(frozen=True)
class CanonicalScales(Layer):
    """Weights of a ReLU network in which every hidden neuron's incoming row, with its bias, has unit norm.

    The neuron's outgoing weights are multiplied by that norm, so the function stays the same. Sets are treated one after
    another, from the inputs on. The norm of a set's rows is that of the tensors that come from sets already treated (and of
    biases): in a residual network the first that writes to a stream sets its scale. A neuron whose incoming weights are all
    zero stays as it is: it has no scale.

    The first axis of a tensor is taken as the neurons that the weight goes to, all others as those it comes from.

    A batch norm divides by the deviation of its input, so that weight, bias and running mean before it have a scale of
    their own, and the running variance its square. Name them in `normalized` and `variances`. Then their rows get unit norm
    too, and the neuron's row is the scale and shift of the batch norm. This holds for running statistics without epsilon,
    and up to epsilon otherwise.

    Parameters
    ----------
    space : WeightSpace
        The space of the features, whose one channel holds the weights.
    sets : tuple of str, optional
        Neuron sets with a positively homogeneous activation (ReLU, leaky ReLU); by default all but inputs and outputs.
    normalized : tuple of str
        Weights, biases and running means that go into a batch norm.
    variances : tuple of str
        Running variances of batch norms.

    Raises
    ------
    SpecError
        If a set or tensor is unknown, a set is an input or output, or no row of a set comes from sets already treated.

    Examples
    --------
    >>> import numpy as np
    >>> space = WeightSpace.mlp([2, 3, 1])
    >>> weights = {t.name: np.full((1, *t.shape, 1), 2.0) for t in space.tensors}
    >>> form = CanonicalScales(space)
    >>> out = form.apply({}, weights)
    >>> [round(float(out[name].max()), 3) for name in ("W1", "v1", "W2", "v2")]  # rows (2, 2) with bias 2 had the norm √12
    [0.577, 0.577, 6.928, 2.0]
    """

    space: WeightSpace
    sets: tuple[str, ...] | None = None
    normalized: tuple[str, ...] = ()
    variances: tuple[str, ...] = ()
    _order: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_kind("space", self.space, WeightSpace)
        ends = {*self.space.inputs, *self.space.outputs}
        given = [s for s in self.space.sizes if s not in ends] if self.sets is None else plain_names("sets", self.sets)
        for label in given:
            if label not in self.space.sizes or label in ends:
                raise SpecError(f"sets name {label!r}, which is no hidden neuron set of this space.")
        object.__setattr__(self, "sets", tuple(dict.fromkeys(given)))
        for name in ("normalized", "variances"):
            named = plain_names(name, getattr(self, name))
            for tensor in named:
                if tensor not in self.space.by_name or not self.space.by_name[tensor].labels:
                    raise SpecError(
                        f"{name} must name tensors of {list(self.space.by_name)} with axes, not {tensor!r}."
                    )
            object.__setattr__(self, name, named)
        object.__setattr__(self, "_order", tuple(self._ordered()))

    def _ordered(self) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
        """Sets in the order of treatment, each with the tensors whose rows have its norm, after and before a batch norm."""
        waiting, found = list(self.sets or ()), []
        while waiting:
            for label in waiting:
                into = [t for t in self.space.tensors if t.labels[:1] == (label,) and t.name not in self.variances]
                known = [t for t in into if not set(t.labels[1:]) & set(waiting)]
                if any(len(t.shape) > 1 for t in known):
                    break
            else:
                raise SpecError(f"sets {waiting} have no weight that comes from other sets: leave them out of sets.")
            before = tuple(t.name for t in known if t.name in self.normalized)
            found.append((label, tuple(t.name for t in known if t.name not in self.normalized), before))
            waiting.remove(label)
        return found

    def keeps_signs(self) -> bool:
        """Return True: factors are positive."""
        return True

    def gains(self, features: Mapping[str, Array]) -> Features:
        """Return what every entry is multiplied by.

        Parameters
        ----------
        features : mapping of str to array
            Weights, each tensor of shape (batch, *axes, 1).

        Returns
        -------
        dict of str to array
            Positive factors of the same shapes.

        Raises
        ------
        FeatureError
            If the features do not fit.
        """
        xp = check_features(self.space, features, 1)
        gains: Features = {name: xp.ones_like(features[name]) for name in self.space.by_name}

        def row_norms(names: tuple[str, ...]) -> Array:
            """Norms, shape (batch, n), and 1 for rows of zeros."""
            total: Any = 0.0
            for name in names:
                wide = widened(features[name] * gains[name])
                total = total + xp.sum(wide * wide, axis=tuple(range(2, wide.ndim)))
            root = xp.sqrt(xp.where(total > 0, total, xp.ones_like(total)))
            return xp.astype(root, gains[names[0]].dtype, copy=False)

        def multiply(t: TensorSpec, axis: int, factor: Array) -> None:
            shape = (factor.shape[0], *(1,) * axis, t.shape[axis], *(1,) * (len(t.shape) - axis))
            gains[t.name] = gains[t.name] * xp.reshape(factor, shape)

        for label, rows, before in self._order:
            if before:
                norm = row_norms(before)
                for t in self.space.tensors:
                    if t.labels[:1] == (label,) and t.name in self.normalized:
                        multiply(t, 0, 1 / norm)
                    elif t.labels[:1] == (label,) and t.name in self.variances:
                        multiply(t, 0, 1 / (norm * norm))
            if rows:
                norm = row_norms(rows)
                for t, axis in _axes_of(self.space, label):
                    if axis:
                        multiply(t, axis, norm)
                    elif t.name not in (*self.normalized, *self.variances):
                        multiply(t, axis, 1 / norm)
        return gains

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Features:
        """Return the weights with unit rows."""
        gains = self.gains(x)
        return {name: x[name] * gain for name, gain in gains.items()}


@dataclass(frozen=True)
class InCanonicalScales(Composite):
    """A layer applied to the canonical form of ReLU networks, and its output scaled back: equivariant to scales of neurons.

    Parameters
    ----------
    form : CanonicalScales
        The form.
    layer : Layer
        From features of one channel to features of the same space, such as changes of weights.

    Raises
    ------
    SpecError
        If one of them is of another kind.
    """

    form: CanonicalScales
    layer: Layer

    def __post_init__(self) -> None:
        check_kind("form", self.form, CanonicalScales)
        check_kind("layer", self.layer, Layer)

    def children(self) -> dict[str, Layer]:
        """Return both."""
        return {"form": self.form, "layer": self.layer}

    def keeps_signs(self) -> bool:
        """Return whether the layer does."""
        return self.layer.keeps_signs()

    def channels_after(self, channels: int) -> int:
        """Return the layer's channels."""
        return self.layer.channels_after(channels)

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Features:
        """Return the layer's output, divided by what the weights were multiplied by."""
        gains = self.form.gains(x)
        canonical = {name: x[name] * gain for name, gain in gains.items()}
        out = self.call("layer", params, canonical, execution)
        check_features(self.form.space, out)
        return {name: out[name] / gain for name, gain in gains.items()}


@dataclass(frozen=True)
class CanonicalFactors(Layer):
    """Factors of low rank (LoRA) in the singular-value form of their product: B' = U √S and A' = √S Vᵀ with BA = U S Vᵀ.

    The product BA is never formed: B = Q R and Aᵀ = P T by thin QR, and U, S, V of R Tᵀ, which has the rank's size. The form
    is the same for BM and M⁻¹A. Singular values fall along the rank. What is left is a sign of each, and a rotation where
    singular values are equal. So networks after it take a group that signs the rank's neuron set.

    Parameters
    ----------
    space : WeightSpace
        The space of the features, whose one channel holds the weights.
    pairs : tuple of (str, str)
        Names of B and A. B has axes (outputs, rank) and A (rank, inputs), where one neuron set labels both ranks.

    Raises
    ------
    SpecError
        If a tensor is unknown, comes twice, or the axes are others.

    Examples
    --------
    >>> import numpy as np
    >>> axes = {"B": [("out", 5), ("r", 2)], "A": [("r", 2), ("in", 4)]}
    >>> form = CanonicalFactors(WeightSpace.from_axes(axes), (("B", "A"),))
    >>> weights = {"B": np.eye(5, 2)[None, ..., None], "A": 3 * np.eye(2, 4)[None, ..., None]}
    >>> form.singular_values(weights)["B"].tolist()
    [[3.0, 3.0]]
    """

    space: WeightSpace
    pairs: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        check_kind("space", self.space, WeightSpace)
        pairs = tuple(plain_names("pairs", pair) for pair in plain_tuple("pairs", self.pairs))
        names: list[str] = []
        for pair in pairs:
            specs = [self.space.by_name.get(name) for name in pair]
            labels = [t.labels if t is not None else () for t in specs]
            if [len(x) for x in labels] != [2, 2] or labels[0][1] != labels[1][0] or labels[0][1] is None:
                raise SpecError(
                    f"pairs must hold names of B, with axes (outputs, rank), and A, with axes (rank, inputs), not {shown(pair)}."
                )
            names += pair
        if len(set(names)) < len(names) or not names:
            raise SpecError(f"pairs must name each tensor once, and at least one pair, not {shown(self.pairs)}.")
        object.__setattr__(self, "pairs", pairs)

    def keeps_signs(self) -> bool:
        """Return True: what is left changes by signs of the rank."""
        return True

    def singular_values(self, features: Mapping[str, Array]) -> Features:
        """Return the singular values of each product: all invariants of BA that do not see its inputs and outputs.

        Parameters
        ----------
        features : mapping of str to array
            Weights, each tensor of shape (batch, *axes, 1).

        Returns
        -------
        dict of str to array
            Under the name of B the singular values, falling, shape (batch, rank).

        Raises
        ------
        FeatureError
            If the features do not fit.
        """
        check_features(self.space, features, 1)
        return {pair[0]: self._decomposed(features, pair)[1] for pair in self.pairs}

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Features:
        """Return the weights with canonical factors; other tensors stay as they are."""
        xp = check_features(self.space, x, 1)
        out = {name: x[name] for name in self.space.by_name}
        for pair in self.pairs:
            u, s, v = self._decomposed(x, pair)
            root = xp.sqrt(s)[:, None, :]
            for name, y in zip(pair, (u * root, xp.permute_dims(v * root, (0, 2, 1))), strict=True):
                out[name] = xp.astype(y, x[name].dtype, copy=False)[..., None]
        return out

    def _decomposed(self, x: Mapping[str, Array], pair: tuple[str, str]) -> tuple[Array, Array, Array]:
        """U, S and V of BA, of shapes (batch, outputs, rank), (batch, rank) and (batch, inputs, rank)."""
        b, a = (widened(x[name])[..., 0] for name in pair)
        xp = namespace_of(b)
        q, r = xp.linalg.qr(b)
        p, t = xp.linalg.qr(xp.permute_dims(a, (0, 2, 1)))
        left, s, right = xp.linalg.svd(xp.matmul(r, xp.permute_dims(t, (0, 2, 1))), full_matrices=False)
        u, v = xp.matmul(q, left), xp.matmul(p, xp.permute_dims(right, (0, 2, 1)))
        lacking = b.shape[2] - s.shape[1]  # a rank above the sizes of the product
        if lacking:
            u, s, v = (
                xp.concat([y, xp.zeros((*y.shape[:-1], lacking), dtype=y.dtype, device=device_of(y))], axis=-1)
                for y in (u, s, v)
            )
        return u, s, v


def _axes_of(space: WeightSpace, label: str) -> list[tuple[TensorSpec, int]]:
    """Axes that a neuron set labels."""
    return [(t, axis) for t in space.tensors for axis, s in enumerate(t.labels) if s == label]

"""Weight spaces: named tensors whose axes are labeled by neuron sets (paper, section 2.1)."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

from nfn_core.checks import (
    boolean,
    check_kind,
    natural_int,
    plain_int,
    plain_names,
    plain_tuple,
    positive_int,
    positive_ints,
    shown,
)
from nfn_core.errors import SpecError
from nfn_core.registry import describable

if TYPE_CHECKING:
    from nfn_core.groups import Group

__all__ = ["TensorSpec", "WeightSpace"]

RESERVED = frozenset("+. ")


@describable
@dataclass(frozen=True)
class TensorSpec:
    """One named tensor of a weight space.

    Parameters
    ----------
    name : str
        Name of the tensor, unique in its weight space (``"W1"``, ``"v1"``, ...).
    shape : tuple of int
        Size of each axis, without batch and channel axes.
    labels : tuple of (str or None)
        For each axis the neuron set that indexes it, or None for a fixed axis (a filter's height, for example).
    layer : int
        Index of the layer the tensor belongs to, from 0; read by layer-index encodings only.

    Raises
    ------
    SpecError
        If the name is empty, a size is not a positive integer, a label cannot be, or sizes and labels differ in number.
    """

    name: str
    shape: tuple[int, ...]
    labels: tuple[str | None, ...]
    layer: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise SpecError(f"a tensor's name must be a non-empty string, not {shown(self.name)}.")
        where = f"tensor {self.name!r}"
        shape = tuple(map(plain_int, plain_tuple(f"{where}: shape", self.shape)))
        labels = plain_tuple(f"{where}: labels", self.labels)
        if len(shape) != len(labels):
            raise SpecError(
                f"{where} has {len(shape)} axis sizes {shape} but {len(labels)} labels {labels}: "
                "give one label (a neuron set or None) for each axis."
            )
        for axis, (size, label) in enumerate(zip(shape, labels, strict=True)):
            positive_int(f"{where}, axis {axis}: the size", size)
            if label is not None and (not isinstance(label, str) or not label or RESERVED & set(label)):
                raise SpecError(
                    f"{where}, axis {axis}: a neuron set is a non-empty string without '+', '.' or spaces, "
                    f"or None for a fixed axis, not {shown(label)}."
                )
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "layer", natural_int(f"{where}: layer", self.layer))

    @property
    def size(self) -> int:
        """Number of entries."""
        return prod(self.shape)


@describable
@dataclass(frozen=True)
class WeightSpace:
    """A list of named tensors that share neuron sets.

    Make one with `mlp`, `cnn` or `from_axes`; the bare constructor takes tensors already described.

    Parameters
    ----------
    tensors : tuple of TensorSpec
        The tensors, in a fixed order.
    inputs, outputs : tuple of str
        Neuron sets that are the network's inputs and outputs: HNP leaves them alone, IO-encoding marks them.

    Attributes
    ----------
    sizes : dict of str to int
        Size of each neuron set, in order of first appearance.
    by_name : dict of str to TensorSpec
        The tensors by name, in order.

    Raises
    ------
    SpecError
        If there is no tensor, a name repeats, a size is not a positive integer, or one neuron set has two sizes.

    Examples
    --------
    >>> space = WeightSpace.mlp([2, 32, 32, 1])
    >>> [(t.name, t.shape) for t in space.tensors][:3]
    [('W1', (32, 2)), ('v1', (32,)), ('W2', (32, 32))]
    """

    tensors: tuple[TensorSpec, ...]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    sizes: dict[str, int] = field(init=False, repr=False, compare=False)
    by_name: dict[str, TensorSpec] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tensors = plain_tuple("tensors", self.tensors)
        if not tensors:
            raise SpecError(
                "a weight space needs at least one tensor, but none was given: give the network's weights and biases."
            )
        for i, t in enumerate(tensors):
            check_kind(f"tensors[{i}]", t, TensorSpec)
        for name, count in Counter(t.name for t in tensors).items():
            if count > 1:
                raise SpecError(f"tensor name {name!r} occurs {count} times: names must be unique.")
        object.__setattr__(self, "tensors", tensors)
        object.__setattr__(self, "sizes", _neuron_sets(tensors))
        object.__setattr__(self, "by_name", {t.name: t for t in tensors})
        for role in ("inputs", "outputs"):
            sets = plain_names(role, getattr(self, role))
            for label in sets:
                if label not in self.sizes:
                    raise SpecError(f"{role} names neuron set {label!r}, but the space has {tuple(self.sizes)}.")
            object.__setattr__(self, role, sets)

    def __repr__(self) -> str:
        """How `mlp` or `cnn` would make the space, or a summary of any other space."""
        made = _as_feedforward(self.tensors)
        if made is not None and self == WeightSpace.cnn(*made):
            sizes, filters, flags = made
            options = "" if all(flags) else f", bias={list(flags)}" if any(flags) else ", bias=False"
            return (
                f"WeightSpace.mlp({sizes}{options})"
                if not any(filters)
                else f"WeightSpace.cnn({sizes}, {filters}{options})"
            )
        counts = f"{len(self.tensors)} tensors, {len(self.sizes)} neuron sets, {self.size:,} entries"
        return f"WeightSpace({counts})"

    @property
    def size(self) -> int:
        """Number of entries of all tensors together, dim(U) of the paper."""
        return sum(t.size for t in self.tensors)

    @classmethod
    def mlp(cls, sizes: Sequence[int], bias: bool | Sequence[bool] = True) -> "WeightSpace":
        """Weight space of a multilayer perceptron (paper, section 2.1).

        Parameters
        ----------
        sizes : sequence of int
            Number of neurons of each layer, inputs first: n_0, ..., n_L, with L ≥ 1.
        bias : bool or sequence of bool
            Whether layer i has a bias; one value for all layers, or L values.

        Returns
        -------
        WeightSpace
            Tensors ``W1`` of shape (n_1, n_0), ``v1`` of shape (n_1,), ... over neuron sets ``in``, ``h1``, ..., ``out``.

        Raises
        ------
        SpecError
            If fewer than two sizes are given, or the number of bias flags is not L.
        """
        sizes = plain_tuple("sizes", sizes)
        return cls.cnn(sizes, [()] * (len(sizes) - 1), bias)

    @classmethod
    def cnn(
        cls,
        sizes: Sequence[int],
        filters: Sequence[Sequence[int]],
        bias: bool | Sequence[bool] = True,
    ) -> "WeightSpace":
        """Weight space of a feedforward network with convolutions (paper, section 2.2, "Extension to convolutional").

        Parameters
        ----------
        sizes : sequence of int
            Number of channels (neurons) of each layer, input channels first: n_0, ..., n_L, with L ≥ 1.
        filters : sequence of sequence of int
            For each of the L layers the fixed axes of its weight after (n_i, n_{i-1}): ``(3, 3)`` for a 3x3
            convolution, ``(5,)`` in one dimension, ``()`` for a fully-connected layer (after global pooling, for example).
            For a convolution *flattened* into a fully-connected layer give the number of pixels, ``(16,)``: the
            flattened weight (n_i, n_{i-1} * 16), channel-major, is reshaped to (n_i, n_{i-1}, 16).
        bias : bool or sequence of bool
            Whether layer i has a bias; one value for all layers, or L values.

        Returns
        -------
        WeightSpace
            Tensors ``W1`` of shape (n_1, n_0, *filters[0]), ``v1`` of shape (n_1,), ... over neuron sets ``in``,
            ``h1``, ..., ``out``.

        Raises
        ------
        SpecError
            If fewer than two sizes are given, or the number of filters or bias flags is not L.
        """
        sizes = positive_ints("sizes", sizes)
        depth = len(sizes) - 1
        if depth < 1:
            raise SpecError(
                f"sizes must hold at least the numbers of inputs and outputs, not {sizes}: an empty network has no weights."
            )
        filters = [positive_ints(f"filters[{i}]", axes) for i, axes in enumerate(plain_tuple("filters", filters))]
        if type(bias).__name__ == "bool":
            bias = (bool(bias),) * depth
        flags = [boolean(f"bias[{i}]", flag) for i, flag in enumerate(plain_tuple("bias", bias))]
        for name, values in (("filters", filters), ("bias", flags)):
            if len(values) != depth:
                raise SpecError(f"{name} must have one value for each of the {depth} layers, not {len(values)} values.")
        sets = ["in", *(f"h{i}" for i in range(1, depth)), "out"]
        tensors = []
        for i in range(1, depth + 1):
            fixed = filters[i - 1]
            labels = (sets[i], sets[i - 1], *(None,) * len(fixed))
            tensors.append(TensorSpec(f"W{i}", (sizes[i], sizes[i - 1], *fixed), labels, i - 1))
            if flags[i - 1]:
                tensors.append(TensorSpec(f"v{i}", (sizes[i],), (sets[i],), i - 1))
        return cls(tuple(tensors), ("in",), ("out",))

    @classmethod
    def from_axes(
        cls,
        axes: Mapping[str, Sequence[tuple[str | None, int]]],
        inputs: Iterable[str] = (),
        outputs: Iterable[str] = (),
    ) -> "WeightSpace":
        """Weight space from explicitly labeled axes, for any architecture.

        Parameters
        ----------
        axes : mapping of str to sequence of (str or None, int)
            For each tensor its axes in order, each a pair of a neuron set (None for a fixed axis) and a size. A neuron
            set may label axes of many tensors (a residual stream) and several axes of one tensor (a recurrent matrix).
        inputs, outputs : iterable of str
            Neuron sets of the network's inputs and outputs, which HNP leaves alone.

        Returns
        -------
        WeightSpace
            The tensors in the mapping's order.

        Raises
        ------
        SpecError
            As the constructor.

        Examples
        --------
        >>> rnn = WeightSpace.from_axes({
        ...     "W": [("h", 4), ("in", 3)], "R": [("h", 4), ("h", 4)], "b": [("h", 4)], "V": [("out", 2), ("h", 4)],
        ... }, inputs=["in"], outputs=["out"])
        >>> rnn.sizes
        {'h': 4, 'in': 3, 'out': 2}
        """
        check_kind("axes", axes, Mapping)
        tensors = []
        for i, (name, pairs) in enumerate(axes.items()):
            pairs = plain_tuple(f"axes of tensor {name!r}", pairs)
            for pair in pairs:
                if not isinstance(pair, tuple | list) or len(pair) != 2:
                    raise SpecError(
                        f"tensor {name!r}: each axis is a pair (neuron set or None, size), not {shown(pair)}."
                    )
            tensors.append(TensorSpec(name, tuple(p[1] for p in pairs), tuple(p[0] for p in pairs), i))
        return cls(tuple(tensors), plain_names("inputs", inputs), plain_names("outputs", outputs))

    def group(self, permuted: str | Iterable[str], signed: Iterable[str] = ()) -> "Group":
        """Return the permutation group of this space that moves the given neuron sets.

        Parameters
        ----------
        permuted : {"NP", "HNP"} or iterable of str
            ``"NP"`` moves all neuron sets, ``"HNP"`` all but inputs and outputs (paper, table 1); otherwise the
            names of the sets to move. Sets of size 1 have nothing to move and count as fixed.
        signed : iterable of str
            Sets of these whose neurons may also change their sign: those with odd activations (tanh, sine).

        Returns
        -------
        Group
            The group, which also carries this space.

        Raises
        ------
        SpecError
            If the group or a neuron set is unknown, or a signed set is not permuted.
        """
        from nfn_core.groups import Group  # groups build on spaces; this shorthand is the one arrow back

        if isinstance(permuted, str):
            if permuted not in ("NP", "HNP"):
                raise SpecError(f"permuted must be 'NP', 'HNP' or a collection of neuron sets, not {permuted!r}.")
            kept = {*self.inputs, *self.outputs} if permuted == "HNP" else set()
            permuted = [label for label in self.sizes if label not in kept]
        return Group(self, plain_names("permuted", permuted), plain_names("signed", signed))


def _as_feedforward(tensors: tuple[TensorSpec, ...]) -> tuple[list[int], list[tuple[int, ...]], list[bool]] | None:
    """Sizes, filters and biases of a feedforward network whose weights these may be, or None."""
    weights = [t for t in tensors if len(t.shape) >= 2]
    if not weights:
        return None
    names = {t.name for t in tensors}
    sizes = [weights[0].shape[1], *(t.shape[0] for t in weights)]
    return sizes, [t.shape[2:] for t in weights], [f"v{i}" in names for i in range(1, len(weights) + 1)]


def _neuron_sets(tensors: tuple[TensorSpec, ...]) -> dict[str, int]:
    """Size of each neuron set, or a SpecError where two tensors disagree."""
    sizes: dict[str, int] = {}
    where: dict[str, str] = {}
    for t in tensors:
        for axis, (size, label) in enumerate(zip(t.shape, t.labels, strict=True)):
            if label is None:
                continue
            here = f"axis {axis} of tensor {t.name!r}"
            if sizes.setdefault(label, size) != size:
                raise SpecError(
                    f"neuron set {label!r} has size {sizes[label]} at {where[label]} but {size} at {here}: "
                    "axes that share a neuron set must have one size; rename one of them if they are different sets."
                )
            where.setdefault(label, here)
    return sizes

"""Layers between NF-layers of a group with signs: activations and norms by parity, gates, and products of grades.

Features of a grade change their sign with some neurons. What is applied to them entry by entry must keep that sign: an
odd activation, a factor that is even, a norm that does not shift. The product of features of grades P and Q has the grade
P + Q modulo 2, axis by axis: so odd features become even ones, and the other way round.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt

from nfn_core.arrays import Array, Features
from nfn_core.checks import boolean, check_choice, check_counts, check_kind, check_numbers
from nfn_core.errors import SpecError
from nfn_core.features import check_features
from nfn_core.groups import Group, graded_name
from nfn_core.layers.base import ChannelMap, Execution, Layer, check_input_channels
from nfn_core.layers.composite import Composite
from nfn_core.layers.elementwise import ACTIVATIONS, Activation
from nfn_core.layers.encodings import GaussianFourierFeatures
from nfn_core.layers.hub_map import product
from nfn_core.layers.hubs import HubGraph, fold, hub_graph, unfold
from nfn_core.layers.nf import check_target
from nfn_core.layers.parameters import ParameterSpec
from nfn_core.spaces import WeightSpace

__all__ = ["ByParity", "GradedFourierFeatures", "GradedGate", "GradedProduct", "parity_space"]


def parity_space(group: Group, odd: bool) -> WeightSpace | None:
    """Weight space of the tensors of a group that are odd, or that are even; None if there are none.

    Parameters
    ----------
    group : Group
        A group with signs.
    odd : bool
        Whether tensors of any other grade than the even one are wanted.

    Returns
    -------
    WeightSpace or None
        The space.

    Raises
    ------
    SpecError
        If it is no group, or `odd` is not True or False.
    """
    check_kind("group", group, Group)
    odd = boolean("odd", odd)
    tensors = tuple(t for t in group.space.tensors if any(group.grade(t.name)) == odd)
    return WeightSpace(tensors) if tensors else None


@dataclass(frozen=True)
class ByParity(Composite):
    """One layer for even features and another for odd ones, such as two activations, or two norms.

    Parameters
    ----------
    group : Group
        A group with signs, with the weight space of the features.
    even : Layer
        Applied to the even tensors; a layer with a weight space has ``parity_space(group, odd=False)``.
    odd : Layer
        Applied to all others, whose signs it must keep (`Layer.keeps_signs`): tanh, sine, a `BatchNorm` that does not
        center, `Scale`, `Dropout`. A layer with a weight space has ``parity_space(group, odd=True)``.

    Raises
    ------
    SpecError
        If one is no layer, or the odd one does not keep signs.

    Examples
    --------
    >>> group = WeightSpace.mlp([2, 3, 1]).group("HNP", signed=["h1"]).graded("all")
    >>> ByParity(group, Activation("relu"), Activation("tanh")).channels_after(4)
    4
    """

    group: Group
    even: Layer
    odd: Layer
    _names: dict[str, tuple[str, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_kind("group", self.group, Group)
        check_kind("even", self.even, Layer)
        check_kind("odd", self.odd, Layer)
        if not self.odd.keeps_signs():
            raise SpecError(
                f"odd must keep the signs of its input, but {self.odd!r} does not: use tanh, sin, a gate, or a BatchNorm "
                "with center=False."
            )
        spaces = {"even": parity_space(self.group, odd=False), "odd": parity_space(self.group, odd=True)}
        object.__setattr__(self, "_names", {k: tuple(s.by_name) for k, s in spaces.items() if s is not None})

    def children(self) -> dict[str, Layer]:
        """Return both layers."""
        return {"even": self.even, "odd": self.odd}

    def keeps_signs(self) -> bool:
        """Return True."""
        return True

    def channels_after(self, channels: int) -> int:
        """Return the channels of both layers, which must be alike."""
        even, odd = self.even.channels_after(channels), self.odd.channels_after(channels)
        if even != odd:
            raise SpecError(f"even and odd features must have as many channels, but the layers give {even} and {odd}.")
        return even

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Features:
        """Apply both layers."""
        check_features(self.group.space, x)
        found: Features = {}
        for child, names in self._names.items():
            found |= self.call(child, params, {name: x[name] for name in names}, execution)
        return {t.name: found[t.name] for t in self.group.space.tensors}


@dataclass(frozen=True)
class GradedGate(Layer):
    """Features of every grade times activated even features of the same tensor, mixed for each grade.

    Parameters
    ----------
    group : Group
        A group with signs, with the weight space of the features; `Group.graded` gives one with even features.
    channels : int
        Channels.
    activation : str
        One of `ACTIVATIONS`, applied to the even features.

    Raises
    ------
    SpecError
        If the activation is unknown, `channels` is not positive, or a tensor has no even features.
    """

    group: Group
    channels: int
    activation: str = "silu"
    graph: HubGraph = field(init=False, repr=False, compare=False)
    _gates: tuple[tuple[int, int], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_kind("group", self.group, Group)
        check_counts(self, "channels")
        check_choice("activation", self.activation, tuple(ACTIVATIONS))
        tensors, gates = self.group.space.tensors, []
        for base, members in self.group.families():
            even = [k for k in members if not any(self.group.grade(tensors[k].name))]
            if not even:
                raise SpecError(f"gates are even, but group has no even features of tensor {base!r}: add that grade.")
            gates += [(k, even[0]) for k in members]
        object.__setattr__(self, "graph", hub_graph(self.group))
        object.__setattr__(self, "_gates", tuple(gates))

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return for each tensor ``"W2[0,1].gate"``, a matrix (width * channels, width * channels), and ``".bias"``."""
        specs: dict[str, ParameterSpec] = {}
        for k, even in self._gates:
            name, width = self.group.space.tensors[k].name, self.graph.tensors[even].width * self.channels
            specs[f"{name}.gate"] = ParameterSpec((width, width), "uniform", ((width, width),))
            specs[f"{name}.bias"] = ParameterSpec((width,), "uniform", ((width, width),))
        return specs

    def keeps_signs(self) -> bool:
        """Return True."""
        return True

    def channels_after(self, channels: int) -> int:
        """Return `channels`."""
        check_input_channels(self, self.channels, channels)
        return channels

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Features:
        """Multiply every tensor by its gate."""
        xp = check_features(self.group.space, x, self.channels)
        plans, activation = self.graph.tensors, Activation(self.activation)
        folded = {even: fold(plans[even], x[plans[even].spec.name], xp) for even in {even for _, even in self._gates}}
        out: Features = {}
        for k, even in self._gates:
            name = plans[k].spec.name
            gate = product(folded[even], params[f"{name}.gate"], params[f"{name}.bias"])
            out[name] = x[name] * activation.forward({}, unfold(plans[even], gate, xp), execution)
        return {t.name: out[t.name] for t in self.group.space.tensors}


@dataclass(frozen=True)
class GradedFourierFeatures(Composite):
    """Gaussian Fourier features of every entry, by grade: sines are odd where entries are, cosines are even.

    The sine of an odd entry changes its sign with it, and is a feature of the same grade. The cosine does not, and is an
    even feature of the tensor. Where a tensor has several grades, their cosines are added. Of an even entry, which has one
    grade only, the feature is the sum of both.

    Parameters
    ----------
    group : Group
        A group with signs, with the weight space of the input.
    in_channels : int
        Channels of the input.
    frequencies, scale : int, float
        As in `GaussianFourierFeatures`. The number of frequencies is that of the output channels.

    Attributes
    ----------
    target : Group
        The group on the space of the output: the even features and those of the input's grades, for each tensor.

    Raises
    ------
    SpecError
        If a number is not positive.

    Examples
    --------
    >>> group = WeightSpace.mlp([2, 3, 1]).group("HNP", signed=["h1"])
    >>> list(GradedFourierFeatures(group, 1, 8).target.space.by_name)
    ['W1[0,0]', 'W1[1,0]', 'v1[0]', 'v1[1]', 'W2[0,0]', 'W2[0,1]', 'v2[0]']
    """

    group: Group
    in_channels: int
    frequencies: int = 128
    scale: float = 3.0
    target: Group = field(init=False, repr=False, compare=False)
    _places: tuple[tuple[str, str, str], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_kind("group", self.group, Group)
        check_counts(self, "in_channels", "frequencies")
        check_numbers(self, "positive", "scale")
        grades: dict[str, list[tuple[int, ...]]] = {}
        places: list[tuple[str, str, str]] = []  # of a tensor's sines, and of its cosines
        for base, members in self.group.families():
            names = [self.group.space.tensors[k].name for k in members]
            rows = {name: self.group.grade(name) for name in names}
            even = (0,) * len(rows[names[0]])
            grades[base] = sorted({*rows.values(), even})
            places += [(name, graded_name(base, row), graded_name(base, even)) for name, row in rows.items()]
        object.__setattr__(self, "target", self.group.graded(grades))
        object.__setattr__(self, "_places", tuple(places))

    def children(self) -> dict[str, Layer]:
        """Return the features of every entry."""
        return {"fourier": GaussianFourierFeatures(self.in_channels, self.frequencies, self.scale)}

    def keeps_signs(self) -> bool:
        """Return True."""
        return True

    def channels_after(self, channels: int) -> int:
        """Return `frequencies`."""
        check_input_channels(self, self.in_channels, channels)
        return self.frequencies

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Features:
        """Encode the channels of every entry."""
        check_features(self.group.space, x, self.in_channels)
        waves = self.call("fourier", params, {name: x[name] for name in self.group.space.by_name}, execution)
        out: Features = {}
        for name, sines, cosines in self._places:
            sine, cosine = waves[name][..., : self.frequencies], waves[name][..., self.frequencies :]
            for place, wave in ((sines, sine), (cosines, cosine)):
                out[place] = out[place] + wave if place in out else wave
        return {name: out[name] for name in self.target.space.by_name}


@dataclass(frozen=True)
class GradedProduct(ChannelMap):
    """Products of the features that a tensor has in several grades, entry by entry: grades P and Q give grade P + Q.

    Every tensor of the input is mixed twice, linearly. Every tensor of the output is the sum of all products of a first
    mix and the tanh of a second one that have its grade. The tanh keeps signs and grades, and keeps products of products
    from being all outliers. This is what carries information from odd features to even ones: a weight
    times odd features of its neuron, pooled over that neuron by the next NF-layer, is a message.

    Parameters
    ----------
    group : Group
        A group with signs, with the weight space of the input.
    in_channels, out_channels : int
        Channels of input and output.
    target : Group, optional
        The same group on the weight space of the output, if that has other grades.

    Raises
    ------
    SpecError
        If a number is not positive, the target is another group, nobody takes the grades of a tensor's products, or an
        output is the product of nothing.

    Examples
    --------
    >>> group = WeightSpace.mlp([2, 3, 1]).group("HNP", signed=["h1"])
    >>> layer = GradedProduct(group, 1, 4, target=group.graded("even"))
    >>> layer.products()["W2[0,0]"]
    (('W2', 'W2'),)
    """

    group: Group
    in_channels: int
    out_channels: int
    target: Group | None = None
    graph: HubGraph = field(init=False, repr=False, compare=False)
    _pairs: dict[str, tuple[tuple[str, str], ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_kind("group", self.group, Group)
        check_counts(self, "in_channels", "out_channels")
        check_target(self.group, self.target)
        object.__setattr__(self, "graph", hub_graph(self.group))
        object.__setattr__(self, "_pairs", _pairs(self.group, self.target or self.group))

    def products(self) -> dict[str, tuple[tuple[str, str], ...]]:
        """Return for each output tensor the pairs of input tensors whose products it is the sum of."""
        return dict(self._pairs)

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return for each input tensor two matrices, ``"W2[0,1].left"`` and ``"W2[0,1].right"``.

        Each has the shape (width * in_channels, width * out_channels), where the width is the number of fixed entries.
        """
        specs: dict[str, ParameterSpec] = {}
        for plan in self.graph.tensors:
            for side in ("left", "right"):
                shape = (plan.width * self.in_channels, plan.width * self.out_channels)
                specs[f"{plan.spec.name}.{side}"] = ParameterSpec(shape, "normal", value=1 / sqrt(shape[0]))
        return specs

    def keeps_signs(self) -> bool:
        """Return True."""
        return True

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Features:
        """Mix every tensor twice, and add up the products of each grade."""
        xp = check_features(self.group.space, x, self.in_channels)
        mixed: dict[tuple[str, str], Array] = {}
        for plan in self.graph.tensors:
            name = plan.spec.name
            folded = fold(plan, x[name], xp)
            for side in ("left", "right"):
                mixed[name, side] = unfold(plan, product(folded, params[f"{name}.{side}"], None), xp)
            mixed[name, "right"] = xp.tanh(mixed[name, "right"])
        out: Features = {}
        for name, pairs in self._pairs.items():
            total, *others = (mixed[left, "left"] * mixed[right, "right"] for left, right in pairs)
            for term in others:
                total = total + term
            out[name] = total / sqrt(len(pairs))
        return out


def _pairs(group: Group, target: Group) -> dict[str, tuple[tuple[str, str], ...]]:
    """For each output tensor the pairs of input tensors, each pair once, whose product has its grade."""
    sources, used = group.space.tensors, set()
    found: dict[str, tuple[tuple[str, str], ...]] = {}
    members = {(base, sources[m[0]].labels, sources[m[0]].shape): m for base, m in group.families()}
    for base, places in target.families():
        for place in places:
            t = target.space.tensors[place]
            wanted, pairs = target.grade(t.name), []
            names = [sources[k].name for k in members.get((base, t.labels, t.shape), ())]
            for i, left in enumerate(names):
                for right in names[i:]:
                    if tuple(a ^ b for a, b in zip(group.grade(left), group.grade(right), strict=True)) == wanted:
                        pairs.append((left, right))
            if not pairs:
                raise SpecError(f"no product of features of tensor {base!r} has the grade of {t.name!r}: leave it out.")
            found[t.name] = tuple(pairs)
            used |= {name for pair in pairs for name in pair}
    lost = [t.name for t in sources if t.name not in used]
    if lost:
        raise SpecError(f"nobody takes the grades of the products of {lost}: add these grades to target.")
    return {t.name: found[t.name] for t in target.space.tensors}

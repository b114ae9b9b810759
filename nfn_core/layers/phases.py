"""Encodings of the neurons of sine networks by their phases, and biases of sine networks as cosine and sine."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from nfn_core.arrays import Array, Features, device_of, widened
from nfn_core.checks import check_counts, check_flags, check_kind, check_numbers, positive_int
from nfn_core.errors import SpecError
from nfn_core.features import check_features
from nfn_core.groups import Group, graded_name
from nfn_core.layers.base import Execution, Layer
from nfn_core.layers.hub_map import product
from nfn_core.layers.neurons import neuron_group
from nfn_core.layers.parameters import ParameterSpec
from nfn_core.spaces import TensorSpec, WeightSpace

__all__ = ["BiasPhases", "NeuronPhases"]


@dataclass(frozen=True)
class NeuronPhases(Layer):
    """Phases of the neurons of a sine network (Sitzmann et al., NeurIPS 2020), mixed to channels of each neuron.

    A neuron that sees the inputs by a weight w and a bias v is encoded by sin and cos of ω (w · ξ + v) at points ξ; any
    other neuron by sin and cos of ω v for each of its biases. The weights must be as they are in the network, not
    normalized; only their first channel is read.

    Parameters
    ----------
    group : Group
        The group, with its weight space; it leaves the input set in place (HNP), since points distinguish inputs.
    out_channels : int
        Channels of each neuron.
    omega : float
        Frequency ω of the sine network; `ModelSpace.omega` finds it in a traced network.
    points : int
        Number of points ξ, drawn uniformly from [-1, 1] in each coordinate.
    learned : bool
        Whether the points are trained.

    Raises
    ------
    SpecError
        If a number is not positive, or the group permutes an input set.
    """

    group: Group
    out_channels: int
    omega: float = 30.0
    points: int = 32
    learned: bool = True

    def __post_init__(self) -> None:
        neuron_group(self.group)
        check_counts(self, "out_channels", "points")
        check_numbers(self, "positive", "omega")
        check_flags(self, "learned")
        moved = [s for s in self.group.space.inputs if s in self.group.permuted]
        if moved:
            raise SpecError(f"phases at points distinguish inputs, but the group permutes {moved}: use HNP.")

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return ``"W1.points"`` (inputs, points) of each first weight, and ``"h1.mix"`` (phases, out_channels)."""
        space = self.group.space
        specs: dict[str, ParameterSpec] = {}
        for label in self.group.permuted:
            weights, biases = self._sources(label)
            for name, axis in weights:
                shape = (space.by_name[name].shape[axis], self.points)
                specs[f"{name}.points"] = ParameterSpec(shape, "uniform", ((self.points, 1),), trainable=self.learned)
            rows = 2 * (len(weights) * self.points if weights else len(biases))
            if rows:
                specs[f"{label}.mix"] = ParameterSpec(
                    (rows, self.out_channels), "uniform", ((self.out_channels, rows),)
                )
        return specs

    def channels_after(self, channels: int) -> int:
        """Return `out_channels`, for any number of input channels."""
        positive_int("channels", channels)
        return self.out_channels

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Features:
        """Return for each permuted set an array of shape (batch, n, out_channels); zero for a set without bias."""
        xp = check_features(self.group.space, x)
        out: Features = {}
        for label in self.group.permuted:
            weights, biases = self._sources(label)
            vectors = [widened(x[name][..., :1]) for name in biases]
            angles = vectors
            if weights:
                angles = []
                for name, axis in weights:
                    w = widened(x[name][..., 0])
                    w = xp.permute_dims(w, (0, 2, 1)) if axis == 0 else w
                    with execution.full_precision(w):
                        angle = product(w, widened(params[f"{name}.points"]), None)
                    for v in vectors:
                        angle = angle + v
                    angles.append(angle)
            if not angles:
                first = x[self.group.space.tensors[0].name]
                shape = (first.shape[0], self.group.space.sizes[label], self.out_channels)
                out[label] = xp.zeros(shape, dtype=first.dtype, device=device_of(first))
                continue
            parts = [f(self.omega * angle) for angle in angles for f in (xp.sin, xp.cos)]
            mix = params[f"{label}.mix"]
            out[label] = product(xp.astype(xp.concat(parts, axis=-1), mix.dtype, copy=False), mix, None)
        return out

    def _sources(self, label: str) -> tuple[list[tuple[str, int]], list[str]]:
        """Weights from an input set to a neuron set, each with its input axis, and the set's biases."""
        weights, biases = [], []
        for t in self.group.space.tensors:
            if t.labels == (label,):
                biases.append(t.name)
            elif len(t.labels) == 2 and label in t.labels:
                axis = 1 - t.labels.index(label)
                if t.labels[axis] in self.group.space.inputs:
                    weights.append((t.name, axis))
        return weights, biases


@dataclass(frozen=True)
class BiasPhases(Layer):
    """Biases of a sine network as cos(ω v) and sin(ω v): what a neuron sin(ω (w · x + v)) is, whole turns forgotten.

    A shift of ω v by π changes the sign of the neuron, and of its outgoing weights with it. With `shifts` this is a second
    sign of its set. A change of sign of w and v leaves the cosine and changes the sine. The shift changes both. So cosines
    have grade 2, sines and outgoing weights grade 3, and incoming weights grade 1. Without `shifts` there is one sign:
    cosines are even, all others odd.

    The first axis of a tensor is taken as the neurons that the weight goes to, all others as those it comes from. Biases of
    sets that the group does not sign stay as they are.

    Parameters
    ----------
    group : Group
        A group with one sign for each set of sine neurons, with the weight space of the network.
    omega : float
        Frequency ω of the sine network; `ModelSpace.omega` finds it in a traced network.
    shifts : bool
        Whether shifts by π are a second sign.

    Attributes
    ----------
    target : Group
        The group of the output, with its signs, on the space of the output. ``"v1"`` becomes ``"v1[2]"`` (cosine) and
        ``"v1[3]"`` (sine), without shifts ``"v1[0]"`` and ``"v1[1]"``.

    Raises
    ------
    SpecError
        If ω is not positive, or the group has no signs, grades of its own, or no bias of a signed set.

    Examples
    --------
    >>> group = WeightSpace.mlp([2, 3, 1]).group("HNP", signed=["h1"])
    >>> phases = BiasPhases(group, omega=30.0)
    >>> list(phases.target.space.by_name)
    ['W1[1,0]', 'v1[2]', 'v1[3]', 'W2[0,3]', 'v2[0]']
    """

    group: Group
    omega: float = 30.0
    shifts: bool = True
    target: Group = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_kind("group", self.group, Group)
        check_numbers(self, "positive", "omega")
        check_flags(self, "shifts")
        group = self.group
        if not group.signed or group.grades:
            raise SpecError(
                f"group must sign its sets once, as space.group('HNP', signed=[...]) does, not {group.name}."
            )
        biased = {t.labels[0] for t in group.space.tensors if self._turned(t)}
        if not biased:
            raise SpecError(f"group signs {group.signed}, but none of these sets has a bias.")
        twice = [s for s in group.signed if s in biased] if self.shifts else []
        tensors, grades = [], []
        for t in group.space.tensors:
            rows: list[tuple[int, ...]]
            if self._turned(t):
                rows = [(2,), (3,)] if self.shifts else [(0,), (1,)]
            else:
                rows = [tuple(3 if axis and s in twice else int(s in group.signed) for axis, s in enumerate(t.labels))]
            tensors += [TensorSpec(graded_name(t.name, row), t.shape, t.labels, t.layer) for row in rows]
            grades += rows
        space = WeightSpace(tuple(tensors), group.space.inputs, group.space.outputs)
        object.__setattr__(self, "target", Group(space, group.permuted, (*group.signed, *twice), tuple(grades)))

    def _turned(self, t: TensorSpec) -> bool:
        """Whether a tensor is the bias of a signed set."""
        return len(t.labels) == 1 and t.labels[0] in self.group.signed

    def keeps_signs(self) -> bool:
        """Return True: the output changes by the signs of `target`."""
        return True

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Features:
        """Return features of the space of `target`."""
        xp = check_features(self.group.space, x)
        out: Features = {}
        names = iter(self.target.space.by_name)
        for t in self.group.space.tensors:
            values = [x[t.name]]
            if self._turned(t):
                angle = self.omega * widened(x[t.name])
                values = [xp.astype(f(angle), x[t.name].dtype, copy=False) for f in (xp.cos, xp.sin)]
            out |= {next(names): y for y in values}
        return out

"""Encodings of the neurons of sine networks by their phases."""

from collections.abc import Mapping
from dataclasses import dataclass

from nfn_core.arrays import Array, Features, device_of, widened
from nfn_core.checks import check_counts, check_flags, check_numbers, positive_int
from nfn_core.errors import SpecError
from nfn_core.features import check_features
from nfn_core.groups import Group
from nfn_core.layers.base import Execution, Layer
from nfn_core.layers.hub_map import product
from nfn_core.layers.neurons import neuron_group
from nfn_core.layers.parameters import ParameterSpec

__all__ = ["NeuronPhases"]


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

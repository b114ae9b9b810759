"""Models as points of a weight space: their tensors become features, and features become tensors again."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from nfn_core.arrays import AnyArray, Array, namespace_of
from nfn_core.errors import FeatureError, LabelError
from nfn_core.features import check_features
from nfn_core.files import read_shapes, read_tensors
from nfn_core.groups import Group
from nfn_core.models.labeling import Labeling
from nfn_core.models.verification import Verification
from nfn_core.models.views import View, join_axes, split_axes
from nfn_core.registry import describable
from nfn_core.spaces import TensorSpec, WeightSpace

__all__ = ["ModelSpace"]


@describable
@dataclass(frozen=True)
class ModelSpace:
    """The weight space of a model, with the view of every tensor of the model.

    Made by `nfn_torch.weight_space`, `nfn_jax.weight_space` or `from_patterns`.

    Parameters
    ----------
    views : tuple of View
        The model's tensors, in its order.
    inputs, outputs : tuple of str
        Neuron sets of the network's inputs and outputs.
    fixed : tuple of (str, str)
        For each tensor with axes that are fixed, what fixed them.
    activations : tuple of (str, str, float or None)
        For each activation function with a symmetry of its own the neuron set that it acts on, its name (``"sin"``,
        ``"tanh"`` or ``"relu"``), and the number ω that its argument was multiplied by last: 30 for sin(30 (W x + v)),
        1 where there is none, None where it is hidden by a later operation, as in sin(30 W x + v).
    verification : Verification, optional
        What running the network showed; None if it was not run.

    Attributes
    ----------
    space : WeightSpace
        The weight space.
    """

    views: tuple[View, ...]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    fixed: tuple[tuple[str, str], ...] = ()
    activations: tuple[tuple[str, str, float | None], ...] = field(default=(), compare=False)
    verification: Verification | None = field(default=None, compare=False)

    @classmethod
    def from_patterns(
        cls,
        shapes: Mapping[str, Sequence[int]] | str | Path,
        labels: Mapping[str, str],
        inputs: Iterable[str] = (),
        outputs: Iterable[str] = (),
    ) -> "ModelSpace":
        """Weight space of a checkpoint from explicit labels alone.

        Parameters
        ----------
        shapes : mapping of str to sequence of int, or path
            Shape of each tensor, or a safetensors file that holds them.
        labels : mapping of str to str
            Pattern of each tensor that is to be in the space, such as ``"h in _ _"`` or ``"(3 heads=4 e) d"``: one word
            for each axis, a neuron set, ``_`` for a fixed axis, ``(a b)`` for a row-major product, ``(a + b)`` for a
            concatenation. What has no pattern is not in the space.
        inputs, outputs : iterable of str
            Neuron sets of the network's inputs and outputs, which HNP leaves alone.

        Returns
        -------
        ModelSpace
            The weight space with its views. Nothing is verified: that needs the network, see `nfn_torch.weight_space`.

        Raises
        ------
        LabelError
            If a label names no tensor, leaves an axis to be derived, or does not fit its tensor.

        Examples
        --------
        >>> space = ModelSpace.from_patterns({"qkv.weight": (12, 8), "qkv.bias": (12,)}, {
        ...     "qkv.weight": "(3 heads=2 e) d", "qkv.bias": "(3 heads e)",
        ... })
        >>> [(t.name, t.shape) for t in space.space.tensors]
        [('qkv.weight', (3, 2, 2, 8)), ('qkv.bias', (3, 2, 2))]
        """
        known = shapes if isinstance(shapes, Mapping) else read_shapes(shapes)
        missing = [name for name in labels if name not in known]
        derived = [name for name, pattern in labels.items() if "?" in pattern]
        if missing or derived:
            raise LabelError(
                f"labels are given for {missing or derived}, but "
                + (
                    f"the tensors are {list(known)}."
                    if missing
                    else "there is no network from which to derive '?': label it."
                )
            )
        labeling = Labeling({name: tuple(known[name]) for name in labels}, labels)
        labeling.used.update(labels)
        found = labeling.finish()
        return cls(found.views, tuple(inputs), tuple(outputs), found.fixed)

    @cached_property
    def space(self) -> WeightSpace:
        """The weight space, built once."""
        tensors = []
        layers: dict[str, int] = {}  # tensors of one module are one layer
        for view in self.views:
            layer = layers.setdefault(view.name.rpartition(".")[0], len(layers))
            for name, axes in view.pieces.items():
                tensors.append(TensorSpec(name, tuple(a.size for a in axes), tuple(a.label for a in axes), layer))
        return WeightSpace(tuple(tensors), self.inputs, self.outputs)

    @property
    def omega(self) -> float:
        """Frequency ω of a sine network (Sitzmann et al., NeurIPS 2020), whose hidden neurons are sin(ω (W x + v)).

        Raises
        ------
        LabelError
            If a hidden neuron set has another activation function or none, or frequencies differ or are hidden.
        """
        found: dict[str, list[tuple[str, float | None]]] = {
            label: [] for label in self.space.sizes if label not in (*self.inputs, *self.outputs)
        }
        for label, function, factor in self.activations:
            found.get(label, []).append((function, factor))
        functions = {f for each in found.values() for f in each or [("no known function", 1.0)]}
        omegas = {factor for function, factor in functions if function == "sin" and factor is not None}
        if len(functions) != 1 or len(omegas) != 1:
            raise LabelError(
                f"expected a sine network, sin(omega (W x + v)) with one omega in every hidden layer, but found {found}: "
                "give omega yourself."
            )
        return omegas.pop()

    def group(self, permuted: Any) -> Group:
        """Return the permutation group of the weight space that moves the given neuron sets.

        Parameters
        ----------
        permuted : {"NP", "HNP"} or iterable of str
            As for `WeightSpace.group`.

        Returns
        -------
        Group
            The group.
        """
        return self.space.group(permuted)

    def stack(self, *channels: Sequence[Mapping[str, AnyArray]], fill: float | None = None) -> dict[str, AnyArray]:
        """Stack models, and what belongs to their weights, into features.

        Parameters
        ----------
        *channels : sequence of mapping of str to array
            For each channel (weights, gradients, an optimizer's moments, masks, ...) one mapping for each model, from
            a tensor's name to an array of its shape in the model. What the space does not hold is left out.
        fill : float, optional
            Entries of tensors that a mapping lacks or has None for (running statistics have no gradients); without it
            that is an error.

        Returns
        -------
        dict of str to array
            Features of `space`, each (models, *axes, channels).

        Raises
        ------
        FeatureError
            If there is no model, channels have different numbers of models, a tensor is missing, has another shape,
            or differs from one it is tied to.
        """
        counts = [len(models) for models in channels]
        if not counts or not counts[0] or len(set(counts)) > 1:
            raise FeatureError(f"stack takes the same positive number of models for every channel, not {counts}.")
        features: dict[str, Any] = {}
        for view in self.views:
            found = [[_tensor(view, m, k, fill) for k, m in enumerate(models)] for models in channels]
            given = [x for models in found for x in models if x is not None]
            if not given:
                raise FeatureError(f"tensor {view.name!r} is missing from every model and channel.")
            xp = namespace_of(*given)
            blank = None if fill is None else xp.full_like(given[0], fill)
            columns = [xp.stack([blank if x is None else x for x in models]) for models in found]
            features.update(zip(view.pieces, split_axes(xp.stack(columns, axis=-1), view.axes), strict=True))
        check_features(self.space, features)
        return features

    def unstack(self, features: Mapping[str, AnyArray], channel: int = 0) -> list[dict[str, AnyArray]]:
        """Undo `stack` for one channel, bit by bit.

        Parameters
        ----------
        features : mapping of str to array
            Features of `space`, each (models, *axes, channels).
        channel : int
            The channel.

        Returns
        -------
        list of dict of str to array
            For each model its tensors, in the model's shapes, under all their names.

        Raises
        ------
        FeatureError
            If the features do not fit the space, or have no such channel.
        """
        check_features(self.space, features)
        count, *_, channels = next(iter(features.values())).shape
        if not -channels <= channel < channels:
            raise FeatureError(f"features have {channels} channels, so there is no channel {channel}.")
        models: list[dict[str, Any]] = [{} for _ in range(count)]
        for view in self.views:
            whole = join_axes((features[name][..., channel] for name in view.pieces), view.axes)
            for k, model in enumerate(models):
                model.update(dict.fromkeys((view.name, *view.also), whole[k, ...]))
        return models

    def stream(self, paths: Iterable[str | Path], batch: int, backend: str = "numpy") -> Iterator[dict[str, Any]]:
        """Read models from safetensors files, a batch at a time.

        Parameters
        ----------
        paths : iterable of str or pathlib.Path
            One file for each model, with the names of the model's tensors.
        batch : int
            Models in a batch; the last one may have fewer.
        backend : {"numpy", "torch", "jax"}
            Kind of arrays.

        Yields
        ------
        dict of str to array
            Features of `space`, each (models, *axes, 1).

        Raises
        ------
        FeatureError
            If a file does not hold the model's tensors.
        ParameterError
            If a file is missing or damaged.
        """
        paths = iter(paths)
        while chosen := list(islice(paths, batch)):
            yield self.stack([read_tensors(path, backend)[0] for path in chosen])

    def describe(self) -> str:
        """Return a Markdown table of the model's tensors: name, shape, axes, and what fixed them."""
        why = dict(self.fixed)
        lines = ["| tensor | shape | axes | fixed by |", "|---|---|---|---|"]
        for view in self.views:
            names = ", ".join((view.name, *view.also))
            shape = "×".join(map(str, view.shape)) or "scalar"
            lines.append(f"| {names} | {shape} | {view.pattern} | {why.get(view.name, '')} |")
        return "\n".join(lines)


def _tensor(view: View, model: Mapping[str, Array], number: int, fill: float | None) -> Array | None:
    """A model's tensor, None where it is missing and may be."""
    found = [model[name] for name in (view.name, *view.also) if model.get(name) is not None]
    if not found:
        if fill is None:
            raise FeatureError(f"model {number} lacks tensor {view.name!r}: give it, or `fill` for what is missing.")
        return None
    for x in found:
        if tuple(x.shape) != view.shape:
            raise FeatureError(
                f"tensor {view.name!r} of model {number}: expected shape {view.shape}, not {tuple(x.shape)}: "
                "all models of a batch must have the architecture the space was made for."
            )
        if x is not found[0] and not bool(namespace_of(x).all(x == found[0])):
            raise FeatureError(
                f"model {number}: {', '.join((view.name, *view.also))} are one tied tensor, but hold different values: "
                "make the space from a model in which they are not tied."
            )
    return found[0]

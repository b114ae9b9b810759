"""Models as points of a weight space: their tensors become features, and features become tensors again."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

from nfn_core.arrays import AnyArray
from nfn_core.checks import (
    check_choice,
    check_kind,
    natural_int,
    plain_int,
    plain_names,
    plain_tuple,
    positive_int,
    positive_ints,
    shown,
)
from nfn_core.errors import FeatureError, LabelError, SizeWarning, SpecError
from nfn_core.features import check_features
from nfn_core.files import FRAMEWORKS, read_shapes, read_tensors
from nfn_core.groups import Group
from nfn_core.layers.elementwise import ODD_ACTIVATIONS
from nfn_core.models.labeling import Labeling, check_labels, chosen
from nfn_core.models.patterns import adapter_patterns
from nfn_core.models.stacking import copy_of, stack_models
from nfn_core.models.summary import CHANNELS, LIMIT, layer_size, summary
from nfn_core.models.verification import Verification
from nfn_core.models.views import View, join_axes
from nfn_core.registry import LATER, describable
from nfn_core.spaces import TensorSpec, WeightSpace

__all__ = ["ModelSpace"]


@describable
@dataclass(frozen=True, repr=False)
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
    constants : tuple of (str, str, tuple of int)
        For each constant of the model (a mask, a table of numbers) its name, a digest of its entries, and the axes along
        which they are all alike, so that neuron sets may permute them. `stack` compares them.
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
    constants: tuple[tuple[str, str, tuple[int, ...]], ...] = field(default=(), metadata=LATER)
    verification: Verification | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for field_name in ("views", "fixed", "activations", "constants"):
            object.__setattr__(self, field_name, plain_tuple(field_name, getattr(self, field_name)))
        for role in ("inputs", "outputs"):
            object.__setattr__(self, role, plain_names(role, getattr(self, role)))
        for k, view in enumerate(self.views):
            check_kind(f"views[{k}]", view, View)
        for field_name, kinds, words in (
            ("fixed", (str, str), "a tensor and what fixed it"),
            ("activations", (str, str, float | int | None), "a neuron set and a function and a frequency"),
            ("constants", (str, str, tuple), "a constant, its digest and axes"),
        ):
            for k, row in enumerate(getattr(self, field_name)):
                if not isinstance(row, tuple) or len(row) != len(kinds) or not all(map(isinstance, row, kinds)):
                    raise SpecError(f"{field_name}[{k}] must be a tuple of {words}, not {shown(row)}.")
        constants = [name for name, _, _ in self.constants]
        if twice := [name for name in constants if constants.count(name) > 1]:
            raise SpecError(f"constants names {twice[0]!r} twice.")
        check_kind("verification", self.verification, Verification | None)

    def __repr__(self) -> str:
        """Patterns of the first tensors, and how many more there are."""
        more = len(self.views) - 6
        shown = [f"{view.name}: {view.pattern}" for view in self.views[:6]] + [f"and {more} more"] * (more > 0)
        said = [f"{len(self.fixed)} with fixed axes"] * bool(self.fixed) + ["not verified"] * (not self.verification)
        return f"ModelSpace({'; '.join([', '.join(shown), *said])})"

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
        SpecError
            If `shapes` is neither a mapping nor a path, or a shape no sequence of positive integers.

        Examples
        --------
        >>> space = ModelSpace.from_patterns({"qkv.weight": (12, 8), "qkv.bias": (12,)}, {
        ...     "qkv.weight": "(3 heads=2 e) d", "qkv.bias": "(3 heads e)",
        ... })
        >>> [(t.name, t.shape) for t in space.space.tensors]
        [('qkv.weight', (3, 2, 2, 8)), ('qkv.bias', (3, 2, 2))]
        """
        check_labels(labels)
        check_kind("shapes", shapes, Mapping | str | PathLike)
        known = shapes if isinstance(shapes, Mapping) else read_shapes(shapes)
        missing = [name for name in labels if name not in known]
        derived = [name for name, pattern in labels.items() if "?" in pattern]
        if missing or derived:
            raise LabelError(
                f"{'' if isinstance(shapes, Mapping) else f'{shapes}: '}labels are given for {missing or derived}, but "
                + (
                    f"the tensors are {list(known)}."
                    if missing
                    else "there is no network from which to derive '?': label it."
                )
            )
        if not labels:
            raise LabelError("labels are empty: give a pattern for each tensor that is to be in the space.")
        sizes = {name: positive_ints(f"shape of tensor {name!r}", known[name]) for name in labels}
        labeling = Labeling(sizes, labels)
        labeling.used.update(labels)
        found = labeling.finish()
        sets = plain_names("inputs", inputs), plain_names("outputs", outputs)
        return cls(found.views, *sets, found.fixed)

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

    def only(self, tensors: str | Iterable[str]) -> "ModelSpace":
        """Space of some tensors, under the same group: the others are left out of features, but move with them.

        To hold the others fixed instead, give ``tensors`` to `nfn_torch.weight_space` or `nfn_jax.weight_space`.

        Parameters
        ----------
        tensors : str or iterable of str
            Patterns of names, ``"*.weight"``; those after ``"!"`` are left out: ``["*", "!*embed*"]``.

        Returns
        -------
        ModelSpace
            The space.

        Raises
        ------
        LabelError
            If a pattern is no string or matches no name, or nothing is chosen.
        SpecError
            If `tensors` are no patterns.
        """
        check_kind("tensors", tensors, str | Iterable)
        names = set(chosen([view.name for view in self.views], tensors))
        views = tuple(view for view in self.views if view.name in names)
        known = {axis.label for view in views for axes in view.pieces.values() for axis in axes}
        inputs, outputs = (tuple(label for label in side if label in known) for side in (self.inputs, self.outputs))
        fixed = tuple((name, why) for name, why in self.fixed if name in names)
        activations = tuple(row for row in self.activations if row[0] in known)
        return replace(self, views=views, inputs=inputs, outputs=outputs, fixed=fixed, activations=activations)

    @cached_property
    def names(self) -> frozenset[str]:
        """All names of the model's tensors, also those of tied ones."""
        return frozenset(name for view in self.views for name in (view.name, *view.also))

    @property
    def odd_sets(self) -> tuple[str, ...]:
        """Hidden neuron sets whose neurons may change their signs (`signed` of `group`).

        They have odd activations and no others, by the names of the traced functions. A network that was verified was run
        with other signs too: sets whose signs changed an output are left out.
        """
        hidden = [label for label in self.space.sizes if label not in (*self.inputs, *self.outputs)]
        odd = tuple(label for label in hidden if self._functions(label) <= {*ODD_ACTIVATIONS})
        return odd if self.verification is None else tuple(label for label in odd if label in self.verification.odd)

    def _functions(self, label: str) -> set[str]:
        """Activations of a neuron set, in words where they are known to be none."""
        return {
            function if factor is not None else f"{function} of what is added to before"
            for s, function, factor in self.activations
            if s == label
        } or {"no function known to be odd"}

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

    def group(self, permuted: Any, signed: Any = ()) -> Group:
        """Return the permutation group of the weight space that moves the given neuron sets.

        Parameters
        ----------
        permuted : {"NP", "HNP"} or iterable of str
            As for `WeightSpace.group`.
        signed : iterable of str
            As for `WeightSpace.group`. In a traced network they must be among `odd_sets`.

        Returns
        -------
        Group
            The group. A `SizeWarning` says if an NF-layer of 16 channels would have more than 10⁹ parameters.

        Raises
        ------
        LabelError
            If a set is signed on which the traced network has another activation than tanh or sine, or none, or whose
            signs changed an output when the network was run.
        """
        group = self.space.group(permuted, signed)
        for label in group.signed if self.activations or self.verification else ():
            if label not in self.odd_sets:
                functions = self._functions(label)
                found = functions <= {*ODD_ACTIVATIONS} and "but the verification found that its signs change an output"
                why = found or "a change of sign is a symmetry only of odd activations (tanh, sin)"
                raise LabelError(
                    f"signed names neuron set {label!r}, on which the network has {', '.join(sorted(functions))}: {why}. "
                    "Leave it out."
                )
        size = layer_size(group)
        if size > LIMIT:
            warnings.warn(
                f"an NF-layer of {CHANNELS} channels under {group.name} would have {size:.1e} parameters: `summary()` of the "
                "space says which fixed axes make it so large, and which group or choice of tensors does not.",
                SizeWarning,
                stacklevel=2,
            )
        return group

    def summary(self, channels: int = CHANNELS) -> str:
        """How large an NF-layer would be, in Markdown, before anything is built.

        Parameters
        ----------
        channels : int
            Channels in and out.

        Returns
        -------
        str
            Parameters under NP and HNP; where they are more than 10⁹, the tensors whose fixed axes make it so large, what
            fixed them, and the size without these tensors.

        Raises
        ------
        SpecError
            If `channels` is not a positive integer.
        """
        return summary(self, positive_int("channels", channels))

    @classmethod
    def from_adapters(cls, shapes: Mapping[str, Sequence[int]] | str | Path) -> "ModelSpace":
        """Weight space of low-rank adapters (LoRA) from a checkpoint, as PEFT, diffusers and others write it.

        The rank of each pair of factors A (rank, inputs) and B (outputs, rank) is a neuron set: B A stays as it is if it is
        permuted. Inputs and outputs belong to the layer that is adapted and are fixed, as are magnitudes (DoRA) and scales.

        Parameters
        ----------
        shapes : mapping of str to sequence of int, or path
            Shape of each tensor, or a safetensors file that holds them. What has not ``lora`` in its name is not in the
            space.

        Returns
        -------
        ModelSpace
            The weight space; sets are called r1, r2, ... in order.

        Raises
        ------
        LabelError
            If there is no pair, a factor has no partner, or partners have different ranks.
        SpecError
            If `shapes` is neither a mapping nor a path, or a shape no sequence of positive integers.

        Examples
        --------
        >>> space = ModelSpace.from_adapters({"q.lora_A.weight": (4, 32), "q.lora_B.weight": (64, 4)})
        >>> [(t.name, t.labels) for t in space.space.tensors]
        [('q.lora_A.weight', ('r1', None)), ('q.lora_B.weight', (None, 'r1'))]
        """
        check_kind("shapes", shapes, Mapping | str | PathLike)
        known = shapes if isinstance(shapes, Mapping) else read_shapes(shapes)
        return cls.from_patterns(known, adapter_patterns(known))

    def stack(self, *channels: Iterable[Mapping[str, AnyArray]], fill: float | None = None) -> dict[str, AnyArray]:
        """Stack models, and what belongs to their weights, into features.

        Parameters
        ----------
        *channels : iterable of mapping of str to array
            For each channel (weights, gradients, an optimizer's moments, masks, ...) one mapping for each model, from
            a tensor's name to an array of its shape in the model. Entries that the space does not name are left out.
            A prefix that the names of all arrays of a mapping share (``"module."``) is left out with a `StackWarning`.
        fill : float, optional
            Entries of tensors that a mapping lacks or has None for (running statistics have no gradients), with a
            `StackWarning` that says how many they are; without it that is an error, and so is a mapping that has none.

        Returns
        -------
        dict of str to array
            Features of `space`, each (models, *axes, channels), which gradients pass through.

        Raises
        ------
        FeatureError
            If there is no model, channels have different numbers of models, a model is no mapping or has none of the
            tensors, a tensor is missing, has another shape, is no real floating array, has not the dtype and device of
            the others, or differs from one it is tied to.
        """
        return stack_models(self, channels, fill)

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
            For each model its tensors, in the model's shapes, under all their names: copies, which gradients pass through.

        Raises
        ------
        FeatureError
            If the features do not fit the space, or have no such channel.
        """
        check_features(self.space, features)
        count, *_, channels = next(iter(features.values())).shape
        number = plain_int(channel)
        if isinstance(number, bool) or not isinstance(number, int) or not -channels <= number < channels:
            raise FeatureError(f"features have {channels} channels, so there is no channel {channel!r}.")
        models: list[dict[str, Any]] = [{} for _ in range(count)]
        for view in self.views:
            whole = join_axes((features[name][..., number] for name in view.pieces), view.axes)
            for k, model in enumerate(models):
                model.update(dict.fromkeys((view.name, *view.also), copy_of(whole[k, ...])))
        return models

    def check_like(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Check that a model holds the tensors of the space.

        Parameters
        ----------
        shapes : mapping of str to sequence of int
            Shape of each tensor of the model.

        Raises
        ------
        FeatureError
            If a tensor is missing or has another shape.
        SpecError
            If `shapes` is no mapping from names to shapes.
        """
        check_kind("shapes", shapes, Mapping)
        shapes = {
            name: tuple(
                natural_int(f"shape of tensor {name!r}", n) for n in plain_tuple(f"shape of tensor {name!r}", shape)
            )
            for name, shape in shapes.items()
        }
        missing = [view.name for view in self.views if view.name not in shapes]
        if missing:
            raise FeatureError(
                f"`like` lacks tensors {missing[:5]} of the space, it has {list(shapes)[:5]}: give a model of the same "
                "architecture, with the same names."
            )
        for view in self.views:
            for name in (view.name, *view.also):
                if shapes.get(name, view.shape) != view.shape:
                    raise FeatureError(
                        f"tensor {name!r} of `like` has shape {tuple(shapes[name])}, but that of the space {view.shape}: give "
                        "a model of the same architecture."
                    )

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

        Returns
        -------
        iterator of dict of str to array
            Features of `space`, each (models, *axes, 1).

        Raises
        ------
        SpecError
            If `batch` is not a positive integer, or `backend` unknown.
        FeatureError
            If `paths` is a single path, or a file does not hold the model's tensors.
        ParameterError
            If a file is missing or damaged.
        """
        size = positive_int("batch", batch)
        check_choice("backend", backend, tuple(FRAMEWORKS))
        if isinstance(paths, str | PathLike) or not isinstance(paths, Iterable):
            raise FeatureError(f"paths must be several, not {paths!r}: give a list of files, also of a single one.")
        rest = iter(paths)
        batches = iter(lambda: list(islice(rest, size)), [])

        def features(chosen: list[str | Path]) -> dict[str, Any]:
            models = [read_tensors(path, backend)[0] for path in chosen]
            return stack_models(self, [models], places=[f"file {str(path)!r}" for path in chosen])

        return map(features, batches)

    def describe(self) -> str:
        """Return a Markdown table of the model's tensors: name, shape, axes, and what fixed them."""
        why = dict(self.fixed)
        lines = ["| tensor | shape | axes | fixed by |", "|---|---|---|---|"]
        for view in self.views:
            names = ", ".join((view.name, *view.also))
            shape = "×".join(map(str, view.shape)) or "scalar"
            lines.append(f"| {names} | {shape} | {view.pattern} | {why.get(view.name, '')} |")
        return "\n".join(lines)

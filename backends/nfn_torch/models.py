"""Modules and checkpoints in and out of weight spaces."""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, cast
from weakref import ReferenceType, ref

import numpy as np
import torch
from torch.utils import _pytree as pytree

from nfn_core.checks import boolean, check_kind, natural_int
from nfn_core.errors import FeatureError, LabelError
from nfn_core.models.labeling import Labeling, chosen
from nfn_core.models.model_space import ModelSpace
from nfn_core.models.probes import Each, Reached, running
from nfn_core.models.stacking import kind_of, stack_models
from nfn_core.models.verification import shown_running, verify
from nfn_torch.features import WeightSpaceFeatures
from nfn_torch.precision import InDouble
from nfn_torch.tracing import constants, host, integers, walk
from nfn_torch.wrappers import copied, inner_names, named_tensors, plain_inputs, unwrapped

__all__ = ["stack", "stream", "unstack", "weight_space"]

Model = torch.nn.Module | Mapping[str, torch.Tensor]
Like = TypeVar("Like", torch.nn.Module, Mapping[str, torch.Tensor])


def weight_space(
    module: torch.nn.Module,
    *inputs: Any,
    labels: Mapping[str, str] | None = None,
    verification: bool = True,
    seed: int = 0,
    tensors: str | Iterable[str] | None = None,
    progress: bool = False,
    **keywords: Any,
) -> ModelSpace:
    """Derive the weight space of a module from its computation, and verify it by running the module.

    Parameters and persistent floating-point buffers (running statistics) are the tensors of the space; every other
    buffer is a constant of the computation. A copy of the module is traced and run, in evaluation mode. Wrappers
    (`DataParallel`, `DistributedDataParallel`, `torch.compile`, averages of weights) are looked through, so that names are
    those of the module inside.

    Parameters
    ----------
    module : torch.nn.Module
        The module.
    *inputs : Any
        Example inputs, as the module takes them: tensors, and tuples, lists and mappings of tensors.
    labels : mapping of str to str, optional
        Explicit labels, for what cannot be derived or is to have a name: patterns such as ``"h in _ _"`` (see
        `nfn_core.models.patterns`) by the name of a tensor, an operation of the graph, ``"input[0]"`` or ``"output[0]"``. If
        they label every tensor, input and output, the module need not be traceable.
    verification : bool
        Whether to run the module, in double precision, on permuted tensors and inputs.
    seed : int
        Seed of the verification.
    tensors : str or iterable of str, optional
        Which tensors make the space, as patterns of their names: ``"*lora_*"``, ``"h.0.*"``; those after ``"!"`` are left
        out: ``["*", "!*embed*"]``. All others are held fixed, and models that are stacked need not have them.
    progress : bool
        Whether to show how often the network has been run, about once for each tensor (needs tqdm).
    **keywords : Any
        Example inputs by keyword; the labels ``"input[0]"``, ... count them after the others.

    Returns
    -------
    ModelSpace
        The weight space, with the view of every tensor.

    Raises
    ------
    LabelError
        If the module cannot be copied, traced or run; an operation has no rule and no label; a label contradicts the
        computation; `tensors` chooses none; tensors are quantized, sparse, without values, of several dtypes, or share memory; or permutations change the
        output.
    SpecError
        If `module` is no module, `seed` no non-negative integer, or `verification` or `progress` neither True nor False.
    MissingDependencyError
        If progress is to be shown and tqdm is not installed.
    """
    check_kind("module", module, torch.nn.Module)
    seed, verification = natural_int("seed", seed), boolean("verification", verification)
    progress = boolean("progress", progress)
    module, call_with = unwrapped(module), (plain_inputs(inputs), plain_inputs(keywords))
    own, first, also = _tensors(module, tensors)
    labeling = Labeling({name: tuple(x.shape) for name, x in own.items()}, {} if labels is None else labels, also)
    for number, x in enumerate(pytree.tree_leaves(call_with)):
        if isinstance(x, torch.Tensor) and (wrong := _problem(x)):
            raise LabelError(f"input {number} {wrong}.")
    call = _Call(module, call_with) if verification or labeling.explicit else None
    if labeling.explicit and call is not None:
        examples = [x for x in pytree.tree_leaves(call_with) if isinstance(x, torch.Tensor)]
        shapes = [tuple(y.shape) for y in call.run({}, call.arrays)]
        labeling.untraced([(tuple(x.shape), integers(x)) for x in examples], shapes)
    else:
        walk(labeling, copied(module, [*module.parameters(), *module.buffers()]).eval(), call_with, first)
    space = ModelSpace(*labeling.finish())
    if not verification or call is None:
        return space
    arrays = Each(own, lambda name: own[name].detach().double().cpu().numpy())
    with shown_running(call.run, progress) as run:
        found = verify(labeling, run, arrays, call.arrays, seed, space.odd_sets)
    return replace(space, verification=found)


def stack(
    space: ModelSpace, *channels: Iterable[Model], fill: float | None = None, detach: bool = False
) -> WeightSpaceFeatures:
    """Stack modules or state dicts into features; see `nfn_core.ModelSpace.stack`.

    Parameters
    ----------
    space : ModelSpace
        The models' space.
    *channels : iterable of torch.nn.Module or mapping of str to torch.Tensor
        For each channel one module or mapping by tensor name for each model: weights, then gradients, an optimizer's
        moments, masks, ... Entries that the space does not name are left out. A prefix that the names of all tensors of a
        model share (``"module."``, ``"_orig_mod."``) is left out with a `nfn_core.StackWarning`.
    fill : float, optional
        Entries of tensors that are missing or None, with a `nfn_core.StackWarning` that says how many they are.
    detach : bool
        Whether to cut the features off from the models. Otherwise gradients by them reach the models, whose parameters
        require gradients: data for training usually needs none.

    Returns
    -------
    WeightSpaceFeatures
        Each tensor of shape (models, *axes, channels).

    Raises
    ------
    FeatureError
        If the models do not fit the space, or a tensor is none of torch, sparse, quantized or without values.
    """
    check_kind("space", space, ModelSpace)
    for number, models in enumerate(channels):
        if _is_model(models):
            raise FeatureError(f"channel {number} is a single module: give a list of models for each channel.")
    features = WeightSpaceFeatures(stack_models(space, channels, fill, _named, _problem, _host))
    return features.map(torch.Tensor.detach) if boolean("detach", detach) else features


def unstack(space: ModelSpace, features: Mapping[str, torch.Tensor], like: Like, channel: int = 0) -> list[Like]:
    """Turn features back into models; see `nfn_core.ModelSpace.unstack`.

    Parameters
    ----------
    space : ModelSpace
        The models' space.
    features : mapping of str to torch.Tensor
        Each tensor of shape (models, *axes, channels).
    like : torch.nn.Module or mapping of str to torch.Tensor
        A module or state dict of the architecture; what the space does not hold is copied from it.
    channel : int
        The channel.

    Returns
    -------
    list of torch.nn.Module or list of dict of str to torch.Tensor
        For each model what `like` is. Every tensor is a copy. Gradients pass through those of a state dict, but not
        through the parameters of a module.

    Raises
    ------
    FeatureError
        If the features do not fit the space; `like` lacks one of its tensors, or has one of another shape; or a module
        has another dtype, or does not take the values.
    """
    check_kind("space", space, ModelSpace)
    if not isinstance(like, torch.nn.Module | Mapping):
        raise FeatureError(f"`like` must be a module or a state dict, not a {kind_of(like)}.")
    known: Mapping[str, Any] = named_tensors(like) if isinstance(like, torch.nn.Module) else like
    held = space.names
    _check_values("`like`", known, held)
    space.check_like({name: tuple(x.shape) for name, x in known.items() if _problem(x) is None})
    _check_values("the features", features, space.space.by_name)
    states = space.unstack(features, channel)
    if not isinstance(like, torch.nn.Module):
        others = {name: x for name, x in known.items() if name not in held}
        return cast("list[Like]", [{**_copied(others), **state} for state in states])
    modules: list[Any] = [copied(like) for _ in states]
    for module, state in zip(modules, states, strict=True):
        _put(module, state)
    return modules


def stream(space: ModelSpace, paths: Iterable[str | Path], batch: int) -> Iterator[WeightSpaceFeatures]:
    """Read models from safetensors files, a batch at a time; see `nfn_core.ModelSpace.stream`.

    Parameters
    ----------
    space : ModelSpace
        The models' space.
    paths : iterable of str or pathlib.Path
        One file for each model.
    batch : int
        Models in a batch.

    Returns
    -------
    iterator of WeightSpaceFeatures
        Each tensor of shape (models, *axes, 1).
    """
    check_kind("space", space, ModelSpace)
    return map(WeightSpaceFeatures, space.stream(paths, batch, "torch"))


def _is_model(x: Any) -> bool:
    """Whether a value is a module, and no list of modules."""
    return isinstance(x, torch.nn.Module) and not isinstance(x, torch.nn.ModuleList)


def _named(model: Any) -> Any:
    """State dict of a module, with its history and without wrappers, and its constants."""
    return {**constants(model), **named_tensors(model)} if _is_model(model) else model


def _problem(x: Any) -> str | None:
    """What is wrong with a tensor of a model; None if it can be stacked."""
    if not isinstance(x, torch.Tensor):
        return f"is a {kind_of(x)}, not a torch.Tensor: convert it, for example with torch.from_numpy"
    if torch.nn.parameter.is_lazy(x) or x.is_meta:
        return "has no values yet: initialize or load the model first"
    if x.is_quantized:
        return f"is quantized ({x.dtype}): give x.dequantize()"
    return None if x.layout == torch.strided and not x.is_nested else f"has layout {x.layout}: give x.to_dense()"


def _host(x: Any) -> np.ndarray | None:
    """Array of NumPy with a tensor's entries, None for what has none."""
    return host(x) if _problem(x) is None else None


def _check_values(owner: str, values: Any, names: Iterable[str]) -> None:
    """Tensors with values; whether they are there and fit is checked later."""
    for name in names if isinstance(values, Mapping) else ():
        wrong = _problem(values[name]) if name in values else None
        if wrong:
            raise FeatureError(f"tensor {name!r} of {owner} {wrong}.")


def _copied(others: Mapping[str, Any]) -> dict[str, Any]:
    """Copies of what a space does not hold."""
    return {name: x.clone() if isinstance(x, torch.Tensor) else copy.deepcopy(x) for name, x in others.items()}


def _put(module: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Put tensors into a module, and see that it holds them and nothing else under their names."""
    own = named_tensors(module)
    for name, x in state.items():
        if name not in own:
            raise FeatureError(
                f"`like` lacks tensor {name!r}, which is tied to another in the space: tie it in `like` too."
            )
        if own[name].dtype != x.dtype:
            raise FeatureError(
                f"tensor {name!r} of `like` has dtype {own[name].dtype}, but the features have {x.dtype}: cast one to the "
                "other."
            )
    full = module.state_dict()  # with the version of its format
    outer = {short: name for name, short in inner_names(module, full).items()}
    full.update({outer[name]: x for name, x in state.items()})
    module.load_state_dict(full)
    own = named_tensors(module)
    for name, x in state.items():
        if not torch.allclose(own[name], x.to(own[name].device), rtol=0, atol=0, equal_nan=True):
            raise FeatureError(
                f"`like` does not take the values of tensor {name!r}: it is tied to another tensor, or computed anew when "
                "a state dict is loaded. Give a module in which it is free, or a state dict."
            )


def _tensors(
    module: torch.nn.Module, patterns: str | Iterable[str] | None
) -> tuple[dict[str, torch.Tensor], dict[str, str], dict[str, tuple[str, ...]]]:
    """Chosen tensors by first name, first name of every name, and other names of every first name."""
    owners: dict[int, str] = {}
    tensors: dict[str, torch.Tensor] = {}
    first: dict[str, str] = {}
    for name, child in module.named_modules():
        if ".quantized" in type(child).__module__:
            raise LabelError(
                f"module {name!r} ({type(child).__name__}) is quantized: give the network before quantization."
            )
    state = {name: x for name, x in named_tensors(module).items() if isinstance(x, torch.Tensor)}  # modules keep more
    kept = chosen(state, patterns)
    for name, x in state.items():
        if name not in kept:
            continue
        if wrong := _problem(x):
            raise LabelError(f"tensor {name!r} {wrong}.")
        if isinstance(x, torch.nn.Parameter) and not x.is_floating_point():
            raise LabelError(f"tensor {name!r} has dtype {x.dtype}: only real floating parameters make a weight space.")
        if not x.is_floating_point():
            continue
        first[name] = owners.setdefault(id(x), name)
        tensors.setdefault(first[name], x)
    _check(tensors)
    also = {n: tuple(m for m, owner in first.items() if owner == n != m) for n in tensors}
    return tensors, first, also


def _check(tensors: Mapping[str, torch.Tensor]) -> None:
    """One dtype and device, and memory of its own for every tensor."""
    if not tensors:
        raise LabelError("the module has no parameters: there is no weight space to derive.")
    name, x = next(iter(tensors.items()))
    spans: dict[int, list[tuple[int, int, str]]] = {}
    for other, y in tensors.items():
        if (y.dtype, y.device) != (x.dtype, x.device):
            raise LabelError(
                f"tensor {other!r} is {y.dtype} on {y.device}, but {name!r} is {x.dtype} on {x.device}: "
                "bring all tensors to one dtype and device."
            )
        if y.numel():
            last = sum((n - 1) * step for n, step in zip(y.shape, y.stride(), strict=True))
            start = int(y.storage_offset())
            spans.setdefault(y.untyped_storage().data_ptr(), []).append((start, start + int(last), other))
    for found in spans.values():
        found.sort()
        for (_, end, one), (start, _, another) in pairwise(found):
            if start <= end:
                raise LabelError(
                    f"tensors {one!r} and {another!r} share memory without being the same tensor: copy one of them, or "
                    "tie them by assigning the same parameter."
                )


class _Call:
    """A copy of a module in evaluation mode and double precision, as a function of NumPy arrays."""

    def __init__(self, module: torch.nn.Module, call_with: Any) -> None:
        self.module = copied(module).eval().double()
        self.state = {name: x for name, x in named_tensors(self.module).items() if isinstance(x, torch.Tensor)}
        self.before = [
            (child, name, x, x.detach().clone())
            for child in self.module.modules()
            for name, x in child.named_buffers(recurse=False)
        ]
        self.held: dict[
            str, ReferenceType[np.ndarray]
        ] = {}  # what parameters have now: only what differs is put into them
        self.device = next((x.device for x in module.parameters()), torch.device("cpu"))
        self.leaves, self.spec = pytree.tree_flatten(call_with)
        self.arrays = [self._wide(x).cpu().numpy() for x in self.leaves if isinstance(x, torch.Tensor)]

    @staticmethod
    def _wide(x: torch.Tensor) -> torch.Tensor:
        return x.detach().double() if x.is_floating_point() else x

    def run(
        self, tensors: Mapping[str, np.ndarray], inputs: Sequence[np.ndarray], reached: Reached | None = None
    ) -> list[np.ndarray]:
        """Outputs for tensors in place of the module's own, and for inputs, all in double precision."""
        given = iter([torch.tensor(x, device=self.device) for x in inputs])
        leaves = [next(given) if isinstance(x, torch.Tensor) else x for x in self.leaves]
        args, keywords = pytree.tree_unflatten(leaves, self.spec)
        with torch.no_grad(), running(), torch.random.fork_rng([]):
            torch.manual_seed(0)  # random operations give the same numbers in every run
            for child, name, buffer, value in self.before:  # the last run may have changed or replaced it
                setattr(child, name, buffer.copy_(value))
            for name, x in tensors.items():
                own = self.state[name]
                before = self.held.get(name)
                if before is None or before() is not x or not isinstance(own, torch.nn.Parameter):
                    own.copy_(torch.from_numpy(np.ascontiguousarray(x)))
                    self.held[name] = ref(x)
            with InDouble(self.module, reached):
                out = self.module(*args, **keywords)
        return [y.cpu().numpy() for y in pytree.tree_leaves(out) if isinstance(y, torch.Tensor)]

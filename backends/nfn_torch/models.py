"""Modules and checkpoints in and out of weight spaces."""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch.utils import _pytree as pytree

from nfn_core.errors import FeatureError, LabelError
from nfn_core.models.labeling import Labeling
from nfn_core.models.model_space import ModelSpace
from nfn_core.models.verification import verify
from nfn_torch.features import WeightSpaceFeatures
from nfn_torch.tracing import integers, walk

__all__ = ["stack", "stream", "unstack", "weight_space"]

Model = torch.nn.Module | Mapping[str, torch.Tensor]
Like = TypeVar("Like", torch.nn.Module, Mapping[str, torch.Tensor])


def weight_space(
    module: torch.nn.Module,
    *inputs: Any,
    labels: Mapping[str, str] | None = None,
    verification: bool = True,
    seed: int = 0,
) -> ModelSpace:
    """Derive the weight space of a module from its computation, and verify it by running the module.

    Parameters and persistent floating-point buffers (running statistics) are the tensors of the space; every other
    buffer is a constant of the computation. The module is traced and run in evaluation mode, and left as it was.

    Parameters
    ----------
    module : torch.nn.Module
        The module.
    *inputs : Any
        Example inputs, as the module takes them.
    labels : mapping of str to str, optional
        Explicit labels, for what cannot be derived or is to have a name: patterns such as ``"h in _ _"`` (see
        `nfn_core.models.patterns`) by the name of a tensor, an operation of the graph, ``"input[0]"`` or ``"output[0]"``. If
        they label every tensor, input and output, the module need not be traceable.
    verification : bool
        Whether to run the module, in double precision, on permuted tensors and inputs.
    seed : int
        Seed of the verification.

    Returns
    -------
    ModelSpace
        The weight space, with the view of every tensor.

    Raises
    ------
    LabelError
        If the module cannot be traced; an operation has no rule and no label; a label contradicts the computation;
        tensors are quantized, of several dtypes, or share memory; or permutations change the output.
    """
    tensors, first, also = _tensors(module)
    labeling = Labeling({name: tuple(x.shape) for name, x in tensors.items()}, dict(labels or {}), also)
    double = copy.deepcopy(module).eval().double()
    call = _Call(double, inputs)
    if labeling.explicit:
        examples = [x for x in pytree.tree_leaves(inputs) if isinstance(x, torch.Tensor)]
        shapes = [tuple(y.shape) for y in call.run({}, call.arrays)]
        labeling.untraced([(tuple(x.shape), integers(x)) for x in examples], shapes)
    else:
        with _evaluation(module):
            walk(labeling, module, inputs, first)
    space = ModelSpace(*labeling.finish())
    if not verification:
        return space
    arrays = {name: x.detach().double().cpu().numpy() for name, x in tensors.items()}
    return replace(space, verification=verify(labeling, call.run, arrays, call.arrays, seed))


def stack(space: ModelSpace, *channels: Sequence[Model], fill: float | None = None) -> WeightSpaceFeatures:
    """Stack modules or state dicts into features; see `nfn_core.ModelSpace.stack`.

    Parameters
    ----------
    space : ModelSpace
        The models' space.
    *channels : sequence of torch.nn.Module or mapping of str to torch.Tensor
        For each channel one module or mapping by tensor name for each model: weights, then gradients, an optimizer's
        moments, masks, ...
    fill : float, optional
        Entries of tensors that are missing or None.

    Returns
    -------
    WeightSpaceFeatures
        Each tensor of shape (models, *axes, channels).

    Raises
    ------
    FeatureError
        If the models do not fit the space.
    """
    states = [[_state(model) for model in models] for models in channels]
    return WeightSpaceFeatures(space.stack(*states, fill=fill))


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
        For each model what `like` is.

    Raises
    ------
    FeatureError
        If the features do not fit the space, or `like` lacks one of its tensors.
    """
    known = like.state_dict() if isinstance(like, torch.nn.Module) else like
    missing = [view.name for view in space.views if view.name not in known]
    if missing:
        raise FeatureError(
            f"`like` lacks tensors {missing[:5]} of the space, it has {list(known)[:5]}: give a module or state dict of the "
            "same architecture."
        )
    states = [{**known, **state} for state in space.unstack(features, channel)]
    if not isinstance(like, torch.nn.Module):
        return cast("list[Like]", states)
    modules: list[Any] = [copy.deepcopy(like) for _ in states]
    for module, state in zip(modules, states, strict=True):
        module.load_state_dict(state)
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

    Yields
    ------
    WeightSpaceFeatures
        Each tensor of shape (models, *axes, 1).
    """
    return map(WeightSpaceFeatures, space.stream(paths, batch, "torch"))


def _state(model: Model) -> Mapping[str, torch.Tensor]:
    """Tensors of a module or state dict, without their history."""
    state = model.state_dict() if isinstance(model, torch.nn.Module) else model
    return {name: x.detach() for name, x in state.items() if x is not None}


def _tensors(module: torch.nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str], dict[str, tuple[str, ...]]]:
    """Tensors by first name, first name of every name, and other names of every first name."""
    owners: dict[int, str] = {}
    tensors: dict[str, torch.Tensor] = {}
    first: dict[str, str] = {}
    for name, child in module.named_modules():
        if ".quantized" in type(child).__module__:
            raise LabelError(
                f"module {name!r} ({type(child).__name__}) is quantized: give the network before quantization."
            )
    for name, x in module.state_dict(keep_vars=True).items():
        if torch.nn.parameter.is_lazy(x) or x.is_meta:
            raise LabelError(f"tensor {name!r} has no values yet: initialize the module first.")
        if x.is_quantized or (isinstance(x, torch.nn.Parameter) and not x.is_floating_point()):
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
    """A module as a function of NumPy arrays."""

    def __init__(self, module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        self.module = module
        self.device = next((x.device for x in module.parameters()), torch.device("cpu"))
        self.leaves, self.spec = pytree.tree_flatten(args)
        self.arrays = [self._wide(x).cpu().numpy() for x in self.leaves if isinstance(x, torch.Tensor)]

    @staticmethod
    def _wide(x: torch.Tensor) -> torch.Tensor:
        return x.detach().double() if x.is_floating_point() else x

    def run(self, tensors: Mapping[str, np.ndarray], inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs for tensors in place of the module's own, and for inputs."""
        given = iter([torch.from_numpy(np.ascontiguousarray(x)).to(self.device) for x in inputs])
        leaves = [next(given) if isinstance(x, torch.Tensor) else x for x in self.leaves]
        own = {name: torch.from_numpy(np.ascontiguousarray(x)).to(self.device) for name, x in tensors.items()}
        with torch.no_grad():
            out = torch.func.functional_call(self.module, own, pytree.tree_unflatten(leaves, self.spec))
        return [y.cpu().numpy() for y in pytree.tree_leaves(out) if isinstance(y, torch.Tensor)]


@contextmanager
def _evaluation(module: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode, for a while."""
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for child, training in modes.items():
            child.training = training

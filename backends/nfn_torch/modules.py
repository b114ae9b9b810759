"""Descriptions of `nfn_core` as modules with real parameters, and their files."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from textwrap import indent
from typing import Any

import torch
import torch.utils.checkpoint
from torch import nn

from nfn_core import (
    Execution,
    Layer,
    SpecError,
    check_parameters,
    initialize,
    load_parameters,
    save_parameters,
)
from nfn_core.arrays import namespace_of
from nfn_core.checks import check_kind, shown
from nfn_core.layers.parameters import first_array
from nfn_torch.derivative import autocasts, hub_map
from nfn_torch.features import WeightSpaceFeatures
from nfn_torch.names import places

__all__ = ["NFModule", "load", "save"]

namespace_of(torch.empty(0))  # both looked up now: torch.compile need not trace how
namespace_of(nn.Parameter(torch.empty(0)))


class NFModule(nn.Module):
    """Any layer or network description of `nfn_core` with its parameters.

    Names in `state_dict` are the names of the description's parameters, the same as in the JAX tree. Constants
    (`trainable=False`) are buffers. Dropout draws from torch's generator in training mode.

    A parameter is also an attribute under its name, as `named_parameters` lists it. Where torch has another use for a part
    of the name (a tensor called ``"half"``), underscores are added there; `state_dict`, `named_arrays`,
    `get_parameter` and `get_buffer` keep to the name itself.

    Parameters
    ----------
    layer : Layer
        The description.
    seed : int
        Seed of the initial parameters; the same seed gives the same numbers in every backend.
    dtype : torch.dtype, optional
        Dtype of the parameters, real floating, by default torch's default dtype.
    device : torch.device or str, optional
        Where to put them.
    checkpoint : int, optional
        Activation checkpointing: the number of successive NF-layers of a `Sequential` whose activations are not kept
        but computed again in the backward pass. Without it all are kept.

    Raises
    ------
    SpecError
        If `layer` is no description, `seed` no non-negative integer, `dtype` no real floating dtype, `device` none that can
        be used, or `checkpoint` not a positive integer.

    Examples
    --------
    >>> import torch, nfn_core, nfn_torch
    >>> space = nfn_core.WeightSpace.mlp([2, 32, 32, 1])
    >>> net = nfn_torch.NFModule(nfn_core.NFLayer(space.group("NP"), 1, 16))
    >>> features = {t.name: torch.randn(8, *t.shape, 1) for t in space.tensors}
    >>> net(features)["W1"].shape
    torch.Size([8, 32, 2, 16])
    """

    def __init__(
        self,
        layer: Layer,
        seed: int = 0,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        checkpoint: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(layer, Layer):
            raise SpecError(f"NFModule takes a layer description of nfn_core, not {type(layer).__name__}.")
        options = _options(dtype, device)
        self.evaluation = Execution(None, hub_map, ACTIVATIONS, RECOMPUTE, checkpoint, full_precision=_without_autocast)
        self.in_training = replace(self.evaluation, noise=_uniform)
        self.layer = layer
        self.specs = layer.parameter_specs()
        self.places: dict[str, str] = {}
        self.places = places(self.specs, self)
        for name, value in initialize(layer, seed).items():
            tensor = torch.tensor(value, **options)
            *path, leaf = self.places[name].split(".")
            owner: nn.Module = self
            for part in path:
                if part not in owner._modules:
                    owner.add_module(part, nn.Module())
                owner = owner.get_submodule(part)
            if self.specs[name].trainable:
                owner.register_parameter(leaf, nn.Parameter(tensor))
            else:
                owner.register_buffer(leaf, tensor)
        if any(name != place for name, place in self.places.items()):
            self.register_state_dict_post_hook(_by_names)  # type: ignore[no-untyped-call]
            self.register_load_state_dict_pre_hook(_by_places)  # type: ignore[no-untyped-call]

    def get_parameter(self, target: str) -> nn.Parameter:
        """Return a parameter by its name."""
        return super().get_parameter(self.places.get(target, target))

    def get_buffer(self, target: str) -> torch.Tensor:
        """Return a constant by its name."""
        return super().get_buffer(self.places.get(target, target))

    def named_arrays(self) -> dict[str, torch.Tensor]:
        """Return parameters and constants by name, in the description's order."""
        found = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        return {name: found[place] for name, place in self.places.items()}

    def forward(self, features: Mapping[str, torch.Tensor] | torch.Tensor) -> Any:
        """Apply the layer.

        Parameters
        ----------
        features : mapping of str to torch.Tensor, or torch.Tensor
            Each tensor of shape (batch, *axes, channels), of the parameters' dtype (any under autocast) and device.

        Returns
        -------
        WeightSpaceFeatures or torch.Tensor
            Features of the same kind, or (batch, ...) from an invariant layer on.

        Raises
        ------
        FeatureError
            If the features do not fit the weight space.
        ParameterError
            If dtype or device of the parameters is not the features'.
        """
        params = self.named_arrays()
        if not _autocasts(params, features):
            check_parameters(self.specs, params, features)
        if not self.training:
            value = self.layer.forward(params, features, self.evaluation)
        else:
            found: dict[str, torch.Tensor] = {}
            inside = torch._C._are_functorch_transforms_active()  # torch.func
            batch_norm = None if inside else _batch_norm
            execution = replace(self.in_training, statistics=found.__setitem__, total=_total(), batch_norm=batch_norm)
            value = self.layer.forward(params, features, execution)
            if not inside:  # where buffers stay as they are
                for name, new in found.items():
                    params[name].copy_(new.detach())
        return WeightSpaceFeatures(value) if isinstance(value, dict) else value

    def __repr__(self) -> str:
        """The description's tree of layers, with the shapes and numbers of parameters."""
        sample = next(iter(self.named_arrays().values()), None)
        where = "" if sample is None else f"{sample.dtype}, {sample.device}"
        return f"{type(self).__name__}({where})\n" + indent(self.layer.tree(), "  ")


def save(path: str | Path, module: NFModule) -> None:
    """Write a module's parameters to a safetensors file.

    Parameters
    ----------
    path : str or pathlib.Path
        File to write.
    module : NFModule
        The module.

    Raises
    ------
    SpecError
        If `module` is no NFModule.
    ParameterError
        If the file cannot be written.
    MissingDependencyError
        If safetensors is not installed.
    """
    module = getattr(module, "_orig_mod", module)  # of a compiled module
    check_kind("module", module, NFModule)
    params = {name: p.detach().contiguous() for name, p in module.named_arrays().items()}
    save_parameters(path, module.layer, params, "torch")


def load(
    path: str | Path,
    layer: Layer | None = None,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> NFModule:
    """Read a module from a file written by any backend.

    Parameters
    ----------
    path : str or pathlib.Path
        File to read.
    layer : Layer, optional
        The description that the file must belong to; by default the one in the file.
    dtype : torch.dtype, optional
        Dtype of the parameters, by default the one they were saved with.
    device : torch.device or str, optional
        Device of the parameters, by default the CPU.

    Returns
    -------
    NFModule
        The module.

    Raises
    ------
    ParameterError
        If the file is damaged or belongs to another layer.
    SpecError
        If an argument is of another kind, as for `NFModule`.
    """
    _options(dtype, device)
    found, params = load_parameters(path, layer, "torch")
    kept = next((p.dtype for p in params.values()), None)
    module = NFModule(found, dtype=dtype or kept, device=device)
    module.load_state_dict(params)
    return module


def _options(dtype: torch.dtype | None, device: torch.device | str | None) -> dict[str, Any]:
    """Dtype and device of parameters."""
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise SpecError(f"dtype must be a real floating dtype such as torch.float32, not {shown(dtype)}.")
    try:
        torch.empty(0, device=device)
    except (AssertionError, RuntimeError, TypeError) as error:
        reason = str(error).split("\n")[0]
        raise SpecError(f"device {shown(device)} cannot be used: {reason}") from error
    return {"dtype": dtype, "device": device}


def _by_names(module: NFModule, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Give the entries of a state dict their names, in their order."""
    names = {prefix + place: prefix + name for name, place in module.places.items()}
    found = {names.get(key, key): state.pop(key) for key in list(state)}
    state.update(found)


def _by_places(module: NFModule, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Undo `_by_names` before a state dict is loaded."""
    places = {prefix + name: prefix + place for name, place in module.places.items()}
    found = {places.get(key, key): state.pop(key) for key in list(state)}
    state.update(found)


def _without_autocast(x: Any) -> AbstractContextManager[Any]:
    """A context in which products with a tensor are taken in the tensor's own dtype."""
    return torch.autocast(x.device.type, enabled=False) if autocasts(x) else nullcontext()


def _batch_norm(
    x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Torch's own batch normalization over all but the last axis, with mean and variance."""
    rows = x.reshape(-1, x.shape[-1])
    y, mean, deviation = torch.native_batch_norm(rows, scale, shift, None, None, True, 0.0, epsilon)
    variance = torch.clamp(deviation.detach() ** -2 - epsilon, min=0)
    return y.reshape(x.shape), mean.detach(), variance


def _uniform(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Uniform noise in [0, 1)."""
    return torch.rand(shape, dtype=like.dtype, device=like.device)


class _SumOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        torch.distributed.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, cotangent: torch.Tensor) -> torch.Tensor:
        cotangent = cotangent.clone()
        torch.distributed.all_reduce(cotangent)
        return cotangent


def _total() -> Callable[[Any], torch.Tensor] | None:
    """Sum over the processes that share a batch; None for one process."""
    d = torch.distributed
    several = d.is_available() and d.is_initialized() and d.get_world_size() > 1
    return _SumOverProcesses.apply if several else None


ACTIVATIONS: dict[str, Callable[[Any], torch.Tensor]] = {
    "relu": torch.relu,
    "leaky_relu": partial(nn.functional.leaky_relu, negative_slope=0.01),
    "gelu": partial(nn.functional.gelu, approximate="tanh"),
    "silu": nn.functional.silu,
    "sigmoid": torch.sigmoid,
}
RECOMPUTE = partial(torch.utils.checkpoint.checkpoint, use_reentrant=False)


def _autocasts(params: Mapping[str, torch.Tensor], features: Any) -> bool:
    """Whether autocast is on for the device at hand, so that dtypes may differ."""
    sample = first_array(features)
    if not isinstance(sample, torch.Tensor):
        return False
    return autocasts(sample)

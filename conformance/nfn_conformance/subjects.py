"""Subjects made of `nfn_core` descriptions, on each of the four backends."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from nfn_conformance.subject import NumpyFeatures, Output, Subject
from nfn_core import Group, Layer, initialize
from nfn_core.checks import check_choice, check_kind

__all__ = ["BACKENDS", "subject_of"]

DEVICES = ("cpu", "cuda", "gpu")


def subject_of(layer: Layer, group: Group, backend: str = "numpy", device: str = "cpu", **claims: Any) -> Subject:
    """Subject of a layer or network description.

    Parameters
    ----------
    layer : Layer
        The description.
    group : Group
        The group it is to respect.
    backend : {"numpy", "strict", "torch", "jax"}
        Where to run it.
    device : str
        Device of torch or JAX, ``"cpu"``, ``"cuda"`` or ``"gpu"``.
    **claims : Any
        Further fields of `Subject`: channels, `invariant`, `linear`, `maximal`, ...

    Returns
    -------
    Subject
        The subject, with all the backend can do.

    Raises
    ------
    SpecError
        If backend or device is unknown, or layer or group no description.
    """
    check_kind("layer", layer, Layer)
    check_kind("group", group, Group)
    check_choice("backend", backend, tuple(BACKENDS))
    check_choice("device", device, DEVICES)
    return Subject(f"{type(layer).__name__} on {backend}", group, **BACKENDS[backend](layer, device), **claims)


def _host(value: Any, convert: Callable[[Any], np.ndarray]) -> Output:
    """Output as NumPy arrays."""
    return {k: convert(x) for k, x in value.items()} if isinstance(value, dict) else convert(value)


def _array_api(layer: Layer, xp: Any) -> dict[str, Any]:
    """NumPy and array-api-strict: application only."""

    def apply(params: NumpyFeatures, u: NumpyFeatures) -> Output:
        kind = next(iter(u.values())).dtype
        mine = {k: xp.asarray(p.astype(kind)) for k, p in params.items()}
        return _host(layer.apply(mine, {k: xp.asarray(x) for k, x in u.items()}), np.asarray)

    return {"make": lambda seed: initialize(layer, seed), "apply": apply}


def _numpy(layer: Layer, device: str) -> dict[str, Any]:
    return _array_api(layer, np)


def _strict(layer: Layer, device: str) -> dict[str, Any]:
    return _array_api(layer, import_module("array_api_strict"))


def _torch(layer: Layer, device: str) -> dict[str, Any]:
    """Torch: eager, compiled, autograd, safetensors."""
    torch, nfn_torch = import_module("torch"), import_module("nfn_torch")

    def tensors(u: Any) -> Any:
        return {k: torch.tensor(x, device=device) for k, x in u.items()}

    def fit(module: Any, u: NumpyFeatures) -> Any:
        return module.to(dtype=torch.tensor(next(iter(u.values()))[:0]).dtype)

    def host(x: Any) -> np.ndarray:
        return np.asarray(x.detach().cpu().numpy())

    def apply(module: Any, u: NumpyFeatures) -> Output:
        return _host(fit(module, u)(tensors(u)), host)

    def compiled(module: Any, u: NumpyFeatures) -> Output:
        torch._dynamo.reset()
        return _host(torch.compile(fit(module, u), fullgraph=True, backend="aot_eager")(tensors(u)), host)

    def vjp(module: Any, u: NumpyFeatures, v: Output) -> NumpyFeatures:
        inputs = {k: x.requires_grad_() for k, x in tensors(u).items()}
        out = fit(module, u)(inputs)
        outs, cotangents = (
            ([out], [v]) if not isinstance(out, dict) else zip(*((out[k], v[k]) for k in out), strict=True)
        )
        given = [torch.tensor(c, device=device) for c in cotangents]
        grads = torch.autograd.grad(list(outs), list(inputs.values()), given)
        return {k: host(g) for k, g in zip(inputs, grads, strict=True)}

    def round_trip(module: Any, folder: Path) -> Any:
        nfn_torch.save(folder / "layer.safetensors", module)
        return nfn_torch.load(folder / "layer.safetensors", device=device).eval()

    return {
        "make": lambda seed: nfn_torch.NFModule(layer, seed, dtype=torch.float64, device=device).eval(),
        "apply": apply,
        "compiled": compiled,
        "vjp": vjp,
        "round_trip": round_trip,
    }


def _jax(layer: Layer, device: str) -> dict[str, Any]:
    """JAX: jitted, eager, autodiff, safetensors; needs 64-bit mode for float64."""
    jax, nfn_jax = import_module("jax"), import_module("nfn_jax")
    place = jax.devices(device)[0]

    def arrays(tree: Any, kind: Any = None) -> Any:
        return jax.tree.map(lambda x: jax.device_put(np.asarray(x, dtype=kind), place), tree)

    def function(params: Any, u: Any) -> Any:
        return nfn_jax.apply(layer, params, u)

    # One program a shape: without jit, XLA compiles each operation by itself, which takes ten times as long.
    jitted = jax.jit(function)
    pulled_back = jax.jit(lambda params, u, v: jax.vjp(lambda x: function(params, x), u)[1](v)[0])

    def call(run: Callable[..., Any], params: Any, u: NumpyFeatures) -> Output:
        return _host(run(arrays(params, next(iter(u.values())).dtype), arrays(u)), np.asarray)

    def vjp(params: Any, u: NumpyFeatures, v: Output) -> NumpyFeatures:
        own = arrays(params, next(iter(u.values())).dtype)
        return {k: np.asarray(g) for k, g in pulled_back(own, arrays(u), arrays(v)).items()}

    def round_trip(params: Any, folder: Path) -> Any:
        nfn_jax.save(folder / "layer.safetensors", layer, params)
        return arrays(nfn_jax.load(folder / "layer.safetensors")[1])

    return {
        "make": lambda seed: arrays(nfn_jax.init(layer, seed, "float64")),
        "apply": lambda params, u: call(jitted, params, u),
        "compiled": lambda params, u: call(function, params, u),
        "vjp": vjp,
        "round_trip": round_trip,
    }


BACKENDS: dict[str, Callable[[Layer, str], dict[str, Any]]] = {
    "numpy": _numpy,
    "strict": _strict,
    "torch": _torch,
    "jax": _jax,
}
"""What each backend can do with a description."""

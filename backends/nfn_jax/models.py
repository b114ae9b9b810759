"""Parameter trees and checkpoints in and out of weight spaces."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nfn_core import Features
from nfn_core.checks import boolean, check_kind, natural_int
from nfn_core.errors import FeatureError, LabelError
from nfn_core.models.labeling import Labeling, chosen
from nfn_core.models.model_space import ModelSpace
from nfn_core.models.probes import Arrays, Each, Reached, Run, running
from nfn_core.models.stacking import kind_of, stack_models
from nfn_core.models.verification import shown_running, verify
from nfn_jax.precision import InDouble
from nfn_jax.tracing import walk

__all__ = ["leaves", "stack", "stream", "unstack", "weight_space"]


def weight_space(
    function: Callable[..., Any],
    params: Any,
    *inputs: Any,
    labels: Mapping[str, str] | None = None,
    verification: bool = True,
    seed: int = 0,
    tensors: str | Iterable[str] | None = None,
    progress: bool = False,
    **keywords: Any,
) -> ModelSpace:
    """Derive the weight space of a parameter tree from the computation, and verify it by running the computation.

    Floating-point arrays of the tree are the tensors of the space; other leaves (integers, keys, functions) are
    constants of the computation. A tree is whatever JAX flattens: Linen's variables, the state of a split NNX module,
    an Equinox module, plain dictionaries.

    Parameters
    ----------
    function : callable
        ``function(params, *inputs, **keywords)`` gives the network's outputs: ``model.apply`` in Linen,
        ``lambda state, x: nnx.merge(graph, state)(x)`` in NNX, ``lambda model, x: model(x)`` in Equinox.
    params : pytree
        The parameters.
    *inputs : Any
        Example inputs, pytrees of arrays.
    labels : mapping of str to str, optional
        Explicit labels, for what cannot be derived or is to have a name: patterns such as ``"in h"`` (see
        `nfn_core.models.patterns`) by the name of a tensor, of a primitive as messages name it (``"svd[0]"``), ``"input[0]"``
        or ``"output[0]"``. If they label every tensor, input and output, the function need not be traceable.
    verification : bool
        Whether to run the function on permuted tensors and inputs: with 64-bit arrays where it takes them, otherwise
        (and then to a coarser limit) with its own.
    seed : int
        Seed of the verification.
    tensors : str or iterable of str, optional
        Which tensors make the space, as patterns of their names: ``"*lora_*"``, ``"params.Dense_0.*"``; those after ``"!"``
        are left out: ``["*", "!*Embed*"]``. All others are held fixed, and trees that are stacked need not have them.
    progress : bool
        Whether to show how often the network has been run, about once for each tensor (needs tqdm).
    **keywords : Any
        Example inputs by keyword; the labels ``"input[0]"``, ... count them after the others. What is no array is passed
        as it is.

    Returns
    -------
    ModelSpace
        The weight space, with the view of every tensor, named by its path in the tree (``"params.Dense_0.kernel"``).

    Raises
    ------
    LabelError
        If the function cannot be traced or run; a primitive has no rule and no label; a label contradicts the computation;
        `tensors` chooses none; tensors have several dtypes; or permutations change the output.
    SpecError
        If `seed` is no non-negative integer, or `verification` or `progress` neither True nor False.
    MissingDependencyError
        If progress is to be shown and tqdm is not installed.
    """
    seed, verification = natural_int("seed", seed), boolean("verification", verification)
    progress = boolean("progress", progress)
    own = leaves(params)
    kept = {name: own[name] for name in chosen(own, tensors)} if own else {}
    _check(kept)
    labeling = Labeling({name: tuple(x.shape) for name, x in kept.items()}, {} if labels is None else labels)
    given, spec = jax.tree.flatten((inputs, list(keywords.values())))
    arrays = [x for x in given if _is_array(x)]

    def run(values: Sequence[Any], examples: Sequence[Any]) -> Any:
        rest = iter(examples)
        args, others = jax.tree.unflatten(spec, [next(rest) if _is_array(x) else x for x in given])
        tree = _filled(params, dict(zip(own, values, strict=True)))
        return function(tree, *args, **dict(zip(keywords, others, strict=True)))

    held = Each(own, lambda name: _widened(own[name]))
    if labeling.explicit:
        with running():
            shapes = [np.shape(y) for y in jax.tree.leaves(run(list(own.values()), arrays))]
        labeling.untraced([(x.shape, jnp.issubdtype(x.dtype, jnp.integer)) for x in arrays], shapes)
        try:
            network = _in_double(InDouble(jax.make_jaxpr(run)(list(own.values()), arrays)), held)
        except (TypeError, IndexError):  # control flow depends on data
            network = _as_it_is(run, held, [*map(_widened, arrays)])
    else:
        others = {name: x for name, x in _leaves(params).items() if _host(x) is not None and name not in own}
        closed = walk(labeling, run, own, arrays, others)
        network = _in_double(InDouble(closed), held)
    space = ModelSpace(*labeling.finish())
    if not verification:
        return space
    values = Each(kept, held.__getitem__)
    with shown_running(network, progress) as shown:
        found = verify(labeling, shown, values, [*map(_widened, arrays)], seed, space.odd_sets)
    return replace(space, verification=found)


def _in_double(evaluate: InDouble, held: Arrays) -> Run:
    """A traced network, run in double precision throughout; tensors that are not given are what they are held to be."""

    def network(values: Arrays, inputs: Sequence[np.ndarray], reached: Reached | None) -> list[np.ndarray]:
        with running():
            return evaluate([*(values[name] if name in values else held[name] for name in held), *inputs], reached)

    return network


def _as_it_is(function: Callable[..., Any], held: Arrays, examples: Sequence[Any]) -> Run:
    """A network without a graph: run with 64-bit arrays, or with 32-bit ones where its own do not mix with them."""
    try:
        with jax.enable_x64(True):
            function([*map(jnp.asarray, held.values())], [*map(jnp.asarray, examples)])
        mode: Callable[[], AbstractContextManager[Any]] = partial(jax.enable_x64, True)
    except TypeError:
        mode = nullcontext

    def network(values: Arrays, inputs: Sequence[np.ndarray], reached: Reached | None) -> list[np.ndarray]:
        if reached is not None:
            reached.unseen["what a network without a graph chooses was not watched"] = None
        with mode(), running():
            given = [jnp.asarray(values[name] if name in values else held[name]) for name in held]
            out = function(given, [jnp.asarray(x) for x in inputs])
            return [np.asarray(y) for y in jax.tree.leaves(out)]

    return network


def _widened(x: Any) -> np.ndarray:
    """Array of the host, in double precision where it is floating."""
    return np.asarray(x, dtype="float64" if jnp.issubdtype(x.dtype, jnp.floating) else None)


def leaves(tree: Any) -> dict[str, Any]:
    """Tensors of a parameter tree by name.

    Parameters
    ----------
    tree : pytree
        The tree.

    Returns
    -------
    dict of str to array
        Its floating-point arrays by their path; what else it holds is left out.

    Raises
    ------
    LabelError
        If two leaves have one name.
    """
    return {name: x for name, x in _leaves(tree).items() if _is_array(x) and jnp.issubdtype(x.dtype, jnp.floating)}


def stack(space: ModelSpace, *channels: Iterable[Any], fill: float | None = None, detach: bool = False) -> Features:
    """Stack parameter trees into features; see `nfn_core.ModelSpace.stack`.

    Parameters
    ----------
    space : ModelSpace
        The models' space.
    *channels : iterable of pytree
        For each channel one tree, or mapping by tensor name, for each model: weights, then gradients, moments, masks, ...
        Leaves that the space does not name are left out. A prefix that the names of all arrays of a tree share
        (``"params."``) is left out with a `nfn_core.StackWarning`.
    fill : float, optional
        Entries of tensors that are missing, with a `nfn_core.StackWarning` that says how many they are.
    detach : bool
        Whether to stop gradients at the features. Otherwise they reach the models.

    Returns
    -------
    dict of str to jax.Array
        Each tensor of shape (models, *axes, channels).

    Raises
    ------
    FeatureError
        If the trees do not fit the space, or a tensor is no array of JAX.
    """
    check_kind("space", space, ModelSpace)
    features = stack_models(space, channels, fill, _named, _problem, _host)
    return {name: jax.lax.stop_gradient(x) for name, x in features.items()} if boolean("detach", detach) else features


def unstack(space: ModelSpace, features: Mapping[str, jax.Array], like: Any, channel: int = 0) -> list[Any]:
    """Turn features into parameter trees.

    Parameters
    ----------
    space : ModelSpace
        The models' space.
    features : mapping of str to jax.Array
        Each tensor of shape (models, *axes, channels).
    like : pytree
        A tree of the architecture; what the space does not hold is taken from it.
    channel : int
        The channel.

    Returns
    -------
    list of pytree
        The trees, which gradients pass through.

    Raises
    ------
    FeatureError
        If the features do not fit the space, or the tree lacks one of its tensors or has one of another shape.
    """
    check_kind("space", space, ModelSpace)
    if isinstance(features, Mapping):
        for name, x in features.items():
            wrong = _problem(x)
            if wrong:
                raise FeatureError(f"tensor {name!r} of the features {wrong}.")
    space.check_like({name: tuple(x.shape) for name, x in leaves(like).items()})
    return [_filled(like, model) for model in space.unstack(features, channel)]


def stream(space: ModelSpace, paths: Iterable[str | Path], batch: int) -> Iterator[Features]:
    """Read models from safetensors files, a batch at a time; see `nfn_core.ModelSpace.stream`.

    Parameters
    ----------
    space : ModelSpace
        The models' space.
    paths : iterable of str or pathlib.Path
        One file for each model, with the names that `leaves` gives.
    batch : int
        Models in a batch.

    Returns
    -------
    iterator of dict of str to jax.Array
        Each tensor of shape (models, *axes, 1).
    """
    check_kind("space", space, ModelSpace)
    return space.stream(paths, batch, "jax")


def _paths(tree: Any) -> list[tuple[Any, Any]]:
    """Leaves of a tree with their paths; the only leaf of a variable of NNX has the path of the variable."""
    found = []
    for path, node in jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_variable)[0]:
        inside = jax.tree_util.tree_flatten_with_path(node)[0]
        found += [((*path, *(rest if len(inside) > 1 else ())), x) for rest, x in inside]
    return found


def _is_variable(node: Any) -> bool:
    """Whether a node is a variable of NNX, which is not imported here."""
    return any(
        c.__module__.startswith("flax.nnx") and c.__name__ in ("Variable", "VariableState") for c in type(node).__mro__
    )


def _name(path: Any) -> str:
    """Dotted name of a path."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _named(tree: Any) -> Any:
    """Leaves of a tree by name; a path, which is no tree, as it is."""
    return tree if isinstance(tree, str | PathLike) else _leaves(tree)


def _leaves(tree: Any) -> dict[str, Any]:
    """Leaves of a tree by name."""
    try:
        found = _paths(tree)
    except ValueError as error:  # JAX sorts the keys of mappings
        raise LabelError(f"the keys of a tree of tensors must be of one kind, which JAX can sort: {error}") from error
    named: dict[str, Any] = {}
    places: dict[str, str] = {}
    for path, x in found:
        name, place = _name(path), jax.tree_util.keystr(path)
        if name in named:
            raise LabelError(
                f"the leaves {places[name]} and {place} of the tree both have the name {name!r}: rename keys that hold dots."
            )
        named[name], places[name] = x, place
    return named


def _problem(x: Any) -> str | None:
    """What is wrong with a tensor of a model; None if it can be stacked."""
    if isinstance(x, jax.Array):
        return None
    return f"is a {kind_of(x)}, not a jax.Array: convert it, for example with jax.numpy.asarray"


def _is_array(x: Any) -> bool:
    return isinstance(x, jax.Array | np.ndarray)


def _host(x: Any) -> np.ndarray | None:
    """Array of NumPy with an array's entries, None for what has none: keys of random numbers, functions."""
    return np.asarray(x) if _is_array(x) and not jnp.issubdtype(x.dtype, jax.dtypes.extended) else None


def _filled(tree: Any, values: Mapping[str, Any]) -> Any:
    """The tree with other values of its tensors."""
    return jax.tree.unflatten(jax.tree.structure(tree), [values.get(_name(path), x) for path, x in _paths(tree)])


def _check(tensors: Mapping[str, Any]) -> None:
    """At least one tensor, and one dtype."""
    if not tensors:
        raise LabelError("the parameters hold no floating-point array: there is no weight space to derive.")
    name, x = next(iter(tensors.items()))
    for other, y in tensors.items():
        if y.dtype != x.dtype:
            raise LabelError(
                f"tensor {other!r} is {y.dtype}, but {name!r} is {x.dtype}: bring all tensors to one dtype."
            )

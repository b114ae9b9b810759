"""What passes through a network, layer by layer: for networks that do not learn."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nfn_core.arrays import Array, namespace_of, widened
from nfn_core.checks import check_kind, shown
from nfn_core.errors import SpecError
from nfn_core.layers.base import Execution
from nfn_core.layers.networks import Sequential
from nfn_core.layers.parameters import check_parameters

__all__ = ["Signal", "signal_report"]


@dataclass(frozen=True)
class Signal:
    """What one array of a layer's output carries.

    Parameters
    ----------
    layer : str
        Index and class of the layer.
    array : str
        Name of the tensor or neuron set; empty for plain arrays.
    scale : float
        Root of the mean square.
    networks, entries, constant : float
        Shares of the mean square, by channel: variance of the networks' means, variance within networks, and the square
        of the mean of all. They add up to 1, or are 0 where the array is.
    gradient : float, optional
        Root of the mean square of the gradient.
    """

    layer: str
    array: str
    scale: float
    networks: float
    entries: float
    constant: float
    gradient: float | None = None


def signal_report(
    network: Sequential,
    params: Mapping[str, Array],
    features: Any,
    gradient: Callable[[Callable[[Any], Array], Any], Any] | None = None,
    execution: Execution | None = None,
) -> list[Signal]:
    """Report what differs between networks, between entries, and not at all, after each layer.

    Parameters
    ----------
    network : Sequential
        The network.
    params : mapping of str to array
        Its parameters.
    features : mapping of str to array
        A batch, each tensor of shape (batch, *axes, channels).
    gradient : callable, optional
        Given a function of a layer's output and the output, the function's gradient there: ``lambda f, x:
        jax.grad(f)(x)``, or the same of `torch.func`. The function is half the sum of squares of the network's output.
    execution : Execution, optional
        As for `Layer.apply`.

    Returns
    -------
    list of Signal
        One for each array of each layer's output.

    Raises
    ------
    SpecError
        If an argument is of another kind.
    ParameterError
        If the parameters are not the network's.
    FeatureError
        If the features do not fit.
    """
    check_kind("network", network, Sequential)
    check_kind("execution", execution, Execution | None)
    if gradient is not None and not callable(gradient):
        raise SpecError(f"gradient must be a function or None, not {shown(gradient)}.")
    check_parameters(network.cached_specs, params, features)
    execution = execution or Execution()
    found = []
    x = features
    for i, layer in enumerate(network.layers):
        x = network.call(str(i), params, x, execution)

        def half_square(y: Any, start: int = i + 1) -> Array:
            for k in range(start, len(network.layers)):
                y = network.call(str(k), params, y, execution)
            parts = [namespace_of(z).sum(z * z) / 2 for _, z in _arrays(y)]
            return sum(parts[1:], parts[0])

        slopes = {} if gradient is None else dict(_arrays(gradient(half_square, x)))
        for name, y in _arrays(x):
            slope = slopes.get(name)
            found.append(
                Signal(f"{i} {type(layer).__name__}", name, *_shares(y), None if slope is None else _rms(slope))
            )
    return found


def _arrays(x: Any) -> Iterator[tuple[str, Array]]:
    """Arrays of features, of a tuple of features, or one array, by name."""
    if isinstance(x, tuple):
        for part in x:
            yield from _arrays(part)
    elif isinstance(x, Mapping):
        yield from x.items()
    else:
        yield "", x


def _rms(x: Array) -> float:
    """Root of the mean square."""
    xp, x = namespace_of(x), widened(x)
    return float(xp.sqrt(xp.mean(x * x)))


def _shares(x: Array) -> tuple[float, float, float, float]:
    """Scale, and the shares of networks, entries and what is constant."""
    xp = namespace_of(x)
    x = xp.reshape(widened(x), (x.shape[0], -1, x.shape[-1]))
    mean = xp.mean(x, axis=1, keepdims=True)
    overall = xp.mean(mean, axis=0, keepdims=True)
    square = float(xp.mean(x * x))
    parts = (float(xp.mean((mean - overall) ** 2)), float(xp.mean((x - mean) ** 2)), float(xp.mean(overall**2)))
    return (square**0.5, *(p / square if square else 0.0 for p in parts))

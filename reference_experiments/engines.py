"""What an experiment needs of an array library with gradients. PyTorch and JAX provide it; experiments are written once."""

from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np

from nfn_core import Layer

__all__ = ["BACKENDS", "Engine", "Inputs", "Learner", "State", "chunks", "engine", "rows"]

BACKENDS = ("torch", "jax")

Inputs = np.ndarray | dict[str, np.ndarray]
"""What a network takes, on the host: features, each of shape (batch, *axes, channels), or an array (batch, ...)."""

T = TypeVar("T", bound=Inputs)

State = dict[str, Any]
"""Named arrays of the engine's library."""


class Learner(Protocol):
    """A network with its optimiser (AdamW), trained to predict numbers in [0, 1]."""

    def step(self, inputs: Inputs, targets: np.ndarray) -> float:
        """Take one step down the binary cross-entropy to targets of shape (batch,); return it."""

    def predict(self, inputs: Inputs) -> np.ndarray:
        """Predictions of shape (batch,), without dropout."""

    def save(self, path: Path) -> None:
        """Write the parameters, as `nfn_torch.save` and `nfn_jax.save` do."""

    def load(self, path: Path) -> None:
        """Read the parameters."""


class Engine(Protocol):
    """An array library with gradients."""

    name: str
    block: int
    """Number of small networks that are best trained at once."""

    def use_gpu(self) -> None:
        """Put new arrays on the GPU."""

    def sin(self, x: Any) -> Any:
        """Sine of an array."""

    def array(self, x: np.ndarray) -> Any:
        """Array of the library, from one of the host."""

    def numpy(self, x: Any) -> np.ndarray:
        """Array of the host, from one of the library."""

    def grad(self, function: Callable[..., Any]) -> Callable[..., State]:
        """Gradient of a scalar function by its first argument, a dictionary of arrays."""

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function of arrays, compiled where that helps."""

    def loop(self, step: Callable[[State, Any], State]) -> Callable[[State, Any], State]:
        """Function that feeds the rows of an array, or of a dictionary of arrays, to `step`, one after another.

        It returns the last state.
        """

    def learner(self, layer: Layer, seed: int, learning_rate: float, weight_decay: float) -> Learner:
        """Start training a network whose output has shape (batch, 1): a logit."""


def engine(name: str) -> Engine:
    """Engine of a backend, ``"torch"`` or ``"jax"``; each is imported only when asked for."""
    found: Engine = import_module(f"reference_experiments.{name}_engine").ENGINE
    return found


def rows(inputs: T, index: Any) -> T:
    """Rows of inputs, by an index array or slice."""
    if isinstance(inputs, dict):
        return cast("T", {name: x[index] for name, x in inputs.items()})
    return cast("T", inputs[index])


def chunks(inputs: Inputs, size: int) -> Iterable[Inputs]:
    """Inputs in consecutive chunks of at most `size` rows."""
    count = len(next(iter(inputs.values()))) if isinstance(inputs, dict) else len(inputs)
    return (rows(inputs, slice(start, start + size)) for start in range(0, count, size))

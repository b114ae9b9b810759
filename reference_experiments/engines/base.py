"""What an experiment needs of an array library with gradients. PyTorch and JAX provide it; experiments are written once."""

import os
import platform
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import numpy as np

from nfn_core import Layer, __version__

if TYPE_CHECKING:
    from reference_experiments.training import Recipe

__all__ = ["BACKENDS", "GPU_BLOCK", "Engine", "Inputs", "Learner", "State", "blocks", "engine", "rows", "surroundings"]

BACKENDS = ("torch", "jax")
GPU_BLOCK = 1000
"""Number of small networks that fill a GPU (not measured)."""

Inputs = np.ndarray | dict[str, np.ndarray]
"""What a network takes, on the host: features, each of shape (batch, *axes, channels), or an array (batch, ...)."""

T = TypeVar("T", bound=Inputs)

State = dict[str, Any]
"""Named arrays of the engine's library."""


class Learner(Protocol):
    """A network with its optimiser; see `reference_experiments.training.Recipe`."""

    recipe: "Recipe"

    def step(self, inputs: Inputs, targets: np.ndarray, number: int) -> Any:
        """Take step `number`, which dropout follows from too; return the loss, a number that may still be computed."""

    def apply(self, inputs: Inputs) -> Any:
        """Output without dropout, on the host: an array (batch, ...), or features."""

    def state(self) -> State:
        """Parameters and moments, on the host: all that `step` depends on."""

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over what `state` returned."""

    def save(self, path: Path) -> None:
        """Write the parameters, as `nfn_torch.save` and `nfn_jax.save` do."""


class Engine(Protocol):
    """An array library with gradients."""

    name: str
    block: int
    """Number of small networks that are best trained at once; `GPU_BLOCK` on a GPU."""

    def use(self, gpu: bool, devices: int = 1) -> None:
        """Put new arrays on CPU or GPU, and split every batch that is learned from among some devices."""

    def device(self) -> str:
        """Name of the device that new arrays are put on."""

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

    def learner(self, layer: Layer, recipe: "Recipe", seed: int) -> Learner:
        """Start training a network, whose output the recipe's loss takes."""


def engine(name: str) -> Engine:
    """Engine of a backend, ``"torch"`` or ``"jax"``; each is imported only when asked for."""
    found: Engine = import_module(f"reference_experiments.engines.{name}").ENGINE
    return found


def blocks(library: Engine, count: int) -> Iterator[slice]:
    """Cut a number of networks into blocks that are best trained at once."""
    return (slice(start, start + library.block) for start in range(0, count, library.block))


def rows(inputs: T, index: Any) -> T:
    """Rows of inputs, by an index array or slice."""
    if isinstance(inputs, dict):
        return cast("T", {name: x[index] for name, x in inputs.items()})
    return cast("T", inputs[index])


def surroundings(library: Engine) -> dict[str, str]:
    """What a result is made with: machine and versions."""
    return {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {library.device()}",
        "python": platform.python_version(),
        library.name: version(library.name),
        "nfn-core": __version__,
    }

"""What an experiment needs of an array library with gradients. PyTorch and JAX provide it; experiments are written once."""

import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from math import cos, pi
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, cast

import numpy as np

from nfn_core import Layer, ParameterError, __version__

__all__ = [
    "BACKENDS",
    "Engine",
    "GPU_BLOCK",
    "Inputs",
    "Learner",
    "Recipe",
    "Split",
    "State",
    "blocks",
    "check_state",
    "engine",
    "environment",
    "one_thread",
    "rows",
    "use_one_thread",
]


BACKENDS = ("torch", "jax")


GPU_BLOCK = 1000
"""Number of small networks that fill a GPU: an H200 fitted 4,000, 4,600 and 3,500 SIRENs a second in blocks of 500, 2,000, 8,000."""


Inputs = np.ndarray | dict[str, np.ndarray]
"""What a network takes, on the host: features, each of shape (batch, *axes, channels), or an array (batch, ...)."""


T = TypeVar("T", bound=Inputs)


State = dict[str, Any]
"""Named arrays of the engine's library."""


@dataclass(frozen=True)
class Split:
    """Networks of one split, as a method takes them.

    Parameters
    ----------
    inputs : callable
        From positions in the split and a source of random numbers (None where nothing is to be drawn) to the inputs.
    targets : numpy.ndarray
        Shape (networks,): float32 in [0, 1], or classes; unused where the loss is custom.
    """

    inputs: Callable[[np.ndarray, np.random.Generator | None], Inputs]
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Recipe:
    """How a method is trained: AdamW, with early stopping by what ranks or classifies the validation networks best.

    Parameters
    ----------
    loss : {"binary", "classes", "custom"}
        Binary cross-entropy to a number in [0, 1], whose metric is Kendall's τ; cross-entropy to one of several
        classes, whose metric is the accuracy; or what the network itself returns, a loss for each of the networks it
        takes, whose metric is its mean, negated.
    steps, batch : int
        Number of steps, and networks in each.
    learning_rate, weight_decay : float
        Of AdamW, whose other constants are the usual ones.
    warmup : int
        Steps in which the learning rate rises linearly from 0.
    cosine : bool
        Whether it then falls to 0 along a cosine, or stays.
    eval_every : int
        Steps between two evaluations on the validation networks, each with a checkpoint.
    patience : int, optional
        Evaluations without improvement after which training stops; without it all steps are taken.
    dtype : {"float32", "bfloat16", "fastest"}
        Of the arithmetic in training. Parameters, moments and predictions are float32 always: in bfloat16 half of
        260 scores were ties. ``"fastest"`` is for the runner, which measures both and takes one.
    """

    loss: Literal["binary", "classes", "custom"]
    steps: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.0
    warmup: int = 0
    cosine: bool = False
    eval_every: int = 500
    patience: int | None = None
    dtype: Literal["float32", "bfloat16", "fastest"] = "float32"

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / (self.steps - self.warmup)
        return self.learning_rate * (0.5 + 0.5 * cos(pi * done) if self.cosine else 1.0)


class Learner(Protocol):
    """A network with its optimizer; see `reference_experiments.engines.base.Recipe`."""

    recipe: Recipe

    def step(self, inputs: Inputs, targets: np.ndarray, number: int) -> Any:
        """Take step `number`, which dropout follows from too; return the loss, a number that may still be computed."""

    def apply(self, inputs: Inputs) -> Any:
        """Output without dropout, of float32, on the host: an array (batch, ...), or features."""

    def state(self) -> State:
        """Parameters and moments, on the host: all that `step` depends on."""

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over what `state` returned; see `check_state`."""

    def save(self, path: Path) -> None:
        """Write the parameters, as `nfn_torch.save` and `nfn_jax.save` do."""


class Engine(Protocol):
    """An array library with gradients."""

    name: str
    block: int
    """Number of small networks that are best trained at once; `GPU_BLOCK` on a GPU."""

    convolutional_block: int
    """The same of convolutional networks."""

    def use(self, gpu: bool, devices: int = 1) -> None:
        """Put new arrays on CPU or GPU, and split every batch that is learned from among some devices."""

    def device(self) -> str:
        """Name of the device that new arrays are put on."""

    def threads(self) -> int:
        """Number of CPU threads in use."""

    def thread_counts(self) -> tuple[int, ...]:
        """Numbers of CPU threads that `use_threads` takes."""

    def use_threads(self, count: int) -> None:
        """Use so many CPU threads from now on."""

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

    def learner(self, layer: Layer, recipe: Recipe, seed: int) -> Learner:
        """Start training a network, whose output the recipe's loss takes."""


def engine(name: str) -> Engine:
    """Engine of a backend, ``"torch"`` or ``"jax"``; each is imported only when asked for."""
    found: Engine = import_module(f"reference_experiments.engines.{name}").ENGINE
    return found


def check_state(state: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """See that a state fits a learner.

    Parameters
    ----------
    state : mapping of str to numpy.ndarray
        The state.
    shapes : mapping of str to tuple of int
        Shapes of the learner's own.

    Raises
    ------
    ParameterError
        If an entry is missing, unknown, or of another shape.
    """
    missing, unknown = [n for n in shapes if n not in state], [n for n in state if n not in shapes]
    other = {n: x.shape for n, x in state.items() if n in shapes and x.shape != shapes[n]}
    if missing or unknown or other:
        raise ParameterError(
            f"the state of another network: it lacks {missing}, holds unknown {unknown}, and of other shapes {other}."
        )


def blocks(size: int, count: int) -> Iterator[slice]:
    """Cut a number of networks into blocks of a size."""
    return (slice(start, start + size) for start in range(0, count, size))


def rows(inputs: T, index: Any) -> T:
    """Rows of inputs, by an index array or slice."""
    if isinstance(inputs, dict):
        return cast("T", {name: x[index] for name, x in inputs.items()})
    return cast("T", inputs[index])


def environment(library: Engine) -> dict[str, str]:
    """What a result is made with: machine and versions."""
    return {
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {library.device()}",
        "threads": str(library.threads()),
        "python": platform.python_version(),
        library.name: version(library.name),
        "nfn-core": __version__,
    }


@contextmanager
def one_thread() -> Iterator[None]:
    """Let the array libraries of processes that are started in this context use one CPU thread."""
    before = dict(os.environ)
    use_one_thread()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def use_one_thread() -> None:
    """Let the array libraries of this process, which are not loaded yet, use one CPU thread."""
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    os.environ |= {"JAX_PLATFORMS": "cpu", "NPROC": "1", "PJRT_NPROC": "1"}
    flag, flags = "--xla_cpu_multi_thread_eigen=false", os.environ.get("XLA_FLAGS", "")
    if flag not in flags:
        os.environ["XLA_FLAGS"] = f"{flag} {flags}"

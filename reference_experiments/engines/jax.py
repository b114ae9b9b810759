"""JAX: `nfn_jax` functions trained with optax."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import nfn_jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from nfn_core import Layer, MissingDependencyError

try:
    import optax
except ImportError as error:
    raise MissingDependencyError(f"the experiments need optax with JAX ({error}): pip install optax.") from error

from reference_experiments.engines.base import GPU_BLOCK, Inputs, Recipe, State, check_state
from reference_experiments.files import ExperimentError

__all__ = ["ENGINE"]


LOSSES: dict[str, Callable[[jax.Array, jax.Array], Any]] = {
    "binary": lambda scores, y: jnp.mean(optax.sigmoid_binary_cross_entropy(scores[:, 0], y)),
    "classes": lambda scores, y: jnp.mean(optax.softmax_cross_entropy_with_integer_labels(scores, y)),
    "custom": lambda losses, _: jnp.mean(losses),
}


class JaxLearner:
    """See `Learner`."""

    def __init__(self, layer: Layer, recipe: Recipe, seed: int) -> None:
        self.layer, self.recipe = layer, recipe
        self.params, self.key = _everywhere(nfn_jax.init(layer, seed)), jax.random.key(seed)
        rates = jnp.asarray([recipe.rate(step) for step in range(recipe.steps)], jnp.float32)
        adamw = optax.adamw(lambda count: rates[count], weight_decay=recipe.weight_decay)
        optimizer = optax.masked(adamw, nfn_jax.trainable(layer))
        self.moments = _everywhere(optimizer.init(self.params))

        arithmetic = jnp.bfloat16 if recipe.dtype == "bfloat16" else jnp.float32

        def loss(params: dict[str, jax.Array], inputs: Any, targets: jax.Array, key: jax.Array) -> Any:
            found, constants = nfn_jax.apply_in_training(
                layer, _cast(params, arithmetic), _cast(inputs, arithmetic), key
            )
            return LOSSES[recipe.loss](_cast(found, jnp.float32), targets), _cast(constants, jnp.float32)

        @partial(jax.jit, donate_argnums=(0, 1))
        def update(params: Any, moments: Any, inputs: Any, targets: jax.Array, key: jax.Array, number: int) -> Any:
            found = jax.value_and_grad(loss, has_aux=True)(params, inputs, targets, jax.random.fold_in(key, number))
            (value, constants), gradient = found
            change, moments = optimizer.update(gradient, moments, params)
            return optax.apply_updates(params, change) | constants, moments, value

        self.update = update
        self.forward = jax.jit(partial(nfn_jax.apply, layer))

    def step(self, inputs: Inputs, targets: np.ndarray, number: int) -> Any:
        """Take one step."""
        if ENGINE.mesh is not None:
            split = NamedSharding(ENGINE.mesh, PartitionSpec("networks"))  # type: ignore[no-untyped-call]
            inputs, targets = jax.device_put((inputs, targets), split)
        self.params, self.moments, value = self.update(
            self.params, self.moments, inputs, targets, self.key, np.uint32(number)
        )
        return value

    def apply(self, inputs: Inputs) -> Any:
        """Apply the network to inputs of the host, in float32 always."""
        return jax.tree.map(np.asarray, self.forward(self.params, inputs))

    def state(self) -> State:
        """Parameters by name, and the leaves of optax's state."""
        leaves = {f"moment {i}": x for i, x in enumerate(jax.tree.leaves(self.moments))}
        return {n: np.array(x) for n, x in ({f"parameter {n}": x for n, x in self.params.items()} | leaves).items()}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over parameters and the leaves of optax's state."""
        check_state(state, {name: x.shape for name, x in self.state().items()})
        self.params = _everywhere({name: jnp.asarray(state[f"parameter {name}"]) for name in self.params})
        leaves, tree = jax.tree.flatten(self.moments)
        found = [jnp.asarray(state[f"moment {i}"]) for i in range(len(leaves))]
        self.moments = _everywhere(jax.tree.unflatten(tree, found))

    def save(self, path: Path) -> None:
        """Write the parameters."""
        nfn_jax.save(path, self.layer, self.params)


def _everywhere(tree: Any) -> Any:
    """Arrays of a tree on the devices of all processes, if there are several."""
    if ENGINE.mesh is None or jax.process_count() == 1:
        return tree
    return jax.device_put(tree, NamedSharding(ENGINE.mesh, PartitionSpec()))  # type: ignore[no-untyped-call]


def _cast(tree: Any, dtype: Any) -> Any:
    """All arrays of a tree in one dtype."""
    return jax.tree.map(lambda x: x.astype(dtype), tree)


@jax.custom_jvp
def _sin(x: jax.Array) -> jax.Array:
    """Polynomial of degree 11 after reduction to ±π/2, which XLA makes vector instructions of."""
    turns = jnp.round(x * (1 / jnp.pi))
    r = (x - turns * 3.140625) - turns * 9.67653589793e-4
    s = r * r
    tail = -0.16666667 + s * (0.0083333310 + s * (-0.00019840874 + s * (2.7525562e-06 - s * 2.3889859e-08)))
    return (r + r * s * tail) * (1 - 2 * jnp.abs(turns - 2 * jnp.round(turns / 2)))


@_sin.defjvp
def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    return _sin(*primals), tangents[0] * _sin(primals[0] + jnp.pi / 2)


class JaxEngine:
    """See `Engine`."""

    name = "jax"
    block = 4
    convolutional_block = 1
    mesh: jax.sharding.Mesh | None = None
    learner = JaxLearner

    def use(self, gpu: bool, devices: int = 1) -> None:
        """See that JAX has a GPU, which it then takes by itself; split batches over a mesh of several devices.

        Raises
        ------
        ExperimentError
            If there are fewer devices, or processes of several machines do not know where they meet.
        """
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        if devices % processes:
            raise ExperimentError(
                f"{devices} devices cannot be split evenly among {processes} processes: ask for others."
            )
        meeting = os.environ.get("JAX_COORDINATOR_ADDRESS")
        if processes > 1 and (meeting is None or "RANK" not in os.environ):
            raise ExperimentError(
                f"{processes} processes of JAX need to know where they meet: set JAX_COORDINATOR_ADDRESS to HOST:PORT of "
                "the first one, and RANK to the number of each. (torchrun starts processes for PyTorch alone.)"
            )
        if devices > 1 and not gpu:
            jax.config.update("jax_num_cpu_devices", devices // processes)  # type: ignore[no-untyped-call]
        if processes > 1:
            jax.distributed.initialize(meeting, processes, int(os.environ["RANK"]))
        found = jax.devices("gpu" if gpu else "cpu")
        if gpu:
            self.block = self.convolutional_block = GPU_BLOCK
        if devices > len(found):
            raise ExperimentError(f"{devices} devices were asked for, but JAX has {len(found)}: ask for fewer.")
        if devices > 1:
            self.mesh = jax.sharding.Mesh(found[:devices], ("networks",))

    def device(self) -> str:
        """Name of JAX's default device."""
        return "CPU" if jax.default_backend() == "cpu" else str(jax.devices()[0].device_kind)

    def threads(self) -> int:
        """As many as there are cores, or as the environment variable NPROC says."""
        return int(os.environ.get("NPROC") or os.cpu_count() or 1)

    def thread_counts(self) -> tuple[int, ...]:
        """Those that JAX has: it takes no other number once it is imported."""
        return (self.threads(),)

    def use_threads(self, count: int) -> None:
        """Leave JAX's threads, of which there is no other number to choose, as they are."""

    def sin(self, x: jax.Array) -> jax.Array:
        """Sine by a polynomial."""
        return _sin(x)

    def array(self, x: np.ndarray) -> jax.Array:
        """Copy to the default device."""
        return jnp.asarray(x)

    def numpy(self, x: jax.Array) -> np.ndarray:
        """Copy to the host."""
        return np.asarray(x)

    def grad(self, function: Callable[..., jax.Array]) -> Callable[..., State]:
        """Gradient by the first argument."""
        return jax.grad(function)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compile for each shape."""
        return jax.jit(function)

    def loop(self, step: Callable[[State, Any], State]) -> Callable[[State, Any], State]:
        """Compile the loop, once for each shape of its inputs."""

        @jax.jit
        def run(state: State, inputs: Any) -> State:
            return jax.lax.scan(lambda state, x: (step(state, x), None), state, inputs)[0]

        return run


ENGINE = JaxEngine()

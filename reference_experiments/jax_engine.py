"""JAX: `nfn_jax` functions trained with optax."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import nfn_jax
import numpy as np

from nfn_core import Layer, MissingDependencyError

try:
    import optax
except ImportError as error:
    raise MissingDependencyError(f"the experiments need optax with JAX ({error}): pip install optax.") from error

from reference_experiments.engines import Inputs, State, chunks

__all__ = ["ENGINE"]


class JaxLearner:
    """See `Learner`."""

    def __init__(self, layer: Layer, seed: int, learning_rate: float, weight_decay: float) -> None:
        self.layer, self.params, self.key = layer, nfn_jax.init(layer, seed), jax.random.key(seed)
        optimizer = optax.masked(optax.adamw(learning_rate, weight_decay=weight_decay), nfn_jax.trainable(layer))
        self.moments = optimizer.init(self.params)

        def logits(params: nfn_jax.Params, inputs: Any, key: jax.Array | None = None) -> jax.Array:
            out: Any = nfn_jax.apply(layer, params, inputs, key)
            return jnp.squeeze(out, axis=1)

        def loss(params: nfn_jax.Params, inputs: Any, targets: jax.Array, key: jax.Array) -> jax.Array:
            return jnp.mean(optax.sigmoid_binary_cross_entropy(logits(params, inputs, key), targets))

        @jax.jit
        def update(params: Any, moments: Any, inputs: Any, targets: jax.Array, key: jax.Array) -> Any:
            value, gradient = jax.value_and_grad(loss)(params, inputs, targets, key)
            change, moments = optimizer.update(gradient, moments, params)
            return optax.apply_updates(params, change), moments, value

        self.update = update
        self.forward = jax.jit(lambda params, inputs: jax.nn.sigmoid(logits(params, inputs)))

    def step(self, inputs: Inputs, targets: np.ndarray) -> float:
        """Take one step."""
        self.key, key = jax.random.split(self.key)
        self.params, self.moments, value = self.update(self.params, self.moments, inputs, targets, key)
        return float(value)

    def predict(self, inputs: Inputs) -> np.ndarray:
        """Predict in chunks."""
        return np.concatenate([np.asarray(self.forward(self.params, part)) for part in chunks(inputs, 64)])

    def save(self, path: Path) -> None:
        """Write the parameters."""
        nfn_jax.save(path, self.layer, self.params)

    def load(self, path: Path) -> None:
        """Read the parameters."""
        self.params = nfn_jax.load(path, self.layer)


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
    learner = JaxLearner

    def use_gpu(self) -> None:
        """See that JAX has one: it then takes it by itself."""
        jax.devices("gpu")

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

"""nfn-core in JAX: descriptions from `nfn_core` as pure functions over plain pytrees. No mathematics lives here.

``params = init(layer, seed)`` is a dictionary of arrays under the names torch's `state_dict` has;
``apply(layer, params, features)`` is pure and works under jit, grad, vmap and shard_map.
"""

from nfn_core.errors import MissingDependencyError

try:
    import jax  # noqa: F401
except ImportError as error:
    raise MissingDependencyError(f"nfn_jax needs JAX ({error}): install nfn-core[jax].") from error

from nfn_jax.apply import apply, init, load, save, trainable
from nfn_jax.models import leaves, stack, stream, unstack, weight_space

__all__ = [
    "apply",
    "init",
    "leaves",
    "load",
    "save",
    "stack",
    "stream",
    "trainable",
    "unstack",
    "weight_space",
]

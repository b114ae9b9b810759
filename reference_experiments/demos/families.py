"""Families of networks that are surveyed: our own, those of timm, transformers and torchvision, and JAX's."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from nfn_torch import unstack, weight_space
from torch.utils import _pytree as pytree

from nfn_core import MissingDependencyError, ModelSpace
from reference_experiments.demos.small_networks import networks

__all__ = ["Example", "FAMILIES", "JaxExample", "QUICK", "TorchExample"]

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
"""Inputs of a network, and those by keyword."""

QUICK = ("MLP", "CNN", "CNN, groups", "LSTM", "SIREN", "NeRF", "Tri-planes", "Graph convolution", "LoRA", "Neural ODE")
"""Our own networks that take the least time."""


class Example(Protocol):
    """A network that is surveyed."""

    @property
    def labels(self) -> Mapping[str, str]:
        """Labels of what cannot be derived."""

    def derive(self) -> ModelSpace:
        """Derive and verify the weight space of a first draw, for the first inputs."""

    def draw(self, seed: int) -> dict[str, np.ndarray]:
        """Draw tensors, in double precision."""

    def outputs(self, space: ModelSpace, features: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Compute the outputs of a model given as features, for the second inputs."""


@dataclass(frozen=True)
class TorchExample:
    """A module.

    Parameters
    ----------
    make : callable
        Draws a module.
    first, second : tuple
        Inputs from which labels are derived, and inputs of another size.
    labels : mapping of str to str
        Labels that must be given.
    dtype : torch.dtype
        What fresh weights are run in; single precision where the module has operations for no more.
    """

    make: Callable[[], torch.nn.Module]
    first: Inputs
    second: Inputs
    labels: Mapping[str, str] = field(default_factory=dict)
    dtype: torch.dtype = torch.float64

    def derive(self) -> ModelSpace:
        """Derive and verify the weight space of a first draw, for the first inputs."""
        torch.manual_seed(0)
        args, keywords = self.first
        return weight_space(self.make(), *args, labels=self.labels, **keywords)

    def draw(self, seed: int) -> dict[str, np.ndarray]:
        """Draw tensors."""
        torch.manual_seed(seed)
        state = self.make().to(self.dtype).state_dict()
        return {n: x.numpy() for n, x in state.items() if isinstance(x, torch.Tensor) and x.is_floating_point()}

    def outputs(self, space: ModelSpace, features: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Compute the outputs of a model given as features, for the second inputs."""
        torch.manual_seed(0)
        (module,) = unstack(space, {n: torch.tensor(x) for n, x in features.items()}, self.make().to(self.dtype))
        args, keywords = pytree.tree_map(
            lambda x: x.to(self.dtype) if isinstance(x, torch.Tensor) and x.is_floating_point() else x, self.second
        )
        torch.manual_seed(0)
        with torch.no_grad():
            out = pytree.tree_leaves(module.eval()(*args, **keywords))
        return [x.double().numpy() for x in out if isinstance(x, torch.Tensor) and x.is_floating_point()]


@dataclass(frozen=True)
class JaxExample:
    """A function of a tree of parameters.

    Parameters
    ----------
    make : callable
        From a seed to the function and its parameters.
    first, second : tuple
        Inputs from which labels are derived, and inputs of another size.
    labels : mapping of str to str
        Labels that must be given.
    """

    make: Callable[[int], tuple[Callable[..., Any], Any]]
    first: tuple[Any, ...]
    second: tuple[Any, ...]
    labels: Mapping[str, str] = field(default_factory=dict)

    def derive(self) -> ModelSpace:
        """Derive and verify the weight space of a first draw, for the first inputs."""
        from nfn_jax import weight_space as jax_space

        return jax_space(*self.make(0), *self.first, labels=self.labels)

    def draw(self, seed: int) -> dict[str, np.ndarray]:
        """Draw tensors, in double precision."""
        from nfn_jax import leaves

        return {name: np.asarray(x, "float64") for name, x in leaves(self.make(seed)[1]).items()}

    def outputs(self, space: ModelSpace, features: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """Compute the outputs of a model given as features, for the second inputs."""
        import jax
        import nfn_jax

        function, like = self.make(0)
        single = {name: jax.numpy.asarray(x, "float32") for name, x in features.items()}
        (tree,) = nfn_jax.unstack(space, single, like)
        return [np.asarray(y, "float64") for y in jax.tree.leaves(function(tree, *self.second))]


def _own() -> dict[str, Example]:
    torch.manual_seed(0)
    return {name: TorchExample(make, (first, {}), (second, {})) for name, (make, first, second) in networks().items()}


def _package(name: str) -> Any:
    """A package that only the survey needs."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"this family of networks needs {name!r}: pip install {error.name}") from error


def _each(names: Iterable[str], options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The same options for several networks."""
    return {name: dict(options) for name in names}


def _images(size: int, count: int) -> Inputs:
    return (torch.randn(count, 3, size, size),), {}


def _timm() -> dict[str, Example]:
    timm = _package("timm")
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 16}
    vit: dict[str, Any] = {**small, "depth": 2, "num_heads": 2}
    stages: dict[str, Any] = {"depths": (1, 1, 1, 1)}
    window: dict[str, Any] = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": (2, 2)}
    sized: dict[str, dict[str, Any]] = {
        **_each(("vit_tiny_patch16_224", "deit_tiny_patch16_224", "vit_relpos_small_patch16_224"), vit),
        **_each(("beit_base_patch16_224", "cait_xxs24_224", "deit3_small_patch16_224"), vit),
        "swin_tiny_patch4_window7_224": {**window, "num_heads": (2, 4)},
        "swinv2_tiny_window8_256": {**window, "num_heads": (2, 4)},
    }
    free: dict[str, dict[str, Any]] = {
        **_each(("convnext_atto", "convnextv2_atto"), {**stages, "dims": (8, 8, 16, 16)}),
        "pvt_v2_b0": {**stages, "embed_dims": (8, 8, 16, 16), "num_heads": (1, 1, 2, 2)},
        **_each(("resnet10t", "mobilenetv3_small_050", "mobilenetv2_035", "tinynet_e", "mnasnet_small"), {}),
        **_each(("lcnet_035", "regnetx_002", "regnety_002", "ghostnet_050", "dla46_c", "test_byobnet"), {}),
        **_each(("test_resnet", "test_efficientnet", "test_convnext", "test_nfnet", "test_mambaout"), {}),
        **_each(("test_efficientnet_gn", "test_efficientnet_ln", "test_convnext2", "repvit_m0_9", "dla60x_c"), {}),
    }
    found: dict[str, Example] = {}
    for table, sizes in ((sized, (32, 32)), (free, (64, 96))):
        for name, options in table.items():
            make = partial(timm.create_model, name, num_classes=5, **options)
            found[name] = TorchExample(make, _images(sizes[0], 1), _images(sizes[1], 3))
    return found


def _torchvision() -> dict[str, Example]:
    models = _package("torchvision").models
    names = ("resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "mnasnet0_5", "regnet_y_400mf")
    make = {name: partial(getattr(models, name), num_classes=5) for name in names}
    return {name: TorchExample(m, _images(64, 1), _images(96, 2)) for name, m in make.items()}


def _transformers() -> dict[str, Example]:
    library = _package("transformers")
    narrow = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 32}
    narrow |= {"intermediate_size": 24, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    plain = {**narrow, "max_position_embeddings": 64}
    grouped = {**plain, "num_key_value_heads": 1, "head_dim": 8}
    experts = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
    old = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 32, "n_positions": 64, "bos_token_id": 1}
    t5 = {"use_cache": False, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "vocab_size": 32}
    made: dict[str, dict[str, Any]] = {
        **_each(("Bert", "Roberta", "Electra", "Albert", "DistilBert", "MPNet", "Deberta", "DebertaV2"), plain),
        **_each(("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma", "Gemma2", "Phi3", "Olmo2", "Cohere"), grouped),
        **_each(("Phi", "GPTNeoX", "OPT", "Starcoder2"), plain),
        **_each(("Mixtral", "Qwen3Moe"), {**grouped, **experts}),
        "GPT2": {**old, "eos_token_id": 2},
        "Rwkv": {**narrow, "attention_hidden_size": 16, "context_length": 64},
        "Mamba": {**narrow, "state_size": 4, "expand": 1, "conv_kernel": 3, "time_step_rank": 4},
    }
    extra = {"Albert": {"embedding_size": 8}, "Electra": {"embedding_size": 8}, "OPT": {"ffn_dim": 24}}
    tokens: Any = [{"input_ids": torch.randint(3, 32, (1, n))} for n in (5, 9)]
    found: dict[str, Example] = {}

    def narrow_model(name: str, options: Mapping[str, Any]) -> Any:
        config = getattr(library, f"{name}Config")(attn_implementation="eager", use_cache=False, **options)
        return getattr(library, f"{name}Model")(config)

    for name, options in made.items():
        make = partial(narrow_model, name, {**options, **extra.get(name, {})})
        dtype = torch.float32 if "num_experts" in options else torch.float64  # products of groups are of narrow dtypes
        found[name] = TorchExample(make, ((), tokens[0]), ((), tokens[1]), dtype=dtype)
    for name in ("Mixtral", "Qwen3Moe"):
        make = partial(narrow_model, name, {**grouped, **experts, "experts_implementation": "batched_mm"})
        found[f"{name}, experts in a batch"] = TorchExample(make, ((), tokens[0]), ((), tokens[1]))
    encoder = [{**each, "decoder_input_ids": each["input_ids"][:, :3]} for each in tokens]
    found["T5"] = TorchExample(lambda: library.T5Model(library.T5Config(**t5)), ((), encoder[0]), ((), encoder[1]))
    return found


def _jax() -> dict[str, Example]:
    import equinox
    import jax
    import jax.numpy as jnp
    from flax import linen, nnx

    def plain(*sizes: int) -> Callable[[int], tuple[Callable[..., Any], Any]]:
        def network(params: Any, x: Any) -> Any:
            for w, b in params[:-1]:
                x = jnp.tanh(x @ w + b)
            return x @ params[-1][0] + params[-1][1]

        def make(seed: int) -> tuple[Callable[..., Any], Any]:
            keys = jax.random.split(jax.random.key(seed), len(sizes))
            pairs = zip(keys, pairwise(sizes), strict=False)
            return network, [(jax.random.normal(k, (a, b)), jnp.zeros(b)) for k, (a, b) in pairs]

        return make

    def mixture(seed: int) -> tuple[Callable[..., Any], Any]:
        def network(p: Any, x: Any) -> Any:
            weights, chosen = jax.lax.top_k(jax.nn.softmax(x @ p["router"]), 2)
            return jnp.einsum("bi,bkij,bk->bj", x, p["experts"][chosen], weights)

        one, two = jax.random.split(jax.random.key(seed))
        return network, {"router": jax.random.normal(one, (3, 4)), "experts": jax.random.normal(two, (4, 3, 2))}

    def recurrent(seed: int) -> tuple[Callable[..., Any], Any]:
        def network(p: Any, x: Any) -> Any:
            step = jax.checkpoint(lambda h, row: (jnp.tanh(h @ p["recurrent"] + row @ p["inward"]), None))
            return jax.lax.scan(step, jnp.zeros((x.shape[0], 6)), jnp.swapaxes(x, 0, 1))[0] @ p["outward"]

        keys = jax.random.split(jax.random.key(seed), 3)
        shapes = {"inward": (4, 6), "outward": (6, 2), "recurrent": (6, 6)}
        return network, {n: jax.random.normal(k, s) for k, (n, s) in zip(keys, shapes.items(), strict=True)}

    class Convolutions(linen.Module):
        @linen.compact
        def __call__(self, x: Any) -> Any:
            x = linen.relu(linen.BatchNorm(use_running_average=True)(linen.Conv(6, (3, 3))(x)))
            x = x + linen.GroupNorm(2)(linen.Conv(6, (1, 1), feature_group_count=2)(x))
            return linen.Dense(3)(x.mean((1, 2)))

    class Attention(linen.Module):
        @linen.compact
        def __call__(self, tokens: Any) -> Any:
            x = linen.Embed(11, 6)(tokens)
            x = x + linen.MultiHeadDotProductAttention(2)(linen.LayerNorm()(x))
            states: Any = linen.RNN(linen.LSTMCell(5))(x)
            return linen.Dense(2)(states[:, -1])

    def of_linen(module: Any, x: Any) -> Callable[[int], tuple[Callable[..., Any], Any]]:
        return lambda seed: (module.apply, module.init(jax.random.key(seed), x))

    class Residual(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.first, self.norm = nnx.Linear(3, 6, rngs=rngs), nnx.BatchNorm(6, rngs=rngs)
            self.block, self.last = nnx.Linear(6, 6, rngs=rngs), nnx.Linear(6, 2, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            h = nnx.relu(self.norm(self.first(x)))
            return self.last(h + nnx.gelu(self.block(h)))

    def of_nnx(seed: int) -> tuple[Callable[..., Any], Any]:
        model = Residual(nnx.Rngs(seed))
        model.eval()  # type: ignore[no-untyped-call]
        described, state = nnx.split(model)
        return lambda s, x: nnx.merge(described, s)(x), state

    class Attend(equinox.Module):
        layer: Any

        def __call__(self, x: Any) -> Any:
            return self.layer(x, x, x)

    def of_equinox(make: Callable[[Any], Any], batched: bool) -> Callable[[int], tuple[Callable[..., Any], Any]]:
        apply = (lambda m, x: jax.vmap(m)(x)) if batched else (lambda m, x: m(x))
        return lambda seed: (apply, make(jax.random.key(seed)))

    rows, more = (jnp.ones((2, 3)),), (jax.random.normal(jax.random.key(5), (4, 3)),)
    images, larger = (jnp.ones((1, 6, 6, 3)),), (jax.random.normal(jax.random.key(6), (2, 8, 8, 3)),)
    tokens, longer = (jnp.zeros((2, 3), int),), (jnp.arange(7)[None],)
    steps, many = (jnp.ones((2, 4, 4)),), (jax.random.normal(jax.random.key(7), (1, 7, 4)),)
    return {
        "plain tree": JaxExample(plain(3, 6, 5, 2), rows, more),
        "plain tree, mixture of experts": JaxExample(mixture, rows, more),
        "plain tree, scan and checkpoint": JaxExample(recurrent, steps, many),
        "Linen, convolutions": JaxExample(of_linen(Convolutions(), *images), images, larger),
        "Linen, attention and LSTM": JaxExample(of_linen(Attention(), *tokens), tokens, longer),
        "NNX, residual": JaxExample(of_nnx, rows, more),
        "Equinox, MLP": JaxExample(of_equinox(lambda k: equinox.nn.MLP(3, 2, 6, 2, key=k), True), rows, more),
        "Equinox, attention": JaxExample(
            of_equinox(lambda k: Attend(equinox.nn.MultiheadAttention(2, 6, key=k)), False),
            (jnp.ones((4, 6)),),
            (jax.random.normal(jax.random.key(8), (7, 6)),),
        ),
    }


FAMILIES: dict[str, Callable[[], dict[str, Example]]] = {
    "PyTorch": _own,
    "timm": _timm,
    "torchvision": _torchvision,
    "transformers": _transformers,
    "JAX": _jax,
}
"""Families of networks by name."""

"""Every public function of the adapters with a bad value for each argument: an NFNError that names it, or taken on purpose."""

import inspect

import jax
import jax.numpy as jnp
import nfn_jax
import nfn_torch
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from nfn_core import LabelError, ModelSpace, NFLayer, NFNError, WeightSpace
from tests.bad_arguments import check_calls

SPACE = WeightSpace.mlp([2, 3, 1])
LAYER = NFLayer(SPACE.group("NP"), 1, 1)
MODELS = ModelSpace.from_patterns({"a": (2, 3)}, {"a": "h in"})
FEATURES = {t.name: np.ones((2, *t.shape, 1), "float32") for t in SPACE.tensors}
IN_JAX = {name: jnp.asarray(x) for name, x in FEATURES.items()}
NETWORK = torch.nn.Linear(3, 2)
MODULE = nfn_torch.NFModule(LAYER)
PARAMS = nfn_jax.init(LAYER, 0)
TORCH = {"a": torch.ones(2, 3)}
JAX = {"a": jnp.ones((2, 3))}


def network(params, x):
    return jnp.tanh(x @ params["a"])


def weight_space(module, x, labels=None, verification=False, seed=0):
    return nfn_torch.weight_space(module, x, labels=labels, verification=verification, seed=seed)


def jax_weight_space(function, params, x, labels=None, verification=False, seed=0):
    return nfn_jax.weight_space(function, params, x, labels=labels, verification=verification, seed=seed)


def torch_stack(space, channel, fill=None, detach=False):
    return nfn_torch.stack(space, channel, fill=fill, detach=detach)


def jax_stack(space, channel, fill=None, detach=False):
    return nfn_jax.stack(space, channel, fill=fill, detach=detach)


CASES = {
    "torch.NFModule": (nfn_torch.NFModule, {"layer": LAYER}),
    "torch.forward": (MODULE.forward, {"features": {k: torch.tensor(x) for k, x in FEATURES.items()}}),
    "torch.save": (nfn_torch.save, {"path": "file", "module": MODULE}),
    "torch.load": (nfn_torch.load, {"path": "file"}),
    "torch.weight_space": (weight_space, {"module": NETWORK, "x": torch.ones(1, 3)}),
    "torch.stack": (torch_stack, {"space": MODELS, "channel": [TORCH]}),
    "torch.unstack": (nfn_torch.unstack, {"space": MODELS, "features": {"a": torch.ones(2, 2, 3, 1)}, "like": TORCH}),
    "torch.stream": (nfn_torch.stream, {"space": MODELS, "paths": ["models"], "batch": 2}),
    "jax.init": (nfn_jax.init, {"layer": LAYER, "seed": 0}),
    "jax.trainable": (nfn_jax.trainable, {"layer": LAYER}),
    "jax.apply": (nfn_jax.apply, {"layer": LAYER, "params": PARAMS, "features": IN_JAX}),
    "jax.apply_in_training": (nfn_jax.apply_in_training, {"layer": LAYER, "params": PARAMS, "features": IN_JAX}),
    "jax.save": (nfn_jax.save, {"path": "file", "layer": LAYER, "params": PARAMS}),
    "jax.load": (nfn_jax.load, {"path": "file"}),
    "jax.weight_space": (
        jax_weight_space,
        {"function": network, "params": {"a": jnp.ones((3, 2))}, "x": jnp.ones((1, 3))},
    ),
    "jax.leaves": (nfn_jax.leaves, {"tree": JAX}),
    "jax.stack": (jax_stack, {"space": MODELS, "channel": [JAX]}),
    "jax.unstack": (nfn_jax.unstack, {"space": MODELS, "features": {"a": jnp.ones((2, 2, 3, 1))}, "like": JAX}),
    "jax.stream": (nfn_jax.stream, {"space": MODELS, "paths": ["models"], "batch": 2}),
    "ModelSpace.from_patterns": (ModelSpace.from_patterns, {"shapes": {"a": (2, 3)}, "labels": {"a": "h in"}}),
    "ModelSpace.stack": (
        lambda models, fill=None: MODELS.stack(models, fill=fill),
        {"models": [{"a": np.ones((2, 3))}]},
    ),
    "ModelSpace.unstack": (MODELS.unstack, {"features": {"a": np.ones((2, 2, 3, 1))}}),
    "ModelSpace.stream": (MODELS.stream, {"paths": ["models"], "batch": 2}),
}
OPTIONAL = """torch.NFModule.dtype torch.NFModule.device torch.NFModule.checkpoint torch.load.layer torch.load.dtype
torch.load.device torch.weight_space.labels torch.stack.fill jax.init.dtype jax.apply.key jax.apply.checkpoint
jax.apply_in_training.key jax.apply_in_training.checkpoint jax.apply_in_training.axis_name jax.load.layer
jax.weight_space.labels jax.stack.fill ModelSpace.stack.fill"""
STACKS = ("torch.stack", "jax.stack", "ModelSpace.stack")
STREAMS = {f"{owner}.stream.paths" for owner in ("torch", "jax", "ModelSpace")}
ACCEPTED = {
    "None": set(OPTIONAL.split()),
    "text": {"torch.save.path", "jax.save.path"},
    "-1": {
        "torch.unstack.channel",
        "jax.unstack.channel",
        "ModelSpace.unstack.channel",
        *(f"{s}.fill" for s in STACKS),
    },
    "nan": {f"{s}.fill" for s in STACKS},
    "3.5": {f"{s}.fill" for s in STACKS},
    "[]": {
        "ModelSpace.from_patterns.inputs",
        "ModelSpace.from_patterns.outputs",
        *STREAMS,
    },
    "{}": {"torch.weight_space.labels", "jax.weight_space.labels", *STREAMS},
    "object": set(),
    "True": {
        "torch.weight_space.verification",
        "jax.weight_space.verification",
        "torch.stack.detach",
        "jax.stack.detach",
    },
}
"""For each value the arguments that take it."""
for names in ACCEPTED.values():
    names.add("jax.leaves.tree")  # any value is a tree
SUBJECTS = {"x": "traced", "path": "file", "params": "parameters", "shapes": "tensor", "models": "model"}
"""What messages call an argument that they do not name."""


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nfn_torch.save("file", MODULE)
    save_file(TORCH, "models")


def test_every_public_callable_has_an_example():
    for adapter, library in ((nfn_torch, "torch"), (nfn_jax, "jax")):
        functions = {name for name in adapter.__all__ if inspect.isfunction(getattr(adapter, name))}
        assert {f"{library}.{name}" for name in functions} <= set(CASES)


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("case", CASES)
def test_bad_arguments_are_refused_by_name(case):
    check_calls(case, *CASES[case], ACCEPTED, SUBJECTS)


MORE = {
    "dtype of integers": (
        lambda: nfn_torch.NFModule(LAYER, dtype=torch.int32),
        "real floating dtype .*, not torch.int32",
    ),
    "complex dtype": (lambda: nfn_torch.NFModule(LAYER, dtype=torch.complex64), "real floating dtype"),
    "dtype in JAX": (lambda: nfn_jax.init(LAYER, 0, "int32"), "real floating dtype .*, not 'int32'"),
    "device": (lambda: nfn_torch.NFModule(LAYER, device="gpu"), "device 'gpu' cannot be used: Expected one of cpu"),
    "other module": (lambda: nfn_torch.save("file", NETWORK), "module must be a NFModule, not Linear"),
    "several keys": (
        lambda: nfn_jax.apply(LAYER, PARAMS, IN_JAX, jax.random.split(jax.random.key(0), 2)),
        "key must be a single key",
    ),
    "several seeds": (lambda: nfn_jax.init(LAYER, jnp.arange(3)), "seed must be a single key"),
    "axis": (
        lambda: nfn_jax.apply_in_training(LAYER, PARAMS, IN_JAX, axis_name="rows"),
        "axis_name 'rows' is no mapped axis",
    ),
    "weight space": (
        lambda: nfn_torch.stack(SPACE, [TORCH]),
        "space must be a ModelSpace, .*: make it with weight_space",
    ),
    "weight space in JAX": (lambda: nfn_jax.unstack(SPACE, IN_JAX, JAX), "space must be a ModelSpace"),
    "features of NumPy": (
        lambda: nfn_torch.unstack(MODELS, {"a": np.ones((1, 2, 3, 1))}, TORCH),
        "'a' of the features is a numpy.ndarray, not a torch.Tensor",
    ),
    "features of NumPy in JAX": (
        lambda: nfn_jax.unstack(MODELS, {"a": np.ones((1, 2, 3, 1))}, JAX),
        "'a' of the features is a numpy.ndarray, not a jax.Array",
    ),
}


@pytest.mark.parametrize("case", MORE)
def test_more_bad_arguments(case):
    call, message = MORE[case]
    with pytest.raises(NFNError, match=message):
        call()


LABELED = {"weight": "out in", "bias": "out", "input[0]": "_ in", "output[0]": "_ out"}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.ones(1, 5), "network cannot be run on its example inputs: RuntimeError: mat1 and mat2 shapes"),
        (torch.ones(1, 3, device="meta"), "input 0 has no values"),
    ],
)
def test_networks_that_cannot_be_run(inputs, message):
    with pytest.raises(LabelError, match=message):
        nfn_torch.weight_space(NETWORK, inputs, labels=LABELED)


def test_networks_of_jax_that_cannot_be_run():
    labels = {"a": "in out", "input[0]": "_ in", "output[0]": "_ out"}
    with pytest.raises(LabelError, match="network cannot be run on its example inputs: TypeError: dot_general"):
        nfn_jax.weight_space(network, {"a": jnp.ones((3, 2))}, jnp.ones((1, 5)), labels=labels)


def test_sparse_parameters_make_no_weight_space():
    module = torch.nn.Module()
    module.register_parameter("a", torch.nn.Parameter(torch.ones(2, 2).to_sparse()))
    with pytest.raises(LabelError, match=r"tensor 'a' has layout torch.sparse_coo: give x.to_dense\(\)"):
        nfn_torch.weight_space(module, torch.ones(1, 2))

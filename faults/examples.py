"""A valid example of every argument of every public callable."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import nfn_conformance
import nfn_jax
import nfn_torch
import numpy as np
import torch
from safetensors.numpy import save_file

import nfn_core
from nfn_core import Layer, MessageState, ModelSpace, NFLayer, Permutation, WeightSpace, initialize
from nfn_core.models.views import Axis

__all__ = ["ALIASES", "DOCUMENTED", "EXAMPLES", "MODULES", "NOT_TRIED", "FILES", "ORDERED", "Of", "SPACE", "USES"]

MODULES = (nfn_core, nfn_torch, nfn_jax, nfn_conformance)

NOT_TRIED = {
    "Array": "a protocol",
    "Layer": "the base of layers, without arguments",
    "Composite": "the base of layers of layers, without arguments",
    "Signal": "a result, which no function takes",
    "Measurement": "a result, which no function takes",
    "Verification": "a result, which no function reads",
    "*.forward": "called by `apply`, which has checked what it gives",
    "*.call": "called by `forward`",
    "*.child_params": "called by `forward`",
    "*.within": "called by `forward`",
    "WeightSpaceFeatures.to": "the arguments of torch's own",
    **{f"NFModule.get_{x}": "torch's own, with its errors" for x in ("buffer", "parameter", "submodule")},
}
"""Public names that have no arguments to be wrong, and why."""


@dataclass(frozen=True)
class Of:
    """An example that depends on the object whose method is called."""

    make: Callable[[Any], Any]


def features(channels: int = 1, convert: Callable[[np.ndarray], Any] = np.asarray, kind: str = "float64") -> Any:
    """Drawn features of `SPACE`."""
    rng = np.random.default_rng(0)
    return {t.name: convert(rng.normal(size=(2, *t.shape, channels)).astype(kind)) for t in SPACE.tensors}


def graded_features(channels: int) -> Any:
    """Drawn features of all grades."""
    rng = np.random.default_rng(0)
    return {t.name: rng.normal(size=(2, *t.shape, channels)) for t in GRADED.space.tensors}


def parameters(convert: Callable[[np.ndarray], Any], layer: Layer) -> dict[str, Any]:
    """Initial parameters, float32."""
    return {name: convert(p.astype("float32")) for name, p in initialize(layer, 0).items()}


FOLDER = tempfile.TemporaryDirectory(prefix="faults-")
SPACE = WeightSpace.mlp([2, 4, 3, 1])
GROUP = SPACE.group("HNP")
SIGNED = SPACE.group("HNP", signed=["h1", "h2"])
GRADED = SIGNED.graded("all")
LOW_RANK = WeightSpace.from_axes({"B": [("out", 3), ("r", 2)], "A": [("r", 2), ("in", 4)]})
FACTORS = {t.name: np.random.default_rng(0).normal(size=(2, *t.shape, 1)) for t in LOW_RANK.tensors}
LAYER = NFLayer(GROUP, 1, 2)
MODEL_SHAPES = {"a.weight": (4, 2), "b.weight": (3, 4)}
MODEL = ModelSpace.from_patterns(MODEL_SHAPES, {"a.weight": "h in", "b.weight": "out h"})
MODELS = [{"a.weight": np.full((4, 2), k + 1.0), "b.weight": np.full((3, 4), k + 2.0)} for k in range(2)]
STATE = MessageState(features(1), {"h1": np.ones((2, 4, 2)), "h2": np.ones((2, 3, 2))})
SINE = nfn_core.SignedMessages(SPACE, (1.0,) * 6, 2, channels=4, points=3, head=(5,))
NETWORK = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
TREE = {"a": jnp.ones((2, 4)), "b": jnp.ones((4, 3))}
SUBJECT = nfn_conformance.subject_of(LAYER, GROUP, out_channels=2, linear=True)
PATH = Path(FOLDER.name) / "layer.safetensors"
FILES = [Path(FOLDER.name) / f"{k}.safetensors" for k in range(2)]
for file, tensors in zip(FILES, MODELS, strict=True):
    save_file(tensors, file)
nfn_core.save_parameters(PATH, LAYER, parameters(np.asarray, LAYER))


def in_torch(x: Any) -> torch.Tensor:
    """As float32 of torch."""
    return torch.tensor(np.asarray(x, "float32"))


def in_jax(x: Any) -> jax.Array:
    """As float32 of JAX."""
    return jnp.asarray(np.asarray(x, "float32"))


def tanh(params: Mapping[str, Any], x: Any) -> Any:
    """A small network in JAX."""
    return jnp.tanh(x @ params["a"]) @ params["b"]


def applied(layer: Layer) -> Callable[[Any], Any]:
    """A description with parameters, as a function."""
    return partial(layer.apply, initialize(layer, 0))


EXAMPLES: dict[str, Any] = {
    # by the argument's name alone
    "space": SPACE,
    "group": GROUP,
    "neurons": nfn_core.neuron_group(GROUP),
    "in_channels": 1,
    "out_channels": 2,
    "rank": 2,
    "tensor_channels": 1,
    "channels": 2,
    "layer": LAYER,
    "subject": SUBJECT,
    "seed": 0,
    "path": PATH,
    **dict.fromkeys(("save.path", "save_parameters.path"), PATH.with_name("saved.safetensors")),
    "features": features(),
    "params": Of(lambda layer: initialize(layer, 0)),
    "execution": nfn_core.Execution(),
    "channels_after.channels": Of(lambda layer: getattr(layer, "channels", getattr(layer, "in_channels", 1))),
    "Gate.channels_after.channels": 2,
    "Activation.name": "tanh",
    "Dropout.rate": 0.1,
    "GaussianFourierFeatures.tensor_scales": tuple((t.name, 2.0) for t in SPACE.tensors),
    "GaussianFourierFeatures.scale": 1.0,
    "BiasPhases.group": SIGNED,
    "ByParity.group": GRADED,
    "ByParity.even": nfn_core.Activation("relu"),
    "ByParity.odd": nfn_core.Activation("tanh"),
    "CanonicalFactors.space": LOW_RANK,
    "CanonicalFactors.pairs": (("B", "A"),),
    "CanonicalFactors.apply.features": FACTORS,
    "CanonicalFactors.singular_values.features": FACTORS,
    "CanonicalScales.sets": ("h1", "h2"),
    "CanonicalScales.normalized": ("W1",),
    "CanonicalScales.variances": ("v1",),
    "GradedFourierFeatures.group": SIGNED,
    "GradedGate.group": GRADED,
    "GradedProduct.group": GRADED,
    "InCanonicalScales.form": nfn_core.CanonicalScales(SPACE),
    "odd": True,
    **{f"{name}.apply.features": graded_features(2) for name in ("ByParity", "GradedGate")},
    "GradedProduct.apply.features": graded_features(1),
    "Group.permuted": ("h1", "h2"),
    "Group.signed": ("h1",),
    "Group.grades": ((1, 0), (1,), (0, 1), (0,), (0, 0), (0,)),
    "Group.grade.tensor": "W1",
    "Group.graded.grades": "all",
    "signed": ("h1",),
    "signs": {},
    "Permutation.signs": (),
    "Permutation.factors.label": "h1",
    "Permutation.factors.grade": 1,
    "Group.act.sigma": GROUP.sample(0),
    "Group.permutation.images": {"h1": [1, 0, 2, 3]},
    "InvariantPool.statistics": ("mean", "max"),
    "MLPHead.sizes": (6, 2),
    "MessageInput.before": nfn_core.Sequential(()),
    "MessageInput.pooled": nfn_core.NeuronPool(GROUP, 1, 2),
    "MessageInput.phases": nfn_core.NeuronPhases(GROUP, 2, points=2),
    "MessageState.tensors": STATE.tensors,
    "MessageState.neurons": STATE.neurons,
    "MessageBlock.in_channels": 2,
    "Messages.in_channels": 2,
    "TensorUpdate.in_channels": 2,
    "ModelSpace.views": MODEL.views,
    "ModelSpace.inputs": ("in",),
    "ModelSpace.fixed": (),
    "ModelSpace.activations": (("h", "tanh", 1.0),),
    "ModelSpace.constants": (("mask", "int32:0", (0,)),),
    "ModelSpace.from_patterns.shapes": {"a.weight": (4, 2)},
    "ModelSpace.from_patterns.labels": {"a.weight": "h in"},
    "ModelSpace.from_patterns.inputs": ("in",),
    "ModelSpace.from_adapters.shapes": {"q.lora_A.weight": (2, 4), "q.lora_B.weight": (3, 2)},
    "ModelSpace.only.tensors": "a.*",
    "ModelSpace.check_like.shapes": MODEL_SHAPES,
    "ModelSpace.group.permuted": "NP",
    "ModelSpace.stack.channels": MODELS,
    "ModelSpace.unstack.features": MODEL.stack(MODELS),
    "paths": FILES,
    "batch": 2,
    "NeuronPhases.points": 2,
    "Normalize.means": ((0.0,),) * 6,
    "Normalize.deviations": ((1.0,),) * 6,
    "ParameterSpec.shape": (2, 3),
    "ParameterSpec.init": "uniform",
    "ParameterSpec.fan_in": ((3, 2),),
    "ParameterSpec.draw.rng": np.random.default_rng(0),
    "Permutation.images": (("h1", (1, 0, 2, 3)), ("h2", (0, 1, 2))),
    "Permutation.compose.first": Of(lambda sigma: sigma.inverse()),
    "Residual.layer": NFLayer(GROUP, 1, 1),
    "Sequential.layers": (LAYER,),
    "SignedMessages.scales": (1.0,) * 6,
    "SignedMessages.outputs": 2,
    "SignedMessages.points": 3,
    "SignedMessages.channels": 4,
    "SignedMessages.head": (5,),
    "SignedMessages.from_features.outputs": 2,
    "TensorSpec.name": "W1",
    "TensorSpec.shape": (4, 2),
    "TensorSpec.labels": ("h1", None),
    "View.name": "a.weight",
    "View.axes": (Axis(4, label="h"), Axis(2)),
    "View.also": ("b.weight",),
    "WeightSpace.tensors": SPACE.tensors,
    "WeightSpace.inputs": ("in",),
    "WeightSpace.outputs": ("out",),
    "WeightSpace.mlp.sizes": [2, 4, 1],
    "WeightSpace.cnn.sizes": [2, 4, 1],
    "WeightSpace.cnn.filters": [(3, 3), ()],
    "WeightSpace.from_axes.axes": {"W": [("h", 4), ("in", 2)], "v": [("h", 4)]},
    "WeightSpace.from_axes.inputs": ("in",),
    "WeightSpace.from_axes.outputs": (),
    "WeightSpace.group.permuted": ("h1",),
    # inputs of layers
    "apply.features": features(),
    "Gate.apply.features": features(2),
    **{f"{norm}.apply.features": features(2) for norm in ("LayerNorm", "BatchNorm", "SetNorm", "InstanceNorm")},
    "LearnedEncoding.apply.features": features(2),
    "MLPHead.apply.features": np.ones((2, 6)),
    **{f"{name}.apply.features": STATE for name in ("Messages", "MessageReadout", "MessageBlock", "TensorUpdate")},
    # functions
    "check_features.channels": 1,
    "check_parameters.specs": LAYER.parameter_specs(),
    "check_parameters.params": initialize(LAYER, 0),
    "check_parameters.like": features(),
    "equivariant_network.channels": [1, 2, 2],
    "equivariant_network.before": (nfn_core.Scale(SPACE),),
    "invariant_network.channels": [1, 2],
    "invariant_network.head": [3],
    "invariant_network.statistics": ("mean",),
    "invariant_network.before": (nfn_core.Scale(SPACE),),
    "message_network.channels": 2,
    "message_network.blocks": 1,
    "message_network.points": 2,
    "message_network.head": [3],
    "message_network.out_channels": None,
    "message_network.before": (nfn_core.Scale(SPACE),),
    "from_json.text": nfn_core.to_json(LAYER),
    "to_json.description": LAYER,
    "save_parameters.params": initialize(LAYER, 0),
    "signal_report.network": nfn_core.Sequential((LAYER,)),
    "signal_report.params": initialize(nfn_core.Sequential((LAYER,)), 0),
    "images_of_matrix.matrix": [[0, 1], [1, 0]],
    "images_of_assignment.rows": [0, 1],
    "images_of_assignment.columns": [1, 0],
    # nfn_torch
    "NFModule.forward.features": features(convert=torch.tensor, kind="float32"),
    "nfn_torch.save.module": nfn_torch.NFModule(LAYER),
    "WeightSpaceFeatures.map.function": torch.abs,
    "nfn_torch.weight_space.module": NETWORK,
    "nfn_torch.weight_space.inputs": torch.ones(2, 2),
    **{f"{module}.{f}.space": MODEL for module in ("nfn_torch", "nfn_jax") for f in ("stack", "stream", "unstack")},
    "nfn_torch.stack.channels": [{n: in_torch(x) for n, x in m.items()} for m in MODELS],
    "nfn_torch.unstack.features": {n: in_torch(x) for n, x in MODEL.stack(MODELS).items()},
    "nfn_torch.unstack.like": {n: in_torch(x) for n, x in MODELS[0].items()},
    # nfn_jax
    "nfn_jax.apply.features": features(convert=in_jax),
    "nfn_jax.apply.params": parameters(in_jax, LAYER),
    "nfn_jax.apply_in_training.features": features(convert=in_jax),
    "nfn_jax.apply_in_training.params": parameters(in_jax, LAYER),
    "nfn_jax.save.params": parameters(in_jax, LAYER),
    "nfn_jax.leaves.tree": TREE,
    "nfn_jax.weight_space.function": tanh,
    "nfn_jax.weight_space.params": TREE,
    "nfn_jax.weight_space.inputs": jnp.ones((2, 2)),
    "nfn_jax.stack.channels": [{n: in_jax(x) for n, x in m.items()} for m in MODELS],
    "nfn_jax.unstack.features": {n: in_jax(x) for n, x in MODEL.stack(MODELS).items()},
    "nfn_jax.unstack.like": {n: in_jax(x) for n, x in MODELS[0].items()},
    # nfn_conformance
    "Subject.name": "layer",
    "Subject.make": SUBJECT.make,
    "Subject.apply": SUBJECT.apply,
    "Subject.out_channels": 2,
    "assert_conforms.check": "equivariance",
    "assert_equivariant.layer": applied(LAYER),
    "assert_invariant.layer": applied(nfn_core.InvariantPool(GROUP)),
    "assert_normalized.layer": lambda u: u,
    "assert_normalized.features": {
        t.name: np.random.default_rng(k).normal(size=(50, *t.shape, 1)) for k, t in enumerate(SPACE.tensors)
    },
    "assert_maximal.make": lambda seed: partial(LAYER.apply, initialize(LAYER, seed)),
    **{f"assert_{x}.space": None for x in ("equivariant", "invariant", "maximal")},
}


ORDERED = (
    "WeightSpace.from_axes.axes",
    "GaussianFourierFeatures.from_features.features",
    "ModelSpace.from_adapters.shapes",
)
"""Mappings whose order counts."""

ALIASES: dict[str, tuple[str, ...]] = {
    "permuted": ("group", "neuron set"),
    "group": ("permuted",),
    "sigma": ("permutation", "element"),
    "grades": ("the grade of tensor",),
    "first": ("element",),
    "images": ("permutation",),
    "features": ("tensor", "array", "batch", "network", "channels"),
    "params": ("parameter", "tensor", "primitive"),
    "text": ("description", "JSON"),
    "description": ("to_json",),
    "path": ("file",),
    "paths": ("file", "model", "path"),
    "layer": ("description",),
    "name": ("activation", "tensor"),
    "shape": ("tensor", "axis"),
    "shapes": ("tensor", "label"),
    "axes": ("tensor",),
    "like": ("tree", "features"),
    "specs": ("parameter",),
    "tensors": ("state", "tensor", "batch"),
    "neurons": ("state", "neuron", "batch"),
    "inputs": ("input",),
    "outputs": ("output",),
    "subject": ("Subject",),
    "sizes": ("tensor",),
    "views": ("tensor",),
    "channels": ("model", "tensor", "batch"),
    "key": ("key",),
    "module": ("NFModule", "tensor"),
    "function": ("function",),
    "labels": ("label", "neuron set", "tensor"),
    "make": ("layer",),
    "network": ("Sequential",),
    "pooled": ("NeuronPool",),
    "phases": ("NeuronPhases",),
}
"""Other words for an argument, of which a message may have one."""

DOCUMENTED = {name: (AssertionError,) for name in nfn_conformance.__all__ if name.startswith("assert_")}
"""Errors that callables raise beside the package's own."""


def _act(sigma: Permutation) -> Any:
    return GROUP.act(sigma, features())


USES: dict[str, Callable[[Any], Any]] = {
    "MessageState": lambda state: nfn_core.Messages(GROUP, 1, 2, 2).apply(
        initialize(nfn_core.Messages(GROUP, 1, 2, 2), 0), state
    ),
    "Permutation": _act,
    "TensorSpec": lambda spec: WeightSpace((spec,)),
    "ParameterSpec": lambda spec: spec.draw(np.random.default_rng(0)),
    "ModelSpace.from_patterns": lambda model: (model, model.space),
    "View": lambda view: ModelSpace((view,)).space,
    "ModelSpace": lambda model: (model, model.space),
    "Subject": nfn_conformance.measure_all,
    "Execution": lambda execution: LAYER.apply(initialize(LAYER, 0), features(), execution),
}
"""What containers are for: their contents may be refused there, not earlier."""


def stored(found: Any) -> Any:
    """The contents of an iterator; anything else as it is."""
    return list(found) if isinstance(found, Iterator) else found

"""Every public function, class and method of nfn_core with a bad value for each argument: an NFNError, or taken on purpose."""

import inspect

import numpy as np
import pytest

import nfn_core
from nfn_core import MessageState, WeightSpace, initialize
from nfn_core.augmentations import flip_signs, scale_neurons, transform_inputs
from tests.bad_arguments import BAD_VALUES, bad_calls, check_calls

SPACE = WeightSpace.mlp([2, 4, 4, 1])
GROUP = SPACE.group("HNP")
SIGNED = SPACE.group("HNP", signed=["h1", "h2"])
GRADED = SIGNED.graded("all")
LOW_RANK = WeightSpace.from_axes({"B": [("out", 5), ("r", 2)], "A": [("r", 2), ("in", 4)]})
LAYER = nfn_core.NFLayer(GROUP, 1, 1)
PARAMS = initialize(LAYER, 0)
RNG = np.random.default_rng(0)
FEATURES = {t.name: RNG.normal(size=(3, *t.shape, 1)) for t in SPACE.tensors}
NEURONS = {"h1": RNG.normal(size=(3, 4, 2)), "h2": RNG.normal(size=(3, 4, 2))}
FOURIER = nfn_core.GaussianFourierFeatures(1, 4)
NETWORK = nfn_core.Sequential((LAYER,))
MESSAGES = nfn_core.Messages(GROUP, 1, 2, 2)
OF_GROUP = {"group": GROUP, "in_channels": 1, "out_channels": 2}
EXAMPLES = {
    "Activation": {},
    "BatchNorm": {"space": SPACE, "channels": 1},
    "BiasPhases": {"group": SIGNED},
    "CanonicalFactors": {"space": LOW_RANK, "pairs": [("B", "A")]},
    "CanonicalScales": {"space": SPACE},
    "InCanonicalScales": {"form": nfn_core.CanonicalScales(SPACE), "layer": LAYER},
    "ByParity": {"group": GRADED, "even": nfn_core.Activation(), "odd": nfn_core.Activation("tanh")},
    "Dropout": {"rate": 0.1},
    "Execution": {},
    "Gate": {},
    "GaussianFourierFeatures": {"in_channels": 1},
    "GradedFourierFeatures": {"group": SIGNED, "in_channels": 1},
    "GradedGate": {"group": GRADED, "channels": 2},
    "GradedProduct": {"group": GRADED, "in_channels": 1, "out_channels": 2},
    "Group": {"space": SPACE, "permuted": ("h1",)},
    "InstanceNorm": {"space": SPACE, "channels": 1},
    "InvariantPool": {"group": GROUP},
    "LayerNorm": {"space": SPACE, "channels": 1},
    "LearnedEncoding": {"space": SPACE, "channels": 1},
    "LowRankNFLayer": {"rank": 2, **OF_GROUP},
    "MLPHead": {"sizes": (3, 2)},
    "MessageBlock": {"tensor_channels": 1, **OF_GROUP},
    "MessageInput": {"before": LAYER, "pooled": nfn_core.NeuronPool(GROUP, 1, 2)},
    "MessageReadout": {"group": GROUP, "tensor_channels": 1, "channels": 2},
    "Messages": {"tensor_channels": 1, **OF_GROUP},
    "NFLayer": OF_GROUP,
    "NeuronPhases": {"group": GROUP, "out_channels": 2},
    "NeuronPool": OF_GROUP,
    "Normalize": {"space": SPACE, "means": ((0.0,),) * 6, "deviations": ((1.0,),) * 6},
    "ParameterSpec": {"shape": (3, 2), "init": "normal", "value": 1.0},
    "Permutation": {"images": (("h1", (1, 0)),)},
    "PointwiseLayer": OF_GROUP,
    "Residual": {"layer": LAYER},
    "Scale": {"space": SPACE},
    "Sequential": {"layers": (LAYER,)},
    "SetNorm": {"space": SPACE, "channels": 1},
    "SignedMessages": {"space": SPACE, "scales": (1.0,) * 6, "outputs": 2},
    "SinusoidalEncoding": {"space": SPACE},
    "TensorSpec": {"name": "W", "shape": (3, 2), "labels": ("h", None)},
    "TensorUpdate": {"tensor_channels": 1, **OF_GROUP},
    "WeightSpace": {"tensors": SPACE.tensors},
    "check_features": {"space": SPACE, "features": FEATURES},
    "check_parameters": {"specs": LAYER.cached_specs, "params": PARAMS},
    "equivariant_network": {"group": GROUP, "channels": [1, 2], "norm": "layer", "dropout": 0.1},
    "fingerprint": {"layer": LAYER},
    "from_json": {"text": nfn_core.to_json(LAYER)},
    "images_of_assignment": {"rows": [0, 1], "columns": [1, 0]},
    "images_of_matrix": {"matrix": [[0, 1], [1, 0]]},
    "initialize": {"layer": LAYER, "seed": 0},
    "invariant_network": {"group": GROUP, "channels": [1, 2], "head": [2]},
    "load_parameters": {"path": "file"},
    "message_network": {"group": GROUP, "in_channels": 1, "channels": 2, "head": [2]},
    "neuron_group": {"group": GROUP},
    "parity_space": {"group": GRADED, "odd": True},
    "save_parameters": {"path": "file", "layer": LAYER, "params": PARAMS},
    "signal_report": {"network": NETWORK, "params": initialize(NETWORK, 0), "features": FEATURES},
    "to_json": {"description": LAYER},
}
METHODS = {
    "WeightSpace.mlp": (WeightSpace.mlp, {"sizes": [2, 3]}),
    "WeightSpace.cnn": (WeightSpace.cnn, {"sizes": [2, 3], "filters": [(3, 3)]}),
    "WeightSpace.from_axes": (WeightSpace.from_axes, {"axes": {"W": [("h", 2), (None, 3)]}}),
    "WeightSpace.group": (SPACE.group, {"permuted": "NP"}),
    "Group.permutation": (GROUP.permutation, {"images": {"h1": [1, 0, 2, 3]}}),
    "Group.sample": (GROUP.sample, {"seed": 0}),
    "Group.grade": (SIGNED.grade, {"tensor": "W1"}),
    "Group.graded": (SIGNED.graded, {"grades": {"W1": [[1, 0]], "W2": [[0, 1]]}}),
    "Permutation.factors": (SIGNED.sample(0).factors, {"label": "h1"}),
    "Group.act": (GROUP.act, {"sigma": GROUP.sample(0), "features": FEATURES}),
    "Permutation.compose": (GROUP.sample(0).compose, {"first": GROUP.sample(1)}),
    "Permutation[label]": (lambda label: GROUP.sample(0)[label], {"label": "h1"}),
    "GaussianFourierFeatures.from_features": (FOURIER.from_features, {"features": FEATURES}),
    "GaussianFourierFeatures.turns": (FOURIER.turns, {"features": {"W1": RNG.normal(size=(3, 1)) / 10}}),
    "Normalize.from_features": (nfn_core.Normalize.from_features, {"space": SPACE, "features": FEATURES}),
    "SignedMessages.from_features": (
        nfn_core.SignedMessages.from_features,
        {"space": SPACE, "features": FEATURES, "outputs": 2},
    ),
    "ParameterSpec.draw": (LAYER.cached_specs["hub"].draw, {"rng": RNG}),
    "NFLayer.apply": (LAYER.apply, {"params": PARAMS, "features": FEATURES}),
    "Messages.apply": (
        MESSAGES.apply,
        {"params": initialize(MESSAGES, 0), "features": MessageState(FEATURES, NEURONS)},
    ),
    "flip_signs": (flip_signs, {"space": SPACE, "features": FEATURES, "signs": {"h1": np.ones((3, 4))}}),
    "scale_neurons": (scale_neurons, {"space": SPACE, "features": FEATURES, "factors": {"h1": np.ones((3, 4))}}),
    "CanonicalScales.gains": (nfn_core.CanonicalScales(SPACE).gains, {"features": FEATURES}),
    "CanonicalFactors.singular_values": (
        nfn_core.CanonicalFactors(LOW_RANK, [("B", "A")]).singular_values,
        {"features": {t.name: RNG.normal(size=(3, *t.shape, 1)) for t in LOW_RANK.tensors}},
    ),
    "transform_inputs": (
        transform_inputs,
        {"features": FEATURES, "matrix": np.ones((3, 2, 2)), "shift": np.ones((3, 2))},
    ),
    **{
        f"{type(layer).__name__}({space}).apply": (layer.apply, {"params": initialize(layer, 0), "features": x})
        for layer, space, x in [
            (nfn_core.Activation("tanh"), "", FEATURES),
            (nfn_core.Gate(), "", np.ones((3, 2))),
            (nfn_core.Dropout(0.1), "", FEATURES),
            (nfn_core.BatchNorm(None, 4), "None", np.ones((3, 4))),
            (nfn_core.SetNorm(None, 4), "None", np.ones((3, 4))),
            (FOURIER, "", FEATURES),
            (nfn_core.MLPHead((3, 2)), "", np.ones((2, 3))),
            (nfn_core.Residual(LAYER), "", FEATURES),
            (nfn_core.InvariantPool(GROUP), "", FEATURES),
        ]
    },
    **{
        f"{type(layer).__name__}.channels_after": (layer.channels_after, {"channels": 2})
        for layer in (nfn_core.Gate(), nfn_core.SinusoidalEncoding(SPACE), nfn_core.NFLayer(GROUP, 2, 1))
    },
}
RECORDS = {
    "Array": "a protocol",
    "Composite": "has no arguments",
    "Layer": "has no arguments",
    "MessageState": "a plain pair, which layers check when they get it",
    "ModelSpace": "see the tests of models",
    "Signal": "a result",
    "Verification": "a result",
    "View": "a result",
}
"""Public names that take no arguments of users, and why."""
ACCEPTED = {
    "None": {
        *("BatchNorm.space", "InstanceNorm.space", "SetNorm.space"),  # arrays without a weight space
        *(f"Execution.{name}" for name in ("noise", "recompute", "checkpoint", "statistics", "total", "batch_norm")),
        *("MessageBlock.new_tensor_channels", "MessageBlock.norm", "MessageInput.phases", "check_features.channels"),
        *("check_parameters.like", "equivariant_network.norm", "invariant_network.norm", "invariant_network.pool"),
        *("load_parameters.layer", "message_network.out_channels", "message_network.omega", "message_network.norm"),
        *(
            "signal_report.gradient",
            "signal_report.execution",
            "Group.permutation.signs",
            "NFLayer.target",
            "GradedProduct.target",
            "CanonicalScales.sets",
            "equivariant_network.rank",
            "invariant_network.rank",
        ),
    },
    "text": {"TensorSpec.name", "save_parameters.path", "Permutation.factors.label"},
    "-1": {"Scale.initial"},
    "nan": set(),
    "[]": {
        *("GaussianFourierFeatures.tensor_scales", "InvariantPool.statistics", "invariant_network.statistics"),
        *("Sequential.layers", "SignedMessages.head", "equivariant_network.before", "invariant_network.before"),
        *("message_network.before", "ParameterSpec.shape", "ParameterSpec.fan_in"),
        *("Group.permuted", "WeightSpace.group.permuted", "Permutation.images"),  # nothing is permuted
        *("CanonicalScales.sets", "CanonicalScales.normalized", "CanonicalScales.variances"),
        *("Group.signed", "Group.grades", "WeightSpace.group.signed", "Permutation.signs"),  # nor signed
        *(f"WeightSpace.{name}" for name in ("inputs", "outputs", "from_axes.inputs", "from_axes.outputs")),
    },
    "{}": {
        *("Execution.activations", "Group.permutation.images", "flip_signs.signs", "check_parameters.like"),
        "scale_neurons.factors",
        "Group.permutation.signs",
        *(f"{name}.apply.params" for name in ("Activation()", "Gate()", "Dropout()", "InvariantPool()")),  # have none
    },
    "object": set(),
    "3.5": {
        *("BatchNorm.epsilon", "InstanceNorm.epsilon", "LayerNorm.epsilon", "SetNorm.epsilon", "Scale.initial"),
        *("GaussianFourierFeatures.scale", "GaussianFourierFeatures.from_features.scale", "ParameterSpec.value"),
        *(
            "BiasPhases.omega",
            "GradedFourierFeatures.scale",
            "NeuronPhases.omega",
            "SignedMessages.omega",
            "SinusoidalEncoding.max_frequency",
            "message_network.omega",
        ),
    },
    "True": {
        *(
            "BatchNorm.center",
            "BiasPhases.shifts",
            "parity_space.odd",
            "LearnedEncoding.layers",
            "LowRankNFLayer.bias",
            "MessageBlock.gate",
            "NFLayer.bias",
            "NeuronPhases.learned",
        ),
        *("ParameterSpec.trainable", "PointwiseLayer.bias", "SignedMessages.activations", "SinusoidalEncoding.layers"),
        *("check_features.finite", "invariant_network.pool_norm", "message_network.gate"),
        *(f"{kind}_network.{name}" for kind in ("equivariant", "invariant") for name in ("pointwise", "gate")),
        *("equivariant_network.final_activation", "WeightSpace.mlp.bias", "WeightSpace.cnn.bias"),
        "Normalize.from_features.center",
    },
}
"""For each bad value the arguments that take it, since it means something there."""
SUBJECTS = {
    "params": "parameters",
    "specs": "parameters",
    "text": "description",
    "description": "to_json takes",
    "layer": "to_json takes",
    "path": "file",
    "name": "activation",
    "label": "neuron set",
    "tensors": "tensor",
    "axes": "tensor",
    "features": "array",
    "like": "features",
    "shape": "sizes",
}
"""What messages call an argument that they do not name."""
CASES = {**{name: (getattr(nfn_core, name), example) for name, example in EXAMPLES.items()}, **METHODS}


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nfn_core.save_parameters("file", LAYER, PARAMS)


def test_every_public_callable_has_an_example():
    public = {name: getattr(nfn_core, name) for name in nfn_core.__all__}
    functions = {name for name, x in public.items() if inspect.isfunction(x)}
    classes = {name for name, x in public.items() if inspect.isclass(x) and not issubclass(x, Exception)}
    assert (functions | classes) - set(EXAMPLES) == set(RECORDS)


@pytest.mark.usefixtures("file")
@pytest.mark.parametrize("case", CASES)
def test_bad_arguments_are_refused_by_name(case):
    check_calls(case, *CASES[case], ACCEPTED, SUBJECTS)


def test_a_raw_error_is_found_and_so_is_what_passes():
    raw = list(bad_calls(lambda count: [0] * count, {"count": 2}))
    assert [call.value for call in raw] == list(BAD_VALUES)
    with pytest.raises(TypeError):
        raw[0].run()
    assert raw[2].run() == []  # -1 passes without a word

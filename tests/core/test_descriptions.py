"""Descriptions at the prompt and as JSON, and counts of any integer type."""

import json
import os
from dataclasses import dataclass, replace

import jax.numpy as jnp
import nfn_jax
import nfn_torch
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

import nfn_core
from nfn_core import (
    GaussianFourierFeatures,
    InvariantPool,
    LearnedEncoding,
    MLPHead,
    ModelSpace,
    NFLayer,
    Normalize,
    ParameterError,
    PointwiseLayer,
    SinusoidalEncoding,
    SpecError,
    WeightSpace,
    equivariant_network,
    fingerprint,
    from_json,
    initialize,
    invariant_network,
    to_json,
)
from nfn_core.layers import Layer, ParameterSpec

MLP = WeightSpace.mlp([2, 4, 4, 1])
CNN = WeightSpace.cnn([1, 4, 3], [(3, 3), ()], bias=[True, False])
RNN = WeightSpace.from_axes({"R": [("h", 4), ("h", 4)], "b": [("h", 4), (None, 3)]}, inputs=["h"])
HNP = MLP.group("HNP")
SIGNED = MLP.group("HNP", signed=["h1", "h2"])
LOW_RANK = WeightSpace.from_axes({"B": [("out", 5), ("r", 2)], "A": [("r", 2), ("in", 4)]})
GRADED = SIGNED.graded("all")
FEATURES = {t.name: np.random.default_rng(0).normal(size=(3, *t.shape, 1)) for t in MLP.tensors}
MODEL = nfn_core.ModelSpace.from_patterns(
    {"qkv.weight": (12, 8), "cat.weight": (2, 12)},
    {"qkv.weight": "(3 heads=2 e) d", "cat.weight": "out (d + (heads e))"},
    outputs=["out"],
)
DESCRIPTIONS = [
    MODEL,
    *(MLP, CNN, RNN, HNP, CNN.group("NP"), RNN.group({"h"})),
    nfn_core.LowRankNFLayer(HNP, 1, 2, rank=3, pooling="sum"),
    *(NFLayer(HNP, 1, 2, "sum", bias=False, init="kaiming"), PointwiseLayer(HNP, 1, 2), InvariantPool(HNP, "sum")),
    *(nfn_core.Activation("tanh"), nfn_core.Dropout(0.1, "channels"), nfn_core.LayerNorm(MLP, 3), nfn_core.Scale(MLP)),
    *(Normalize.from_features(MLP, FEATURES), SinusoidalEncoding(MLP, layers=True), LearnedEncoding(MLP, 3)),
    *(
        GaussianFourierFeatures(1, 4, 0.5),
        GaussianFourierFeatures(1, 4, 0.5, (("W1", 2.0),)),
        MLPHead((3, 2), "gelu", 0.1),
        nfn_core.Residual(NFLayer(HNP, 2, 2)),
    ),
    invariant_network(HNP, [1, 4, 4], [8, 3], pool=HNP, head_dropout=0.1),
    equivariant_network(MLP.group("NP"), [1, 4, 1], norm="layer", before=[SinusoidalEncoding(MLP)], dropout=0.1),
    *(nfn_core.Gate("tanh"), nfn_core.BatchNorm(MLP, 3), nfn_core.BatchNorm(None, 4, center=False)),
    *(
        nfn_core.SetNorm(MLP, 3),
        nfn_core.InstanceNorm(MLP, 3),
        nfn_core.Messages(HNP, 1, 2, 2),
        nfn_core.MessageReadout(HNP, 1, 2),
    ),
    *(nfn_core.TensorUpdate(HNP, 1, 2, 2), nfn_core.NeuronPool(HNP, 1, 2), nfn_core.NeuronPhases(HNP, 4, points=2)),
    *(SIGNED, GRADED, nfn_core.BiasPhases(SIGNED, 20.0).target, NFLayer(SIGNED, 1, 2, target=GRADED)),
    *(
        nfn_core.BiasPhases(SIGNED, 20.0, shifts=False),
        nfn_core.ByParity(GRADED, nfn_core.Gate(), nfn_core.Activation("sin")),
        nfn_core.GradedFourierFeatures(SIGNED, 1, 4),
        nfn_core.GradedGate(GRADED, 3),
        nfn_core.GradedProduct(SIGNED, 1, 2, target=SIGNED.graded("even")),
    ),
    nfn_core.CanonicalScales(MLP),
    nfn_core.InCanonicalScales(nfn_core.CanonicalScales(MLP, ["h1"]), NFLayer(HNP, 1, 2)),
    nfn_core.CanonicalFactors(LOW_RANK, [("B", "A")]),
    *(nfn_core.SignedMessages(MLP, (1.0,) * 6, 2), *nfn_core.message_network(HNP, 1, 4, head=[8, 3]).layers[:2]),
]


@pytest.mark.parametrize("description", DESCRIPTIONS, ids=lambda d: type(d).__name__)
def test_json_round_trip(description):
    text = to_json(description)
    assert from_json(text) == description
    assert to_json(from_json(text)) == text
    assert from_json(json.loads(text)) == description
    assert len(repr(description)) < 2000


def test_every_layer_of_the_package_has_been_tried():
    tried = {type(layer).__name__ for layer in DESCRIPTIONS}
    known = {name for name in nfn_core.__all__ if isinstance(getattr(nfn_core, name), type)}
    layers = {name for name in known if issubclass(getattr(nfn_core, name), Layer)} - {"Layer", "Composite"}
    assert layers - tried == set()


def test_fingerprints_tell_descriptions_apart():
    assert fingerprint(NFLayer(HNP, 1, 2)) == fingerprint(NFLayer(HNP, np.int64(1), 2))
    assert len({fingerprint(d) for d in DESCRIPTIONS if isinstance(d, Layer)}) == sum(
        isinstance(d, Layer) for d in DESCRIPTIONS
    )
    assert to_json(SinusoidalEncoding(MLP, 10)) == to_json(SinusoidalEncoding(MLP, 10.0))


@dataclass(frozen=True)
class Own(Layer):
    """A layer of a user's."""

    size: object


@dataclass(frozen=True)
class Typed(Layer):
    """A layer with a field that JSON has no place for."""

    type: str


class Plain(Layer):
    """A layer whose arguments nobody can list."""


def changed(**changes):
    return json.dumps(json.loads(to_json(NFLayer(HNP, 1, 2))) | changes)


BAD = {
    "not JSON": ("{", "is not JSON"),
    "a number": (3, "is not JSON"),
    "another format": (changed(format="other 2"), "expected a description of format"),
    "a list": ("[]", "found 'list'"),
    "an unknown class": (changed(description={"type": "os.system", "x": "ls"}), "unknown type 'os.system'"),
    "no type": (changed(description={}), "damaged"),
    "missing argument": (changed(description={"type": "NFLayer"}), "missing arguments"),
    "unknown argument": (changed(description={"type": "Activation", "slope": 1}), r"unknown arguments \['slope'\]"),
    "no space": (changed(spaces=[]), "refers to weight space 0, but holds 0"),
    "a truth value for a space": (
        changed(description={"type": "LayerNorm", "space": {"type": "WeightSpace", "number": False}, "channels": 1}),
        "refers to weight space False",
    ),
    "a mapping of another format": ({"format": 1}, "expected a description of format .*, but found 1"),
    "a number for a layer": (changed(description=3), "found int"),
    "wrong kind": (changed(description={"type": "Sequential", "layers": 3}), "layers must be a sequence, not 3"),
    "negative": (changed(description={"type": "MLPHead", "sizes": [3, -1]}), "must be a positive integer"),
    "deep": ("[" * 100_000, "is not JSON"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_json(case):
    text, message = BAD[case]
    with pytest.raises(SpecError, match=message):
        from_json(text)


def test_what_json_has_no_form_for():
    for value in (print, float("nan"), float("inf"), {"a": 1}, np.ones(2)):
        with pytest.raises(SpecError, match=r"Own.size is .*, which JSON has no form for"):
            to_json(Own(value))
    assert from_json(to_json(Own((1, 2.5, "x", None, True)))) == Own((1, 2.5, "x", None, True))
    for value in ({}, Plain(), NFLayer):
        with pytest.raises(SpecError, match=f"takes a layer, a group or a weight space, not {type(value).__name__}"):
            to_json(value)
    with pytest.raises(SpecError, match="Typed has a field named 'type'"):
        to_json(Typed("a"))


def test_layers_of_a_model_and_its_space_are_described():
    network = equivariant_network(MODEL.group("NP"), [1, 4, 1])
    assert from_json(to_json(network)) == network
    assert from_json(to_json(MODEL)).space == MODEL.space
    assert to_json(MODEL) == to_json(replace(MODEL, verification=nfn_core.Verification(0.0, 1.0, (), ())))


@dataclass(frozen=True)
class Shift(Layer):
    """A layer of a user's, with parameters."""

    space: WeightSpace
    channels: int = 1

    def parameter_specs(self):
        return {"shift": ParameterSpec((self.channels,), "normal", value=1.0)}

    def forward(self, params, x, execution):
        return {name: y + params["shift"] for name, y in x.items()}


@pytest.mark.parametrize("backend", ["numpy", "torch", "jax"])
def test_files_carry_their_description(tmp_path, backend):
    layer = nfn_core.Sequential((Shift(MLP), NFLayer(HNP, 1, 2)))
    convert = {"numpy": np.asarray, "torch": torch.tensor, "jax": jnp.asarray}[backend]
    params = {name: convert(p.astype("float32")) for name, p in initialize(layer, 0).items()}
    contents = set()
    for k in range(8):
        nfn_core.save_parameters(tmp_path / str(k), layer, params, backend)
        contents.add((tmp_path / str(k)).read_bytes())
    assert len(contents) == 1
    for given in (None, layer):
        found, loaded = nfn_core.load_parameters(tmp_path / "0", given, backend)
        assert found == layer
        assert list(loaded) == list(params)
        assert all(type(x) is type(params[name]) and bool((x == params[name]).all()) for name, x in loaded.items())
    with pytest.raises(ParameterError, match="written for another description"):
        nfn_core.load_parameters(tmp_path / "0", nfn_core.Sequential((Shift(MLP), NFLayer(HNP, 1, 2, "sum"))), backend)
    with pytest.raises(SpecError, match="backend must be one of 'numpy', 'torch', 'jax', not 'flax'"):
        nfn_core.load_parameters(tmp_path / "0", backend="flax")
    module = nfn_torch.load(tmp_path / "0")
    assert module.layer == layer
    assert nfn_jax.load(tmp_path / "0")[0] == layer


def test_every_flipped_bit_of_a_parameter_file_is_found(tmp_path):
    path = tmp_path / "file"
    layer = PointwiseLayer(HNP, 1, 1)
    nfn_core.save_parameters(path, layer, initialize(layer, 0))
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(ParameterError, match="file"):
            nfn_core.load_parameters(path)
    path.write_bytes(whole)
    assert nfn_core.load_parameters(path)[0] == layer


def test_a_pipe_is_no_parameter_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ParameterError, match="pipe': it is no ordinary file"):
        nfn_core.load_parameters(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("backend", "dtype"), [("numpy", "bfloat16"), ("numpy", "float8_e5m2"), ("jax", "float8_e5m2")]
)
def test_dtypes_that_a_library_does_not_have_are_named(tmp_path, backend, dtype):
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file({"w": torch.ones(3, 2).to(getattr(torch, dtype))}, path)
    space = ModelSpace.from_patterns(path, {"w": "a b"})
    code, library = {"b": "BF16", "f": "F8_E5M2"}[dtype[0]], {"numpy": "NumPy", "jax": "JAX"}[backend]
    with pytest.raises(ParameterError, match=f"a.safetensors': tensor 'w' is of dtype {code}, which {library} has no"):
        next(space.stream([path], 1, backend))
    assert next(space.stream([path], 1, "torch"))["w"].shape == (1, 3, 2, 1)


def write(path, params, header):
    safetensors.numpy.save_file(params, path, metadata=header)


def test_files_of_the_first_version(tmp_path):
    """They have a fingerprint of another kind and no description: readable with the description, otherwise refused."""
    layer = NFLayer(HNP, 1, 2)
    params = initialize(layer, 0)
    write(tmp_path / "old", params, {"format": "nfn-core parameters 1", "fingerprint": "0" * 64})
    found, loaded = nfn_core.load_parameters(tmp_path / "old", layer)
    assert found == layer
    assert all(np.array_equal(loaded[name], p) for name, p in params.items())
    for load in (nfn_core.load_parameters, nfn_torch.load, nfn_jax.load):
        with pytest.raises(ParameterError, match="load it once with its layer, .* and save it again"):
            load(tmp_path / "old")
    with pytest.raises(ParameterError, match="expected shape"):
        nfn_core.load_parameters(tmp_path / "old", NFLayer(HNP, 1, 3))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{", "is not JSON"),
        (to_json(HNP), "describes a Group, not a layer"),
        (to_json(Shift(MLP)).replace("Shift", "Absent"), "import the module that defines it"),
        (to_json(NFLayer(HNP, 1, 3)), "expected shape"),
    ],
)
def test_damaged_descriptions_in_files(tmp_path, header, message):
    write(tmp_path / "file", initialize(NFLayer(HNP, 1, 2), 0), {"nfn_core": header})
    with pytest.raises(ParameterError, match=message):
        nfn_core.load_parameters(tmp_path / "file")


@pytest.mark.parametrize(
    "number", [np.int64(3), np.array(3), jnp.asarray(3), torch.tensor(3)], ids=lambda x: type(x).__name__
)
def test_counts_of_any_integer_type(number):
    space = WeightSpace.mlp([2, number, number])
    assert space == WeightSpace.mlp([2, 3, 3])
    assert hash(space) == hash(WeightSpace.mlp([2, 3, 3]))
    assert NFLayer(space.group("HNP"), number, number) == NFLayer(space.group("HNP"), 3, 3)
    assert MLPHead((number, 2)) == MLPHead((3, 2))
    assert SinusoidalEncoding(space, bands=number) == SinusoidalEncoding(space, bands=3)
    assert nfn_core.Execution(checkpoint=number).checkpoint == 3
    assert to_json(NFLayer(space.group("HNP"), number, 1))


@pytest.mark.parametrize("number", [True, np.True_, 2.0, "2", 0, -1, None, np.array([2])], ids=repr)
def test_what_is_no_count(number):
    for make in (
        lambda: NFLayer(HNP, number, 1),
        lambda: WeightSpace.mlp([2, number]),
        lambda: MLPHead((3, number)),
        lambda: SinusoidalEncoding(MLP, bands=number),
        lambda: nfn_core.LayerNorm(MLP, number),
        lambda: LearnedEncoding(MLP, number),
        lambda: GaussianFourierFeatures(number),
    ):
        with pytest.raises(SpecError, match="must be a positive integer"):
            make()


def test_representations():
    shapes = {f"{k}.weight": (4, 4) for k in range(8)}
    model = ModelSpace.from_patterns(shapes, dict.fromkeys(shapes, "h _"))
    assert repr(model) == (
        f"ModelSpace({', '.join(f'{k}.weight: h 4' for k in range(6))}, and 2 more; 8 with fixed axes; not verified)"
    )
    assert repr(MLP) == "WeightSpace.mlp([2, 4, 4, 1])"
    assert repr(CNN) == "WeightSpace.cnn([1, 4, 3], [(3, 3), ()], bias=[True, False])"
    assert repr(RNN) == "WeightSpace(2 tensors, 1 neuron sets, 28 entries)"
    assert repr(HNP) == "WeightSpace.mlp([2, 4, 4, 1]).group('HNP')"
    assert repr(NFLayer(HNP, 1, 16)) == "NFLayer(HNP, 1 -> 16, 1,312 parameters)"
    assert repr(NFLayer(MLP.group({"h1"}), 1, 2, pooling="sum")).startswith("NFLayer({h1}, 1 -> 2, pooling='sum', ")
    assert repr(nfn_core.Activation("tanh")) == "Activation(tanh)"
    lines = repr(invariant_network(HNP, [1, 4], [8, 3])).splitlines()
    assert lines[1] == "  0: NFLayer(HNP, 1 -> 4, 328 parameters)"
    assert len(lines) == 5


def test_a_module_prints_its_tree():
    module = nfn_torch.NFModule(invariant_network(HNP, [1, 4], [8, 3], before=[GaussianFourierFeatures(1, 2)]))
    lines = str(module).splitlines()
    assert lines[0] == "NFModule(torch.float32, cpu)"
    count = sum(p.numel() for p in module.parameters())
    assert lines[1] == f"  Sequential({count:,} parameters)"
    for name, x in module.named_arrays().items():
        child, own = name.split(".", 1)
        below = lines[next(i for i, line in enumerate(lines) if line.startswith(f"    {child}: ")) :]
        assert f"      {own} {tuple(x.shape)}" in below
    assert module.layer.parameter_count == count  # of the parameters alone, without the constant frequencies
    assert sum(x.numel() for x in module.named_arrays().values()) == count + 2


@pytest.mark.parametrize("layer", [d for d in DESCRIPTIONS if isinstance(d, Layer)], ids=lambda d: type(d).__name__)
def test_parameter_counts(layer):
    specs = layer.parameter_specs()
    assert layer.parameter_count == sum(p.size for n, p in initialize(layer, 0).items() if specs[n].trainable)

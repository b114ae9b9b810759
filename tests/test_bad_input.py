"""User mistakes raise the package's own errors, which say what was expected, what came and where, in both backends."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import nfn_jax
import nfn_torch
import numpy as np
import pytest
import torch

import nfn_core
from nfn_core import FeatureError, NFLayer, NFNError, ParameterError, PermutationError, SpecError, WeightSpace

SPACE = WeightSpace.mlp([2, 4, 3])
LAYER = NFLayer(SPACE.group("NP"), 1, 2)
CONVERT = {"torch": torch.tensor, "jax": jnp.asarray, "numpy": np.asarray}


def good(backend):
    return {t.name: CONVERT[backend](np.ones((2, *t.shape, 1), "float32")) for t in SPACE.tensors}


def run(backend, u):
    if backend == "torch":
        return nfn_torch.NFModule(LAYER)(u)
    if backend == "jax":
        return nfn_jax.apply(LAYER, nfn_jax.init(LAYER, 0), u)
    return LAYER.apply({k: p.astype("float32") for k, p in nfn_core.initialize(LAYER, 0).items()}, u)


BAD = {
    "wrong name": (
        lambda u, c: {("X" if k == "W1" else k): x for k, x in u.items()},
        "missing: 'W1'; not in the space: 'X'",
    ),
    "too few": (lambda u, c: {"W1": u["W1"]}, "the 4 tensors .* but 1 came"),
    "no mapping": (lambda u, c: list(u.values()), "not list: convert it first"),
    "first axis": (lambda u, c: u | {"W1": u["W1"][:, :3]}, r"'W1', axis 1 \(neuron set 'h1'\): expected size 4"),
    "second axis": (lambda u, c: u | {"W1": u["W1"][:, :, :1]}, r"'W1', axis 2 \(neuron set 'in'\): expected size 2"),
    "rank": (lambda u, c: u | {"v1": u["v1"][0]}, r"'v1': expected 3 axes \(batch, 4, channels\)"),
    "channels": (lambda u, c: {k: x[..., :0] for k, x in u.items()}, "expected 1 channels"),
    "batch": (lambda u, c: u | {"v1": u["v1"][:1]}, "batch size 1 differs from 2"),
    "mixed dtypes": (lambda u, c: u | {"v1": c(np.ones((2, 4, 1), "float16"))}, "has dtype .*float16, but tensor 'W1'"),
    "integers": (
        lambda u, c: {k: c(np.ones(x.shape, "int32")) for k, x in u.items()},
        "real floating dtype, not .*int32",
    ),
    "complex": (
        lambda u, c: {k: c(np.ones(x.shape, "complex64")) for k, x in u.items()},
        "real floating dtype, not .*complex64",
    ),
    "list": (lambda u, c: u | {"v1": [1.0]}, "'v1': expected an array .* not list"),
}


@pytest.mark.parametrize("backend", CONVERT)
@pytest.mark.parametrize("case", BAD)
def test_bad_features(backend, case):
    change, message = BAD[case]
    run(backend, good(backend))
    with pytest.raises(FeatureError, match=message):
        run(backend, change(good(backend), CONVERT[backend]))


@pytest.mark.parametrize(("backend", "other"), [("torch", "numpy"), ("jax", "torch"), ("numpy", "torch")])
def test_mixed_libraries(backend, other):
    with pytest.raises(NFNError, match="one (array )?library"):
        run(backend, good(backend) | {"v1": good(other)["v1"]})


def test_mixed_devices():
    with pytest.raises(FeatureError, match="'v1' is on device meta, but tensor 'W1' on cpu"):
        run("torch", good("torch") | {"v1": torch.ones(2, 4, 1, device="meta")})
    with pytest.raises(ParameterError, match="on device cpu, but the features on meta"):
        run("torch", {k: x.to("meta") for k, x in good("torch").items()})


@pytest.mark.parametrize("backend", CONVERT)
def test_nan_on_request(backend):
    u = good(backend) | {"v1": CONVERT[backend](np.full((2, 4, 1), np.nan, "float32"))}
    nfn_core.check_features(SPACE, u)
    with pytest.raises(FeatureError, match="'v1' holds NaN"):
        nfn_core.check_features(SPACE, u, finite=True)


SPECS = {
    "two sizes": (
        lambda: WeightSpace.from_axes({"A": [("h", 2)], "B": [("h", 3)]}),
        "'h' has size 2 at axis 0 of tensor 'A' but 3",
    ),
    "empty": (lambda: WeightSpace.from_axes({}), "at least one tensor"),
    "no layers": (lambda: WeightSpace.mlp([3]), "empty network"),
    "size 0": (lambda: WeightSpace.mlp([3, 0, 2]), "positive integer, not 0"),
    "flags": (lambda: WeightSpace.mlp([3, 2], bias=[True, False]), "bias must have one value for each of the 1"),
    "group": (lambda: SPACE.group("all"), "'NP', 'HNP' or a collection"),
    "neuron set": (lambda: SPACE.group({"h9"}), "unknown neuron set 'h9'"),
    "pooling": (
        lambda: NFLayer(SPACE.group("NP"), 1, 1, pooling="max"),
        "pooling must be one of 'mean', 'sum', 'scaled_sum', not 'max'",
    ),
    "channels": (lambda: NFLayer(SPACE.group("NP"), 0, 1), "in_channels must be a positive integer"),
    "activation": (lambda: nfn_core.Activation("step"), "activation must be one of"),
    "rate": (lambda: nfn_core.Dropout(1.0), r"\[0, 1\)"),
    "seed": (lambda: nfn_core.initialize(LAYER, -1), "non-negative integer, not -1"),
    "no description": (lambda: nfn_torch.NFModule("layer"), "description of nfn_core, not str"),
    "widths": (
        lambda: nfn_core.Sequential((LAYER, LAYER)).channels_after(1),
        "takes 1 channels, but the layer before it gives 2",
    ),
}


@pytest.mark.parametrize("case", SPECS)
def test_bad_descriptions(case):
    make, message = SPECS[case]
    with pytest.raises(SpecError, match=message):
        make()


def test_traced_init():
    with pytest.raises(SpecError, match="cannot be traced"):
        jax.jit(lambda key: nfn_jax.init(LAYER, key))(jax.random.key(0))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({"h1": [0, 1]}, "length 4, not 2"),
        ({"h1": [0, 1, 1, 2]}, "each of 0, ..., 3 once"),
        ({"in": [1, 0]}, "moves neuron set 'in', but this group moves only"),
    ],
)
def test_bad_permutations(images, message):
    with pytest.raises(PermutationError, match=message):
        SPACE.group("HNP").permutation(images)


def test_parameters_of_another_layer():
    other = NFLayer(SPACE.group("NP"), 2, 2)
    with pytest.raises(ParameterError, match="parameter 'hub': expected shape"):
        nfn_jax.apply(LAYER, nfn_jax.init(other, 0), good("jax"))
    with pytest.raises(ParameterError, match="missing: .*hub"):
        nfn_jax.apply(LAYER, {}, good("jax"))
    with pytest.raises(ParameterError, match="has dtype .*float32.* but the features have .*float16"):
        nfn_jax.apply(LAYER, nfn_jax.init(LAYER, 0), {k: x.astype("float16") for k, x in good("jax").items()})
    with pytest.raises(ParameterError, match="has dtype torch.float32, but the features have torch.float64"):
        run("torch", {k: x.double() for k, x in good("torch").items()})


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_bad_parameter_files(tmp_path, backend):
    from safetensors.numpy import save_file

    def load(path, layer=LAYER):
        return nfn_torch.load(path, layer) if backend == "torch" else nfn_jax.load(path, layer)

    path = tmp_path / "layer.safetensors"
    nfn_torch.save(path, nfn_torch.NFModule(LAYER))
    load(path)
    with pytest.raises(ParameterError, match="written for another description"):
        load(path, replace(LAYER, pooling="sum"))
    with pytest.raises(ParameterError, match="belongs to another weight space"):
        load(path, NFLayer(SPACE.group("NP"), 2, 2))
    whole = path.read_bytes()
    for name, content in {"truncated": whole[:-9], "corrupt": b"\x80" + whole[1:], "empty": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ParameterError, match=f"cannot read parameter file .*{name}"):
            load(tmp_path / name)
    with pytest.raises(ParameterError, match="cannot read parameter file"):
        load(tmp_path / "absent")
    save_file({"a": np.ones(1)}, tmp_path / "foreign", metadata={"format": "nfn-core parameters 9"})
    with pytest.raises(ParameterError, match="no header 'nfn_core'"):
        load(tmp_path / "foreign")

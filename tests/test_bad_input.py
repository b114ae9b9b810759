"""User mistakes raise the package's own errors, which say what was expected, what came and where, in both backends."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import nfn_jax
import nfn_torch
import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

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
    "no mapping": (lambda u, c: list(u.values()), "features must be arrays by name, or an array, not list"),
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
    "masked": (lambda u, c: u | {"v1": np.ma.ones((2, 4, 1))}, "'v1': expected an array .* not MaskedArray"),
    "nothing": (lambda u, c: {}, "the 4 tensors .* but 0 came"),
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


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.to_sparse(),
        lambda x: x[..., 0].to_sparse_csr(),
        lambda x: torch.nested.nested_tensor(list(x)),
        lambda x: torch.nested.nested_tensor(list(x), layout=torch.jagged),
    ],
    ids=["coo", "csr", "nested", "jagged"],
)
@pytest.mark.filterwarnings("ignore:.*(prototype|beta state)")
def test_arrays_that_are_not_dense(change):
    with pytest.raises(FeatureError, match="'v1' is sparse or nested: make it a dense array"):
        run("torch", good("torch") | {"v1": change(torch.ones(2, 4, 1))})
    params = {name: torch.tensor(p) for name, p in nfn_core.initialize(LAYER, 0).items()}
    bad = params | {"bias": params["bias"].to_sparse()}
    with pytest.raises(ParameterError, match="'bias' must be a dense array"):
        LAYER.apply(bad, {name: x.double() for name, x in good("torch").items()})


def test_bfloat16_of_jax_in_numpy():
    u = {name: np.asarray(x.astype(jnp.bfloat16)) for name, x in good("jax").items()}
    with pytest.raises(FeatureError, match="'W1': expected a real floating dtype, not bfloat16"):
        run("numpy", u)


def test_what_has_no_values():
    meta = {name: x.to("meta") for name, x in good("torch").items()}
    with pytest.raises(FeatureError, match="'W1' has no values to look at"):
        nfn_core.check_features(SPACE, meta, finite=True)
    with pytest.raises(FeatureError, match="'W1' has no values to look at"):
        jax.jit(lambda u: nfn_core.check_features(SPACE, u, finite=True))(good("jax"))
    with pytest.raises(FeatureError, match=r"cannot be read into NumPy|no values"):
        nfn_core.Normalize.from_features(SPACE, meta)
    out = nfn_torch.NFModule(LAYER, device="meta")(meta)
    assert out["W1"].shape == (2, 4, 2, 2)  # shapes are all that is there


def test_neurons_that_do_not_fit():
    layer = nfn_core.Messages(SPACE.group("HNP"), 1, 2, 2)
    params, neurons = nfn_core.initialize(layer, 0), {"h1": np.ones((2, 4, 2))}
    u = {name: x.astype("float64") for name, x in good("numpy").items()}
    layer.apply(params, nfn_core.MessageState(u, neurons))
    for bad, message in [
        ({**neurons, "out": np.ones((2, 3, 2))}, "neurons came for .'out'., but the group permutes only .'h1'"),
        ({"h1": np.ones((1, 4, 2))}, r"neurons 'h1': expected shape \(2, 4, 2\), not \(1, 4, 2\)"),
        ({"h1": [1.0]}, "array"),
        ({"h1": np.ones((2, 4, 2), "float32")}, "array 'h1' has dtype float32"),
        (None, "must be a MessageState"),
    ]:
        with pytest.raises(FeatureError, match=message):
            layer.apply(params, nfn_core.MessageState(u, bad))


def test_arrays_that_do_not_fit():
    x = np.ones((2, 3))
    for layer, bad, message in [
        (nfn_core.SetNorm(None, 1), x, r"\(batch, ..., 1\), not shape \(2, 3\)"),
        (nfn_core.Gate(), x[0, :2], r"\(batch, ..., channels\), not \(2,\)"),
        (nfn_core.Dropout(0.5, "channels"), x[0], r"\(batch, ..., channels\), not \(3,\)"),
        (nfn_core.Residual(nfn_core.MLPHead((3, 1))), x, r"adds arrays of one shape.*\(2, 3\).*\(2, 1\)"),
        (nfn_core.Residual(nfn_core.InvariantPool(SPACE.group("NP"))), good("numpy"), "must keep the tensors"),
        (nfn_core.GaussianFourierFeatures(2), {"W1": x}, r"\(batch, ..., 2\), not \(2, 3\)"),
        (nfn_core.GaussianFourierFeatures(1), {}, "not an empty one"),
        (nfn_core.Activation(), {}, "hold no tensor"),
    ]:
        with pytest.raises(FeatureError, match=message):
            layer.apply({name: p.astype(x.dtype) for name, p in nfn_core.initialize(layer, 0).items()}, bad)


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
    "labels by one string": (
        lambda: WeightSpace.from_axes({"A": [("h", 2)]}, inputs="h"),
        "inputs must be a sequence, not 'h'",
    ),
    "a count in a list": (
        lambda: NFLayer(SPACE.group("NP"), [1], 1),
        r"in_channels must be a positive integer, not \[1\]",
    ),
    "a set of sizes": (lambda: nfn_core.MLPHead({3, 2}), "sizes must be a sequence"),
    "group by name": (
        lambda: NFLayer("NP", 1, 1),
        r"group must be a Group, not 'NP': make it with space.group\('NP'\)",
    ),
    "dropout below 0": (
        lambda: nfn_core.invariant_network(SPACE.group("NP"), [1, 2], [2], dropout=-1),
        r"dropout must be a number in \[0, 1\), not -1",
    ),
    "head dropout": (
        lambda: nfn_core.message_network(SPACE.group("HNP"), 1, 2, out_channels=1, head_dropout=float("nan")),
        r"head_dropout must be a number in \[0, 1\), not nan",
    ),
    "deviation 0": (
        lambda: nfn_core.Normalize(SPACE, ((0.0,),) * 4, ((1.0,),) * 3 + ((0.0,),)),
        r"deviations\[3\]\[0\] must be a positive finite number, not 0.0",
    ),
    "too few means": (
        lambda: nfn_core.Normalize(SPACE, ((0.0,),), ((1.0,),) * 4),
        "a row for each of the 4 tensors, not 1 and 4",
    ),
    "ragged means": (
        lambda: nfn_core.Normalize(SPACE, ((0.0,),) * 4, ((1.0,),) * 3 + ((1.0, 1.0),)),
        "as many channels in each row",
    ),
    "infinite scale": (
        lambda: nfn_core.GaussianFourierFeatures(1, scale=float("inf")),
        "scale must be a positive finite number, not inf",
    ),
    "epsilon NaN": (
        lambda: nfn_core.SetNorm(None, 2, float("nan")),
        "epsilon must be a positive finite number, not nan",
    ),
    "momentum": (lambda: nfn_core.BatchNorm(None, 2, momentum=1.5), r"momentum must be a number in \(0, 1\], not 1.5"),
    "a word for a flag": (
        lambda: NFLayer(SPACE.group("NP"), 1, 1, bias="yes"),
        "bias must be True or False, not 'yes'",
    ),
    "fan-in": (
        lambda: nfn_core.ParameterSpec((2, 3), "uniform", ((2, 4),)),
        r"blocks \(columns, fan-in\) for the last axis of \(2, 3\), not \(\(2, 4\),\)",
    ),
    "constants": (lambda: nfn_core.ParameterSpec((2, 3), "constant", value=(1.0,)), "one for each of the 3 entries"),
    "checkpoint": (lambda: nfn_core.Execution(noise=3), "noise must be a function or None, not 3"),
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
        ({"h1": [0.9, 1.9, 2.9, 3.9]}, "'h1' must hold integers, not 0.9"),
        ({"h1": [True, False, 2, 3]}, "'h1' must hold integers, not True"),
        ({"h1": ["0", "1", "2", "3"]}, "'h1' must hold integers, not '0'"),
        ({"h1": np.eye(4)}, "must hold integers, not array.*of a permutation matrix use images_of_matrix"),
        ({"h1": "0123"}, "'h1' must be a sequence"),
        ({"h1": {0, 1, 2, 3}}, "'h1' must be a sequence"),
        ([("h1", [0, 1, 2, 3])], "images must be a mapping"),
    ],
)
def test_bad_permutations(images, message):
    with pytest.raises(PermutationError, match=message):
        SPACE.group("HNP").permutation(images)


@pytest.mark.parametrize("convert", CONVERT.values(), ids=CONVERT)
def test_images_of_any_integer_type(convert):
    group = SPACE.group("HNP")
    assert group.permutation({"h1": convert(np.array([2, 0, 3, 1]))}) == group.permutation({"h1": [2, 0, 3, 1]})


def test_images_of_matrices_and_assignments():
    """A matrix P takes the neurons to P x; an assignment aligns the network of the columns with that of the rows."""
    group, rng = SPACE.group("HNP"), np.random.default_rng(0)
    x = rng.normal(size=(4, 2))
    u = {"W1": x[None, ..., None], "v1": x[None, :, :1], "W2": np.ones((1, 3, 4, 1)), "v2": np.ones((1, 3, 1))}
    matrix = np.eye(4)[[2, 0, 3, 1]]
    for p in (matrix, matrix.astype(bool), matrix.astype(int).tolist(), torch.tensor(matrix)):
        sigma = group.permutation({"h1": nfn_core.images_of_matrix(p)})
        np.testing.assert_array_equal(group.act(sigma, u)["W1"][0, ..., 0], matrix @ x)
    y = x[[3, 1, 0, 2]] + 1e-3 * rng.normal(size=(4, 2))  # the same neurons in another order
    cost = ((x[:, None] - y[None]) ** 2).sum(-1)
    sigma = group.permutation({"h1": nfn_core.images_of_assignment(*linear_sum_assignment(cost))})
    np.testing.assert_allclose(group.act(sigma, u | {"W1": y[None, ..., None]})["W1"][0, ..., 0], x, atol=1e-2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nfn_core.images_of_matrix(np.full((3, 3), 1 / 3)), "round a soft one first.*linear_sum_assignment"),
        (lambda: nfn_core.images_of_matrix([[1, 0], [1, 0]]), "a single 1 in each row and each column"),
        (lambda: nfn_core.images_of_matrix(np.ones((2, 3))), r"has shape \(n, n\), not \(2, 3\)"),
        (lambda: nfn_core.images_of_matrix(torch.ones((2, 2), device="meta")), r"is an array of shape \(n, n\)"),
        (lambda: nfn_core.images_of_assignment([0, 1], [0]), "as many rows as columns, not 2 and 1"),
        (lambda: nfn_core.images_of_assignment([0, 2], [0, 1]), "rows must contain each of 0, ..., 1 once"),
        (lambda: nfn_core.Permutation((("h1", (0, 0)),)), "each of 0, ..., 1 once"),
        (lambda: SPACE.group("HNP").act({"h1": [0, 1, 2, 3]}, good("numpy")), "sigma must be a Permutation"),
        (lambda: SPACE.group("HNP").identity()["h9"], "no neuron set 'h9'"),
    ],
)
def test_what_is_no_permutation(make, message):
    with pytest.raises(PermutationError, match=message):
        make()


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


def test_files_that_cannot_be_written(tmp_path):
    params = nfn_core.initialize(LAYER, 0)
    path = tmp_path / "absent" / "file"
    with pytest.raises(ParameterError, match=f"cannot write parameter file '{path}'"):
        nfn_core.save_parameters(path, LAYER, params)
    with pytest.raises(ParameterError, match="'hub' is a numpy.ndarray, not of 'torch'"):
        nfn_core.save_parameters(tmp_path / "file", LAYER, params, "torch")
    with pytest.raises(ParameterError, match="'hub' must be a dense array, not list"):
        nfn_core.save_parameters(tmp_path / "file", LAYER, {name: p.tolist() for name, p in params.items()})
    meta = {name: torch.tensor(p, device="meta") for name, p in params.items()}
    with pytest.raises(ParameterError, match="cannot write parameter file"):
        nfn_core.save_parameters(tmp_path / "file", LAYER, meta, "torch")


class Undescribed(nfn_core.Layer):
    """A layer whose parameters are no specs."""

    def parameter_specs(self):
        return {"shift": (3,)}


class Childless(nfn_core.Composite):
    """A layer of one child, which is none."""

    def children(self):
        return {"first": 3}


def test_layers_of_users_that_cannot_be():
    with pytest.raises(SpecError, match=r"parameter_specs\(\)\['shift'\] must be a ParameterSpec, not \(3,\)"):
        nfn_core.initialize(Undescribed(), 0)
    with pytest.raises(SpecError, match="child 'first' must be a Layer, not 3"):
        nfn_core.initialize(Childless(), 0)
    with pytest.raises(SpecError, match=r"child must be one of \['0'\], not '1'"):
        nfn_core.Sequential((LAYER,)).child_params("1", {})


def test_lists_become_tuples():
    """What was given as a list can be hashed, and is equal to what was given as a tuple."""
    space = WeightSpace([nfn_core.TensorSpec("A", [2, 3], ["h", None])], ["h"], [])
    assert space == WeightSpace((nfn_core.TensorSpec("A", (2, 3), ("h", None)),), ("h",), ())
    group = nfn_core.Group(space, ["h"])
    layers = [
        nfn_core.MLPHead([3, 2]),
        nfn_core.InvariantPool(group, statistics=["mean"]),
        nfn_core.Normalize(space, [[0.0]], [[np.float32(1)]]),
        nfn_core.GaussianFourierFeatures(1, tensor_scales=[["A", 2]]),
        nfn_core.Scale(space, np.float64(0.5)),
        nfn_core.Residual(NFLayer(group, 1, 1, bias=np.True_)),
    ]
    assert len({*layers, group, space}) == 8
    assert nfn_core.from_json(nfn_core.to_json(nfn_core.Sequential(layers))).layers == tuple(layers)

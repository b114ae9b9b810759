"""The baselines of the experiments: the same numbers in every backend, their symmetries, and that they learn."""

from dataclasses import replace
from functools import partial
from itertools import permutations, product

import jax
import jax.numpy as jnp
import nfn_jax
import nfn_torch
import numpy as np
import pytest
import torch
from torch.nn import functional

from nfn_core import (
    FeatureError,
    MLPHead,
    Normalize,
    Sequential,
    SpecError,
    WeightSpace,
    equivariant_network,
    from_json,
    initialize,
    to_json,
)
from nfn_core.layers.base import Execution
from reference_experiments.methods.augmentations import moving, permuted
from reference_experiments.methods.base import MethodConfig
from reference_experiments.methods.dwsnets import DWSLayer, DWSPool, dwsnet
from reference_experiments.methods.editor import Editor
from reference_experiments.methods.image_space import Block, Convolution, GroupNorm, Linear, pointnet, resnet18
from reference_experiments.methods.inr2vec import DISTANCES, POINTS, Autoencoder, ImplicitDecoder, RowStack, encoder
from reference_experiments.methods.mlp import Flatten
from reference_experiments.methods.ticket_vae import TicketVAE
from reference_experiments.networks.classifiers import patches
from reference_experiments.networks.sirens import render

INR = WeightSpace.mlp([2, 6, 6, 3])
SHAPE = WeightSpace.mlp([3, 8, 1])
AUTOENCODER = Autoencoder(encoder(SHAPE, (16, 16)), ImplicitDecoder(16, 3, 16))


def features(space, batch=16, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return {t.name: rng.normal(size=(batch, *t.shape, channels)) for t in space.tensors}


def images(batch=16):
    return np.random.default_rng(0).normal(size=(batch, 9, 8, 3))


def points(batch=16, count=10):
    return np.random.default_rng(1).uniform(-1, 1, size=(batch, count, 3))


CLASSIFIERS = {
    "DWSNet": (dwsnet(INR, (1, 8, 8), (4,)), features(INR)),
    "DWSNet, means": (dwsnet(INR, (1, 8, 8), (8, 4), pooling="mean", normalize=False), features(INR)),
    "DWSNet, one hidden layer": (dwsnet(SHAPE, (1, 8, 8), (4,)), features(SHAPE)),
    "flat MLP": (Sequential((Flatten(INR), MLPHead((INR.size, 32, 32, 4)))), features(INR)),
    "inr2vec, end to end": (Sequential((encoder(SHAPE, (16, 16)), MLPHead((16, 16, 4)))), features(SHAPE)),
    "ResNet-18": (resnet18(3, 4, width=4), images()),
    "PointNet": (pointnet(4, (16, 16), (16,), dropout=0.0), points()),
}
DISTANT = np.random.default_rng(0).random((16, 10))
EVERYTHING = CLASSIFIERS | {
    "inr2vec, autoencoder": (AUTOENCODER, features(SHAPE) | {POINTS: points(), DISTANCES: DISTANT})
}


def each(inputs, function):
    return {name: function(x) for name, x in inputs.items()} if isinstance(inputs, dict) else function(inputs)


@pytest.mark.parametrize("name", EVERYTHING)
def test_backends_agree(name):
    layer, inputs = EVERYTHING[name]
    expected = layer.apply(initialize(layer, 3), inputs)
    module = nfn_torch.NFModule(layer, 3, dtype=torch.float64).eval()
    outputs = [module(each(inputs, torch.tensor)).detach().numpy()]
    with jax.enable_x64(True):
        run = jax.jit(partial(nfn_jax.apply, layer))
        outputs.append(np.asarray(run(nfn_jax.init(layer, 3, "float64"), each(inputs, jnp.asarray))))
    for out in outputs:
        assert out.dtype == "float64"
        assert out.shape == ((16,) if name == "inr2vec, autoencoder" else (16, 4))
        assert np.abs(out - expected).max() <= 1e-11 * np.abs(expected).max()
    assert np.ptp(expected, axis=0).min() > 1e-4  # it distinguishes the inputs


def test_descriptions_round_trip():
    """Layers of another package: registered by their definition, under their module's name."""
    editor = Editor.residual(SHAPE, equivariant_network(SHAPE.group("NP"), [1, 4, 1]))
    scale = Normalize(SHAPE, ((0.0,),) * 4, ((1.0,),) * 4)
    for layer in (*(layer for layer, _ in EVERYTHING.values()), editor, TicketVAE(SHAPE.group("NP"), scale, (4,), 2)):
        assert from_json(to_json(layer)) == layer
    assert '"type":"reference_experiments.methods.editor:Editor"' in to_json(editor)


def train(layer, inputs, labels, steps=300):
    """Whether a network overfits the labels: classes (batch,), or bits of the output's shape."""
    module = nfn_torch.NFModule(layer)
    inputs = each(inputs, lambda x: torch.tensor(x, dtype=torch.float32))
    optimizer = torch.optim.Adam(module.parameters(), 5e-3)
    for _ in range(steps):
        out = module(inputs)
        right = (out.argmax(1) == labels) if labels.ndim == 1 else ((out > 0) == labels)
        if right.all():
            return True
        loss = (
            functional.cross_entropy(out, labels)
            if labels.ndim == 1
            else functional.binary_cross_entropy_with_logits(out, labels.float())
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return False


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_baseline_learns_sixteen_inputs_by_heart(name):
    layer, inputs = CLASSIFIERS[name]
    labels = torch.arange(16) % 4
    assert not train(layer, inputs, labels, steps=1)
    assert train(layer, inputs, labels)
    alike = each(inputs, lambda x: np.broadcast_to(x[:1], x.shape).copy())
    assert not train(layer, alike, labels, steps=30)


def test_inr2vec_learns_what_its_networks_represent():
    inputs = features(SHAPE) | {POINTS: np.broadcast_to(points(1, 4), (16, 4, 3)).copy()}
    inputs[DISTANCES] = (np.random.default_rng(0).random((16, 4)) < 0.5).astype(np.float64)

    def losses(inputs):
        module, given = nfn_torch.NFModule(AUTOENCODER, 0, dtype=torch.float64), each(inputs, torch.tensor)
        optimizer = torch.optim.Adam(module.parameters(), 1e-2)
        for _ in range(30):
            loss = module(given).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()

    alike = inputs | {name: np.broadcast_to(x[:1], x.shape).copy() for name, x in features(SHAPE).items()}
    assert losses(inputs) < 0.3
    assert losses(alike) > 0.5  # what all networks have in common


def moved(space, group, inputs):
    """Inputs with every neuron set of a group moved around by one."""
    group = space.group(group)
    around = {label: [*range(1, space.sizes[label]), 0] for label in group.permuted}
    return group.act(group.permutation(around), inputs)


def change(layer, inputs, other):
    params = initialize(layer, 0)
    return np.abs(layer.apply(params, other) - layer.apply(params, inputs)).max()


@pytest.mark.parametrize("pooling", ["max", "mean", "sum"])
def test_dwsnet_sees_no_order_of_hidden_neurons(pooling):
    inputs = features(INR)
    layer = dwsnet(INR, (1, 8, 8), (4,), pooling=pooling)
    assert change(layer, inputs, moved(INR, "HNP", inputs)) < 1e-12
    assert change(layer, inputs, moved(INR, {"in"}, inputs)) > 1e-3
    assert change(layer, inputs, inputs | {"W2": np.roll(inputs["W2"], 1, axis=1)}) > 1e-3


def test_dwsnet_defaults():
    layer = dwsnet(WeightSpace.mlp([2, 32, 32, 1]))
    sizes = [(sub.in_channels, sub.out_channels) for sub in layer.layers if isinstance(sub, DWSLayer)]
    assert sizes == [(1, 32)] + [(32, 32)] * 4
    assert layer.layers[-1].sizes == ((2 * 3 - 3 + 2 + 2) * 32, 10)


FC, SET, MATRIX = ("each",), ("each", "pooled"), ("each", "columns", "rows", "all")
CASES = {  # by hand for sizes 2-5-6-7-3: sublayer and its widths, d_0 = 2 and d_L = 3 where they are fixed
    "weight_to_weight.W1.W1": (SET, 2, 2),
    "weight_to_weight.W2.W2": (MATRIX, 1, 1),
    "weight_to_weight.W4.W4": (SET, 3, 3),
    "weight_to_weight.W1.W2": (SET, 2, 1),
    "weight_to_weight.W2.W1": (SET, 1, 2),
    "weight_to_weight.W2.W3": (SET, 1, 1),
    "weight_to_weight.W3.W2": (SET, 1, 1),
    "weight_to_weight.W3.W4": (SET, 1, 3),
    "weight_to_weight.W4.W3": (SET, 3, 1),
    "weight_to_weight.W1.W3": (FC, 2, 1),
    "weight_to_weight.W1.W4": (FC, 2, 3),
    "weight_to_weight.W4.W1": (FC, 3, 2),
    "weight_to_weight.W4.W2": (FC, 3, 1),
    "weight_to_weight.W2.W4": (FC, 1, 3),
    "weight_to_bias.W1.v1": (SET, 2, 1),
    "weight_to_bias.W2.v2": (SET, 1, 1),
    "weight_to_bias.W2.v1": (SET, 1, 1),
    "weight_to_bias.W4.v3": (SET, 3, 1),
    "weight_to_bias.W4.v4": (FC, 3, 3),
    "weight_to_bias.W1.v4": (FC, 2, 3),
    "weight_to_bias.W1.v2": (FC, 2, 1),
    "weight_to_bias.W3.v1": (FC, 1, 1),
    "bias_to_weight.v1.W1": (SET, 1, 2),
    "bias_to_weight.v2.W2": (SET, 1, 1),
    "bias_to_weight.v1.W2": (SET, 1, 1),
    "bias_to_weight.v3.W4": (SET, 1, 3),
    "bias_to_weight.v4.W4": (FC, 3, 3),
    "bias_to_weight.v4.W1": (FC, 3, 2),
    "bias_to_weight.v1.W3": (FC, 1, 1),
    "bias_to_bias.v2.v2": (SET, 1, 1),
    "bias_to_bias.v4.v4": (FC, 3, 3),
    "bias_to_bias.v1.v2": (FC, 1, 1),
    "bias_to_bias.v4.v1": (FC, 3, 1),
}


def test_cases_of_the_dws_layer():
    specs = DWSLayer(WeightSpace.mlp([2, 5, 6, 7, 3]), 3, 4).parameter_specs()
    pairs = {name.rpartition(".")[0] for name in specs}
    assert len(pairs) == 8 * 8
    assert set(CASES) <= pairs
    for pair, (terms, rows, columns) in CASES.items():
        mine = {name.rpartition(".")[2]: spec.shape for name, spec in specs.items() if name.startswith(f"{pair}.")}
        assert mine == dict.fromkeys(terms, (3 * rows, 4 * columns)) | {"bias": (4 * columns,)}, pair


def test_dws_sublayers_by_hand():
    """One sublayer at a time, all other parameters zero, against its formula."""
    space = WeightSpace.mlp([2, 3, 4, 2])
    layer, u = DWSLayer(space, 1, 1), features(space, 5)
    zero = {name: np.zeros(spec.shape) for name, spec in layer.parameter_specs().items()}
    w1, w2, v3 = (u[name][..., 0] for name in ("W1", "W2", "v3"))

    def only(**matrices):
        out = layer.apply(zero | {name.replace("__", "."): np.asarray(x) for name, x in matrices.items()}, u)
        return {name: 6 * x[..., 0] for name, x in out.items()}

    m = np.array([[2.0], [3.0]])
    mixed = (w1 @ m)[..., 0]  # from W1 to W2 by way of h1, W2's columns
    expected = np.broadcast_to(mixed[:, None, :], (5, 4, 3))
    np.testing.assert_allclose(only(weight_to_weight__W1__W2__each=m)["W2"], expected)
    pooled = np.broadcast_to((w1.max(axis=1) @ m)[:, None], (5, 4, 3))
    np.testing.assert_allclose(only(weight_to_weight__W1__W2__pooled=m)["W2"], pooled)
    out = only(weight_to_weight__W2__W2__columns=[[4.0]], weight_to_weight__W2__W2__all=[[8.0]])["W2"]
    np.testing.assert_allclose(
        out, np.broadcast_to(w2.max(axis=1, keepdims=True), w2.shape) + 2 * w2.max((1, 2))[:, None, None]
    )
    m = np.arange(4.0).reshape(2, 2)
    np.testing.assert_allclose(only(bias_to_bias__v3__v3__each=m)["v3"], v3 @ m)
    np.testing.assert_allclose(only(bias_to_weight__v3__W1__each=m)["W1"], np.broadcast_to((v3 @ m)[:, None], w1.shape))


def test_dws_layers_need_feedforward_networks():
    recurrent = WeightSpace.from_axes({"R": [("h", 4), ("h", 4)]})
    with pytest.raises(SpecError, match="tensor 'R' has hidden axes"):
        DWSLayer(recurrent, 1, 1)
    with pytest.raises(SpecError, match="takes 2 channels"):
        Sequential((DWSLayer(INR, 2, 2),)).channels_after(1)
    with pytest.raises(SpecError, match="pooling must be one of"):
        DWSPool(INR, "median")
    with pytest.raises(SpecError, match="channels must hold"):
        dwsnet(INR, (1,))


def test_stacked_rows():
    u = features(SHAPE, 2)
    stacked = RowStack(SHAPE).apply({}, u)
    assert stacked.shape == (2, 5, 8)
    np.testing.assert_array_equal(stacked[:, :3], u["W1"][..., 0].transpose(0, 2, 1))
    np.testing.assert_array_equal(stacked[:, 3], u["v1"][..., 0])
    np.testing.assert_array_equal(stacked[:, 4:], u["W2"][..., 0])
    deep = WeightSpace.mlp([3, 8, 8, 1])
    assert RowStack(deep).apply({}, features(deep)).shape == (16, 3 + 1 + 8 + 1 + 1, 8)
    for sizes in ([3, 1], [3, 8, 9, 1]):
        with pytest.raises(SpecError, match="hidden layers of one width"):
            RowStack(WeightSpace.mlp(sizes))


def test_inr2vec_sees_the_order_of_hidden_neurons_and_no_order_of_rows():
    layer, inputs = encoder(SHAPE, (16, 16)), features(SHAPE)
    assert change(layer, inputs, moved(SHAPE, {"in"}, inputs)) < 1e-12
    assert change(layer, inputs, moved(SHAPE, {"h1"}, inputs)) > 1e-2


def test_autoencoder_is_decoder_after_encoder():
    inputs = features(SHAPE)
    params, where = initialize(AUTOENCODER, 0), points()
    embeddings = AUTOENCODER.encoder.apply(AUTOENCODER.child_params("encoder", params), inputs)
    assert embeddings.shape == (16, 16)
    decoder = AUTOENCODER.child_params("decoder", params)
    codes = [where] + [f(2.0**k * where) for k in range(10) for f in (np.sin, np.cos)]
    x = np.concatenate([np.repeat(embeddings[:, None], 10, axis=1), *codes], axis=-1)

    def linear(name, y):
        return y @ decoder[f"{name}.weight"] + decoder[f"{name}.bias"]

    def relu(y):
        return np.maximum(y, 0)

    y = relu(linear("before.2", relu(linear("before.0", relu(linear("first", x)))))) + relu(linear("skip", x))
    y = linear("after.4", relu(linear("after.2", relu(linear("after.0", y)))))[..., 0]
    np.testing.assert_allclose(AUTOENCODER.decoder.forward(decoder, (embeddings, where), Execution()), y, atol=1e-12)
    np.testing.assert_array_equal(AUTOENCODER.apply(params, inputs), embeddings)
    p = 1 / (1 + np.exp(-y))
    entropy = -(DISTANT * np.log(p) + (1 - DISTANT) * np.log(1 - p)).mean(axis=1)
    found = AUTOENCODER.apply(params, inputs | {POINTS: where, DISTANCES: DISTANT})
    np.testing.assert_allclose(found, entropy, atol=1e-12)
    with pytest.raises(FeatureError, match=r"points: expected shape \(16, points, 3\)"):
        AUTOENCODER.apply(params, inputs | {POINTS: where[:, :, :2], DISTANCES: DISTANT})


def torch_convolution(x, weight, size, stride):
    filters = torch.tensor(weight).reshape(size, size, x.shape[1], -1).permute(3, 2, 0, 1)
    return functional.conv2d(x, filters, stride=stride, padding=size // 2)


@pytest.mark.parametrize("stride", [1, 2])
def test_residual_blocks_are_torch_convolutions(stride):
    block = Block(3, 32, stride)
    rng = np.random.default_rng(0)
    params = {n: p + 0.1 * rng.normal(size=p.shape) for n, p in initialize(block, 0).items()}
    x = torch.tensor(images()).permute(0, 3, 1, 2)

    def norm(y, name):
        return functional.group_norm(y, 2, torch.tensor(params[f"{name}.scale"]), torch.tensor(params[f"{name}.shift"]))

    y = torch.relu(norm(torch_convolution(x, params["path.0.weight"], 3, stride), "path.1"))
    y = norm(torch_convolution(y, params["path.3.weight"], 3, 1), "path.4")
    y = torch.relu(y + norm(torch_convolution(x, params["shortcut.0.weight"], 1, stride), "shortcut.1"))
    ours = block.apply(params, images())
    np.testing.assert_allclose(ours, y.permute(0, 2, 3, 1).numpy(), atol=1e-10)
    turned = params | {"path.0.weight": params["path.0.weight"][::-1]}
    assert np.abs(block.apply(turned, images()) - ours).max() > 0.1


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2), (5, 3)])
def test_patches_are_torch_convolutions(size, stride):
    weight = np.random.default_rng(0).normal(size=(size * size * 3, 2))
    theirs = torch_convolution(torch.tensor(images()).permute(0, 3, 1, 2), weight, size, stride)
    np.testing.assert_allclose(patches(images(), np, size, stride) @ weight, theirs.permute(0, 2, 3, 1), atol=1e-12)


def test_resnet18_has_the_parameters_of_resnet18():
    """11,173,962 for images of three channels and ten classes, as with batch normalization."""
    specs = resnet18(3, 10).parameter_specs().values()
    assert sum(np.prod(spec.shape) for spec in specs) == 11_173_962


def test_pointnet_sees_no_order_of_points():
    layer = CLASSIFIERS["PointNet"][0]
    assert change(layer, points(), points()[:, ::-1]) < 1e-12
    assert change(layer, points(), points()[:, :, ::-1]) > 1e-3


def test_reference_layers_name_what_does_not_fit():
    for layer in (Linear(3, 4), Convolution(3, 4), GroupNorm(3)):
        with pytest.raises(FeatureError, match="expected 3 channels"):
            layer.apply(initialize(layer, 0), images()[..., :2])
    with pytest.raises(SpecError, match="multiple of 16"):
        GroupNorm(24)
    with pytest.raises(SpecError, match="size must be odd"):
        Convolution(3, 4, 2)


def test_flatten():
    u = features(INR, 2, channels=2)
    flat = Flatten(INR).apply({}, u)
    assert flat.shape == (2, INR.size * 2)
    np.testing.assert_array_equal(flat[:, :24], u["W1"].reshape(2, -1))
    np.testing.assert_array_equal(flat[:, -6:], u["v3"].reshape(2, -1))
    backwards = dict(reversed(u.items()))
    np.testing.assert_array_equal(Flatten(INR).apply({}, backwards), flat)


def test_flat_mlp_sees_the_order_of_hidden_neurons():
    layer, inputs = CLASSIFIERS["flat MLP"]
    assert change(layer, inputs, moved(INR, "HNP", inputs)) > 1e-2


CNN = WeightSpace.cnn([1, 3, 4, 3], [(3, 3), (2,), ()])


@pytest.mark.parametrize("space", [WeightSpace.mlp([2, 3, 4, 2]), CNN], ids=["MLP", "CNN"])
@pytest.mark.parametrize("kind", ["NP", "HNP"])
def test_every_network_is_permuted_by_an_element_of_its_own(space, kind):
    group, u = space.group(kind), features(space, 8)
    out = permuted(group, u, np.random.default_rng(0))
    torn = out | {"W2": np.roll(out["W2"], 1, axis=1)}
    choices = [permutations(range(space.sizes[label])) for label in group.permuted]
    hits, wrong = [], 0
    for images in product(*choices):
        acted = group.act(group.permutation(dict(zip(group.permuted, images, strict=True))), u)
        hits.append([all(np.array_equal(out[name][i], x[i]) for name, x in acted.items()) for i in range(8)])
        wrong += sum(all(np.array_equal(torn[name][i], x[i]) for name, x in acted.items()) for i in range(8))
    hits = np.array(hits)
    assert hits.shape == (group.order, 8)
    assert (hits.sum(axis=0) == 1).all()
    assert len(set(hits.argmax(axis=0))) > 4  # not one element for all
    assert wrong == 0
    assert all(len(x) == 0 for x in permuted(group, features(space, 0), np.random.default_rng(0)).values())


COUNT = 7200


def chi_square(orders):
    """Statistic against uniform draws of the 36 elements for two sets of three neurons; above 66.6 once in 1,000."""
    _, counts = np.unique(orders, axis=0, return_counts=True)
    counts = np.concatenate([counts, np.zeros(36 - len(counts))])
    return np.sum((counts - COUNT / 36) ** 2) / (COUNT / 36)


def swapped(rng):
    """The well-known wrong shuffle, for each row: every place is swapped with any place."""
    orders, rows = np.tile(np.arange(3), (COUNT, 1)), np.arange(COUNT)
    for k in range(3):
        other = rng.integers(3, size=COUNT)
        orders[rows, k], orders[rows, other] = orders[rows, other], orders[rows, k].copy()
    return orders


def test_elements_are_drawn_uniformly():
    space = WeightSpace.mlp([1, 3, 3, 1])
    u = {t.name: np.zeros((COUNT, *t.shape, 1)) for t in space.tensors}
    u |= {name: np.tile(np.arange(3.0)[:, None], (COUNT, 1, 1)) for name in ("v1", "v2")}
    rng = np.random.default_rng(0)

    def orders(group):
        out = permuted(group, u, rng)
        return np.concatenate([out["v1"][..., 0], out["v2"][..., 0]], axis=1)

    assert chi_square(orders(space.group("HNP"))) < 66.6
    once = orders(space.group({"h1"}))[:, :3]
    assert chi_square(np.concatenate([once, once], axis=1)) > 66.6  # both sets by one draw
    assert chi_square(np.concatenate([swapped(rng), swapped(rng)], axis=1)) > 66.6


@pytest.mark.parametrize("inputs", [2, 3])
def test_moved_networks_encode_moved_images_and_shapes(inputs):
    """Values on circles about the axis of rotation are those at other angles; the amounts stay in their range."""
    space, rng = WeightSpace.mlp([inputs, 8, 1]), np.random.default_rng(0)
    features = {t.name: rng.normal(size=(5, *t.shape, 1)).astype(np.float32) * 0.3 for t in space.tensors}
    config = MethodConfig((), (), (), augmentation=(0.3, 0.0, 0.0))
    moved = moving(config)(features, np.random.default_rng(1))
    angle = np.random.default_rng(1).uniform(-0.3, 0.3, 5)
    point = rng.normal(size=inputs)
    before, after = ({n: x[..., 0] for n, x in networks.items()} for networks in (features, moved))
    for k in range(5):
        turned = point.copy()
        turned[:2] = [[np.cos(angle[k]), -np.sin(angle[k])], [np.sin(angle[k]), np.cos(angle[k])]] @ point[:2]
        one, other = ({n: x[k : k + 1] for n, x in networks.items()} for networks in (before, after))
        expected = render(one, turned[:, None].astype(np.float32), np.sin)
        np.testing.assert_allclose(
            render(other, point[:, None].astype(np.float32), np.sin), expected, rtol=1e-3, atol=1e-5
        )
        assert np.abs(render(other, turned[:, None].astype(np.float32), np.sin) - expected).max() > 1e-3
    assert moving(replace(config, augmentation=(0.0, 0.0, 0.0))) is None

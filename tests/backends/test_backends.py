"""PyTorch and JAX: the same parameters and outputs as NumPy, and what users of each framework do with them."""

import copy
from functools import partial

import jax
import jax.numpy as jnp
import nfn_jax
import nfn_torch
import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter

import nfn_core
from nfn_core import WeightSpace

MLP = WeightSpace.mlp([2, 4, 3])
RNN = {"W": [("h", 4), ("in", 2)], "R": [("h", 4), ("h", 4)], "b": [("h", 4)], "V": [("out", 2), ("h", 4)]}
SPACES = {
    "mlp": MLP,
    "cnn": WeightSpace.cnn([1, 3, 3, 2], [(2, 2), (2,), ()]),
    "rnn": WeightSpace.from_axes(RNN, ["in"], ["out"]),
}


def draw(space, batch=6, kind="float64"):
    rng = np.random.default_rng(0)
    return {t.name: rng.normal(size=(batch, *t.shape, 1)).astype(kind) for t in space.tensors}


def tensors(u):
    return nfn_torch.WeightSpaceFeatures({k: torch.tensor(x) for k, x in u.items()})


def network(space, group="NP"):
    before = [nfn_core.GaussianFourierFeatures(1, 3), nfn_core.SinusoidalEncoding(space)]
    options = {"before": before, "norm": "layer", "dropout": 0.2}
    return nfn_core.invariant_network(space.group(group), [1, 4, 4], [8, 3], pool=space.group("HNP"), **options)


@pytest.mark.parametrize("group", ["NP", "HNP"])
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize(("kind", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_same_seed_same_parameters_same_outputs(space, group, kind, tolerance):
    layer, u = network(space, group), draw(space, kind=kind)
    params = {k: p.astype(kind) for k, p in nfn_core.initialize(layer, 3).items()}
    expected = layer.apply(params, u)
    module = nfn_torch.NFModule(layer, 3, dtype=getattr(torch, kind)).eval()
    with jax.enable_x64(True):
        tree = nfn_jax.init(layer, 3, kind)
        assert set(module.state_dict()) == set(tree) == set(params)
        for name, p in params.items():
            assert np.array_equal(p, module.state_dict()[name].numpy())
            assert np.array_equal(p, tree[name])
        run = jax.jit(partial(nfn_jax.apply, layer))
        outputs = [module(tensors(u)).detach().numpy(), np.asarray(run(tree, u_jax(u)))]
    for out in outputs:
        assert out.dtype == kind
        assert np.abs(out - expected).max() <= tolerance * np.abs(expected).max()


def u_jax(u):
    return {k: jnp.asarray(x) for k, x in u.items()}


def test_parameters_travel_between_backends(tmp_path):
    layer = network(MLP)
    module = nfn_torch.NFModule(layer, 5)
    nfn_torch.save(tmp_path / "a", module)
    found, tree = nfn_jax.load(tmp_path / "a")
    assert found == layer
    nfn_jax.save(tmp_path / "b", found, tree)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    again = nfn_torch.load(tmp_path / "b", layer)
    assert not torch.equal(nfn_torch.NFModule(layer, 6).state_dict()["2.hub"], module.state_dict()["2.hub"])
    for name, p in module.state_dict().items():
        assert torch.equal(p, again.state_dict()[name])


def test_torch_transforms():
    module = nfn_torch.NFModule(nfn_core.NFLayer(MLP.group("NP"), 1, 2), dtype=torch.float64)
    u = tensors(draw(MLP))
    whole = module(u)
    parts = [module(u.map(lambda x, i=i: x[i : i + 2])) for i in (0, 2, 4)]
    torch.testing.assert_close(torch.cat([p["W1"] for p in parts]), whole["W1"])
    params = dict(module.named_parameters())

    def loss(p, one):
        batch = torch.utils._pytree.tree_map(lambda x: x[None], one)
        return torch.func.functional_call(module, p, (batch,))["v1"].square().sum()

    grads = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(params, u)
    whole["v1"].square().sum().backward()
    torch.testing.assert_close(grads["hub"].sum(0), module.hub.grad)
    assert torch.autograd.gradcheck(lambda x: module({**u, "W1": x})["v2"], u["W1"].requires_grad_())


@pytest.mark.slow(seconds=12)
def test_torch_compile_and_autocast():
    module = nfn_torch.NFModule(nfn_core.NFLayer(MLP.group("NP"), 1, 2))
    u = tensors(draw(MLP, kind="float32"))
    compiled = torch.compile(module, fullgraph=True)(u)
    torch.testing.assert_close(compiled["W1"], module(u)["W1"])
    with torch.autocast("cpu", torch.bfloat16):
        half = module(u)
    assert half["W1"].dtype == torch.bfloat16
    torch.testing.assert_close(half["W1"].float(), module(u)["W1"], rtol=0.05, atol=0.05)
    assert module.to(torch.float64)(u.to(torch.float64))["W1"].dtype == torch.float64


def test_torch_compiles_two_graphs_for_all_batches_of_a_marked_axis():
    """One for batches of 1, which PyTorch always takes apart, one for all others; 4 is also the size of a neuron set."""
    counter = CompileCounter()
    compiled = torch.compile(nfn_torch.NFModule(nfn_core.NFLayer(MLP.group("NP"), 1, 2)), backend=counter)
    for batch in (4, 1, 7, 2, 33):
        u = tensors(draw(MLP, batch, "float32"))
        for x in u.values():
            torch._dynamo.maybe_mark_dynamic(x, 0)
        assert compiled(u)["W1"].shape == (batch, 4, 2, 2)
    assert counter.frame_count == 2


def test_torch_exports_saves_and_walks_features(tmp_path):
    u, pytree = tensors(draw(MLP, kind="float32")), torch.utils._pytree
    paths = pytree.tree_map_with_path(lambda path, _: pytree.keystr(path), u)
    assert paths == {name: f"['{name}']" for name in u}
    torch.save({"features": u}, tmp_path / "features")
    again = torch.load(tmp_path / "features", weights_only=True)["features"]
    assert type(again) is type(copy.deepcopy(u)) is nfn_torch.WeightSpaceFeatures
    assert torch.equal(again["W1"], u["W1"])
    module = nfn_torch.NFModule(
        nfn_core.Sequential((nfn_core.NFLayer(MLP.group("NP"), 1, 2), nfn_core.BatchNorm(MLP, 2)))
    )
    torch.export.save(torch.export.export(module, (u,)), tmp_path / "in_training.pt2")  # with new statistics
    module.eval()
    batch = [{0: torch.export.Dim("batch")}] * len(u)
    torch.export.save(torch.export.export(module, (u,), dynamic_shapes=(batch,)), tmp_path / "program.pt2")
    few = u.map(lambda x: x[:3])
    exported = torch.export.load(tmp_path / "program.pt2").module()(few)
    assert type(exported) is nfn_torch.WeightSpaceFeatures
    torch.testing.assert_close(exported["W1"], module(few)["W1"])


ODD = "layer specs type half half_ training children forward places a..b .a a. a a.scale a_scale a.weight x.weight _ . "
ODD += "_parameters _modules.weight __class__ requires_grad_ named_arrays hub bias 0"
ODD_SPACE = WeightSpace.from_axes({name: [("h", 2), ("o", 3)] for name in [*ODD.split(), "é ü"]})


@pytest.mark.parametrize(
    "layer",
    [
        nfn_core.PointwiseLayer(ODD_SPACE.group("NP"), 1, 2),
        nfn_core.BatchNorm(ODD_SPACE, 1),
        nfn_core.Sequential((nfn_core.NFLayer(ODD_SPACE.group("NP"), 1, 1), nfn_core.Scale(ODD_SPACE))),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_every_name_of_a_tensor_works_in_torch(layer, tmp_path):
    expected = {name: p.astype("float32") for name, p in nfn_core.initialize(layer, 1).items()}
    module, other = nfn_torch.NFModule(layer, 1), nfn_torch.NFModule(layer, 2)
    assert set(module.state_dict()) == set(expected)
    assert len([*module.parameters(), *module.buffers()]) == len(expected)
    for name, p in module.named_arrays().items():
        assert np.array_equal(expected[name], p.detach())
        assert (module.get_parameter if layer.cached_specs[name].trainable else module.get_buffer)(name) is p
    module.half().float().train(False).requires_grad_(False)  # what names of tensors must not hide
    u = tensors(draw(ODD_SPACE, 2, "float32"))
    out = {
        name: x.numpy() for name, x in torch.func.functional_call(module, dict(module.named_parameters()), (u,)).items()
    }
    np.testing.assert_allclose(out["half"], module(u)["half"])
    # Into a state dict, alone and inside another module, and into a file; and out again.
    holder = torch.nn.Sequential(other)
    assert set(holder.state_dict()) == {f"0.{name}" for name in expected}
    holder.load_state_dict({f"0.{name}": torch.tensor(p) for name, p in expected.items()})
    assert all(np.array_equal(p.detach(), expected[name]) for name, p in other.named_arrays().items())
    nfn_torch.save(tmp_path / "file", other)
    for again in (nfn_torch.load(tmp_path / "file").state_dict(), nfn_jax.load(tmp_path / "file")[1]):
        assert all(np.array_equal(again[name], p) for name, p in expected.items())


def test_ordinary_names_are_attributes():
    module = nfn_torch.NFModule(network(MLP))
    assert dict(module.named_parameters()).keys() | {"0.frequencies"} == set(module.state_dict())


def test_torch_dropout_only_in_training():
    module = nfn_torch.NFModule(network(MLP))
    u = tensors(draw(MLP, kind="float32"))
    assert not torch.equal(module(u), module(u))
    module.eval()
    assert torch.equal(module(u), module(u))
    assert dict(module.named_buffers()).keys() == {"0.frequencies"}


def test_jax_transforms():
    import optax
    from jax.sharding import PartitionSpec

    layer = network(MLP)
    params, u = nfn_jax.init(layer, jax.random.key(0)), u_jax(draw(MLP, kind="float32"))

    def loss(p, key=None):
        return jnp.square(nfn_jax.apply(layer, p, u, key) - 1).mean()

    grads = jax.jit(jax.grad(loss))(params, jax.random.key(1))
    assert not grads["0.frequencies"].any()
    assert grads["2.hub"].any()
    adam = optax.masked(optax.adam(1e-2), nfn_jax.trainable(layer))

    @jax.jit
    def step(params, state):
        before, grads = jax.value_and_grad(loss)(params)
        updates, state = adam.update(grads, state)
        return optax.apply_updates(params, updates), state, before

    state, losses = adam.init(params), []
    for _ in range(6):
        params, state, before = step(params, state)
        losses.append(before)
    assert losses[-1] < losses[0]

    def one(x):
        return nfn_jax.apply(layer, params, jax.tree.map(lambda v: v[None], x))[0]

    whole = jax.jit(partial(nfn_jax.apply, layer))(params, u)
    np.testing.assert_allclose(jax.jit(jax.vmap(one))(u), whole, rtol=1e-4, atol=1e-5)
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = PartitionSpec("batch")
    shard = jax.shard_map(lambda x: nfn_jax.apply(layer, params, x), mesh=mesh, in_specs=(spec,), out_specs=spec)
    np.testing.assert_allclose(jax.jit(shard)(u), whole, rtol=1e-4, atol=1e-5)


def test_held_in_equinox_and_flax():
    import equinox
    from flax import nnx

    layer, u = nfn_core.NFLayer(MLP.group("NP"), 1, 1), u_jax(draw(MLP, kind="float32"))

    class Held(equinox.Module):
        params: dict

        def __call__(self, features):
            return nfn_jax.apply(layer, self.params, features)["v1"].sum()

    class HeldByFlax(nnx.Module):
        def __init__(self):
            self.params = nnx.Dict({k: nnx.Param(p) for k, p in nfn_jax.init(layer, 0).items()})

        def __call__(self, features):
            return nfn_jax.apply(layer, {k: p[...] for k, p in self.params.items()}, features)["v1"].sum()

    first = equinox.filter_grad(lambda m: m(u))(Held(nfn_jax.init(layer, 0))).params
    second = nnx.grad(lambda m: m(u))(HeldByFlax())["params"]
    np.testing.assert_allclose(first["hub"], second["hub"][...], rtol=1e-6)


RECURRENT = nfn_core.WeightSpace.from_axes({"R": [("h", 4), ("h", 4)], "W": [("o", 3), ("h", 4)], "b": [("h", 4)]})


@pytest.mark.parametrize("moved", ["NP", {"h"}], ids=["NP", "h"])
@pytest.mark.parametrize("pooling", ["mean", "sum", "scaled_sum"])
def test_torch_derivative_of_every_kind(moved, pooling):
    """The layer's own first derivative against finite differences, and what falls back to plain differentiation."""
    module = nfn_torch.NFModule(nfn_core.NFLayer(RECURRENT.group(moved), 2, 1, pooling=pooling), dtype=torch.float64)
    torch.manual_seed(0)
    names, params = list(RECURRENT.by_name), dict(module.named_parameters())
    inputs = [torch.randn(2, *t.shape, 2, dtype=torch.float64, requires_grad=True) for t in RECURRENT.tensors]
    inputs += [p.detach().requires_grad_() for p in params.values()]

    def function(*arrays):
        features, values = dict(zip(names, arrays, strict=False)), dict(zip(params, arrays[3:], strict=True))
        return tuple(torch.func.functional_call(module, values, (features,)).values())

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)
    tangents = [torch.randn_like(x) for x in inputs]
    cotangents = [torch.randn_like(x) for x in function(*inputs)]
    _, forward = torch.func.jvp(function, tuple(inputs), tuple(tangents))
    backward = torch.autograd.grad(function(*inputs), inputs, cotangents)
    one, other = (
        sum((x * y).sum() for x, y in zip(a, b, strict=True)) for a, b in ((forward, cotangents), (backward, tangents))
    )
    torch.testing.assert_close(one, other)
    stacked = torch.func.vmap(function)(*(torch.stack([x, 2 * x]) for x in inputs))
    torch.testing.assert_close([x[0] for x in stacked], list(function(*inputs)))


@pytest.mark.parametrize("wanted", ["tensors", "parameters"])
def test_torch_derivative_takes_no_products_that_nobody_asked_for(wanted):
    """By the inputs of a first layer, and by parameters that are held fixed."""
    group = nfn_core.WeightSpace.mlp([3, 4, 2]).group("HNP")
    module = nfn_torch.NFModule(nfn_core.NFLayer(group, 2, 3))
    features = nfn_torch.WeightSpaceFeatures({t.name: torch.randn(5, *t.shape, 2) for t in group.space.tensors})
    arrays = {"tensors": list(features.values()), "parameters": list(module.parameters())}

    def gradients(by):
        for kind, found in arrays.items():
            for x in found:
                x.requires_grad_(kind in by)
        loss = sum(y.square().sum() for y in module(features).values())
        with torch.profiler.profile() as profile:
            found = torch.autograd.grad(loss, [x for kind in by for x in arrays[kind]])
        return found, sum(e.count for e in profile.key_averages() if e.key in ("aten::mm", "aten::addmm_"))

    both, products = gradients(list(arrays))
    one, fewer = gradients([wanted])
    expected = both[: len(features)] if wanted == "tensors" else both[len(features) :]
    torch.testing.assert_close(one, expected)
    assert fewer == products / 2


def test_torch_derivative_by_tensors_that_nothing_reads_is_zero():
    """Odd features of one tensor and even ones have no grade in common: the output is its constants."""
    group = nfn_core.WeightSpace.from_axes({"W": [("out", 2), ("in", 1)]}, ["in"], ["out"]).group((), signed=["in"])
    module = nfn_torch.NFModule(nfn_core.NFLayer(group, 2, 1, target=group.graded("even")))
    features = nfn_torch.WeightSpaceFeatures({"W": torch.randn(3, 2, 1, 2, requires_grad=True)})
    (gradient,) = torch.autograd.grad(sum(y.sum() for y in module(features).values()), [features["W"]])
    assert gradient.shape == (3, 2, 1, 2)
    assert not gradient.any()


def kept_bytes(module, features):
    """Output of a module, and bytes that its backward pass keeps beside parameters and features."""
    kept = {}

    def keep(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        out = module(features)
    known = {x.data_ptr() for x in (*features.values(), *module.parameters(), *module.buffers())}
    return out, sum(size for pointer, size in kept.items() if pointer not in known)


def test_torch_derivative_keeps_only_inputs_and_pools():
    """What stays alive between the forward and the backward pass, in bytes: no output, no broadcast term."""
    space = nfn_core.WeightSpace.mlp([8, 64, 64, 8])
    module = nfn_torch.NFModule(nfn_core.NFLayer(space.group("NP"), 8, 8))
    features = {t.name: torch.randn(2, *t.shape, 8, requires_grad=True) for t in space.tensors}
    kept = kept_bytes(module, features)[1]
    pools = (
        4 * 2 * 8 * (6 + 3 * 64 + 3 * 64 + 8 + 2 * 8)
    )  # bytes, batch, channels; members of the hubs (), h1, h2, in, out
    assert kept == pools


@pytest.mark.parametrize("checkpoint", [1, 2, 7])
def test_torch_checkpoint_keeps_less_and_changes_nothing(checkpoint):
    layer, features = network(MLP), tensors(draw(MLP, kind="float32"))
    results = []
    for option in (None, checkpoint):
        module = nfn_torch.NFModule(layer, checkpoint=option)
        torch.manual_seed(0)  # of the dropout
        out, kept = kept_bytes(module, features)
        out.square().sum().backward()
        results.append((kept, out, [p.grad for p in module.parameters()]))
    assert results[1][0] < results[0][0] / 2
    torch.testing.assert_close(results[1][1:], results[0][1:], rtol=0, atol=0)
    assert set(module.state_dict()) == set(nfn_core.initialize(layer, 0))


@pytest.mark.slow(seconds=10)
def test_jax_checkpoint_recomputes_and_changes_nothing():
    layer, features = network(MLP), u_jax(draw(MLP, kind="float32"))
    params = nfn_jax.init(layer, 0)

    def loss(p, checkpoint=None):
        return jnp.square(nfn_jax.apply(layer, p, features, jax.random.key(0), checkpoint=checkpoint)).sum()

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    assert "remat" not in str(jax.make_jaxpr(jax.grad(loss))(params))
    plain = gradient(params)
    assert "remat" in str(jax.make_jaxpr(jax.grad(loss), static_argnums=1)(params, 2))
    again = gradient(params, 2)
    for name in params:
        np.testing.assert_allclose(again[name], plain[name], rtol=1e-4, atol=1e-5 * abs(plain[name]).max())


@pytest.mark.parametrize("checkpoint", [0, -1, 1.5, True])
def test_checkpoint_must_be_a_positive_integer(checkpoint):
    with pytest.raises(nfn_core.SpecError, match="checkpoint must be a positive integer"):
        nfn_torch.NFModule(network(MLP), checkpoint=checkpoint)
    with pytest.raises(nfn_core.SpecError, match="checkpoint must be a positive integer"):
        nfn_jax.apply(network(MLP), {}, {}, checkpoint=checkpoint)

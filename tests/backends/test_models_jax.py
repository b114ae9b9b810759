"""Weight spaces of JAX models: plain trees, Linen, NNX and Equinox, from the computation; and back."""

import equinox
import jax
import jax.extend
import jax.numpy as jnp
import nfn_jax
import numpy as np
import pytest
from flax import linen, nnx
from jax.interpreters import mlir
from labels import patterns
from safetensors.flax import save_file

from nfn_core import FeatureError, LabelError


def mlp(params, x):
    for i, (w, b) in enumerate(params):
        x = (jnp.tanh(x) if i else x) @ w + b
    return x


def plain(seed=0, sizes=(3, 4, 2)):
    keys = jax.random.split(jax.random.key(seed), len(sizes))
    return [(jax.random.normal(k, (a, b)), jnp.zeros(b)) for k, a, b in zip(keys, sizes, sizes[1:], strict=False)]


PLAIN = {"0.0": "in h1", "0.1": "h1", "1.0": "h1 out", "1.1": "out"}
X = jnp.ones((2, 3))


def test_plain_tree():
    space = nfn_jax.weight_space(mlp, plain(), X)
    assert patterns(space) == PLAIN
    assert (space.inputs, space.outputs) == (("in",), ("out",))
    assert space.verification.error < space.verification.limit < 1e-10
    assert space.verification.unnecessarily_fixed == ()
    assert space.odd_sets == ("h1",)


def test_signs_are_verified_by_running_the_function():
    def centered(params, x):
        h = jnp.tanh(params["in"] @ x)
        return params["out"] @ (h - h.mean())

    params = {"in": jnp.ones((4, 3)), "out": jnp.ones((2, 4))}
    space = nfn_jax.weight_space(centered, params, jnp.ones(3))
    assert [(s, f) for s, f, _ in space.activations] == [("h1", "tanh")]
    assert space.odd_sets == ()


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda y: jnp.sin(30 * y), ("sin", 30.0)),
        (jax.jit(lambda y: jnp.sin(y * np.float32(30))), ("sin", 30.0)),
        (lambda y: jnp.sin(jnp.asarray(30.0) * y), ("sin", 30.0)),
        (lambda y: jnp.sin(-(y / 0.5)), ("sin", -2.0)),
        (lambda y: jnp.sin(30 * y + 0.1), ("sin", None)),
        (jax.nn.relu, ("relu", 1.0)),
        (lambda y: jnp.maximum(0.0, y), ("relu", 1.0)),
        (jnp.tanh, ("tanh", 1.0)),
    ],
)
def test_activations_and_their_frequency_are_found(function, expected, check_activations):
    def network(params, x):
        for w, b in params[:-1]:
            x = function(x @ w + b)
        return x @ params[-1][0]

    space = nfn_jax.weight_space(network, plain(sizes=(3, 4, 5, 2)), X)
    check_activations(space, expected)


def test_linen_cnn_with_running_statistics():
    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.Conv(4, (3, 3), strides=2)(x)
            x = linen.relu(linen.BatchNorm(use_running_average=True)(x))
            y = linen.GroupNorm(2)(
                linen.Conv(4, (1, 1), feature_group_count=2)(linen.avg_pool(x, (2, 2), (1, 1), "SAME"))
            )
            return linen.Dense(3)((x + y).reshape(len(x), -1))

    x = jnp.ones((2, 6, 6, 2))
    space = nfn_jax.weight_space(Net().apply, Net().init(jax.random.key(0), x), x)
    assert patterns(space) == {
        "batch_stats.BatchNorm_0.mean": "(h1 h2)",
        "batch_stats.BatchNorm_0.var": "(h1 h2)",
        "params.BatchNorm_0.bias": "(h1 h2)",
        "params.BatchNorm_0.scale": "(h1 h2)",
        "params.Conv_0.bias": "(h1 h2)",
        "params.Conv_0.kernel": "3 3 in (h1 h2)",
        "params.Conv_1.bias": "(h1 h2)",
        "params.Conv_1.kernel": "1 1 h2 (h1 h2)",
        "params.Dense_0.bias": "out",
        "params.Dense_0.kernel": "(9 h1 h2) out",
        "params.GroupNorm_0.bias": "(h1 h2)",
        "params.GroupNorm_0.scale": "(h1 h2)",
    }


def test_linen_recurrent_and_attention():
    class Net(linen.Module):
        @linen.compact
        def __call__(self, tokens):
            x = linen.Embed(7, 4)(tokens)
            x = x + linen.MultiHeadDotProductAttention(2)(linen.LayerNorm()(x))
            return linen.Dense(2)(linen.RNN(linen.LSTMCell(3))(x)[:, -1])

    tokens = jnp.zeros((2, 3), int)
    space = nfn_jax.weight_space(Net().apply, Net().init(jax.random.key(0), tokens), tokens)
    found = patterns(space)
    head = "params.MultiHeadDotProductAttention_0."
    stream = found["params.Embed_0.embedding"].removeprefix("in ")
    first, heads, inside = found[head + "query.kernel"].split()
    assert first == stream
    assert found[head + "key.kernel"] == f"{stream} {heads} {inside}"
    values = found[head + "value.kernel"].split()[2]
    assert values != inside  # queries and keys share an order that values need not have
    assert found[head + "out.kernel"] == f"{heads} {values} {stream}"
    cell = next(name for name in found if name.endswith("hf.kernel"))
    left, right = found[cell].split()
    assert left == right  # a repeated label
    assert head + "key.bias" in space.verification.untested  # softmax does not see it


def test_nnx():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first, self.norm = nnx.Linear(3, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs)
            self.drop, self.last = nnx.Dropout(0.5, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)

        def __call__(self, x):
            return self.last(self.drop(nnx.relu(self.norm(self.first(x)))))

    model = Net(nnx.Rngs(0))
    model.eval()
    graph, state = nnx.split(model)
    space = nfn_jax.weight_space(lambda s, x: nnx.merge(graph, s)(x), state, X)
    assert patterns(space) == {
        "first.bias": "h1",
        "first.kernel": "in h1",
        "last.bias": "out",
        "last.kernel": "h1 out",
        "norm.bias": "h1",
        "norm.mean": "h1",
        "norm.scale": "h1",
        "norm.var": "h1",
    }
    (again,) = nfn_jax.unstack(space, nfn_jax.stack(space, [state]), like=state)
    np.testing.assert_array_equal(nnx.merge(graph, again)(X), model(X))


def test_equinox():
    model = equinox.nn.MLP(3, 2, 4, 2, key=jax.random.key(0))
    space = nfn_jax.weight_space(lambda m, x: m(x), model, X[0])
    assert patterns(space)["layers.1.weight"] == "h2 h1"
    assert patterns(space)["layers.2.bias"] == "out"
    (again,) = nfn_jax.unstack(space, nfn_jax.stack(space, [model]), like=model)
    assert isinstance(again, equinox.nn.MLP)
    np.testing.assert_array_equal(again(X[0]), model(X[0]))


def test_loops_and_choices():
    def network(p, x):
        x = jax.lax.fori_loop(0, 3, lambda i, h: jnp.tanh(h @ p["R"] + i), x @ p["W"])
        return jax.lax.cond(x.sum() > 0, lambda h: h, lambda h: 2 * h, x) @ p["V"]

    params = {"R": jnp.eye(4), "V": jnp.ones((4, 2)), "W": jnp.ones((3, 4))}
    assert patterns(nfn_jax.weight_space(network, params, X)) == {"R": "h1 h1", "V": "h1 out", "W": "in h1"}


def test_what_a_short_example_does_not_reach_is_fixed():
    def network(p, x):
        return jax.nn.softmax(jnp.tanh(x @ p["W"] + p["positions"][: x.shape[1]]), 1) @ p["V"]

    params = {"V": jnp.ones((4, 2)), "W": jnp.ones((3, 4)), "positions": jnp.ones((16, 4))}
    space = nfn_jax.weight_space(network, params, jnp.ones((2, 5, 3)))
    assert patterns(space)["positions"] == "16 h1"
    assert "does not read" in dict(space.fixed)["positions"]
    assert patterns(nfn_jax.weight_space(network, params, jnp.ones((2, 16, 3))))["positions"] == "in2 h1"


def test_constants_of_stacked_trees_are_those_of_the_first():
    def network(p, x):
        return (jnp.tanh(x @ p["W"]) * p["mask"]) @ p["V"]

    def masked(*mask):
        return {"V": jnp.ones((4, 2)), "W": jnp.ones((3, 4)), "mask": jnp.asarray(mask)}

    for function in (network, jax.jit(network)):
        space = nfn_jax.weight_space(function, masked(1, 1, 1, 1), X)
        assert [(name, axes) for name, _, axes in space.constants] == [("mask", (0,))]
    nfn_jax.stack(space, [masked(1, 1, 1, 1)])
    with pytest.raises(FeatureError, match=r"constant 'mask' of model 0 differs along axes \[0\]"):
        nfn_jax.stack(space, [masked(1, 0, 1, 1)])


def test_packed_queries_and_keys_part_from_values():
    def network(p, x):
        q, k, v = (x @ p["W"]).reshape(2, 3, 3, 2, 4).transpose(2, 0, 3, 1, 4)
        y = jax.nn.softmax(q @ k.swapaxes(-1, -2)) @ v
        return y.transpose(0, 2, 1, 3).reshape(2, 3, 8) @ p["V"]

    params = {"V": jax.random.normal(jax.random.key(0), (8, 6)), "W": jax.random.normal(jax.random.key(1), (6, 24))}
    found = patterns(nfn_jax.weight_space(network, params, jnp.ones((2, 3, 6))))
    assert found == {"V": "(h1 h2) out", "W": "in ((h1 h3) + (h1 h3) + (h1 h2))"}


def test_only_indexed_axes_are_fixed():
    def network(p, x):
        return (x @ p["W"])[jnp.arange(2), jnp.array([1, 0])] @ p["V"]

    assert patterns(nfn_jax.weight_space(network, WV, jnp.ones((2, 3, 3)))) == {"V": "h1 out", "W": "in h1"}


def test_round_trip_gradients_and_files(tmp_path):
    models = [plain(seed) for seed in range(3)]
    space = nfn_jax.weight_space(mlp, models[0], X)
    grads = [jax.grad(lambda p: mlp(p, X).sum())(m) for m in models]
    features = nfn_jax.stack(space, models, grads)
    assert features["0.0"].shape == (3, 3, 4, 2)
    for channel, trees in enumerate((models, grads)):
        for tree, again in zip(trees, nfn_jax.unstack(space, features, models[0], channel), strict=True):
            jax.tree.map(np.testing.assert_array_equal, tree, again)
    for k, model in enumerate(models):
        save_file(nfn_jax.leaves(model), tmp_path / str(k))
    first, second = nfn_jax.stream(space, [tmp_path / str(k) for k in range(3)], 2)
    np.testing.assert_array_equal(jnp.concatenate([first["1.0"], second["1.0"]]), features["1.0"][..., :1])
    with pytest.raises(FeatureError, match=r"model 0 lacks tensor '1\.0'"):
        nfn_jax.stack(space, [models[0][:1]])


def branching(p, x):
    return mlp(p, x) if x.sum() > 0 else x


mystery_p = jax.extend.core.Primitive("mystery")
mystery_p.def_abstract_eval(lambda x: jax.core.ShapedArray(x.shape, x.dtype))
mlir.register_lowering(mystery_p, mlir.lower_fun(lambda x: jnp.cumsum(x, 1), multiple_results=False))


def mysterious(p, x):
    return mlp(p[1:], mystery_p.bind(mlp(p[:1], x)))


BAD = {
    "control flow": (branching, plain(), {}, "cannot be traced in branching, .*test_models_jax.py"),
    "unsupported": (mysterious, plain(), {}, r"primitive mystery\[0\] .*labels=\{'mystery\[0\]'"),
    "dtypes": (mlp, [(w.astype("float16"), b) for w, b in plain()], {}, r"'0\.1' is float32, but '0\.0' is float16"),
    "no arrays": (lambda p, x: x, {}, {}, "no floating-point array"),
    "unknown label": (mlp, plain(), {"W": "a b"}, "no such tensor"),
    "wrong label": (
        mlp,
        plain(),
        PLAIN | {"1.0": "_ out", "input[0]": "_ in", "output[0]": "_ out"},
        "'1.0' breaks it",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_errors_name_the_node(case):
    function, params, labels, message = BAD[case]
    with pytest.raises(LabelError, match=message):
        nfn_jax.weight_space(function, params, X, labels=labels)


def test_a_label_makes_an_unsupported_primitive_usable():
    space = nfn_jax.weight_space(mysterious, plain(), X, labels={"mystery[0]": "_ _"})
    assert patterns(space) == {"0.0": "in 4", "0.1": "4", "1.0": "4 out", "1.1": "out"}


def test_fixed_sets_that_could_move_are_reported():
    space = nfn_jax.weight_space(mlp, plain(), X, labels={"0.1": "_"})
    assert space.verification.unnecessarily_fixed == ("axis 1 of '0.0'",)


def root(p, x):
    """RMSNorm as it is written in half-precision networks, between two layers; a float32 array of its own."""
    y = (x @ p["W"]).astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + np.float32(1e-6))
    return (jnp.tanh(y).astype(jnp.bfloat16) @ p["V"].astype(jnp.bfloat16) + jnp.ones(2, jnp.float32)).astype(
        jnp.float32
    )


WV = {"V": jax.random.normal(jax.random.key(0), (4, 2)), "W": jax.random.normal(jax.random.key(1), (3, 4))}

BOTH = {"input[0]": "_ in", "output[0]": "_ out"}


@pytest.mark.parametrize("function", [root, jax.jit(root)])
def test_casts_run_in_double_precision(function):
    for seed in range(3):
        space = nfn_jax.weight_space(function, WV, X, seed=seed)
        assert space.verification.error < space.verification.limit < 1e-11
        assert space.verification.dtype == "float64"
    with pytest.raises(LabelError, match="is no symmetry"):
        nfn_jax.weight_space(function, WV, X, labels=BOTH | {"W": "in h", "V": "_ out"})


def test_a_function_that_cannot_be_traced_runs_as_it_is():
    def function(p, x):
        return (jnp.tanh(x @ p["W"]) @ p["V"]).astype(jnp.float32) if float(x.sum()) < 1e9 else x

    labels = BOTH | {"W": "in h", "V": "h out"}
    found = nfn_jax.weight_space(function, WV, X, labels=labels)
    assert found.verification.dtype == "float32"
    assert found.verification.unreached == ("what a network without a graph chooses was not watched",)


def flipping(branch):
    return lambda p, x: branch(x, x @ p["W"]) @ p["V"]


FLIPPED = {
    "where": lambda x, h: jnp.where(x.sum(-1, keepdims=True) > 50, h[:, ::-1], h),
    "cond": lambda x, h: jax.lax.cond(x.sum() > 50, lambda y: y[:, ::-1], lambda y: y, h),
    "dead units": lambda x, h: h + jax.nn.relu(h - 20)[:, ::-1],
    "in a scan": lambda x, h: jax.lax.fori_loop(0, 2, lambda i, y: y + jnp.maximum(y - 20, 0)[:, ::-1], h),
}


@pytest.mark.parametrize("name", FLIPPED)
def test_probes_reach_what_the_first_inputs_do_not(name):
    function = flipping(FLIPPED[name])
    space = nfn_jax.weight_space(function, WV, X)
    assert patterns(space) == {"V": "4 out", "W": "in 4"}
    assert space.verification.unreached == ()
    assert len(space.verification.probes) > 1
    assert space.verification.unnecessarily_fixed == ()  # the first inputs alone do not show the flip


def test_what_no_probe_reaches_is_said():
    never = flipping(lambda x, h: jnp.where(h > 1e9, -h, h))
    assert nfn_jax.weight_space(never, WV, X).verification.unreached == ("select_n was always false",)
    hidden = flipping(lambda x, h: jax.lax.while_loop(lambda y: y.max() > 1e9, lambda y: jnp.where(y > 0, y, -y), h))
    assert nfn_jax.weight_space(hidden, WV, X).verification.unreached == (
        "what is chosen inside a while loop was not watched",
    )

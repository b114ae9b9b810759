"""Models in and out of features, alike in PyTorch, JAX and NumPy: nothing is lost, cast, filled in or shared unsaid."""

from pathlib import Path

import jax
import jax.numpy as jnp
import nfn_jax
import nfn_torch
import numpy as np
import pytest
import safetensors.flax
import safetensors.numpy
import safetensors.torch
import torch

from nfn_core import FeatureError, LabelError, ModelSpace, ParameterError, SpecError, StackWarning

SHAPES = {"0.weight": (4, 3), "0.bias": (4,), "1.mean": (4,), "2.weight": (2, 7)}
SPACE = ModelSpace.from_patterns(
    SHAPES, {"0.weight": "h in", "0.bias": "h", "1.mean": "h", "2.weight": "out (h + in)"}, ["in"], ["out"]
)
LIBRARY = {"torch": nfn_torch, "jax": nfn_jax, "numpy": None}
CONVERT = {"torch": torch.tensor, "jax": jnp.asarray, "numpy": np.array}
SAVE = {"torch": safetensors.torch, "jax": safetensors.flax, "numpy": safetensors.numpy}
BACKENDS = pytest.mark.parametrize("backend", CONVERT)
ADAPTERS = pytest.mark.parametrize("backend", ["torch", "jax"])


def model(backend, seed=0, kind="float32"):
    rng = np.random.default_rng(seed)
    return {name: CONVERT[backend](rng.normal(size=shape).astype(kind)) for name, shape in SHAPES.items()}


def stack(backend, *channels, **options):
    return (SPACE.stack if backend == "numpy" else lambda *c, **o: LIBRARY[backend].stack(SPACE, *c, **o))(
        *channels, **options
    )


def unstack(backend, features, like, channel=0):
    return (
        SPACE.unstack(features, channel)
        if backend == "numpy"
        else LIBRARY[backend].unstack(SPACE, features, like, channel)
    )


def without(m, *names):
    return {name: x for name, x in m.items() if name not in names}


def prefixed(m, prefix):
    return {prefix + name: x for name, x in m.items()}


BAD = {
    "a path": (lambda m, c: "model.pth", r"model 0 is a str: a file is read by `stream`"),
    "a path of pathlib": (lambda m, c: Path("model.pth"), r"model 0 is a pathlib\._local\.PosixPath|Path: a file"),
    "other names": (
        lambda m, c: {"a": m["0.weight"], "b": m["0.bias"]},
        r"none of the tensors .*expected '0.weight', .*, but its entries are 'a', 'b'",
    ),
    "two prefixes": (lambda m, c: prefixed(m, "a.") | {"b.0.weight": m["0.weight"]}, "has none of the tensors"),
    "no values": (lambda m, c: dict.fromkeys(m), "has no values at all"),
    "missing": (lambda m, c: without(m, "1.mean"), r"lacks tensor '1\.mean', its entries are '.*or `fill`"),
    "shape": (lambda m, c: m | {"0.bias": c(np.ones(5, "float32"))}, r"'0\.bias' of model 0: expected shape \(4,\)"),
    "dtype": (
        lambda m, c: m | {"0.bias": c(np.ones(4, "float16"))},
        r"'0\.bias' of model 0 has dtype .*float16, but tensor '0\.weight' of model 0 has .*float32: cast",
    ),
    "booleans": (
        lambda m, c: m | {"0.weight": c(np.ones((4, 3), bool))},
        r"'0\.weight' of model 0: expected a real floating dtype, not .*bool",
    ),
    "a list": (lambda m, c: m | {"0.bias": (1.0,) * 4}, r"'0\.bias' of model 0 is a tuple|lacks tensor '0.bias'"),
}


@BACKENDS
@pytest.mark.parametrize("case", BAD)
def test_bad_models(backend, case):
    change, message = BAD[case]
    stack(backend, [model(backend)])
    with pytest.raises(FeatureError, match=message):
        stack(backend, [change(model(backend), CONVERT[backend])])


@BACKENDS
def test_bad_calls(backend):
    good = model(backend)
    with pytest.raises(FeatureError, match=r"channel 0 is a dict: give a list of models"):
        stack(backend, good)
    with pytest.raises(FeatureError, match=r"same positive number of models for every channel, not \[1, 2\]"):
        stack(backend, [good], [good, good])
    with pytest.raises(FeatureError, match="fill must be a number, not 'zero'"):
        stack(backend, [good], fill="zero")
    with pytest.raises(
        FeatureError, match=r"'0.weight' of model 1 has dtype .*float16, but .* of model 0 has .*float32"
    ):
        stack(backend, [good, model(backend, kind="float16")])
    with pytest.raises(FeatureError, match="model 0 of channel 1 has none"):
        stack(backend, [good], [{"a": good["0.weight"]}], fill=0.0)
    features = stack(backend, [good])
    for channel in (1, -2, 0.5, True, "0"):
        with pytest.raises(FeatureError, match=f"no channel {channel!r}"):
            unstack(backend, features, good, channel)


@ADAPTERS
def test_arrays_of_another_library(backend):
    other = {"torch": "numpy", "jax": "numpy"}[backend]
    wanted = {"torch": "torch.Tensor", "jax": "jax.Array"}[backend]
    with pytest.raises(FeatureError, match=f"'0.weight' of model 1 is a numpy.ndarray, not a {wanted}: convert it"):
        stack(backend, [model(backend), model(other)])


@pytest.mark.parametrize("backend", ["torch", "numpy"])  # in JAX a checkpoint is a tree, whose names share a prefix
def test_nested_checkpoints_are_named(backend):
    with pytest.raises(
        FeatureError, match="its entries are 'epoch', 'state_dict': its tensors are in entry 'state_dict'"
    ):
        stack(backend, [{"epoch": 3, "state_dict": model(backend)}])


@BACKENDS
def test_what_the_space_does_not_name_is_left_out(backend):
    good = model(backend)
    extra = good | {"steps": CONVERT[backend](np.array(3)), "epoch": 3, "note": "text", "nothing": None}
    features = stack(backend, [extra])
    np.testing.assert_array_equal(features["0.weight"][0, ..., 0], good["0.weight"])


@BACKENDS
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_a_prefix_of_all_names_is_left_out_and_said(backend, prefix):
    good = model(backend)
    with pytest.warns(StackWarning, match=rf"names of 1 of 2 models of channel 1 all begin with '{prefix}'"):
        features = stack(backend, [good, good], [prefixed(good, prefix), good])
    np.testing.assert_array_equal(features["2.weight[1]"][..., 0], features["2.weight[1]"][..., 1])


@BACKENDS
def test_what_is_filled_is_counted(backend):
    good = model(backend)
    with pytest.warns(
        StackWarning, match=r"fill=-1.5 stands for 2 of 4 tensors of channel 1, in up to 2 of 2 models: '1."
    ):
        features = stack(
            backend, [good, good], [without(good, "1.mean", "2.weight"), without(good, "1.mean")], fill=-1.5
        )
    np.testing.assert_array_equal(features["1.mean"][..., 1], np.full((2, 4), -1.5))
    np.testing.assert_array_equal(features["2.weight[0]"][0, ..., 1], np.full((2, 4), -1.5))
    np.testing.assert_array_equal(features["0.bias"][..., 1], features["0.bias"][..., 0])


@BACKENDS
def test_a_tensor_that_no_model_has_is_not_filled(backend):
    with pytest.raises(FeatureError, match="'1.mean' is missing from every model and channel: `fill` needs one"):
        stack(backend, [without(model(backend), "1.mean")], fill=0.0)


@BACKENDS
def test_states_have_memory_of_their_own(backend, tmp_path):
    features = stack(backend, [model(backend, k) for k in range(50)], [model(backend, 50 + k) for k in range(50)])
    first, second = (unstack(backend, features, model(backend), channel)[3] for channel in (0, 1))
    entries = sum(int(np.prod(shape)) for shape in SHAPES.values())
    both = prefixed(first, "first.") | prefixed(second, "second.")
    SAVE[backend].save_file(both, tmp_path / "both")
    assert (tmp_path / "both").stat().st_size < 4 * 2 * entries + 1000
    again = SAVE[backend].load_file(tmp_path / "both")
    np.testing.assert_array_equal(again["second.2.weight"], model(backend, 53)["2.weight"])
    SAVE[backend].save_file(dict(features), tmp_path / "features")
    if backend == "torch":
        torch.save(first, tmp_path / "first")
        assert (tmp_path / "first").stat().st_size < 4 * entries + 4000
    if backend != "jax":
        before = np.asarray(features["0.weight"]).copy()
        first["0.weight"][...] = 7
        np.testing.assert_array_equal(features["0.weight"], before)


@ADAPTERS
def test_gradients_of_a_critic_reach_the_networks(backend):
    """Through `stack`, through `unstack`, and not where they are cut off."""

    def judge(weight, detach=False):
        features = stack(backend, [model(backend) | {"0.weight": weight}], detach=detach)
        (state,) = unstack(backend, features, model(backend))
        return (state["0.weight"] ** 2).sum() + (features["0.weight"] ** 2).sum()

    weight = model(backend)["0.weight"]
    if backend == "jax":
        found, cut = jax.grad(judge)(weight), jax.grad(lambda w: judge(w, True))(weight)
        np.testing.assert_array_equal(cut, jnp.zeros((4, 3)))
    else:
        (found,) = torch.autograd.grad(judge(weight.requires_grad_()), weight)
        assert not judge(weight, True).requires_grad
    np.testing.assert_allclose(found, 4 * weight.detach() if backend == "torch" else 4 * weight, rtol=1e-6)


def test_gradients_reach_parameters_of_modules():
    modules = [torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2)) for _ in range(2)]
    space = nfn_torch.weight_space(modules[0], torch.zeros(1, 3))
    critic = torch.nn.Linear(12, 1)
    critic(nfn_torch.stack(space, modules)["0.weight"].reshape(2, 12)).sum().backward()
    torch.testing.assert_close(modules[1][0].weight.grad, critic.weight.reshape(4, 3))
    assert not nfn_torch.stack(space, modules, detach=True)["0.weight"].requires_grad
    with pytest.raises(FeatureError, match="channel 0 is a single module: give a list"):
        nfn_torch.stack(space, modules[0])
    assert nfn_torch.stack(space, torch.nn.ModuleList(modules))["0.bias"].shape == (2, 4, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.to("meta"), "'0.weight' of model 0 has no values yet"),
        (lambda x: x.to_sparse(), r"'0.weight' of model 0 has layout torch.sparse_coo: give x.to_dense\(\)"),
        (lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8), r"is quantized .*: give x.dequantize\(\)"),
        (lambda x: torch.nn.UninitializedParameter(), "'0.weight' of model 0 has no values yet"),
    ],
    ids=["meta", "sparse", "quantized", "lazy"],
)
@pytest.mark.filterwarnings("ignore:.*quantize.*")
def test_tensors_that_cannot_be_stacked(change, message):
    good = model("torch")
    bad = good | {"0.weight": change(good["0.weight"])}
    with pytest.raises(FeatureError, match=message):
        nfn_torch.stack(SPACE, [bad])
    features = nfn_torch.stack(SPACE, [good])
    with pytest.raises(FeatureError, match=message.replace("model 0", "`like`")):
        nfn_torch.unstack(SPACE, features, bad)


@ADAPTERS
def test_like_must_be_of_the_architecture(backend):
    features, good = stack(backend, [model(backend)]), model(backend)
    for like, message in (
        (without(good, "0.bias"), r"`like` lacks tensors \['0.bias'\] of the space, it has \['0.weight'"),
        (prefixed(good, "module."), r"`like` lacks tensors .*, it has \['module.0"),
        (good | {"0.bias": good["0.weight"]}, r"'0.bias' of `like` has shape \(4, 3\), but that of the space \(4,\)"),
    ):
        with pytest.raises(FeatureError, match=message):
            unstack(backend, features, like)
    (again,) = unstack(backend, features, good | {"step": CONVERT[backend](np.array(3))})
    assert int(again["step"]) == 3


def test_modules_hold_the_edited_values_or_it_is_an_error():
    good = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    space = nfn_torch.weight_space(good, torch.zeros(1, 3))
    features = nfn_torch.stack(space, [torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))], detach=True)
    (edited,) = nfn_torch.unstack(space, features, good)
    assert torch.equal(edited[1].weight, features["1.weight"][0, ..., 0])
    assert not torch.equal(good[1].weight, edited[1].weight)
    tied = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    with pytest.raises(FeatureError, match="`like` does not take the values of tensor '0.weight': it is tied"):
        nfn_torch.unstack(space, features, tied)
    with pytest.raises(
        FeatureError, match="'0.weight' of `like` has dtype torch.float64, but the features have torch.float32"
    ):
        nfn_torch.unstack(space, features, torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)).double())
    with pytest.raises(FeatureError, match="`like` must be a module or a state dict, not a list"):
        nfn_torch.unstack(space, features, [good])
    # A tensor that the space does not name is tied to one that it names.
    part = ModelSpace.from_patterns({"0.weight": (3, 3)}, {"0.weight": "h in"})
    (edited,) = nfn_torch.unstack(part, {"0.weight": features["0.weight"]}, tied)
    assert torch.equal(edited[1].weight, features["0.weight"][0, ..., 0])
    # What the space does not name is copied.
    like = good.state_dict() | {"steps": torch.zeros(())}
    (state,) = nfn_torch.unstack(space, features, like)
    state["steps"] += 1
    assert like["steps"] == 0


def test_tied_tensors_that_are_no_numbers():
    space = ModelSpace((type(SPACE.views[0])("a", SPACE.views[1].axes, ("b",)),))
    x = np.array([np.nan, 1, 2, 3])
    assert space.stack([{"a": x, "b": x.copy()}])["a"].shape == (1, 4, 1)
    with pytest.raises(FeatureError, match="a, b are one tied tensor"):
        space.stack([{"a": x, "b": x + 1}])


def test_leaves_of_a_tree_with_one_name():
    tree = {"a.b": jnp.ones(3), "a": {"b": jnp.zeros(3)}}
    with pytest.raises(LabelError, match=r"leaves \['a'\]\['b'\] and \['a.b'\] of the tree both"):
        nfn_jax.leaves(tree)


@ADAPTERS
def test_stream_says_which_file(backend, tmp_path):
    for k in range(3):
        SAVE[backend].save_file(model(backend, k), tmp_path / f"{k}")
    paths = [tmp_path / f"{k}" for k in range(3)]
    assert [len(u["0.bias"]) for u in LIBRARY[backend].stream(SPACE, paths, 2)] == [2, 1]
    SAVE[backend].save_file(without(model(backend), "0.bias"), paths[1])
    with pytest.raises(FeatureError, match=f"file '{paths[1]}' lacks tensor '0.bias'"):
        list(LIBRARY[backend].stream(SPACE, paths, 2))
    for batch in (0, -1, 1.5, "2", True):
        with pytest.raises(SpecError, match="batch must be a positive integer"):
            LIBRARY[backend].stream(SPACE, paths, batch)
    with pytest.raises(FeatureError, match="paths must be several, not "):
        LIBRARY[backend].stream(SPACE, str(paths[0]), 2)
    with pytest.raises(ParameterError, match="cannot read"):
        list(LIBRARY[backend].stream(SPACE, [tmp_path / "absent"], 2))

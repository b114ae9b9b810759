"""Models as they come: keyword inputs, wrappers, a choice of tensors, adapters, names of leaves, sizes, errors."""

from collections import UserDict
from dataclasses import replace

import equinox
import jax
import jax.numpy as jnp
import nfn_jax
import nfn_torch
import numpy as np
import pytest
import torch
from flax import nnx
from labels import patterns
from torch import nn
from torch._higher_order_ops.while_loop import while_loop
from torch.nn.utils import prune

from nfn_core import FeatureError, LabelError, ModelSpace, NFNError, SizeWarning, SpecError
from reference_experiments.demos.small_networks import Network

X = torch.randn(2, 3)
PLAIN = {"0.weight": "h1 in", "0.bias": "h1", "2.weight": "out h1", "2.bias": "out"}


def mlp():
    return nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 2))


def two(function, **modules):
    return Network(function, a=nn.Linear(3, 4), b=nn.Linear(4, 2), **modules)


TWO = {"a.weight": "h1 in", "a.bias": "h1", "b.weight": "out h1", "b.bias": "out"}


def derived(module, *inputs, **options):
    space = nfn_torch.weight_space(module, *inputs, **options)
    assert space.verification.error < space.verification.limit
    return patterns(space)


def masked(m, ids, extra=None, scale=1.0, mask=None):
    return m.b(m.a(ids).sigmoid()) * mask * extra["by"] * scale


def test_inputs_by_keyword_and_as_mappings():
    mask, by = torch.ones(2, 1), torch.ones(2, 1)
    assert derived(two(masked), X, mask=mask, scale=2.0, extra={"by": by}) == TWO
    assert derived(two(masked), mask=mask, ids=X, extra=UserDict(by=by)) == TWO
    space = nfn_torch.weight_space(two(masked), mask=mask, ids=X, extra={"by": by}, labels={"input[1]": "_ pixels"})
    assert patterns(space)["a.weight"] == "h1 pixels"
    with pytest.raises(LabelError, match="cannot be run on its example inputs.*unexpected keyword"):
        nfn_torch.weight_space(mlp(), X, mask=mask)

    def network(p, x, scale=True, mask=None):
        return jnp.tanh(x @ p["a"]) @ p["b"] * mask if scale else x

    tree = {"a": jnp.ones((3, 4)), "b": jnp.ones((4, 2))}
    space = nfn_jax.weight_space(network, tree, jnp.ones((2, 3)), scale=True, mask=jnp.ones((2, 1)))
    assert patterns(space) == {"a": "in h1", "b": "h1 out"}


def cached():
    module, kept = mlp(), {}
    module[0].register_forward_hook(lambda m, args, out: setattr(m, "cache", out))
    module[2].register_forward_hook(lambda m, args, out: kept.update(out=out))
    module.kept = kept
    module(X)
    return module


def normalized(function, *options):
    module = mlp()
    function(module[0], *options)
    return module


def functional():
    module = Network(lambda m, x: torch.func.functional_call(m.net, m.kept, x), net=mlp())
    module.kept = dict(module.net.named_parameters())
    return module


HALF = {name: pattern for name, pattern in PLAIN.items() if name != "0.weight"}
WRAPPED = {
    "data parallel": (lambda: nn.DataParallel(mlp()), PLAIN),
    "compiled": (lambda: torch.compile(mlp()), PLAIN),
    "compiled twice": (lambda: nn.DataParallel(torch.compile(mlp())), PLAIN),
    "averaged": (lambda: torch.optim.swa_utils.AveragedModel(mlp()), PLAIN),
    "compiled inside": (lambda: nn.Sequential(torch.compile(mlp())), {f"0.{n}": p for n, p in PLAIN.items()}),
    "cached outputs": (cached, PLAIN),
    "functional": (functional, {f"net.{n}": p for n, p in PLAIN.items()}),
    "old weight norm": (
        lambda: normalized(nn.utils.weight_norm),
        HALF | {"0.weight_g": "h1 1", "0.weight_v": "h1 in"},
    ),
    "old spectral norm": (
        lambda: normalized(nn.utils.spectral_norm),
        HALF | {"0.weight_orig": "h1 in", "0.weight_u": "h1", "0.weight_v": "in"},
    ),
    "pruned": (
        lambda: normalized(prune.random_unstructured, "weight", 0.5),
        HALF | {"0.weight_orig": "h1 in", "0.weight_mask": "h1 in"},
    ),
}


@pytest.mark.parametrize("case", WRAPPED)
@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_wrapped_models_are_looked_through_there_and_back(case):
    make, expected = WRAPPED[case]
    module = make()
    training = [child.training for child in module.modules()]
    space = nfn_torch.weight_space(module, X)
    assert patterns(space) == expected
    assert [child.training for child in module.modules()] == training
    before = {name: x.clone() for name, x in module.state_dict().items()}
    features = nfn_torch.stack(space, [module], detach=True)
    (again,) = nfn_torch.unstack(space, {name: 2 * x for name, x in features.items()}, module)
    assert type(again) is type(module)
    for name, x in again.state_dict().items():
        assert torch.equal(x, 2 * before[name] if x.is_floating_point() else before[name])
    assert all(torch.equal(x, before[name]) for name, x in module.state_dict().items())


def test_a_wrapped_model_and_a_plain_one_are_of_one_space():
    space = nfn_torch.weight_space(torch.compile(mlp()), X)
    plain = mlp()
    features = nfn_torch.stack(space, [plain, nn.DataParallel(mlp())], detach=True)
    (edited, _) = nfn_torch.unstack(space, features, nn.DataParallel(mlp()))
    assert torch.equal(edited.module[0].weight, plain[0].weight)


def test_what_cannot_be_copied_is_said():
    module = mlp()
    module.lock = (x for x in ())
    with pytest.raises(LabelError, match="cannot be copied: TypeError: .*generator"):
        nfn_torch.weight_space(module, X)


class LoRA(nn.Module):
    def __init__(self, inputs, outputs, rank):
        super().__init__()
        self.base = nn.Linear(inputs, outputs)
        self.lora_A, self.lora_B = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=False)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x):
        return self.base(x) + self.lora_B(self.lora_A(x))


ADAPTED = {
    "0.lora_A.weight": "h1 3",
    "0.lora_B.weight": "4 h1",
    "2.lora_A.weight": "h2 4",
    "2.lora_B.weight": "2 h2",
}


def test_adapters_alone_are_a_space_and_their_base_is_held_fixed():
    net = nn.Sequential(LoRA(3, 4, 2), nn.Sigmoid(), LoRA(4, 2, 2))
    space = nfn_torch.weight_space(net, X, tensors="*lora_*")
    assert patterns(space) == ADAPTED
    assert "a tensor that is held fixed" in dict(space.fixed)["2.lora_A.weight"]
    adapters = {name: torch.ones_like(x) for name, x in net.state_dict().items() if "lora" in name}
    (edited,) = nfn_torch.unstack(space, nfn_torch.stack(space, [adapters]), net)
    assert torch.equal(edited[0].base.weight, net[0].base.weight)
    assert edited[0].lora_B.weight.eq(1).all()
    # The same from the checkpoint alone, as PEFT writes it.
    checkpoint = {f"base_model.model.{name}": tuple(x.shape) for name, x in adapters.items()}
    space = ModelSpace.from_adapters(checkpoint | {"base_model.model.score.weight": (2, 3)})
    assert patterns(space) == {
        f"base_model.model.{name}": pattern.replace("h", "r") for name, pattern in ADAPTED.items()
    }


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"a.weight": (3, 4)}, "no pair of factors such as 'x.lora_A.weight'"),
        ({"a.lora_A.weight": (3, 4)}, "no partner of factor 'a.lora_A.weight'"),
        ({"a.lora_A.weight": (3, 4), "a.lora_B.weight": (4, 2)}, r"of shape \(4, 2\) with different ranks"),
        ({"a.lora_A.weight": np.ones((3, 4))}, "shape of tensor 'a.lora_A.weight'"),
        ({3: (3, 4)}, "the name of a tensor in shapes must be a str"),
    ],
)
def test_bad_adapters(shapes, message):
    with pytest.raises(NFNError, match=message):
        ModelSpace.from_adapters(shapes)


def test_patterns_are_asked_for_and_constants_named_once():
    space = ModelSpace.from_adapters({"a.lora_A.weight": (3, 4), "a.lora_B.weight": (2, 3)})
    with pytest.raises(SpecError, match="tensors must be"):
        space.only(None)
    with pytest.raises(SpecError, match="constants names 'mask' twice"):
        replace(space, constants=(("mask", "int32:0", (0,)),) * 2)


def test_adapters_of_embeddings_and_of_other_trainers():
    shapes = {"e.lora_embedding_A": (2, 9), "e.lora_embedding_B": (4, 2), "c_lora_down.weight": (3, 4, 1, 1)}
    shapes |= {"c_lora_up.weight": (5, 3, 1, 1), "c_lora.alpha": (), "q.lora_magnitude_vector": (7,)}
    assert list(patterns(ModelSpace.from_adapters(shapes)).values()) == [
        "r1 9",
        "4 r1",
        "r2 4 1 1",
        "5 r2 1 1",
        "",
        "7",
    ]


def test_a_choice_of_tensors():
    net = nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 5), nn.Sigmoid(), nn.Linear(5, 2))
    expected = {"2.weight": "h1 4", "2.bias": "h1", "4.weight": "out h1", "4.bias": "out"}
    assert derived(net, X, tensors=["2.*", "4.*"]) == derived(net, X, tensors=["*", "!0.*"]) == expected
    for bad, message in (
        ("1.*", r"pattern '1\.\*' matches no name"),
        (["*", "!*"], "chooses none"),
        (3, "must be patterns of names"),
        ([3], "must be patterns of names"),
    ):
        with pytest.raises(LabelError, match=message):
            nfn_torch.weight_space(net, X, tensors=bad)

    def network(p, x):
        return jnp.tanh(x @ p["w"] + x @ p["A"] @ p["B"]) @ p["v"]

    tree = {"A": jnp.ones((3, 2)), "B": jnp.zeros((2, 4)), "v": jnp.ones((4, 2)), "w": jnp.ones((3, 4))}
    space = nfn_jax.weight_space(network, tree, jnp.ones((2, 3)), tensors=["A", "B"])
    assert patterns(space) == {"A": "3 h1", "B": "h1 4"}  # though all entries of w are one number
    (edited,) = nfn_jax.unstack(space, nfn_jax.stack(space, [{"A": tree["A"], "B": tree["B"] + 1}]), tree)
    assert edited["w"] is tree["w"]
    assert edited["B"].min() == 1


def test_some_tensors_of_a_space_keep_its_group():
    space = nfn_torch.weight_space(mlp(), X)
    part = space.only(["*", "!0.*"])
    assert patterns(part) == {"2.weight": "out h1", "2.bias": "out"}
    assert (part.inputs, part.outputs, part.activations) == ((), ("out",), ())
    assert part.group("HNP").permuted == ("h1",)
    with pytest.raises(LabelError, match="matches no name"):
        space.only("fc")


def test_leaves_of_a_tree_keep_their_names():
    a, b, x = jnp.ones((3, 4)), jnp.ones((4, 2)), jnp.ones((2, 3))

    class Pair(equinox.Module):
        value: jax.Array
        other: jax.Array

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.value = nnx.Linear(3, 4, rngs=rngs)

    assert list(nfn_jax.leaves({"a": {"value": a}, "b": {"value": b, "w": b}})) == ["a.value", "b.value", "b.w"]
    assert list(nfn_jax.leaves([Pair(a, b)])) == ["0.value", "0.other"]
    assert list(nfn_jax.leaves(nnx.split(Net(nnx.Rngs(0)))[1])) == ["value.bias", "value.kernel"]
    tree = {"blocks": [a], "blocks.0": b}
    message = r"leaves \['blocks'\]\[0\] and \['blocks.0'\] of the tree both have the name 'blocks.0'"
    for call in (nfn_jax.leaves, lambda t: nfn_jax.weight_space(lambda p, x: x, t, x)):
        with pytest.raises(LabelError, match=message):
            call(tree)


def test_the_size_of_a_layer_is_told_before_it_is_built():
    shapes = {"table": (50_000, 64), "w": (32, 64), "v": (2, 32)}
    labels = {"table": "in d", "w": "h d", "v": "out h"}
    space = ModelSpace.from_patterns(shapes, labels, ["in"], ["out"])
    with pytest.warns(SizeWarning, match=r"under HNP would have 1\.3e\+12 parameters: `summary\(\)`"):
        space.group("HNP")
    summary = space.summary()
    assert "'table' (in d), 50,000 each: set 'in' is left alone by HNP" in summary
    assert "Without them, `space.only(['*', '!table'])`, it has 5,120." in summary
    assert "NP, 4 sets move | 5,632" in summary
    space.group("NP")
    space.only(["*", "!table"]).group("HNP")
    assert space.summary(1).startswith("| group | parameters of an NF-layer, 1 to 1 channels |")
    with pytest.raises(SpecError, match="channels must be a positive integer"):
        space.summary(0)


class Counting(nn.Module):
    """Buffers that a run updates, in place or by a new one."""

    def __init__(self, replaced):
        super().__init__()
        self.a, self.b, self.replaced = nn.Linear(3, 4), nn.Linear(4, 2), replaced
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("runs", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        y = self.a(x)
        self.runs += 1
        if self.replaced:
            self.mean = 0.9 * self.mean + y.mean(0).detach()
        else:
            self.mean.add_(y.mean(0).detach())
        return self.b((y - self.mean).sigmoid())


@pytest.mark.parametrize("replaced", [False, True])
def test_buffers_that_a_run_updates(replaced):
    module = Counting(replaced)
    assert derived(module, X) == {"mean": "h1", **TWO}
    assert module.runs == 0
    assert not module.mean.any()


def branch(m, x):
    return torch.cond(x.sum() > 0, lambda y: m.b(m.a(y).sigmoid()), lambda y: m.b(m.a(-y).sigmoid()), (x,))


def loop(m, x):
    return m.b(while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, m.c(y)), (torch.tensor(0), m.a(x)))[1])


def gram(function):
    def forward(m, x):
        y = m.a(x)
        return m.b(function(y, y.T @ y))

    return forward


CONTROL = {
    "cond": (branch, {}, "h1"),
    "while": (loop, {"c": nn.Linear(4, 4)}, "h1"),
    "number": (lambda m, x: m.b(m.a(x).sigmoid()) * x.sum().item(), {}, "h1"),
    "inverse": (gram(lambda y, g: y @ torch.linalg.inv(g)), {}, "h1"),
    "solve": (gram(lambda y, g: torch.linalg.solve(g, y.T).T), {}, "h1"),
    "determinant": (gram(lambda y, g: y * torch.linalg.det(g)), {}, "h1"),
    "cholesky": (gram(lambda y, g: y @ torch.linalg.cholesky(g)), {}, "4"),
    "decomposition": (gram(lambda y, g: y @ torch.linalg.qr(g)[0]), {}, "4"),
}


@pytest.mark.parametrize("case", CONTROL)
def test_control_flow_and_matrix_functions_have_rules(case):
    function, modules, hidden = CONTROL[case]
    found = derived(two(function, **modules), torch.randn(6, 3))
    assert found["a.weight"] == f"{hidden} in"
    assert found["b.weight"] == f"out {hidden}"
    assert found.get("c.weight") in (None, "h1 h1")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda m, x: m.b(m.a(x)[x[:, 0] > 0]),
            r"aten.index.Tensor \(index\) gives a tensor whose size depends on data",
        ),
        (lambda m, x: m.b(m.a(x)) + (x > 0).nonzero().sum(), r"\(nonzero\) gives a tensor whose size depends on data"),
        (
            lambda m, x: m.b(m.a(x)) * torch.ones(x.argmax().item() + 1).sum(),
            r"_local_scalar_dense.* turns an entry of a tensor into a number",
        ),
    ],
    ids=["mask", "nonzero", "size"],
)
def test_what_has_no_graph_is_named(function, message):
    with pytest.raises(LabelError, match=message):
        nfn_torch.weight_space(two(function), X)


def test_a_module_without_the_tensors_is_refused_on_the_way_back():
    space = nfn_torch.weight_space(mlp(), X)
    features = nfn_torch.stack(space, [mlp()], detach=True)
    with pytest.raises(FeatureError, match=r"`like` lacks tensors \['0.weight'"):
        nfn_torch.unstack(space, features, nn.DataParallel(two(branch)))

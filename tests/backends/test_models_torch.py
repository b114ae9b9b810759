"""Weight spaces of modules: derived from the graph, verified by running the module; and models in and out."""

from itertools import pairwise

import nfn_torch
import pytest
import torch
from labels import patterns
from safetensors.torch import save_file
from torch import nn

import nfn_core
from nfn_core import FeatureError, LabelError, ParameterError, StackWarning, WeightSpace
from reference_experiments.demos.architectures import GPT2, LSTMClassifier, ResNet, Siren, SmallCNN, ViT
from reference_experiments.demos.small_networks import Network


def derived(module, *inputs, **options):
    space = nfn_torch.weight_space(module, *inputs, **options)
    assert space.verification.error < space.verification.limit < 1e-11
    assert space.verification.unnecessarily_fixed == ()
    return patterns(space)


def mlp(*sizes):
    return nn.Sequential(*[m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())][:-1])


X = torch.randn(2, 3)


def test_mlp_is_the_weight_space_of_the_paper():
    space = nfn_torch.weight_space(mlp(3, 4, 5, 2), X)
    by_hand = WeightSpace.mlp([3, 4, 5, 2])
    assert [(t.shape, t.labels) for t in space.space.tensors] == [(t.shape, t.labels) for t in by_hand.tensors]
    assert (space.inputs, space.outputs) == (by_hand.inputs, by_hand.outputs)
    assert space.group("HNP").permuted == by_hand.group("HNP").permuted
    assert "| 0.weight | 4×3 | h1 in |" in space.describe()


def sine_mlp(*functions):
    def forward(m, x):
        first, second = functions
        return m.c(second(m.b(first(m.a(x)))))

    return Network(forward, a=nn.Linear(3, 4), b=nn.Linear(4, 5), c=nn.Linear(5, 2))


OMEGA = torch.tensor(30.0)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda y: torch.sin(30 * y), ("sin", 30.0)),
        (lambda y: torch.sin(y * OMEGA), ("sin", 30.0)),
        (lambda y: torch.sin(-(y / 0.5)), ("sin", -2.0)),
        (torch.sin, ("sin", 1.0)),
        (lambda y: torch.sin(30 * y + 0.1), ("sin", None)),
        (lambda y: torch.sin(30 * y + y), ("sin", None)),
        (lambda y: torch.sin(torch.div(y, 0.5, rounding_mode="floor")), ("sin", 1.0)),
        (torch.relu, ("relu", 1.0)),
        (torch.tanh, ("tanh", 1.0)),
    ],
)
def test_activations_and_their_frequency_are_found(function, expected, check_activations):
    space = nfn_torch.weight_space(sine_mlp(function, function), X)
    check_activations(space, expected)


def test_only_sets_with_odd_activations_are_signed():
    space = nfn_torch.weight_space(sine_mlp(torch.tanh, torch.relu), X)
    odd, even = (next(s for s, f, _ in space.activations if f == name) for name in ("tanh", "relu"))
    assert space.group("HNP", signed=[odd]).signed == (odd,)
    with pytest.raises(LabelError, match=f"signed names neuron set '{even}', on which the network has relu: .* odd"):
        space.group("HNP", signed=[odd, even])
    shifted = nfn_torch.weight_space(sine_mlp(lambda y: torch.sin(30 * y + 0.1), torch.sigmoid), X)
    names = [s for s in shifted.space.sizes if s not in (*shifted.inputs, *shifted.outputs)]
    for name, words in zip(names, ("sin of what is added to before", "no function known to be odd"), strict=True):
        with pytest.raises(LabelError, match=words):
            shifted.group("HNP", signed=[name])


class NormedTanh(torch.nn.Module):
    """Three hidden layers of tanh, after the second of which a normalization subtracts the mean of its neurons."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(3, 4), torch.nn.Linear(4, 5), torch.nn.Linear(5, 6)])
        self.norm, self.last = torch.nn.LayerNorm(5, elementwise_affine=False), torch.nn.Linear(6, 2)

    def forward(self, x):
        first, second, third = self.layers
        h = self.norm(torch.tanh(second(torch.tanh(first(x)))))
        return self.last(torch.tanh(third(h)))


def test_signs_are_verified_by_running_the_network():
    space = nfn_torch.weight_space(NormedTanh(), torch.randn(2, 3))
    assert [f for _, f, _ in space.activations] == ["tanh"] * 3
    first, second, third = (s for s in space.space.sizes if s not in (*space.inputs, *space.outputs))
    assert space.odd_sets == (first, third)
    assert space.group("HNP", signed=space.odd_sets).signed == (first, third)
    with pytest.raises(
        LabelError, match=f"signed names neuron set '{second}', on .* tanh: but the verification found that its signs"
    ):
        space.group("HNP", signed=[second])
    unverified = nfn_torch.weight_space(NormedTanh(), torch.randn(2, 3), verification=False)
    assert unverified.odd_sets == (first, second, third)


def test_one_omega_needs_one_frequency_in_every_hidden_layer():
    assert nfn_torch.weight_space(Siren((3, 4, 5, 2)), X).omega == 30.0
    sine, slow = (lambda y: torch.sin(30 * y)), (lambda y: torch.sin(3 * y))
    for functions in ((sine, slow), (sine, torch.sigmoid), (sine, torch.relu)):
        with pytest.raises(LabelError, match="give omega yourself"):
            _ = nfn_torch.weight_space(sine_mlp(*functions), X).omega


def test_nesting_and_naming():
    inner = Network(lambda m, x: m.second(torch.tanh(m.first(x))), first=nn.Linear(3, 4), second=nn.Linear(4, 4))
    found = derived(Network(lambda m, x: m.head(m.body(x)), head=nn.Linear(4, 2), body=inner), X)
    assert found["body.second.weight"] == "h1 h2"
    assert found["head.weight"] == "out h1"


@pytest.mark.parametrize("space", [1, 2, 3])
def test_convolutions_flattened_or_pooled(space):
    conv, pool, norm = (getattr(nn, f"{kind}{space}d") for kind in ("Conv", "MaxPool", "BatchNorm"))
    net = nn.Sequential(conv(2, 4, 3, padding=1), norm(4), nn.ReLU(), pool(2), nn.Flatten(), nn.Linear(4 * 2**space, 3))
    found = derived(net, torch.randn(2, 2, *[4] * space))
    assert found["0.weight"] == " ".join(["h1 in", *["3"] * space])
    assert found["1.running_var"] == "h1"
    assert found["5.weight"] == f"out (h1 {2**space})"


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([nn.Conv2d(2, 6, 1), nn.Conv2d(6, 6, 3, groups=6)], {"0.weight": "out in 1 1", "1.weight": "out 1 3 3"}),
        (
            [nn.Conv2d(2, 6, 1), nn.Conv2d(6, 4, 1, groups=2)],
            {"0.weight": "(out1 h1) in 1 1", "1.weight": "(out1 out2) h1 1 1"},
        ),
        ([nn.ConvTranspose2d(2, 6, 2, groups=2)], {"0.weight": "in out 2 2", "0.bias": "(in out)"}),
        (
            [nn.Conv2d(2, 6, 1), nn.GroupNorm(2, 6), nn.Conv2d(6, 3, 1)],
            {"1.weight": "(h1 h2)", "2.weight": "out (h1 h2) 1 1"},
        ),
        ([nn.Conv2d(2, 6, 1), nn.InstanceNorm2d(6, affine=True), nn.Conv2d(6, 3, 1)], {"1.weight": "h1"}),
    ],
    ids=["depthwise", "grouped", "transposed", "group norm", "instance norm"],
)
def test_groups(layers, expected):
    found = patterns(nfn_torch.weight_space(nn.Sequential(*layers), torch.randn(2, 2, 4, 4)))
    assert {name: found[name] for name in expected} == expected


def test_concatenation_and_union():
    net = Network(
        lambda m, x: m.c(torch.cat([m.a(x), m.b(x), x], 1)) + m.d(x),
        **{"a": nn.Linear(3, 4), "b": nn.Linear(3, 5), "c": nn.Linear(12, 2), "d": nn.Linear(3, 2)},
    )
    space = nfn_torch.weight_space(net, X)
    found = patterns(space)
    assert found["c.weight"] == "out (h1 + h2 + in)"
    assert found["d.weight"] == "out in"
    assert [t.shape for t in space.space.tensors if t.name.startswith("c.weight")] == [(2, 4), (2, 5), (2, 3)]


def test_gates_are_a_fixed_axis_and_recurrence_a_repeated_label():
    for kind, gates in ((nn.LSTM, "(4 h1)"), (nn.GRU, "(3 h1)"), (nn.RNN, "h1")):
        net = Network(lambda m, x: m.head(m.cell(x)[0][:, -1]), cell=kind(3, 4, batch_first=True), head=nn.Linear(4, 2))
        found = derived(net, torch.randn(2, 2, 3))
        assert found["cell.weight_hh_l0"] == f"{gates} h1"
        assert found["cell.weight_ih_l0"] == f"{gates} in"
    found = derived(Network(lambda m, x: m.cell(x), cell=nn.GRUCell(3, 4)), X)
    assert found["cell.weight_hh"] == "(3 out) out"


RECURRENT = {
    "layers": (nn.LSTM, {"num_layers": 2}, {"weight_hh_l0": "(4 h1) h1", "weight_ih_l1": "(4 h2) h1"}),
    "directions": (nn.GRU, {"bidirectional": True}, {"weight_hh_l0": "(3 h1) h1", "weight_hh_l0_reverse": "(3 h2) h2"}),
    "projection": (nn.LSTM, {"proj_size": 3}, {"weight_hh_l0": "(4 h1) h2", "weight_hr_l0": "h2 h1"}),
}


@pytest.mark.parametrize("case", RECURRENT)
def test_one_initial_state_ties_no_layers(case):
    kind, options, expected = RECURRENT[case]
    cell = kind(3, 4, batch_first=True, **options)
    width = 4 * (1 + cell.bidirectional) if not cell.proj_size else 3
    net = Network(lambda m, x: m.head(m.cell(x)[0][:, -1]), cell=cell, head=nn.Linear(width, 2))
    found = derived(net, torch.randn(2, 3, 3))
    assert {name: found[f"cell.{name}"] for name in expected} == expected


def test_a_first_state_of_zeros_does_not_free_what_later_steps_read():
    net = Network(lambda m, x: m.cell(x)[0], cell=nn.LSTM(3, 4, batch_first=True))
    space = nfn_torch.weight_space(net, torch.randn(2, 1, 3))
    assert patterns(space)["cell.weight_hh_l0"] == "(4 out) 4"
    assert dict(space.fixed)["cell.weight_hh_l0"] == "not being read"


def test_only_indexed_axes_are_fixed():
    net = Network(
        lambda m, t: m.b(m.a(m.table(t))[torch.arange(2), t.argmax(-1)]),
        **{"table": nn.Embedding(7, 3), "a": nn.Linear(3, 4), "b": nn.Linear(4, 2)},
    )
    found = patterns(nfn_torch.weight_space(net, torch.randint(0, 7, (2, 3))))
    assert (found["table.weight"], found["a.weight"]) == ("7 h1", "h2 h1")
    resized = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Upsample(scale_factor=2, mode="bicubic"), nn.Conv2d(4, 3, 1))
    assert derived(resized, torch.randn(1, 2, 4, 4))["2.weight"] == "out h1 1 1"


def test_an_identity_matrix_moves_with_both_of_its_axes():
    net = Network(
        lambda m, x: x @ (m.a.weight + torch.eye(4)) @ m.b.weight.T, a=nn.Linear(4, 4, False), b=nn.Linear(4, 2, False)
    )
    assert derived(net, torch.randn(2, 4)) == {"a.weight": "in in", "b.weight": "out in"}


def packed(turn):
    """Self-attention of a packed projection, with queries and keys that are turned by position."""

    def forward(m, x):
        q, k, v = m.qkv(x).reshape(2, 3, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = (turn(q) @ turn(k).transpose(-1, -2)).softmax(-1) @ v
        return m.out(y.transpose(1, 2).reshape(2, 3, 8))

    return Network(forward, qkv=nn.Linear(6, 24), out=nn.Linear(8, 6))


def rotary(x):
    return x * torch.arange(1.0, 5.0) + torch.cat([-x[..., 2:], x[..., :2]], -1)


def test_packed_queries_and_keys_part_from_values():
    found = derived(packed(lambda x: x), torch.randn(2, 3, 6))
    assert (found["qkv.bias"], found["out.weight"]) == ("((h1 h2) + (h1 h2) + (h1 h3))", "out (h1 h3)")
    found = derived(packed(rotary), torch.randn(2, 3, 6))
    assert (found["qkv.bias"], found["out.weight"]) == ("((h1 4) + (h1 4) + (h1 h2))", "out (h1 h2)")


def test_attention_embedding_and_tied_weights():
    layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True)
    net = Network(lambda m, x: m.head(m.layer(m.table(x))), table=nn.Embedding(7, 4), layer=layer, head=nn.Linear(4, 7))
    net.head.weight = net.table.weight
    space = nfn_torch.weight_space(net, torch.zeros(2, 3, dtype=torch.long))
    found = patterns(space)
    assert found["layer.self_attn.in_proj_weight"] == "((h2 h3) + (h2 h3) + (h2 h4)) h1"
    assert found["layer.self_attn.out_proj.weight"] == "h1 (h2 h4)"
    assert space.views[0].also == ("head.weight",)
    assert space.inputs == space.outputs == ("in",)
    positions = Network(lambda m, x: m.table(x) * (x > 2)[..., None], table=nn.Embedding(7, 4))
    assert patterns(nfn_torch.weight_space(positions, torch.zeros(2, 3, dtype=torch.long)))["table.weight"] == "7 out"


SMALL = {
    "Small CNN Zoo": (lambda: SmallCNN(1, 4, 3), (2, 1, 16, 16), {"4.weight": "h3 h2 3 3", "8.weight": "out h3"}),
    "SIREN": (lambda: Siren((2, 4, 4, 1)), (2, 2), {"2.weight": "h2 h1", "4.weight": "1 h2"}),
    "LSTM": (lambda: LSTMClassifier(3, 4, 2), (2, 2, 3), {"lstm.weight_hh_l0": "(4 h1) h1"}),
    "ResNet-18": (
        lambda: ResNet((1, 2), width=4, classes=3),
        (2, 3, 16, 16),
        {"layer1.0.conv2.weight": "h1 h2 3 3", "layer2.0.downsample.0.weight": "h4 h1 1 1", "fc.weight": "out h4"},
    ),
    "ResNet-50": (
        lambda: ResNet((1, 1), True, width=2, classes=3),
        (2, 3, 16, 16),
        {"layer1.0.conv3.weight": "h4 h3 1 1", "layer1.0.downsample.0.weight": "h4 h1 1 1"},
    ),
    "ViT": (
        lambda: ViT(4, 2, 4, 2, 1, 3, 6),
        (2, 3, 4, 4),
        {
            "blocks.0.attn.qkv.weight": "((h2 h3) + (h2 h3) + (h2 h4)) h1",
            "patch_embed.weight": "h1 in 2 2",
            "pos_embed": "1 5 h1",
        },
    ),
    "GPT-2": (
        lambda: GPT2(5, 4, 4, 2, 1, 6),
        None,
        {
            "h.0.attn.qkv.weight": "((h2 h3) + (h2 h3) + (h2 h4)) h1",
            "h.0.attn.proj.weight": "h1 (h2 h4)",
            "wpe.weight": "4 h1",
        },
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_real_architectures(name):
    make, shape, expected = SMALL[name]
    x = torch.randint(0, 5, (2, 3)) if shape is None else torch.randn(shape)
    module = make()
    space = nfn_torch.weight_space(module, x)
    assert space.verification.error < space.verification.limit
    assert {name: patterns(space)[name] for name in expected} == expected
    features = nfn_torch.stack(space, [module, make()])
    network = nfn_torch.NFModule(nfn_core.invariant_network(space.group("NP"), [1, 2], [3]))
    assert network(features).shape == (2, 3)
    (again, _) = nfn_torch.unstack(space, features, module)
    for name, value in module.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def trained(seed):
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.randn(3, 1, 4, 4)).square().mean().backward()
    optimizer.step()
    return module, {name: optimizer.state[p]["exp_avg"] for name, p in module.named_parameters()}


def test_weights_gradients_moments_and_masks_are_channels(tmp_path):
    models, moments = zip(*map(trained, range(3)), strict=True)
    space = nfn_torch.weight_space(models[0], torch.randn(2, 1, 4, 4))
    assert patterns(space)["4.weight"] == "out (h1 4)"
    grads = [{name: p.grad for name, p in m.named_parameters()} for m in models]
    masks = [{name: (x > 0).to(x) for name, x in m.state_dict().items()} for m in models]
    with pytest.raises(FeatureError, match=r"lacks tensor '1\.running_mean'"):
        nfn_torch.stack(space, models, grads)
    with pytest.warns(StackWarning, match="fill=0.0 stands for 2 of 8 tensors of channel"):
        features = nfn_torch.stack(space, models, grads, moments, masks, fill=0.0, detach=True)
    assert features["4.weight"].shape == (3, 2, 4, 4, 4)
    for channel, states in enumerate((map(nn.Module.state_dict, models), grads, moments, masks)):
        for state, again in zip(
            states, nfn_torch.unstack(space, features, models[0].state_dict(), channel), strict=True
        ):
            held = [view.name for view in space.views]
            assert all(torch.equal(state[name], again[name]) for name in held if name in state)
    assert not features["1.running_mean"][..., 1].any()
    paths = [tmp_path / f"{k}.safetensors" for k in range(3)]
    for path, model in zip(paths, models, strict=True):
        save_file(model.state_dict(), path)
    first, second = nfn_torch.stream(space, paths, 2)
    assert torch.equal(torch.cat([first["4.weight"], second["4.weight"]]), features["4.weight"][..., :1])
    with pytest.raises(ParameterError, match="cannot read"):
        next(nfn_torch.stream(space, [tmp_path / "absent"], 2))
    with pytest.raises(FeatureError, match="channel 4"):
        nfn_torch.unstack(space, features, models[0], 4)
    counter = "1.num_batches_tracked"
    assert torch.equal(nfn_torch.unstack(space, features, models[1])[0].state_dict()[counter], torch.tensor(1))
    with pytest.raises(FeatureError, match=r"`like` lacks tensors \['0.weight'"):
        nfn_torch.unstack(space, features, nn.Linear(3, 2))


def test_labeled_checkpoint(tmp_path):
    state = {"qkv.weight": torch.randn(12, 8), "proj.weight": torch.randn(8, 4), "cat.weight": torch.randn(2, 12)}
    save_file(state, tmp_path / "model")
    labels = {"qkv.weight": "(3 heads=2 e) d", "proj.weight": "d (heads e)", "cat.weight": "out (d + (heads e))"}
    space = nfn_core.ModelSpace.from_patterns(tmp_path / "model", labels, outputs=["out"])
    assert patterns(space) == {k: p.replace("=2", "") for k, p in labels.items()}
    (features,) = nfn_torch.stream(space, [tmp_path / "model"], 4)
    assert [tuple(x.shape[1:-1]) for x in features.values()] == [(3, 2, 2, 8), (8, 2, 2), (2, 8), (2, 2, 2)]
    (again,) = nfn_torch.unstack(space, features, like=state)
    assert all(torch.equal(state[name], x) for name, x in again.items())


def test_a_module_without_a_graph_can_be_labeled():
    net = Network(lambda m, x: m.b(m.a(x).sigmoid()) if x.sum() < 1e9 else x, a=nn.Linear(3, 4), b=nn.Linear(4, 2))
    labels = {"a.weight": "h in", "a.bias": "h", "b.weight": "out h", "b.bias": "out"}
    labels |= {"input[0]": "_ in", "output[0]": "_ out"}
    space = nfn_torch.weight_space(net, X, labels=labels)
    assert (space.inputs, space.outputs) == (("in",), ("out",))
    with pytest.raises(LabelError, match=r"tensor 'b\.weight' breaks it: its axis 1 must be permuted too"):
        nfn_torch.weight_space(net, X, labels=labels | {"b.weight": "out _"})
    square = Network(net.function, a=nn.Linear(3, 3), b=nn.Linear(3, 2))
    with pytest.raises(LabelError, match=r"tensor 'a\.bias' breaks it: it must not be permuted with this set"):
        nfn_torch.weight_space(square, X, labels=labels | {"a.bias": "in"})


def test_labels_name_sets_and_fixed_sets_that_could_move_are_reported():
    space = nfn_torch.weight_space(mlp(3, 4, 2), X, labels={"0.weight": "hidden ?"})
    assert patterns(space) == {"0.weight": "hidden in", "0.bias": "hidden", "2.weight": "out hidden", "2.bias": "out"}
    space = nfn_torch.weight_space(mlp(3, 4, 2), X, labels={"0.bias": "_"})
    assert space.verification.unnecessarily_fixed == ("axis 0 of '0.weight'",)
    assert dict(space.fixed)["2.weight"] == "the label '_' of '0.bias'"


def branching():
    return Network(lambda m, x: m.a(x) + 1 if m.a(x).sum() > 0 else x, a=nn.Linear(3, 3))


@torch.library.custom_op("nfn_tests::mystery", mutates_args=())
def mystery(x: torch.Tensor) -> torch.Tensor:
    return x[:, :3].cumsum(1)


@mystery.register_fake
def _(x):
    return x.new_empty(len(x), 3)


def mysterious():
    return nn.Sequential(nn.Linear(3, 4), Network(lambda m, x: mystery(x)), nn.Linear(3, 2))


def overlapping():
    memory = torch.randn(13)
    first, second = nn.Linear(3, 4), nn.Linear(3, 3, bias=False)
    first.weight, second.weight = nn.Parameter(memory[:12].view(4, 3)), nn.Parameter(memory[4:].view(3, 3))
    return nn.ModuleList([first, second])


def quantized():
    net = nn.Sequential(nn.Linear(3, 4))
    net.register_parameter("scale", nn.Parameter(torch.zeros(2, dtype=torch.int8), requires_grad=False))
    return net


BAD = {
    "control flow": (branching, {}, r"cannot be traced in module 'body' \(Network\), .*test_models_torch.py"),
    "unsupported": (mysterious, {}, r"nfn_tests.mystery.default \(mystery\) in module 'body.1'.*labels=\{'mystery'"),
    "mixed dtypes": (
        lambda: nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2).double()),
        {},
        r"'body.1.weight' is torch.float64",
    ),
    "shared memory": (overlapping, {}, r"'body.0.weight' and 'body.1.weight' share memory"),
    "quantized": (quantized, {}, "'body.scale' has dtype torch.int8"),
    "lazy": (lambda: nn.LazyLinear(3), {}, "'body.weight' has no values"),
    "no parameters": (nn.ReLU, {}, "no parameters"),
    "unknown label": (lambda: mlp(3, 4, 2), {"body.0.wait": "a b"}, r"\['body.0.wait'\], but the network has no such"),
    "label against the computation": (
        mysterious,
        {"body.0.weight": "h in", "mystery": "_ _", "body.2.weight": "out h"},
        "label 'out h' of 'body.2.weight': h has size 4 there or elsewhere, but the axis has size 3",
    ),
    "label of a fixed set": (
        lambda: mlp(3, 4, 2),
        {"body.0.weight": "h ?", "body.0.bias": "_"},
        "'h' .* fixed by the label",
    ),
    "label with too few axes": (lambda: mlp(3, 4, 2), {"body.0.weight": "h"}, "has 1 axes, but its shape is"),
    "label without sizes": (lambda: mlp(3, 4, 2), {"body.0.bias": "(a b)"}, "sizes of its parts do not follow"),
    "unreadable label": (lambda: mlp(3, 4, 2), {"body.0.bias": "(a"}, "bracket is not closed"),
}


@pytest.mark.parametrize("case", BAD)
def test_errors_name_the_node(case):
    make, labels, message = BAD[case]
    with pytest.raises(LabelError, match=message):
        nfn_torch.weight_space(Network(lambda m, x: m.body(x), body=make()), X, labels=labels)


def test_models_of_another_architecture_or_untied_are_refused():
    space = nfn_torch.weight_space(mlp(3, 4, 2), X)
    with pytest.raises(FeatureError, match=r"'0.weight' of model 1: expected shape \(4, 3\), not \(5, 3\)"):
        nfn_torch.stack(space, [mlp(3, 4, 2), mlp(3, 5, 2)])
    with pytest.raises(FeatureError, match=r"same positive number of models"):
        nfn_torch.stack(space, [mlp(3, 4, 2)], [])
    tied = Network(lambda m, x: m.b(m.a(x)), a=nn.Linear(3, 3, bias=False), b=nn.Linear(3, 3, bias=False))
    tied.b.weight = tied.a.weight
    space = nfn_torch.weight_space(tied, X)
    assert space.views[0].also == ("b.weight",)
    with pytest.raises(FeatureError, match="one tied tensor, but hold different values"):
        nfn_torch.stack(space, [{"a.weight": torch.zeros(3, 3), "b.weight": torch.ones(3, 3)}])

"""Verification of modules: the limit that rounding sets, what probes reach, and errors that give the real reason."""

import sys
from types import SimpleNamespace

import nfn_torch
import pytest
import torch
from labels import patterns
from torch import nn

import nfn_core
from nfn_core import LabelError, MissingDependencyError
from reference_experiments.demos.small_networks import Network


def derived(module, *inputs):
    space = nfn_torch.weight_space(module, *inputs)
    assert space.verification.unnecessarily_fixed == ()
    return patterns(space)


X = torch.randn(2, 3)


class Root(nn.Module):
    """RMSNorm as it is written in half-precision networks."""

    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x):
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * y.to(x.dtype)


def chain(depth, *between):
    return nn.Sequential(*[m for _ in range(depth) for m in (nn.Linear(8, 8), *between)], nn.Linear(8, 8))


class Sine(nn.Module):
    def forward(self, x):
        return torch.sin(30.0 * x)


REFUSED = {
    "casts to float32": chain(2, Root(8), nn.Tanh()),
    "a float32 output": nn.Sequential(chain(1, nn.Tanh()), Network(lambda m, x: x.to(torch.float32))),
    "half precision": nn.Sequential(chain(1, nn.Tanh()), Network(lambda m, x: x.bfloat16() + torch.ones(8)[:1])),
    "deep sines": chain(8, Sine()),
    "deeper sines": chain(14, Sine()),
    "a logarithm": nn.Sequential(Network(lambda m, x: torch.log(x)), chain(1, nn.Tanh())),
    "an arc sine": nn.Sequential(Network(lambda m, x: torch.asin(x)), chain(1, nn.Tanh())),
}


@pytest.mark.parametrize("name", REFUSED)
def test_right_labels_pass_whatever_the_seed(name):
    torch.manual_seed(0)
    for seed in range(3):
        space = nfn_torch.weight_space(REFUSED[name], 0.1 + 0.6 * torch.rand(2, 8), seed=seed)
        found = space.verification
        assert found.error <= found.limit < 1e-5
        assert (found.dtype, found.untested) == ("float64", ())


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_labels_do_not_pass_with_them(name):
    net = REFUSED[name]
    names = [f"{k}" for k, _ in net.named_parameters()]
    space = nfn_torch.weight_space(net, 0.1 + 0.6 * torch.rand(2, 8))
    right = {view.name: view.pattern for view in space.views} | {"input[0]": "_ in", "output[0]": "_ out"}
    right |= {"output[0]": "_ " + next(word for word in (*space.outputs, "_"))}
    right |= {"input[0]": "_ " + next(word for word in (*space.inputs, "_"))}
    nfn_torch.weight_space(net, 0.1 + 0.6 * torch.rand(2, 8), labels=right)
    hidden = next(n for n in names if right[n].startswith("h1") and right[n] != "h1")
    with pytest.raises(LabelError, match="is no symmetry"):
        nfn_torch.weight_space(net, 0.1 + 0.6 * torch.rand(2, 8), labels=right | {hidden: "_ _"})


def flipped(condition):
    """A network that flips its hidden neurons where a condition on them holds."""
    return Network(lambda m, x: m.b(condition(m, x)), a=nn.Linear(3, 4), b=nn.Linear(4, 2))


FLIPPED = {
    "a sum of inputs that is large": lambda m, x: torch.where(x.sum(-1, True) > 50, m.a(x).flip(-1), m.a(x)),
    "inputs that are small": lambda m, x: torch.where(x.abs().amax(-1, True) < 0.05, m.a(x).flip(-1), m.a(x)),
    "dead units": lambda m, x: m.a(x) + torch.relu(m.a(x) - 20).flip(-1),
    "dead clamped units": lambda m, x: m.a(x) + (m.a(x) - 20).clamp(min=0).flip(-1),
    "a small change": lambda m, x: (m.a(x) + 1e-6 * m.a(x).flip(-1)).float(),
}


@pytest.mark.parametrize("name", FLIPPED)
def test_probes_reach_what_the_first_inputs_do_not(name):
    torch.manual_seed(0)
    labels = {"a.weight": "h in", "a.bias": "h", "b.weight": "out h", "b.bias": "out"}
    labels |= {"input[0]": "_ in", "output[0]": "_ out"}
    nfn_torch.weight_space(flipped(lambda m, x: m.a(x)), X, labels=labels)
    for seed in range(3):
        with pytest.raises(LabelError, match="neuron set 'h'"):
            nfn_torch.weight_space(flipped(FLIPPED[name]), X, labels=labels, seed=seed)


def test_what_no_probe_reaches_is_said():
    net = flipped(lambda m, x: torch.where(m.a(x).sum(-1, True) > 1e9, m.a(x).flip(-1), m.a(x)))
    space = nfn_torch.weight_space(net, X)
    assert space.verification.unreached == ("where in module '' was always false",)
    assert patterns(space)["a.weight"] == "4 in"
    assert "normal inputs 0 ± 1000, random signs" not in space.verification.probes  # it reached nothing more
    dead = nfn_torch.weight_space(
        nn.Sequential(nn.Linear(3, 4), Network(lambda m, x: torch.relu(x - 1e9)), nn.Linear(4, 2)), X
    )
    assert dead.verification.unreached == ("relu in module '1' was 0 in 4 of 4 entries of axis 1",)


def test_what_only_training_reads_is_said():
    def forward(m, x):
        h = m.a(x).tanh()
        return (m.b(h), m.auxiliary(h)) if m.training else m.b(h)

    net = Network(forward, a=nn.Linear(3, 4), b=nn.Linear(4, 2), auxiliary=nn.Linear(4, 2))
    space = nfn_torch.weight_space(net, X)
    assert patterns(space)["auxiliary.weight"] == "2 4"
    assert "not being used in evaluation mode; if training uses it" in dict(space.fixed)["auxiliary.weight"]


def channels_last(pool):
    return Network(lambda m, x: m.b(pool(m.a(x).permute(0, 3, 1, 2)).flatten(1)), a=nn.Linear(3, 4), b=nn.Linear(4, 2))


@pytest.mark.parametrize("pool", [nn.AdaptiveAvgPool2d(1), lambda x: x.mean((2, 3), keepdim=True)])
def test_pooling_of_channels_last(pool):
    assert derived(channels_last(pool), torch.randn(2, 5, 5, 3))["b.weight"] == "out h1"


def test_memory_read_in_another_order_is_fixed():
    net = Network(lambda m, x: m.b(m.a(x).as_strided((4, 2), (1, 4)).t()), a=nn.Linear(3, 4), b=nn.Linear(4, 2))
    assert patterns(nfn_torch.weight_space(net, X))["b.weight"] == "out 4"


@pytest.mark.parametrize("space", [1, 2, 3])
def test_pooling_without_a_batch(space):
    net = Network(
        lambda m, x: m.b(m.pool(m.a(x).movedim(-1, 0)).movedim(0, -1)),
        a=nn.Linear(3, 4),
        pool=getattr(nn, f"MaxPool{space}d")(2),
        b=nn.Linear(4, 2),
    )
    assert derived(net, torch.randn(*[6] * space, 3))["b.weight"] == "out h1"


class Cache:
    def __init__(self, keys):
        self.keys = keys


def test_attention_is_traced_in_its_plain_form_and_caches_are_left_out():
    def forward(m, x):
        q, k, v = (y.unflatten(-1, (2, 4)).transpose(1, 2) for y in m.qkv(x).split(8, -1))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return {"y": m.out(y.transpose(1, 2).flatten(2)), "past": Cache(k)}

    net = Network(forward, qkv=nn.Linear(6, 24), out=nn.Linear(8, 6))
    with pytest.warns(nfn_core.LabelWarning, match=r"Cache are left out"):
        found = patterns(nfn_torch.weight_space(net, torch.randn(2, 3, 6)))
    assert found["qkv.weight"] == "((h1 h2) + (h1 h2) + (h1 h3)) in"
    empty = Network(lambda m, x: torch.cat([torch.zeros(0), m.a(x)], -2), a=nn.Linear(3, 4))
    assert derived(empty, X)["a.weight"] == "out in"


REASONS = {
    "control flow": (lambda m, x: m.a(x) if m.a(x).sum() > 0 else x, "Control flow that depends on data has no graph"),
    "inputs that do not fit": (lambda m, x: m.a(x[..., :2]), "cannot be run on its example inputs: RuntimeError: mat1"),
    "code that leaves tensors": (
        lambda m, x: torch.from_numpy(m.a(x.detach()).detach().numpy()),
        "It runs, but torch.export has no graph",
    ),
    "no finite outputs": (
        lambda m, x: torch.log(-m.a(x).square() - 1),
        "not finite, neither for normal inputs nor near",
    ),
    "chaos": (lambda m, x: torch.sin(1e15 * torch.sin(1e9 * m.a(x))), "rounding alone changes an output"),
}


@pytest.mark.parametrize("reason", REASONS)
def test_errors_give_the_real_reason(reason):
    function, message = REASONS[reason]
    with pytest.raises(LabelError, match=message):
        nfn_torch.weight_space(Network(function, a=nn.Linear(3, 3)), X)


class Bar:
    """Counts as tqdm's bar does."""

    runs = 0

    def __init__(self, **options):
        assert options == {"desc": "verification", "unit": "run"}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def update(self):
        Bar.runs += 1


def test_progress_shows_the_runs_and_needs_tqdm(monkeypatch):
    import jax
    import nfn_jax

    weights = {"W": jax.numpy.ones((3, 2))}
    makes = (
        lambda: nfn_torch.weight_space(nn.Linear(3, 2), X, progress=True),
        lambda: nfn_jax.weight_space(lambda p, x: x @ p["W"], weights, jax.numpy.ones((2, 3)), progress=True),
    )
    for make in makes:
        Bar.runs = 0
        monkeypatch.setitem(sys.modules, "tqdm.auto", SimpleNamespace(tqdm=Bar))
        assert make().verification is not None
        assert Bar.runs > 3
        monkeypatch.setitem(sys.modules, "tqdm.auto", None)
        with pytest.raises(MissingDependencyError, match="progress is shown by tqdm .*: pip install tqdm"):
            make()


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (lambda h: torch.cat([h[:, :2].relu(), h[:, 2:].relu()], -1), ("axis 0 of '0.weight' as one set",)),
        (lambda h: torch.cat([h[:, :2].relu(), h[:, 2:].tanh()], -1), ()),
        (lambda h: torch.cat([h[:, 2:].relu(), h[:, :2].relu()], -1), ()),
    ],
)
def test_a_set_that_a_rule_cut_in_two_is_reported_where_it_moves_as_a_whole(function, found):
    module = nn.Sequential(nn.Linear(3, 4), Network(lambda m, h: function(h)), nn.Linear(4, 2))
    space = nfn_torch.weight_space(module, X)
    assert sorted(space.space.sizes.values()) == [2, 2, 2, 3]
    assert space.verification.unnecessarily_fixed == found


class Parted(nn.Module):
    """Axes of 4 and of 8 neurons that are made of one fixed axis of 2, beside single entries."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(8, 2)

    def forward(self, x):
        def halves(h):
            return [h.view(-1, 2, 2)[:, :, k : k + 1].cumsum(1) for k in range(2)]

        h = torch.cat(halves(self.a(x)), 2).reshape(-1, 4)
        return self.c(torch.cat(2 * halves(self.b(h)), 2).reshape(-1, 8))


def test_axes_of_one_leaf_may_differ_in_size():
    space = nfn_torch.weight_space(Parted(), X)
    assert space.verification.unnecessarily_fixed == ()
    assert space.space.sizes == {"in": 3, "out": 2}


class Experts(nn.Module):
    """Rows in two groups, each with a matrix of its own, in PyTorch's kernel for narrow dtypes."""

    def __init__(self, batched):
        super().__init__()
        self.a, self.w, self.b = nn.Linear(3, 8), nn.Parameter(torch.randn(2, 8, 8)), nn.Linear(8, 2)
        self.batched = batched

    def forward(self, x):
        h, w = torch.tanh(self.a(x)).bfloat16(), self.w.bfloat16()
        if self.batched:
            return self.b(torch.nn.functional.grouped_mm(torch.stack([h, h]), w).float())
        return self.b(torch.nn.functional.grouped_mm(h, w, offs=torch.tensor([1, 4], dtype=torch.int32)).float())


@pytest.mark.skipif(not hasattr(torch.nn.functional, "grouped_mm"), reason="PyTorch has it from 2.10 on")
@pytest.mark.parametrize("batched", [False, True])
def test_products_of_groups_are_run_in_double_precision(batched):
    module = Experts(batched)
    space = nfn_torch.weight_space(module, torch.randn(4, 3))
    assert patterns(space)["w"].split()[1:] == [patterns(space)["a.bias"], patterns(space)["b.weight"].split()[1]]
    assert space.verification.error < 1e-12

"""Rules of operations: what moves, what is fixed, and that verification would catch a wrong rule."""

import re

import jax
import jax.numpy as jnp
import nfn_jax
import nfn_jax.operations
import nfn_torch
import nfn_torch.operations
import pytest
import torch
from labels import patterns
from torch import nn
from torch.nn import functional

from nfn_core import LabelError
from nfn_core.models.operations import Registry


class Net(nn.Module):
    """Linear, a function of all inputs, linear."""

    def __init__(self, function, width=None, experts=3):
        super().__init__()
        self.a, self.b = nn.Linear(3, 6), nn.Linear(width or 6, 2)
        self.router, self.experts = nn.Linear(6, experts), nn.Parameter(torch.randn(experts, 6, 6))
        self.function = function

    def forward(self, *inputs):
        return self.b(self.function(self, self.a(inputs[0]), *inputs[1:]))


X = torch.randn(5, 3)
EDGES = torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 2]])


def derived(module, *inputs):
    space = nfn_torch.weight_space(module.double(), *inputs)
    assert space.verification.error < space.verification.limit
    return patterns(space)


def put(h, *where, value=None, accumulate=False):
    return h.clone().index_put(where, h[0, 0] if value is None else value, accumulate)


def assigned(h):
    y = torch.zeros_like(h)
    y[:, :2] = h[:, :2]
    y[:, 2:] = 2 * h[:, 2:]
    return y


def copied(h):
    y = torch.zeros_like(h)
    y.copy_(h)
    return y


def rows(h):
    y = torch.zeros_like(h)
    y[:2] = h[:2].sin()
    y[2] = h[2]
    return y


# A function of h (5, 6); "moves" if its 6 entries may be permuted.
CASES = {
    "gather": (lambda m, h: h.gather(0, h.argsort(0)), "moves"),
    "gather along the axis": (lambda m, h: h.gather(1, torch.arange(6).expand(5, 6).flip(1)), "fixed"),
    "take_along_dim of its own argmax": (lambda m, h: h * h.take_along_dim(h.argmax(1, True), 1), "moves"),
    "topk": (lambda m, h: h * h.topk(2, dim=1)[0].sum(1, True), "moves"),
    "topk and scatter": (lambda m, h: torch.zeros_like(h).scatter(1, *h.topk(2, dim=1)[::-1]), "moves"),
    "topk, its numbers": (lambda m, h: h * h.topk(2, dim=1)[1].sum(1, True), "fixed"),
    "sort": (lambda m, h: h.sort(1)[0] * h, "fixed"),
    "sorted and summed": (lambda m, h: h * (h.sort(1)[0] * torch.arange(6)).sum(1, True), "moves"),
    "max with a number": (lambda m, h: h * h.max(1)[0][:, None], "moves"),
    "median": (lambda m, h: h * h.median(1)[0][:, None] + h.median(), "moves"),
    "kthvalue": (lambda m, h: h * h.kthvalue(2, dim=1)[0][:, None], "moves"),
    "kthvalue along the last axis": (lambda m, h: h * h.kthvalue(2)[0][:, None], "moves"),
    "mode along the last axis": (lambda m, h: h * h.mode()[0][:, None], "moves"),
    "one hot of argmax": (lambda m, h: h * functional.one_hot(h.argmax(1), 6), "moves"),
    "one hot, shifted": (lambda m, h: h * functional.one_hot(h.argmax(1) * 0 + 1, 6), "fixed"),
    "argmax, compared": (lambda m, h: h * (h.argmax(1, True) == 2), "fixed"),
    "bilinear": (lambda m, h: h * functional.bilinear(h, h, m.experts).sum(1, keepdim=True), "moves"),
    "eye": (lambda m, h: h @ torch.eye(6, dtype=h.dtype), "moves"),
    "scatter_add": (lambda m, h: torch.zeros_like(h).scatter_add(0, h.argsort(0), h), "moves"),
    "scatter_add along the axis": (
        lambda m, h: torch.zeros_like(h).scatter_add(1, torch.arange(6).expand(5, 6) // 2, h),
        "fixed",
    ),
    "scatter a number": (lambda m, h: h.scatter(1, h.argmax(1, True), 0.0), "moves"),
    "index_put of rows": (lambda m, h: put(h, torch.tensor([0, 2]), value=h[:2]), "moves"),
    "index_put, added": (lambda m, h: put(h, torch.tensor([0, 0]), value=h[:2], accumulate=True), "moves"),
    "index_put of entries": (lambda m, h: put(h, torch.tensor([0, 2]), torch.tensor([1, 3])), "fixed"),
    "index_put by a mask": (lambda m, h: put(h, h > 0, value=torch.zeros((), dtype=h.dtype)), "moves"),
    "index_add": (lambda m, h: torch.zeros_like(h).index_add(0, torch.tensor([0, 0, 1, 2, 1]), h), "moves"),
    "index_add along the axis": (lambda m, h: h.index_add(1, torch.tensor([1, 3]), h[:, :2]), "fixed"),
    "slices assigned": (lambda m, h: assigned(h), "parts"),
    "rows assigned": (lambda m, h: rows(h), "moves"),
    "copy": (lambda m, h: copied(h), "moves"),
    "random factors": (lambda m, h: h * torch.rand_like(h), "fixed"),
    "random factors of rows": (lambda m, h: h * torch.rand(5, 1, dtype=h.dtype), "moves"),
    "bernoulli": (lambda m, h: h * torch.bernoulli(h.sigmoid()), "fixed"),
    "grid_sample": (
        lambda m, h: (
            functional.grid_sample(h.T.reshape(1, 6, 1, 5), h[None, None, :, :2].tanh(), align_corners=False)[0, :, 0].T
        ),
        "ends",
    ),
    "grid_sample at given points": (
        lambda m, h: (
            functional.grid_sample(
                h.T.reshape(1, 6, 1, 5), torch.linspace(-1, 1, 8, dtype=h.dtype).view(1, 1, 4, 2), align_corners=False
            )[0, :, 0].T
        ),
        "moves",
    ),
    "cdist": (lambda m, h: torch.cdist(h, m.experts[0]), "moves"),
    "fft": (lambda m, h: torch.fft.fft(h, dim=1).abs(), "fixed"),
    "rfft of rows": (lambda m, h: torch.fft.irfft(torch.fft.rfft(h, dim=0) * 2, n=5, dim=0), "moves"),
    "view_as_complex": (
        lambda m, h: torch.view_as_real(torch.view_as_complex(h.view(5, 3, 2)) ** 2).flatten(1),
        "pairs",
    ),
    "diagonal": (lambda m, h: h * (h.T @ h).diagonal(), "moves"),
    "another diagonal": (lambda m, h: h * (h.T @ h).diagonal(1).sum(), "fixed"),
    "unfold": (lambda m, h: h.unfold(1, 2, 2).sum(2).repeat(1, 2), "fixed"),
    "unfold of rows": (lambda m, h: h.unfold(0, 2, 1).sum(2), "moves"),
    "cummax": (lambda m, h: h.cummax(1)[0], "fixed"),
    "cummax of rows": (lambda m, h: h.cummax(0)[0], "moves"),
    "bucketize": (lambda m, h: torch.bucketize(h, torch.tensor([-0.5, 0.0, 0.5], dtype=h.dtype)) * h, "moves"),
    "searchsorted": (lambda m, h: torch.searchsorted(h.sort(1)[0], h) * h, "moves"),
    "buckets of numbers": (lambda m, h: torch.bucketize(torch.arange(6), torch.tensor([1, 3])) * h, "fixed"),
}
PATTERNS = {
    "moves": r"h\d in",
    "fixed": "6 in",
    "parts": r"\(h1 \+ h2\) in",
    "pairs": r"\(h1 2\) in",
    "ends": r"\(2 \+ h1\) in",
}


@pytest.mark.parametrize("case", CASES)
def test_rules(case):
    function, expected = CASES[case]
    found = derived(Net(function), X)
    assert re.fullmatch(PATTERNS[expected], found["a.weight"])


def dense_mixture(m, h):
    weights, chosen = m.router(h).softmax(1).topk(2, dim=1)
    gates = (functional.one_hot(chosen, 3) * weights[..., None]).sum(1)
    return torch.einsum("be,bi,eij->bj", gates, h, m.experts)


def sparse_mixture(m, h):
    weights, chosen = m.router(h).softmax(1).topk(2, dim=1)
    return (torch.einsum("bi,bkij->bkj", h, m.experts[chosen]) * weights[..., None]).sum(1)


def gated_mixture(m, h):
    logits = m.router(h)
    kept = torch.full_like(logits, -torch.inf).scatter(1, *logits.topk(2, dim=1)[::-1])
    return torch.einsum("be,bi,eij->bj", kept.softmax(1), h, m.experts)


@pytest.mark.parametrize("mixture", [dense_mixture, sparse_mixture, gated_mixture])
def test_experts_move(mixture):
    found = derived(Net(mixture), X)
    experts, inside, _ = found["experts"].split()
    assert experts.startswith("h")
    assert found["router.weight"] == f"{experts} {inside}"
    counted = derived(Net(lambda m, h: mixture(m, h) * (m.router(h).argmax(1, True) + 1)), X)
    assert counted["experts"].startswith("3 h")


def graph_convolution(m, h, edges):
    return torch.zeros_like(h).index_add(0, edges[1], h[edges[0]].tanh())


def graph_attention(m, h, edges):
    source, target = edges
    scores = (h[source] * h[target]).sum(1).exp()
    total = torch.zeros(len(h), dtype=h.dtype).scatter_add(0, target, scores)
    messages = h[source] * (scores / total[target])[:, None]
    return torch.zeros_like(h).scatter_add(0, target[:, None].expand_as(messages), messages)


@pytest.mark.parametrize("layer", [graph_convolution, graph_attention])
def test_graphs_as_lists_of_edges(layer):
    assert derived(Net(layer), X, EDGES)["a.weight"] == "h1 in"


def test_embedding_bags():
    net = nn.Sequential(nn.EmbeddingBag(7, 4, mode="sum"), nn.Linear(4, 2))
    assert derived(net, torch.zeros(2, 3, dtype=torch.long))["0.weight"] == "in h1"


# What is wrong in each rule, if its axes were all free: the verification must say so.
WRONG = {
    "sort": ("sort", lambda r, call, x, *a, **k: [x, x]),
    "fft": ("_fft_r2c", lambda r, call, x, *a: r.same_shape(x)),
    "cummax": ("cummax", lambda r, call, x, dim: [x, x]),
    "random factors": ("rand_like", lambda r, call, *a, **k: r.tensor(call.shape)),
    "index_add along the axis": ("index_put", lambda r, call, x, *a: r.same_shape(x)),
    "index_put of entries": ("index_put", lambda r, call, x, *a: r.same_shape(x)),
    "gather along the axis": ("gather", lambda r, call, x, *a, **k: r.same_shape(x)),
    "topk, its numbers": ("topk", lambda r, call, x, *a: [r.tensor(s) for s in call.shapes]),
    "another diagonal": ("diagonal", lambda r, call, x, *a: r.tensor(call.shape)),
    "unfold": ("unfold", lambda r, call, x, *a: r.tensor(call.shape)),
    "view_as_complex": ("view_as_complex", lambda r, call, x: r.tensor(call.shape)),
    "cdist": ("_cdist_forward", lambda r, call, *a: r.tensor(call.shape)),
    "slices assigned": ("slice_scatter", lambda r, call, x, part, *a: r.same_shape(x)),
    "argmax, compared": ("eq", lambda r, call, *xs: r.tensor(call.shape)),
    "buckets of numbers": ("arange", lambda r, call, *a, **k: r.tensor(call.shape)),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_rules_are_told(case, monkeypatch):
    name, rule = WRONG[case]
    registry = Registry()
    registry.register(name)(rule)
    assert name in nfn_torch.operations.OPERATIONS
    monkeypatch.setitem(nfn_torch.operations.OPERATIONS, name, registry[name])
    with pytest.raises(LabelError, match="the labeling is no symmetry of the network"):
        derived(Net(CASES[case][0]), X)


def jax_net(function):
    def network(p, x, *others):
        return function(p, x @ p["a"], *others) @ p["b"]

    keys = jax.random.split(jax.random.key(0), 4)
    shapes = {"a": (3, 6), "b": (6, 2), "experts": (3, 6, 6), "router": (6, 3)}
    return network, {n: jax.random.normal(k, shape) for k, (n, shape) in zip(keys, shapes.items(), strict=True)}


def jax_derived(function, *others):
    network, params = jax_net(function)
    space = nfn_jax.weight_space(network, params, jax.random.normal(jax.random.key(1), (5, 3)), *others)
    assert space.verification.error < space.verification.limit
    return patterns(space)


def jax_dense_mixture(p, h):
    weights, chosen = jax.lax.top_k(jax.nn.softmax(h @ p["router"]), 2)
    gates = (jax.nn.one_hot(chosen, 3) * weights[..., None]).sum(1)
    return jnp.einsum("be,bi,eij->bj", gates, h, p["experts"])


def jax_sparse_mixture(p, h):
    weights, chosen = jax.lax.top_k(jax.nn.softmax(h @ p["router"]), 2)
    return (jnp.einsum("bi,bkij->bkj", h, p["experts"][chosen]) * weights[..., None]).sum(1)


ROWS, PLACES = jnp.array([0, 2]), jnp.array([1, 3])
JAX_CASES = {
    "remat": (lambda p, h: jax.checkpoint(lambda y: jnp.sin(y @ p["experts"][0]))(h), "moves"),
    "top_k": (lambda p, h: h * jax.lax.top_k(h, 2)[0].sum(1, keepdims=True), "moves"),
    "top_k, its numbers": (lambda p, h: h * jax.lax.top_k(h, 2)[1].sum(1, keepdims=True), "fixed"),
    "argmax, one hot": (lambda p, h: h * jax.nn.one_hot(h.argmax(1), 6), "moves"),
    "argmax, compared": (lambda p, h: h * (h.argmax(1) == 2)[:, None], "fixed"),
    "take_along_axis": (lambda p, h: h * jnp.take_along_axis(h, h.argmax(1)[:, None], 1), "moves"),
    "sort": (lambda p, h: h * jnp.sort(h, 1), "fixed"),
    "sorted and summed": (lambda p, h: h * (jnp.sort(h, 1) * jnp.arange(6)).sum(1, keepdims=True), "moves"),
    "argsort of rows": (lambda p, h: jnp.take_along_axis(h, jnp.argsort(h, 0), 0), "moves"),
    "entries": (lambda p, h: h * h[:, 2:3], "parts"),
    "scatter of rows": (lambda p, h: h.at[ROWS].set(2 * h[:2]), "moves"),
    "scatter of columns": (lambda p, h: h.at[:, PLACES].set(2 * h[:, :2]), "fixed"),
    "scatter-add of rows": (lambda p, h: h.at[ROWS].add(h[:2]), "moves"),
    "scatter-add of columns": (lambda p, h: h.at[:, PLACES].add(h[:, :2]), "fixed"),
    "scatter-max": (lambda p, h: h.at[jnp.arange(5), h.argmax(1)].max(0.0), "fixed"),
    "two numbers": (lambda p, h: h * h[ROWS, PLACES].sum(), "fixed"),
    "fft": (lambda p, h: jnp.abs(jnp.fft.fft(h, axis=1)), "fixed"),
    "fft of rows": (lambda p, h: jnp.abs(jnp.fft.fft(h, axis=0)), "moves"),
    "random factors": (lambda p, h: h * jax.random.uniform(jax.random.key(0), h.shape), "fixed"),
    "random factors of rows": (lambda p, h: h * jax.random.uniform(jax.random.key(0), (5, 1)), "moves"),
    "eye": (lambda p, h: h @ jnp.eye(6), "moves"),
    "cholesky": (lambda p, h: h @ jnp.linalg.cholesky(h.T @ h + 9 * jnp.eye(6)), "fixed"),
}
JAX_PATTERNS = {"moves": r"in h\d", "fixed": "in 6", "parts": r"in \(h1 \+ 1 \+ h2\)"}


@pytest.mark.parametrize("case", JAX_CASES)
def test_rules_of_primitives(case):
    function, expected = JAX_CASES[case]
    assert re.fullmatch(JAX_PATTERNS[expected], jax_derived(function)["a"])


@pytest.mark.parametrize("mixture", [jax_dense_mixture, jax_sparse_mixture])
def test_experts_move_in_jax(mixture):
    found = jax_derived(mixture)
    experts, inside, _ = found["experts"].split()
    assert experts.startswith("h")
    assert found["router"] == f"{inside} {experts}"


def test_graphs_as_lists_of_edges_in_jax():
    edges = jnp.asarray(EDGES.numpy())
    found = jax_derived(lambda p, h, e: jnp.zeros_like(h).at[e[1]].add(jnp.tanh(h[e[0]])), edges)
    assert found["a"] == "in h1"
    found = jax_derived(lambda p, h, e: jax.ops.segment_sum(h[e[0]], e[1], 5), edges)
    assert found["a"] == "in h1"


JAX_WRONG = {
    "sort": ("sort", lambda r, call, x: [x]),
    "fft": ("fft", lambda r, call, x: r.tensor(call.shape)),
    "scatter of columns": ("scatter", lambda r, call, x, n, part: r.same_shape(x)),
    "scatter-add of columns": ("scatter-add", lambda r, call, x, n, part: r.same_shape(x)),
    "two numbers": ("gather", lambda r, call, x, n: r.tensor(call.shape)),
    "top_k, its numbers": ("top_k", lambda r, call, x: [r.tensor(s) for s in call.shapes]),
    "argmax, compared": ("eq", lambda r, call, *xs: r.tensor(call.shape)),
}


@pytest.mark.parametrize("case", JAX_WRONG)
def test_wrong_rules_of_primitives_are_told(case, monkeypatch):
    name, rule = JAX_WRONG[case]
    registry = Registry()
    registry.register(name)(rule)
    assert name in nfn_jax.operations.OPERATIONS
    monkeypatch.setitem(nfn_jax.operations.OPERATIONS, name, registry[name])
    with pytest.raises(LabelError, match="the labeling is no symmetry of the network"):
        jax_derived(JAX_CASES[case][0])

"""Messages: networks under every check, and the layer's span against orbits of index triples."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from nfn_conformance import CHECKS, connected_triples, subject_of, triple_orbits

from nfn_core import Messages, MessageState, WeightSpace, initialize, message_network, neuron_group

RNN = {"W": [("h", 4), ("in", 2)], "R": [("h", 4), ("h", 4)], "b": [("h", 4)], "V": [("out", 2), ("h", 4)]}
SPACES = {
    "mlp": WeightSpace.mlp([2, 3, 3, 2]),
    "one output": WeightSpace.mlp([2, 4, 1]),
    "cnn": WeightSpace.cnn([1, 3, 3, 2], [(2, 2), (2,), ()]),
    "recurrent": WeightSpace.from_axes(RNN, ["in"], ["out"]),
    "residual": WeightSpace.from_axes(
        {"A": [("s", 3), ("in", 2)], "B": [("h", 2), ("s", 3)], "C": [("s", 3), ("h", 2)]}
    ),
    "three axes": WeightSpace.from_axes({"Q": [("a", 3), ("b", 2), ("c", 2)], "K": [("c", 2), ("a", 3)]}),
}


def network(space, kind, invariant):
    group = space.group(kind)
    options = {"head": [4, 3]} if invariant else {"out_channels": 2}
    omega = 3.0 if kind == "HNP" and space.inputs else None
    return group, message_network(group, 1, 4, omega=omega, points=2, norm="batch", **options)


@pytest.mark.parametrize(
    ("check", "space", "kind", "form"),
    [
        (check, space, kind, form)
        for check, space, kind, form in product(CHECKS, SPACES, ("NP", "HNP"), ("invariant", "equivariant"))
        if check != "compile" or (kind, form) in (("NP", "invariant"), ("HNP", "equivariant"))  # takes 10 seconds each
    ],
)
def test_message_networks(check, space, kind, form, conformance, backend, device):
    invariant = form == "invariant"
    group, layer = network(SPACES[space], kind, invariant)
    claims = {"invariant": True} if invariant else {"out_channels": 2}
    conformance(subject_of(layer, group, backend, device, **claims), check)


@pytest.mark.parametrize(
    ("space", "kind"), [("mlp", "NP"), ("one output", "HNP"), ("recurrent", "NP"), ("three axes", "NP")]
)
def test_messages_span_what_they_say(space, kind):
    """Rank of the layer's bilinear maps over re-drawn parameters: orbits of connected triples, each fixed entry once."""
    rank, expected, orbits = span(SPACES[space].group(kind))
    assert rank == expected < orbits


@pytest.mark.parametrize("space", ["mlp", "recurrent", "three axes"])
def test_every_lost_term_is_seen(space):
    """A zero in place of any one parameter makes the span smaller."""
    group = SPACES[space].group("NP")
    for name in Messages(group, 1, 1, 1).parameter_specs():
        rank, expected, _ = span(group, lambda p, name=name: p | {name: 0 * p[name]})
        assert rank < expected, name


def span(group, change=lambda p: p):
    """Rank of the bilinear maps, connected orbits, all orbits."""
    neurons = neuron_group(group)
    layer = Messages(group, 1, 1, 1)
    orbits, connected = triple_orbits(group, neurons), connected_triples(group, neurons)
    chosen = np.unique(orbits[connected])
    assert not np.isin(orbits[~connected], chosen).any()
    rows = []
    m, n = neurons.space.size, group.space.size
    h = features(neurons.space, np.repeat(np.eye(m), n, axis=0))
    u = features(group.space, np.tile(np.eye(n), (m, 1)))
    for seed in range(len(chosen) + 8):
        out = layer.apply(change(initialize(layer, seed)), MessageState(u, h))
        rows.append(np.concatenate([out[t.name][..., 0] for t in neurons.space.tensors], axis=1).ravel())
    return int(np.linalg.matrix_rank(np.stack(rows))), len(chosen), int(orbits.max()) + 1


def features(space, flat):
    out, start = {}, 0
    for t in space.tensors:
        out[t.name] = flat[:, start : start + t.size].reshape(len(flat), *t.shape, 1)
        start += t.size
    return out


def rows_rolled(u):
    """Messages that arrive at the wrong neuron."""
    return {k: np.roll(x, 1, axis=1) if k == "W2" else x for k, x in u.items()}


@pytest.mark.parametrize("invariant", [True, False], ids=["invariance", "equivariance"])
def test_faults_are_caught(invariant, backend, device):
    group, layer = network(SPACES["mlp"], "HNP", invariant)
    claims = {"invariant": True} if invariant else {"out_channels": 2}
    good = subject_of(layer, group, backend, device, **claims)
    bad = replace(good, apply=lambda p, u: good.apply(p, rows_rolled(u)))
    check = CHECKS["invariance" if invariant else "equivariance"]
    assert check(good).status == "passed"
    assert check(bad).status == "failed"

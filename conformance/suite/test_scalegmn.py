"""What the suite says of ScaleGMN's layers (Kalogeropoulos et al., NeurIPS 2024), written down in NumPy for MLPs.

A neuron i has features x_i that change with its sign or scale q_i, an edge from j to i has features e_ij that change with
q_i / q_j. All layers are products of a linear map and something invariant. Signs are respected in both directions. Positive
scales are respected by forward messages only: the published backward message multiplies x_i by e_ij, which changes with
q_i² / q_j. With the reciprocal of the weight it changes with q_j, as it should.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from nfn_conformance import CHECKS, Subject, assert_conforms

from nfn_core import WeightSpace

SPACE = WeightSpace.mlp([2, 4, 3, 2])
GROUP = SPACE.group("HNP", signed=["h1", "h2"])
LAYERS = (1, 2, 3)
WIDTH = 3


def signless(z):
    return np.abs(z)


def unit(z):
    return z / (np.linalg.norm(z, axis=-1, keepdims=True) + 1e-10)


@dataclass(frozen=True)
class ScaleGMNLayer:
    """One round of messages, and updates of neurons and edges, with weights drawn from a seed.

    `invariant` forgets sign or scale of the features of one neuron or edge. `backward` is what the messages to the neurons
    before take for the weights; without it there are none.
    """

    invariant: object
    backward: object
    seed: int

    def mixed(self, name, x, channels=WIDTH):
        """A linear map of the channels."""
        rows = x.shape[-1]
        matrix = np.random.default_rng([self.seed, *name.encode()]).normal(size=(rows, channels)) / np.sqrt(rows)
        return x @ matrix.astype(x.dtype)

    def gate(self, name, z):
        """A network of one hidden layer of what is invariant."""
        return self.mixed(f"{name} out", np.tanh(self.mixed(f"{name} hidden", z, 8)))

    def equivariant(self, name, z):
        return self.mixed(name, z) * self.gate(name, self.invariant(z))

    def messages(self, name, x, e, over):
        """Sum over the neurons of one end of edges (batch, to, from, channels); x is of shape (batch, 1 or to, ...)."""
        return self.equivariant(name, self.mixed(f"{name} x", x) * self.mixed(f"{name} e", e)).sum(over)

    def __call__(self, u):
        edges = {k: u[f"W{k}"] for k in LAYERS}
        neurons = {0: np.ones_like(u["W1"][:, 0])} | {k: u[f"v{k}"] for k in LAYERS}
        forward = {k: self.messages("forward", neurons[k - 1][:, None], edges[k], over=2) for k in LAYERS}
        back = {
            k - 1: self.messages("backward", neurons[k][:, :, None], self.backward(edges[k]), over=1)
            for k in LAYERS
            if self.backward is not None
        }
        out = {}
        for k in LAYERS:
            heard = [neurons[k], forward[k], *([back.get(k, 0 * forward[k])] if back else [])]
            out[f"v{k}"] = self.equivariant("update", np.concatenate(heard, axis=-1))
            before, after = (self.invariant(neurons[n]) for n in (k - 1, k))
            shape = edges[k].shape
            both = [np.broadcast_to(before[:, None], shape), np.broadcast_to(after[:, :, None], shape)]
            out[f"W{k}"] = self.mixed("edge", edges[k]) * self.gate("edge", np.concatenate(both, axis=-1))
        return out


def itself(e):
    return e


def reciprocal(e):
    return 1 / e


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("backward", [None, itself], ids=["forward", "both directions"])
def test_signs_are_respected(check, backward, conformance):
    name = f"ScaleGMN, signs, {'forward' if backward is None else 'both directions'}"
    subject = Subject(
        name,
        GROUP,
        lambda seed: ScaleGMNLayer(signless, backward, seed),
        lambda layer, u: layer(u),
        in_channels=2,
        out_channels=WIDTH,
    )
    conformance(subject, check)


@pytest.mark.parametrize(
    ("backward", "respected"),
    [(None, True), (itself, False), (reciprocal, True)],
    ids=["forward", "both directions, as published", "both directions, reciprocal weights"],
)
def test_scales_are_respected_by_messages_that_change_with_their_neuron(backward, respected):
    rng = np.random.default_rng(0)
    scales = {0: np.ones(2), 1: rng.uniform(0.5, 2, 4), 2: rng.uniform(0.5, 2, 3), 3: np.ones(2)}

    def scaled(u):
        return {f"W{k}": u[f"W{k}"] * (scales[k][:, None] / scales[k - 1])[..., None] for k in LAYERS} | {
            f"v{k}": u[f"v{k}"] * scales[k][:, None] for k in LAYERS
        }

    layer = ScaleGMNLayer(unit, backward, seed=0)
    u = {t.name: rng.normal(size=(3, *t.shape, 2)) for t in SPACE.tensors}
    found, expected = layer(scaled(u)), scaled(layer(u))
    error = max(np.abs(found[name] - x).max() / np.abs(x).max() for name, x in expected.items())
    assert (error < 1e-8) if respected else (error > 1e-2)


def test_an_odd_part_in_the_gate_is_caught():
    """A negative control: the gate sees the signs that it should forget."""
    broken = Subject(
        "ScaleGMN with signs in its gates",
        GROUP,
        lambda seed: ScaleGMNLayer(itself, None, seed),
        lambda layer, u: layer(u),
        in_channels=2,
        out_channels=WIDTH,
    )
    with pytest.raises(AssertionError, match="equivariance"):
        assert_conforms(broken, "equivariance")

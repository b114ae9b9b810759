"""What an example is too short to reach, and constants of a module: fixed, or recorded and compared."""

import nfn_torch
import pytest
import torch
from labels import patterns
from torch import nn

import nfn_core
from nfn_core import FeatureError, StackWarning
from reference_experiments.demos.small_networks import Network

X = torch.randn(2, 3)


def positions(table):
    """A network of tokens with a table of 16 positions, as a parameter or computed from one."""

    def forward(m, x):
        return m.b(torch.tanh(m.a(x) + table(m)[:, : x.shape[1]]).softmax(1))

    net = Network(forward, a=nn.Linear(3, 4), b=nn.Linear(4, 2))
    net.positions = nn.Parameter(torch.randn(1, 16, 4))
    return net


@pytest.mark.parametrize("table", [lambda m: m.positions, lambda m: 0.1 * m.positions.tanh()])
def test_what_a_short_example_does_not_reach_is_fixed(table):
    net = positions(table)
    space = nfn_torch.weight_space(net, torch.randn(2, 5, 3))
    assert patterns(space)["positions"] == "1 16 h1"
    assert "does not read" in dict(space.fixed)["positions"]
    assert space.verification.unnecessarily_fixed == ()
    whole = nfn_torch.weight_space(net, torch.randn(2, 16, 3))
    assert patterns(whole)["positions"] == "1 in1 h1"  # the table is as long as its inputs


def test_filling_up_to_the_size_of_a_table_fixes_it():
    def forward(m, x):
        return m.b(torch.tanh(nn.functional.pad(m.a(x), (0, 0, 0, 16 - x.shape[1])) + m.positions).mean(1))

    net = positions(lambda m: m.positions)
    net.function = forward
    assert patterns(nfn_torch.weight_space(net, torch.randn(2, 5, 3)))["positions"] == "1 16 h1"


def test_masks_that_are_sliced_to_the_example_are_fixed():
    def forward(m, x):
        h, n = m.a(x), x.shape[1]
        weights = (h @ h.transpose(1, 2)).masked_fill(m.mask[:n, :n] == 0, -1e9).softmax(-1)
        return m.b(weights @ h)

    net = Network(forward, a=nn.Linear(3, 4), b=nn.Linear(4, 2))
    net.register_buffer("mask", torch.ones(16, 16).tril())
    assert patterns(nfn_torch.weight_space(net, torch.randn(2, 5, 3)))["mask"] == "16 16"


def test_a_half_that_nothing_reads_is_fixed_and_the_other_moves():
    net = Network(lambda m, x: m.b(m.a(x).chunk(2, -1)[0]), a=nn.Linear(3, 8), b=nn.Linear(4, 2))
    space = nfn_torch.weight_space(net, X)
    assert patterns(space)["a.weight"] == "(h1 + 4) in"
    assert dict(space.fixed)["a.weight"] == "what aten.split_with_sizes.default (split_with_sizes) does not read"


def masked(mask, persistent=False):
    net = Network(lambda m, x: m.b(torch.tanh(m.a(x)) * m.mask), a=nn.Linear(3, 4), b=nn.Linear(4, 2))
    if persistent is None:
        net.mask = mask  # an attribute that is not registered
    else:
        net.register_buffer("mask", mask, persistent)
    return net


@pytest.mark.parametrize("persistent", [False, True, None])
def test_constants_of_stacked_models_are_those_of_the_first(persistent):
    ones, other = torch.ones(4, dtype=torch.int32), torch.tensor([1, 0, 1, 1], dtype=torch.int32)
    space = nfn_torch.weight_space(masked(ones, persistent), X)
    assert patterns(space)["a.weight"] == "h1 in"
    assert [(name, axes) for name, _, axes in space.constants] == [("mask", (0,))]
    assert nfn_core.from_json(nfn_core.to_json(space)).constants == space.constants
    nfn_torch.stack(space, [masked(ones, persistent)] * 2)
    with pytest.raises(FeatureError, match=r"constant 'mask' of model 1 differs along axes \[0\]"):
        nfn_torch.stack(space, [masked(ones, persistent), masked(other, persistent)])
    with pytest.warns(StackWarning, match="do not show constants of models that differ .*: 'mask'"):
        nfn_torch.stack(space, [masked(2 * ones, persistent)])
    fixed = nfn_torch.weight_space(masked(other, persistent), X)
    assert patterns(fixed)["a.weight"] == "4 in"
    with pytest.warns(StackWarning, match="do not show constants"):
        nfn_torch.stack(fixed, [masked(ones, persistent)])  # the labels hold for any mask

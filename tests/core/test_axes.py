"""The algebra of axes: unification, cuts and reshapes; views there and back; and wrong rules are found out."""

import itertools

import nfn_torch
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nfn_core import LabelError
from nfn_core.models.axes import Algebra, Node, concat_of, fixed_by, product_of
from nfn_core.models.rules import Rules
from nfn_core.models.views import Axis, freeze, join_axes, split_axes


def shown(*nodes):
    """Patterns of axes, with letters for the leaves that may move."""
    names = {}
    letters = itertools.count()

    def label(leaf):
        return None if leaf.fixed or leaf.size == 1 else names.setdefault(id(leaf), "abcdefgh"[next(letters)])

    return [str(freeze(node, label)) for node in nodes]


def product(*sizes):
    return product_of(map(Node, sizes))


def concat(*sizes):
    return concat_of(map(Node, sizes))


UNIFIED = {
    "leaf with product": (Node(6), product(2, 3), "(a b)"),
    "leaf with concatenation": (Node(6), concat(2, 4), "(a + b)"),
    "finer products": (product(2, 6), product(4, 3), "(a b c)"),
    "products that do not divide": (product(2, 3), product(3, 2), "6"),
    "finer concatenations": (concat(2, 4), concat(3, 3), "(a + 1 + b)"),
    "product with concatenation": (product(2, 4), concat(4, 4), "(2 a)"),
    "cut through a product": (product(3, 4), concat(2, 10), "12"),
    "size 1": (product(1, 3, 1), concat(3), "a"),
}


@pytest.mark.parametrize("case", UNIFIED)
def test_unified_axes_are_equal(case):
    one, other, expected = UNIFIED[case]
    Algebra().unify(one, other)
    assert shown(one) == shown(other) == [expected]
    assert shown(one, other) == [expected] * 2  # the same leaves


def test_what_is_fixed_says_why():
    algebra = Algebra()
    x = product(2, 3)
    with algebra.at("a flip"):
        algebra.fix(x)
    y = Node(6)
    with algebra.at("an addition"):
        algebra.unify(y, x)
    assert fixed_by(y) == "a flip"


def test_reshapes():
    algebra = Algebra()
    heads, rest = algebra.regroup([Node(12)], (3, 4))
    assert (heads.size, rest.size) == (3, 4)
    x = concat(4, 4, 4)
    assert shown(*algebra.regroup([x], (3, 4)), x) == ["3", "a", "(3 a)"]  # segments become one set
    odd = [Node(2), Node(3)]
    assert shown(*algebra.regroup(odd, (3, 2)), *odd) == ["3", "2", "2", "3"]


def grouped(sizes):
    rules = Rules()
    whole = rules.tensor((24,))
    return rules, whole, rules.reshape(whole, sizes)


def test_entries_of_a_group_have_axes_of_their_own():
    rules, whole, packed = grouped((3, 8))
    one, two, three = (rules.slice(packed, 0, i, i + 1).axes[1] for i in range(3))
    rules.unify(one, two)
    assert shown(whole.axes[0], three) == ["(a + a + c)", "c"]
    rules, whole, packed = grouped((2, 3, 4))  # heads first
    assert shown(rules.slice(packed, 1, 0, 1).axes[2], whole.axes[0]) == ["a", "(b (a + d))"]


def test_a_group_that_is_used_whole_has_one_order_inside():
    rules, whole, packed = grouped((3, 8))
    rules.unify(packed.axes[1], Node(8))
    rules.fix(packed.axes[0])
    assert shown(whole.axes[0]) == ["(3 a)"]
    rules, whole, packed = grouped((3, 8))
    part = rules.slice(packed, 0, 0, 1)
    rules.unify(packed.axes[1], Node(8))  # later, and with a part of its own before
    assert shown(part.axes[1], whole.axes[0]) == ["a", "(a + (c a))"]
    rules, whole, packed = grouped((3, 8))
    rules.unify(whole.axes[0], rules.reshape(packed, (24,)).axes[0])  # dividing one side divides the other
    assert shown(whole.axes[0]) == ["(a b)"]


@st.composite
def axes(draw, depth=2):
    if depth == 0 or draw(st.booleans()):
        return Axis(draw(st.integers(1, 3)), label=draw(st.sampled_from(["h", "k", None])))
    parts = tuple(draw(st.lists(axes(depth=depth - 1), min_size=1, max_size=3)))
    kind = draw(st.sampled_from(["product", "concat"]))
    sizes = [part.size for part in parts]
    return Axis(int(np.prod(sizes)) if kind == "product" else sum(sizes), kind, parts=parts)


@given(st.lists(axes(), min_size=1, max_size=2))
@settings(deadline=None, max_examples=50)
def test_views_and_back(expressions):
    x = np.arange(2.0 * np.prod([a.size for a in expressions])).reshape(2, *[a.size for a in expressions])
    pieces = list(split_axes(x, expressions))
    assert sum(p.size for p in pieces) == x.size
    np.testing.assert_array_equal(join_axes(iter(pieces), expressions), x)


class Summed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.second(self.first(x).cumsum(-1))


def test_verification_finds_a_wrong_rule(monkeypatch):
    assert nfn_torch.weight_space(Summed(), torch.zeros(2, 3)).verification.unnecessarily_fixed == ()
    monkeypatch.setattr(Rules, "fix_axes", lambda self, x, axes: x)
    with pytest.raises(LabelError, match=r"neuron set 'h1' \(of 'first.weight', 'first.bias', 'second.weight'\)"):
        nfn_torch.weight_space(Summed(), torch.zeros(2, 3))

"""Checks of layers that are out of the ordinary: without constants, without output, of float32 only."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from nfn_conformance import CHECKS, Subject, assert_conforms, measure_all, subject_of

from nfn_core import InvariantPool, NFLayer, SpecError, WeightSpace, initialize

GROUP = WeightSpace.mlp([2, 3, 1]).group("HNP")
CLAIMS = {"out_channels": 2, "linear": True, "maximal": True}


def statuses(subject):
    return {found.check: found.status for found in measure_all(subject)}


def failed(subject):
    return {check for check, status in statuses(subject).items() if status == "failed"}


def test_a_layer_without_constants_has_none_of_them():
    subject = subject_of(NFLayer(GROUP, 1, 2, bias=False), GROUP, **CLAIMS)
    assert failed(subject) == {"constants"}
    found = CHECKS["constants"](subject)
    assert (found.value, found.limit, found.note) == (0, 10, "rank 0, orbits 10, gap inf")
    with pytest.raises(AssertionError, match="fails constants: 0.0 .limit 10.0.; rank 0, orbits 10"):
        assert_conforms(subject, "constants")


def test_an_output_of_zeros_has_rank_0():
    zero = replace(
        subject_of(NFLayer(GROUP, 1, 2), GROUP, **CLAIMS),
        apply=lambda layer, u: {name: np.concatenate([0 * x, 0 * x], -1) for name, x in u.items()},
    )
    assert failed(zero) == {"maximality", "constants", "uncoupled"}
    assert CHECKS["maximality"](zero).note.startswith("rank 0, orbits 82")
    pool = subject_of(InvariantPool(GROUP), GROUP, invariant=True, linear=True, maximal=True)
    pool = replace(pool, apply=lambda layer, u: np.zeros_like(u["v1"][:, :2, 0]))
    assert failed(pool) == {"maximality"}
    assert CHECKS["maximality"](pool).value == 0


class Narrow(torch.nn.Module):
    """An NF-layer that computes in float32 whatever comes, or one that is not equivariant."""

    def __init__(self, seed, factor=0.0):
        super().__init__()
        self.layer, self.factor = NFLayer(GROUP, 1, 2), factor
        self.params = {n: torch.tensor(x, dtype=torch.float32) for n, x in initialize(self.layer, seed).items()}

    def forward(self, u):
        out = self.layer.apply(self.params, {name: x.float() for name, x in u.items()})
        return {name: x + self.factor * x[:, :1] for name, x in out.items()}


def narrow_subject(**options):
    def tensors(u):
        return {name: torch.tensor(x).requires_grad_() for name, x in u.items()}

    def apply(module, u):
        return {name: x.detach().numpy() for name, x in module(tensors(u)).items()}

    def vjp(module, u, v):
        inputs = tensors(u)
        out = module(inputs)
        total = sum((out[name] * torch.tensor(v[name])).sum() for name in out)
        return {n: g.numpy() for n, g in zip(inputs, torch.autograd.grad(total, list(inputs.values())), strict=True)}

    return Subject("narrow", GROUP, lambda seed: Narrow(seed, **options), apply, vjp=vjp, compiled=apply, **CLAIMS)


def test_a_layer_of_float32_fails_by_its_dtype_alone():
    subject = narrow_subject()
    found = statuses(subject)
    assert [check for check, status in found.items() if status == "failed"] == ["dtype"]
    assert [check for check, status in found.items() if status == "not provided"] == [
        "invariance",
        "duplication",
        "round trip",
    ]
    for check in ("equivariance", "linearity", "gradient", "batch"):
        assert CHECKS[check](subject).limit > 1e-6  # of float32, as the output is
    assert "output dtypes ['float32']" in CHECKS["dtype"](subject).note
    assert {"equivariance", "gradient"} <= failed(narrow_subject(factor=1e-2))


def test_an_invariant_layer_of_float32_fails_by_its_dtype_alone():
    layer = InvariantPool(GROUP)
    subject = replace(
        subject_of(layer, GROUP, invariant=True),
        apply=lambda params, u: layer.apply({}, {name: x.astype("float32") for name, x in u.items()}),
    )
    assert failed(subject) == {"dtype"}


def test_what_is_no_subject():
    subject = subject_of(NFLayer(GROUP, 1, 2), GROUP, **CLAIMS)
    with pytest.raises(SpecError, match="subject must be a Subject, not 3"):
        measure_all(3)
    with pytest.raises(SpecError, match="check must be one of 'equivariance', .*, not 'symmetry'"):
        assert_conforms(subject, "symmetry")
    with pytest.raises(SpecError, match="seed must be a non-negative integer, not -1"):
        assert_conforms(subject, "batch", -1)
    for change, message in {
        "make": "make must be a function or module, not 3",
        "vjp": "vjp must be a function or module, not 3",
        "linear": "linear must be True or False, not 3",
        "group": "group must be a Group, not 3",
    }.items():
        with pytest.raises(SpecError, match=message):
            replace(subject, **{change: 3})
    with pytest.raises(SpecError, match="device must be one of 'cpu', 'cuda', 'gpu', not 'tpu'"):
        subject_of(NFLayer(GROUP, 1, 2), GROUP, device="tpu")

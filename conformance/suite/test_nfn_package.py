"""The PyPI package `nfn` 0.1.2, the paper's own code, through the public interface; known failures are strict.

Its expected failures stand in nfn_0_1_2.txt, one a line with the measured figures.
"""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from nfn.common import NetworkSpec, WeightSpaceFeatures, network_spec_from_wsfeat
from nfn.layers import HNPLinear, HNPPool, IOSinusoidalEncoding, NPLinear, NPPool, Pointwise, StatFeaturizer
from nfn_conformance import CHECKS, Subject, assert_conforms

from nfn_core import WeightSpace

SIZES = {"2-4-3": [2, 4, 3], "3-4-4-2": [3, 4, 4, 2], "2-3-4-3-2": [2, 3, 4, 3, 2]}
KINDS = {"NPLinear": (NPLinear, "NP"), "HNPLinear": (HNPLinear, "HNP"), "Pointwise": (Pointwise, "NP")}
POOLS = {"NPPool": (NPPool, "NP"), "HNPPool": (HNPPool, "HNP")}


def features(u):
    """Channels first, weights and biases apart."""
    moved = {k: torch.tensor(np.moveaxis(x, -1, 1)) for k, x in u.items()}
    depth = len(moved) // 2
    return WeightSpaceFeatures(*([moved[f"{kind}{i}"] for i in range(1, depth + 1)] for kind in "Wv"))


def spec_of(space: WeightSpace) -> NetworkSpec:
    return network_spec_from_wsfeat(features({t.name: np.zeros((1, *t.shape, 1)) for t in space.tensors}))


def apply(module, u):
    kind = next(iter(u.values())).dtype
    with torch.no_grad():
        out = module.to(torch.float32 if kind == np.float32 else torch.float64)(features(u))
    if isinstance(out, torch.Tensor):
        return out.numpy()
    pairs = {f"{k}{i}": x for k, xs in (("W", out.weights), ("v", out.biases)) for i, x in enumerate(xs, start=1)}
    return {k: np.moveaxis(x.numpy(), 1, -1) for k, x in pairs.items()}


def subject(kind: str, sizes: str) -> Subject:
    space = WeightSpace.mlp(SIZES[sizes])

    def make(seed):
        torch.manual_seed(seed)
        if kind in POOLS:
            return POOLS[kind][0](spec_of(space)).double()
        return KINDS[kind][0](spec_of(space), 1, 1).double()

    group = space.group((KINDS | POOLS)[kind][1])
    claims = {"invariant": True} if kind in POOLS else {"linear": True, "maximal": kind != "Pointwise"}
    return Subject(f"nfn 0.1.2 {kind} {sizes}", group, make, apply, **claims)


def expected_failures():
    """Reason by (kind, sizes, check)."""
    lines = (Path(__file__).parent / "nfn_0_1_2.txt").read_text().splitlines()
    rows = [line.split(None, 3) for line in lines if line and not line.startswith("#")]
    return {tuple(row[:3]): row[3] for row in rows}


def cases():
    known = expected_failures()
    for kind in (*KINDS, *POOLS):
        for sizes in SIZES:
            for check in CHECKS:
                reason = known.get((kind, sizes, check.replace(" ", "_")))
                marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
                yield pytest.param(kind, sizes, check, marks=marks, id=f"{kind} {sizes} {check}")


@pytest.mark.parametrize(("kind", "sizes", "check"), list(cases()))
def test_nfn(kind, sizes, check, conformance):
    conformance(subject(kind, sizes), check)


@pytest.mark.parametrize(
    ("sizes", "rank", "orbits"), [("2-4-3", 114, 117), ("3-4-4-2", 140, 142), ("2-3-4-3-2", 162, 164)]
)
def test_hnp_linear_lacks_terms(sizes, rank, orbits):
    """The term from the last hidden bias to the last weight, b_phi^{L,L-1,j} of table 9."""
    found = CHECKS["maximality"](subject("HNPLinear", sizes))
    assert (found.value, found.limit) == (rank, orbits)


def test_np_linear_is_maximal():
    assert assert_conforms(subject("NPLinear", "3-4-4-2"), "maximality").value == 62


def test_hnp_linear_carries_more_parameters_than_dimensions():
    """193 in all, 20 of them constants, for 142 dimensions."""
    module = subject("HNPLinear", "3-4-4-2").make(0)
    sizes = {name: p.numel() for name, p in module.named_parameters()}
    assert sum(sizes.values()) == 193
    assert sum(n for name, n in sizes.items() if name.endswith("bias")) == 20


def test_hnp_linear_raises_on_one_layer():
    with pytest.raises(IndexError):
        HNPLinear(spec_of(WeightSpace.mlp([2, 3])), 1, 1)


def test_sinusoidal_encoding_raises_on_a_convolutional_last_layer():
    u = {t.name: np.zeros((1, *t.shape, 1)) for t in WeightSpace.cnn([1, 4, 2], [(3, 3), (3, 3)]).tensors}
    with pytest.raises(RuntimeError, match="same number of dimensions"):
        IOSinusoidalEncoding(network_spec_from_wsfeat(features(u)))(features(u))


def test_statistics_are_nan_where_the_output_has_one_unit():
    u = {t.name: np.ones((1, *t.shape, 1), "float32") for t in WeightSpace.mlp([2, 4, 1]).tensors}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own word on the variance of one number, said once a process
        found = StatFeaturizer()(features(u))
    assert int(found.isnan().sum()) == 1

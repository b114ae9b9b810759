"""Conformance checks for permutation-equivariant layers over weight spaces, ours or anyone's.

In a test, one line does::

    assert_equivariant(module, features)                     # an NFModule: the group of its description
    assert_equivariant(module, features, "HNP", space=space)  # any module or function: torch, JAX, NumPy
    assert_invariant(reader, features, group)                # outputs that no permutation changes
    assert_normalized(module, features)                      # standard deviations from 1/2 to 2
    assert_maximal(make, features, group)                    # make(seed) is a layer; rank against orbits

Each runs the layer in its own library and dtype, returns the `Measurement`, and puts it into the message of a failure.
For all checks bring the layer as a `Subject`: `measure_all` measures, and `assert_conforms` fails on one check.

Names are imported when used, because the pytest plugin of this package is loaded by every pytest run, also where the
extra ``nfn-core[conformance]`` is not installed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nfn_core.errors import MissingDependencyError

if TYPE_CHECKING:
    from nfn_conformance.assertions import (
        assert_equivariant,
        assert_invariant,
        assert_maximal,
        assert_normalized,
    )
    from nfn_conformance.checks import CHECKS, assert_conforms, measure_all
    from nfn_conformance.measurements import Measurement
    from nfn_conformance.oracle import connected_triples, index_orbits, pair_orbits, triple_orbits
    from nfn_conformance.subject import Subject
    from nfn_conformance.subjects import subject_of

__all__ = [
    "CHECKS",
    "Measurement",
    "Subject",
    "assert_conforms",
    "assert_equivariant",
    "assert_invariant",
    "assert_maximal",
    "assert_normalized",
    "connected_triples",
    "index_orbits",
    "measure_all",
    "pair_orbits",
    "subject_of",
    "triple_orbits",
]

_HOMES = {
    "CHECKS": "checks",
    "Measurement": "measurements",
    "assert_conforms": "checks",
    "assert_equivariant": "assertions",
    "assert_invariant": "assertions",
    "assert_maximal": "assertions",
    "assert_normalized": "assertions",
    "measure_all": "checks",
    "index_orbits": "oracle",
    "pair_orbits": "oracle",
    "connected_triples": "oracle",
    "triple_orbits": "oracle",
    "Subject": "subject",
    "subject_of": "subjects",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ImportError as error:
        raise MissingDependencyError(f"{name} needs nfn-core[conformance] ({error}): install it.") from error


def __dir__() -> list[str]:
    """List public names before they are imported too."""
    return sorted({*globals(), *__all__})

"""Brute-force orbits of indices under a group, by connected components over its generators.

Shares no code with any layer: it knows only the weight space and which entries a permutation moves where.
"""

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from nfn_core import Group, Permutation

__all__ = ["index_orbits", "index_permutation", "pair_orbits"]


def index_permutation(group: Group, sigma: Permutation) -> np.ndarray:
    """Where each entry of the flattened weight space goes.

    Parameters
    ----------
    group : Group
        The group, with its weight space.
    sigma : Permutation
        An element.

    Returns
    -------
    numpy.ndarray
        Integers of shape (dim U,): entry e goes to place ``out[e]``, tensors one after another in C order.
    """
    images = dict(sigma.images)
    places = []
    start = 0
    for t in group.space.tensors:
        index = np.indices(t.shape).reshape(len(t.shape), t.size)
        for axis, label in enumerate(t.labels):
            if label in images:
                index[axis] = np.asarray(images[label])[index[axis]]
        places.append(start + np.ravel_multi_index(tuple(index), t.shape) if t.shape else np.array([start]))
        start += t.size
    return np.concatenate(places)


def index_orbits(group: Group) -> np.ndarray:
    """Orbits of single indices.

    Parameters
    ----------
    group : Group
        The group, with its weight space.

    Returns
    -------
    numpy.ndarray
        Orbit number of every entry of the flattened weight space, shape (dim U,).
    """
    n = group.space.size
    return _components(n, [index_permutation(group, g) for g in group.generators()])


def pair_orbits(group: Group) -> np.ndarray:
    """Orbits of index pairs.

    Parameters
    ----------
    group : Group
        The group, with its weight space.

    Returns
    -------
    numpy.ndarray
        Orbit number of every pair of an output and an input entry, shape (dim U, dim U).
    """
    n = group.space.size
    moves = [index_permutation(group, g) for g in group.generators()]
    return _components(n * n, [(p[:, None] * n + p[None, :]).ravel() for p in moves]).reshape(n, n)


def _components(n: int, moves: list[np.ndarray]) -> np.ndarray:
    """Component number of n points joined to their images."""
    if not moves:
        return np.arange(n)
    rows = np.tile(np.arange(n), len(moves))
    edges = coo_matrix((np.ones(len(rows), dtype=np.int8), (rows, np.concatenate(moves))), shape=(n, n))
    return np.asarray(connected_components(edges, directed=False)[1])

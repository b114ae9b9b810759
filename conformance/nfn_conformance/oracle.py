"""Brute-force orbits of indices under a group, by connected components over its generators.

Shares no code with any layer: it knows only the weight space and which entries a permutation moves where.
"""

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from nfn_core import Group, Permutation
from nfn_core.checks import check_kind

__all__ = ["connected_triples", "index_orbits", "index_permutation", "pair_orbits", "triple_orbits"]


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

    Raises
    ------
    SpecError
        If it is no group.
    """
    check_kind("group", group, Group)
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

    Raises
    ------
    SpecError
        If it is no group.
    """
    check_kind("group", group, Group)
    n = group.space.size
    moves = [index_permutation(group, g) for g in group.generators()]
    return _components(n * n, [(p[:, None] * n + p[None, :]).ravel() for p in moves]).reshape(n, n)


def triple_orbits(group: Group, neurons: Group) -> np.ndarray:
    """Orbits of index triples: the bilinear equivariant maps from features and neurons to neurons, one for each.

    Parameters
    ----------
    group : Group
        The group, with its weight space.
    neurons : Group
        The same group on the space of its neurons.

    Returns
    -------
    numpy.ndarray
        Orbit number of every triple of an output neuron, an input neuron and an entry, shape (dim h, dim h, dim U).

    Raises
    ------
    SpecError
        If it is no group.
    """
    check_kind("group", group, Group)
    check_kind("neurons", neurons, Group)
    m, n = neurons.space.size, group.space.size
    moves = []
    for sigma in group.generators():
        h, u = index_permutation(neurons, sigma), index_permutation(group, sigma)
        moves.append(((h[:, None, None] * m + h[None, :, None]) * n + u[None, None, :]).ravel())
    return _components(m * m * n, moves).reshape(m, m, n)


def connected_triples(group: Group, neurons: Group) -> np.ndarray:
    """Return for every index triple whether the input neuron is one of the entry's, and the output neuron one of both.

    Parameters
    ----------
    group, neurons : Group
        As `triple_orbits`.

    Returns
    -------
    numpy.ndarray
        Booleans of shape (dim h, dim h, dim U).

    Raises
    ------
    SpecError
        If it is no group.
    """
    check_kind("group", group, Group)
    check_kind("neurons", neurons, Group)
    label = np.concatenate([np.full(t.size, k) for k, t in enumerate(neurons.space.tensors)])
    place = np.concatenate([np.arange(t.size) for t in neurons.space.tensors])
    touches = []
    for t in group.space.tensors:
        index = np.indices(t.shape).reshape(len(t.shape), t.size)
        hit = np.zeros((len(label), t.size), dtype=bool)
        for axis, name in enumerate(t.labels):
            for k, s in enumerate(neurons.space.tensors):
                if s.name == name:
                    hit |= (label == k)[:, None] & (place[:, None] == index[axis][None, :])
        touches.append(hit)
    touched = np.concatenate(touches, axis=1)
    same = np.eye(len(label), dtype=bool)
    return touched[None, :, :] & (touched[:, None, :] | same[:, :, None])


def _components(n: int, moves: list[np.ndarray]) -> np.ndarray:
    """Component number of n points joined to their images."""
    if not moves:
        return np.arange(n)
    rows = np.tile(np.arange(n), len(moves))
    edges = coo_matrix((np.ones(len(rows), dtype=np.int8), (rows, np.concatenate(moves))), shape=(n, n))
    return np.asarray(connected_components(edges, directed=False)[1])

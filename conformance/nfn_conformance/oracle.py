"""Brute-force orbits of indices under a group, by connected components over its generators.

Shares no code with any layer: it knows only the weight space, which entries a permutation moves where, and which it
multiplies by -1. An orbit in which an entry returns with a minus carries no map: it is not counted, and has the number -1.
"""

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from nfn_core import Group, Permutation
from nfn_core.checks import check_kind

__all__ = ["connected_triples", "index_orbits", "index_permutation", "index_signs", "pair_orbits", "triple_orbits"]


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


def index_signs(group: Group, sigma: Permutation) -> np.ndarray:
    """What each entry of the flattened weight space is multiplied by, before it moves.

    Parameters
    ----------
    group : Group
        The group, with its weight space.
    sigma : Permutation
        An element.

    Returns
    -------
    numpy.ndarray
        1 or -1, shape (dim U,), in the order of `index_permutation`.
    """
    found = []
    for t in group.space.tensors:
        index = np.indices(t.shape).reshape(len(t.shape), t.size)
        signs = np.ones(t.size, dtype=int)
        for axis, (label, grade) in enumerate(zip(t.labels, group.grade(t.name), strict=True)):
            carried = [values for name, values in sigma.signs if name == label]
            for k, values in enumerate(carried):
                if grade >> k & 1:
                    signs = signs * np.asarray(values)[index[axis]]
        found.append(signs)
    return np.concatenate(found)


def index_orbits(group: Group) -> np.ndarray:
    """Orbits of single indices.

    Parameters
    ----------
    group : Group
        The group, with its weight space.

    Returns
    -------
    numpy.ndarray
        Orbit number of every entry of the flattened weight space, shape (dim U,); -1 where one returns with a minus.

    Raises
    ------
    SpecError
        If it is no group.
    """
    check_kind("group", group, Group)
    n = group.space.size
    return _components(n, [(index_permutation(group, g), index_signs(group, g)) for g in group.generators()])


def pair_orbits(group: Group, target: Group | None = None) -> np.ndarray:
    """Orbits of index pairs.

    Parameters
    ----------
    group : Group
        The group, with the weight space of the input.
    target : Group, optional
        The same group on the weight space of the output, if that is another.

    Returns
    -------
    numpy.ndarray
        Orbit number of every pair of an output and an input entry, shape (dim U, dim U); -1 where one returns with a minus.

    Raises
    ------
    SpecError
        If it is no group.
    """
    check_kind("group", group, Group)
    check_kind("target", target, Group | None)
    target = target or group
    m, n = target.space.size, group.space.size
    moves = []
    for g in group.generators():
        p, q = index_permutation(target, g), index_permutation(group, g)
        signs = index_signs(target, g)[:, None] * index_signs(group, g)[None, :]
        moves.append(((p[:, None] * n + q[None, :]).ravel(), signs.ravel()))
    return _components(m * n, moves).reshape(m, n)


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
        places = ((h[:, None, None] * m + h[None, :, None]) * n + u[None, None, :]).ravel()
        moves.append((places, np.ones(places.size, dtype=int)))
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


def _components(n: int, moves: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Component number of n points joined to their images, -1 where a point is joined to its own negative.

    Every point is there twice, e and n + e for its negative. A move takes both to the image, or with a minus to each other's.
    """
    if not moves:
        return np.arange(n)
    rows = np.tile(np.arange(2 * n), len(moves))
    ends = [np.concatenate([p + n * (s < 0), p + n * (s > 0)]) for p, s in moves]
    edges = coo_matrix((np.ones(len(rows), dtype=np.int8), (rows, np.concatenate(ends))), shape=(2 * n, 2 * n))
    numbers = connected_components(edges, directed=False)[1]
    plain, negative = numbers[:n], numbers[n:]
    orbits = np.full(n, -1)
    kept = plain != negative
    orbits[kept] = np.unique(np.minimum(plain, negative)[kept], return_inverse=True)[1]
    return orbits

"""Neuron permutations and their action on features (paper, Eq. 1 and table 1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import factorial, prod
from typing import Any

import numpy as np

from nfn_core.arrays import AnyArray, Array, device_of
from nfn_core.checks import check_kind, natural_int, plain_int, plain_names, plain_tuple, shown
from nfn_core.errors import PermutationError, SpecError
from nfn_core.features import check_features
from nfn_core.registry import describable
from nfn_core.spaces import WeightSpace

__all__ = ["Group", "Permutation", "images_of_assignment", "images_of_matrix"]


@dataclass(frozen=True)
class Permutation:
    """An element σ of a group: for each permuted neuron set the images σ(0), σ(1), ...

    Made by `Group.permutation`, `Group.sample` or `Group.identity`.

    Parameters
    ----------
    images : tuple of (str, tuple of int)
        Pairs of a neuron set and its images: neuron j goes to place ``images[j]``.

    Raises
    ------
    PermutationError
        If the images of a set of size n are not each of 0, ..., n-1 once.
    """

    images: tuple[tuple[str, tuple[int, ...]], ...]

    def __post_init__(self) -> None:
        try:
            pairs = [(label, image) for label, image in plain_tuple("images", self.images)]
        except (TypeError, ValueError):  # SpecError is a ValueError
            raise PermutationError(
                f"images must be pairs of a neuron set and its images, not {shown(self.images)}: use Group.permutation."
            ) from None
        for label, _ in pairs:
            if not isinstance(label, str):
                raise PermutationError(f"images must name neuron sets, not {shown(label)}: use Group.permutation.")
        object.__setattr__(
            self,
            "images",
            tuple((label, _images(f"permutation of neuron set {label!r}", image)) for label, image in pairs),
        )

    def __getitem__(self, label: str) -> tuple[int, ...]:
        """Images of one neuron set.

        Raises
        ------
        PermutationError
            If the permutation has no such set.
        """
        for name, image in self.images:
            if name == label:
                return image
        raise PermutationError(
            f"the permutation has no neuron set {shown(label)}, but {tuple(name for name, _ in self.images)}."
        )

    def inverse(self) -> "Permutation":
        """Return σ⁻¹."""
        return Permutation(tuple((label, _inverse(image)) for label, image in self.images))

    def compose(self, first: "Permutation") -> "Permutation":
        """Return the product that applies `first`, then this permutation: (στ)U = σ(τU).

        Parameters
        ----------
        first : Permutation
            An element τ of the same group.

        Returns
        -------
        Permutation
            The product στ.

        Raises
        ------
        PermutationError
            If the two move different neuron sets or sets of different sizes.
        """
        _check_permutation("first", first)
        theirs = dict(first.images)
        mine = dict(self.images)
        if {k: len(v) for k, v in mine.items()} != {k: len(v) for k, v in theirs.items()}:
            raise PermutationError(
                f"only elements of one group compose: this one moves {_sizes(mine)}, the other {_sizes(theirs)}."
            )
        return Permutation(tuple((k, tuple(image[j] for j in theirs[k])) for k, image in self.images))


@describable
@dataclass(frozen=True)
class Group:
    """The product of the symmetric groups of some neuron sets, acting on a weight space.

    Made by `WeightSpace.group`. Sets of size 1 are dropped from `permuted`: they have nothing to permute.

    Parameters
    ----------
    space : WeightSpace
        The space acted on.
    permuted : tuple of str
        Neuron sets that are permuted, each independently of the others.

    Raises
    ------
    SpecError
        If a set is not one of the space's.
    """

    space: WeightSpace
    permuted: tuple[str, ...]

    def __post_init__(self) -> None:
        check_kind("space", self.space, WeightSpace)
        sizes, permuted = self.space.sizes, plain_names("permuted", self.permuted)
        for label in permuted:
            if label not in sizes:
                raise SpecError(f"group moves unknown neuron set {label!r}: this space has {tuple(sizes)}.")
        moved = set(permuted)
        kept = tuple(label for label in sizes if label in moved and sizes[label] > 1)
        object.__setattr__(self, "permuted", kept)

    @property
    def name(self) -> str:
        """``"NP"`` or ``"HNP"``, or the neuron sets in braces."""
        for name in ("NP", "HNP"):
            if self.permuted == self.space.group(name).permuted:
                return name
        return "{" + ", ".join(self.permuted) + "}"

    def __repr__(self) -> str:
        """Space and name: ``WeightSpace.mlp([2, 32, 32, 1]).group('HNP')``."""
        return f"{self.space!r}.group({self.name!r})"

    @property
    def order(self) -> int:
        """Number of elements."""
        return prod(factorial(self.space.sizes[label]) for label in self.permuted)

    def permutation(self, images: Mapping[str, Sequence[int]]) -> Permutation:
        """Validate the images of some neuron sets; sets not given stay in place.

        Parameters
        ----------
        images : mapping of str to sequence of int
            For a neuron set of size n the images σ(0), ..., σ(n-1), integers of any type. `images_of_matrix` and
            `images_of_assignment` give them.

        Returns
        -------
        Permutation
            An element of this group.

        Raises
        ------
        PermutationError
            If a set is not permuted by this group, or its images are not each of 0, ..., n-1 once.
        """
        if not isinstance(images, Mapping):
            raise PermutationError(f"images must be a mapping from neuron sets to images, not {shown(images)}.")
        found = {}
        for label, image in images.items():
            if label not in self.permuted:
                raise PermutationError(
                    f"permutation moves neuron set {label!r}, but this group moves only {self.permuted}."
                )
            found[label] = _images(f"permutation of neuron set {label!r}", image, self.space.sizes[label])
        full = {label: tuple(range(self.space.sizes[label])) for label in self.permuted} | found
        return Permutation(tuple(full.items()))

    def identity(self) -> Permutation:
        """Return the neutral element."""
        return self.permutation({})

    def sample(self, seed: int | np.random.Generator) -> Permutation:
        """Draw an element uniformly.

        Parameters
        ----------
        seed : int or numpy.random.Generator
            Seed, or a generator that is advanced.

        Returns
        -------
        Permutation
            A uniformly drawn element.

        Raises
        ------
        SpecError
            If the seed is neither a non-negative integer nor a generator.
        """
        rng = seed if isinstance(seed, np.random.Generator) else np.random.default_rng(natural_int("seed", seed))
        return self.permutation({label: rng.permutation(self.space.sizes[label]).tolist() for label in self.permuted})

    def generators(self) -> tuple[Permutation, ...]:
        """Return a generating set: for each neuron set the swap of its first two neurons and the cycle of all."""
        found = []
        for label in self.permuted:
            n = self.space.sizes[label]
            found.append(self.permutation({label: [1, 0, *range(2, n)]}))
            if n > 2:
                found.append(self.permutation({label: [*range(1, n), 0]}))
        return tuple(found)

    def act(self, sigma: Permutation, features: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        """Apply σ to features (Eq. 1): entry (j, k) of a weight goes to (σ(j), σ(k)).

        Entries are only moved, so the result is exact.

        Parameters
        ----------
        sigma : Permutation
            An element of this group.
        features : mapping of str to array
            Features of this space: each tensor has shape (batch, *axes, channels), real floating dtype.

        Returns
        -------
        dict of str to array
            Features of the same shapes and dtype.

        Raises
        ------
        PermutationError
            If `sigma` is not an element of this group.
        FeatureError
            If the features do not fit the space.
        """
        _check_permutation("sigma", sigma)
        self.permutation(dict(sigma.images))
        xp = check_features(self.space, features)
        sources = {label: list(_inverse(image)) for label, image in sigma.images}
        out: dict[str, Any] = {}
        for t in self.space.tensors:
            x: Array = features[t.name]
            for axis, label in enumerate(t.labels):
                if label in sources:
                    x = xp.take(x, xp.asarray(sources[label], device=device_of(x)), axis=axis + 1)
            out[t.name] = x
        return out


def images_of_matrix(matrix: Any) -> tuple[int, ...]:
    """Images of a permutation matrix P, for `Group.permutation`: neurons x, as a column, become P x.

    Parameters
    ----------
    matrix : array or sequence of sequences
        P, shape (n, n), with a single 1 in each row and column: ``P[i, j] = 1`` takes neuron j to place i.

    Returns
    -------
    tuple of int
        The images σ(0), ..., σ(n-1).

    Raises
    ------
    PermutationError
        If it is no permutation matrix.

    Examples
    --------
    >>> images_of_matrix([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    (2, 0, 1)
    """
    try:
        p = np.asarray(matrix)
        square = p.ndim == 2 and p.shape[0] == p.shape[1]
        whole = bool(np.all((p == 0) | (p == 1)))
    except (TypeError, ValueError, RuntimeError) as error:
        raise PermutationError(f"a permutation matrix is an array of shape (n, n), not {shown(matrix)}.") from error
    if not square:
        raise PermutationError(
            f"a permutation matrix has shape (n, n), not {p.shape}: of pairs of rows and columns use images_of_assignment."
        )
    if not whole:
        raise PermutationError(
            "a permutation matrix holds only 0 and 1, but this one has other entries: round a soft one first, for example "
            "with images_of_assignment(*scipy.optimize.linear_sum_assignment(matrix, maximize=True))."
        )
    if np.any(p.sum(axis=0) != 1) or np.any(p.sum(axis=1) != 1):
        raise PermutationError("a permutation matrix has a single 1 in each row and each column, but this one has not.")
    return images_of_assignment(*np.nonzero(p))


def images_of_assignment(rows: Any, columns: Any) -> tuple[int, ...]:
    """Images of an assignment, as `scipy.optimize.linear_sum_assignment` gives it, for `Group.permutation`.

    Rows are the neurons of a network that stays, columns those of the network that is permuted: where a cost [i, j] compares
    neuron i of the first with neuron j of the second, the permuted second has at place i what the assignment pairs with i.

    Parameters
    ----------
    rows, columns : array or sequence of int
        Pairs, each shape (n,): neuron ``columns[k]`` goes to place ``rows[k]``, as by the matrix with 1 at [rows[k], columns[k]].

    Returns
    -------
    tuple of int
        The images σ(0), ..., σ(n-1).

    Raises
    ------
    PermutationError
        If rows or columns are not each of 0, ..., n-1 once.

    Examples
    --------
    >>> images_of_assignment([0, 1, 2], [1, 2, 0])
    (2, 0, 1)
    """
    places, neurons = _images("rows", rows), _images("columns", columns)
    if len(places) != len(neurons):
        raise PermutationError(
            f"an assignment has as many rows as columns, not {len(places)} and {len(neurons)}: all neurons must be paired."
        )
    return tuple(place for _, place in sorted(zip(neurons, places, strict=True)))


def _images(where: str, image: Any, n: int | None = None) -> tuple[int, ...]:
    """Images of one neuron set as plain integers."""
    try:
        given = plain_tuple(where, image)
    except SpecError as error:
        raise PermutationError(str(error)) from None
    numbers = tuple(map(plain_int, given))
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int):
            raise PermutationError(
                f"{where} must hold integers, not {shown(number)}: of a permutation matrix use images_of_matrix, of an "
                "assignment images_of_assignment."
            )
    n = len(numbers) if n is None else n
    if len(numbers) != n:
        raise PermutationError(f"{where} must have length {n}, not {len(numbers)}.")
    if sorted(numbers) != list(range(n)):
        raise PermutationError(f"{where} must contain each of 0, ..., {n - 1} once, not {numbers}.")
    return numbers


def _check_permutation(name: str, sigma: Any) -> None:
    """Refuse what is no permutation."""
    if not isinstance(sigma, Permutation):
        raise PermutationError(f"{name} must be a Permutation, not {shown(sigma)}: make it with Group.permutation.")


def _inverse(image: tuple[int, ...]) -> tuple[int, ...]:
    """Inverse of one permutation given by its images."""
    inverse = [0] * len(image)
    for j, place in enumerate(image):
        inverse[place] = j
    return tuple(inverse)


def _sizes(images: Mapping[str, tuple[int, ...]]) -> str:
    """Neuron sets and sizes of a permutation, for messages."""
    return "{" + ", ".join(f"{label}: {len(image)}" for label, image in images.items()) + "}"

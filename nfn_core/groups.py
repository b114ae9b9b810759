"""Neuron permutations and their action on features (paper, Eq. 1 and table 1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import factorial, prod
from typing import Any

import numpy as np

from nfn_core.arrays import AnyArray, Array, device_of
from nfn_core.errors import PermutationError, SpecError
from nfn_core.features import check_features
from nfn_core.registry import describable
from nfn_core.spaces import WeightSpace

__all__ = ["Group", "Permutation"]


@dataclass(frozen=True)
class Permutation:
    """An element σ of a group: for each permuted neuron set the images σ(0), σ(1), ...

    Made by `Group.permutation`, `Group.sample` or `Group.identity`, which validate it.

    Parameters
    ----------
    images : tuple of (str, tuple of int)
        Pairs of a neuron set and its images: neuron j goes to place ``images[j]``.
    """

    images: tuple[tuple[str, tuple[int, ...]], ...]

    def __getitem__(self, label: str) -> tuple[int, ...]:
        """Images of one neuron set."""
        return dict(self.images)[label]

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
        sizes = self.space.sizes
        for label in self.permuted:
            if label not in sizes:
                raise SpecError(f"group moves unknown neuron set {label!r}: this space has {tuple(sizes)}.")
        kept = tuple(label for label in sizes if label in self.permuted and sizes[label] > 1)
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
            For a neuron set of size n the images σ(0), ..., σ(n-1).

        Returns
        -------
        Permutation
            An element of this group.

        Raises
        ------
        PermutationError
            If a set is not permuted by this group, or its images are not each of 0, ..., n-1 once.
        """
        for label, image in images.items():
            if label not in self.permuted:
                raise PermutationError(
                    f"permutation moves neuron set {label!r}, but this group moves only {self.permuted}."
                )
            n = self.space.sizes[label]
            if len(image) != n:
                raise PermutationError(f"permutation of neuron set {label!r} must have length {n}, not {len(image)}.")
            if sorted(int(j) for j in image) != list(range(n)):
                raise PermutationError(
                    f"permutation of neuron set {label!r} must contain each of 0, ..., {n - 1} once, not {tuple(image)}."
                )
        full = {label: range(self.space.sizes[label]) for label in self.permuted} | dict(images)
        return Permutation(tuple((label, tuple(int(j) for j in full[label])) for label in self.permuted))

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
        """
        rng = np.random.default_rng(seed)
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


def _inverse(image: tuple[int, ...]) -> tuple[int, ...]:
    """Inverse of one permutation given by its images."""
    inverse = [0] * len(image)
    for j, place in enumerate(image):
        inverse[place] = j
    return tuple(inverse)


def _sizes(images: Mapping[str, tuple[int, ...]]) -> str:
    """Neuron sets and sizes of a permutation, for messages."""
    return "{" + ", ".join(f"{label}: {len(image)}" for label, image in images.items()) + "}"

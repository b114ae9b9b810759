"""Elements of groups: permutations of neuron sets, with signs."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from nfn_core.checks import check_kind, natural_int, plain_int, plain_tuple, shown
from nfn_core.errors import PermutationError, SpecError

__all__ = [
    "Permutation",
    "check_permutation",
    "images_of",
    "images_of_assignment",
    "images_of_matrix",
    "inverse_images",
    "signs_of",
]

KINDS = {"images": "permutation", "signs": "signs"}
"""What the fields of a permutation are called in messages."""


@dataclass(frozen=True)
class Permutation:
    """An element σ of a group: for each permuted neuron set the images σ(0), σ(1), ..., and of signed sets the signs.

    Made by `Group.permutation`, `Group.sample` or `Group.identity`.

    Parameters
    ----------
    images : tuple of (str, tuple of int)
        Pairs of a neuron set and its images: neuron j goes to place ``images[j]``.
    signs : tuple of (str, tuple of int)
        Pairs of a signed neuron set and its signs, 1 or -1: neuron j is multiplied by ``signs[j]``, and goes to its place
        then. A set with two signs comes twice.

    Raises
    ------
    PermutationError
        If the images of a set of size n are not each of 0, ..., n-1 once, or a sign is neither 1 nor -1.
    """

    images: tuple[tuple[str, tuple[int, ...]], ...]
    signs: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def __post_init__(self) -> None:
        for field, check in (("images", images_of), ("signs", signs_of)):
            try:
                pairs = [(label, values) for label, values in plain_tuple(field, getattr(self, field))]
            except (TypeError, ValueError):  # SpecError is a ValueError
                raise PermutationError(
                    f"{field} must be pairs of a neuron set and its {field}, not {shown(getattr(self, field))}: use "
                    "Group.permutation."
                ) from None
            for label, _ in pairs:
                if not isinstance(label, str):
                    raise PermutationError(f"{field} must name neuron sets, not {shown(label)}: use Group.permutation.")
            found = tuple((label, check(f"{KINDS[field]} of neuron set {label!r}", values)) for label, values in pairs)
            object.__setattr__(self, field, found)
        sizes = dict(self.images)
        for label, values in self.signs:
            if len(values) != len(sizes.get(label, values)):
                raise PermutationError(
                    f"signs of neuron set {label!r} are {len(values)}, but its images {len(sizes[label])}."
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

    @property
    def changed(self) -> tuple[str, ...]:
        """Neuron sets that it does not leave as they are."""
        moved = [label for label, image in self.images if list(image) != sorted(image)]
        return tuple(dict.fromkeys([*moved, *(label for label, signs in self.signs if -1 in signs)]))

    def factors(self, label: str, grade: int = 1) -> tuple[int, ...]:
        """Return what an axis of a grade is multiplied by: for each neuron the product of the signs that the grade has.

        Parameters
        ----------
        label : str
            The neuron set of the axis.
        grade : int
            The axis's grade: 1 has the set's first sign, 2 its second, 3 both, and 0 none.

        Returns
        -------
        tuple of int
            1 or -1 for each neuron; empty if no sign is in the grade.

        Raises
        ------
        SpecError
            If the label is no name, or the grade no number of signs.
        """
        check_kind("label", label, str)
        natural_int("grade", grade)
        carried = [values for k, values in enumerate(v for name, v in self.signs if name == label) if grade >> k & 1]
        return tuple(prod(column) for column in zip(*carried, strict=True))

    def inverse(self) -> "Permutation":
        """Return σ⁻¹."""
        sources = {label: inverse_images(image) for label, image in self.images}
        signs = tuple((k, tuple(v[j] for j in sources.get(k, range(len(v))))) for k, v in self.signs)
        return Permutation(tuple(sources.items()), signs)

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
            If the two move or sign different neuron sets or sets of different sizes.
        """
        check_permutation("first", first)
        mine, theirs = dict(self.images), dict(first.images)
        if _sizes(self) != _sizes(first):
            raise PermutationError(
                f"only elements of one group compose: this one moves {_sizes(self)}, the other {_sizes(first)}."
            )
        signs = []
        for (label, after), (_, before) in zip(self.signs, first.signs, strict=True):
            places = theirs.get(label, range(len(before)))
            signs.append((label, tuple(before[j] * after[place] for j, place in enumerate(places))))
        images = tuple((label, tuple(image[j] for j in theirs[label])) for label, image in mine.items())
        return Permutation(images, tuple(signs))


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
    places, neurons = images_of("rows", rows), images_of("columns", columns)
    if len(places) != len(neurons):
        raise PermutationError(
            f"an assignment has as many rows as columns, not {len(places)} and {len(neurons)}: all neurons must be paired."
        )
    return tuple(place for _, place in sorted(zip(neurons, places, strict=True)))


def images_of(where: str, image: Any, n: int | None = None) -> tuple[int, ...]:
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


def signs_of(where: str, signs: Any, n: int | None = None) -> tuple[int, ...]:
    """Signs of one neuron set as plain integers."""
    try:
        found = tuple(map(plain_int, plain_tuple(where, signs)))
    except SpecError as error:
        raise PermutationError(str(error)) from None
    for sign in found:
        if isinstance(sign, bool) or not isinstance(sign, int) or abs(sign) != 1:
            raise PermutationError(f"{where} must be 1 or -1, not {shown(sign)}.")
    if n is not None and len(found) != n:
        raise PermutationError(f"{where} must have length {n}, not {len(found)}.")
    return found


def check_permutation(name: str, sigma: Any) -> None:
    """Refuse what is no permutation."""
    if not isinstance(sigma, Permutation):
        raise PermutationError(f"{name} must be a Permutation, not {shown(sigma)}: make it with Group.permutation.")


def inverse_images(image: tuple[int, ...]) -> tuple[int, ...]:
    """Inverse of one permutation given by its images."""
    inverse = [0] * len(image)
    for j, place in enumerate(image):
        inverse[place] = j
    return tuple(inverse)


def _sizes(sigma: Permutation) -> str:
    """Neuron sets and sizes of an element, for messages."""
    signed = [f"{label} ±: {len(signs)}" for label, signs in sigma.signs]
    return "{" + ", ".join(sorted([*(f"{label}: {len(image)}" for label, image in sigma.images), *signed])) + "}"

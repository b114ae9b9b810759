"""Groups of neuron permutations, with signs, and their action on features (paper, Eq. 1 and table 1).

A neuron with an odd activation (tanh, sine) may change its sign together with all its weights, and the function of its
network stays the same. Sets of such neurons are *signed*: the group's elements are then signed permutations of them.
Entries of a tensor change by the signs of the axes that are odd. Which are odd is the tensor's *grade*.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import product
from math import factorial, prod
from typing import Any

import numpy as np

from nfn_core.arrays import AnyArray, Array, device_of
from nfn_core.checks import check_kind, natural_int, plain_int, plain_names, plain_tuple, shown
from nfn_core.errors import PermutationError, SpecError
from nfn_core.features import check_features
from nfn_core.permutations import Permutation, check_permutation, images_of, inverse_images, signs_of
from nfn_core.registry import LATER, describable
from nfn_core.spaces import WeightSpace

__all__ = ["Grade", "Group", "graded_name"]

Grade = tuple[int, ...]
"""For each axis of a tensor 1 if its entries change by the sign of the axis's neurons, and 0 if not. Of a set with two
signs, 2 has the second and 3 has both."""


@describable
@dataclass(frozen=True)
class Group:
    """The product of the symmetric groups of some neuron sets, acting on a weight space, with signs where asked.

    Made by `WeightSpace.group`. Sets of size 1 are dropped from `permuted`: they have nothing to permute.

    Parameters
    ----------
    space : WeightSpace
        The space acted on.
    permuted : tuple of str
        Neuron sets that are permuted, each independently of the others.
    signed : tuple of str
        Permuted sets, or sets of size 1, whose neurons also change their sign. A set that is named twice has two signs.
    grades : tuple of tuple of int
        For each tensor its grade, one number for each axis: 1 if entries change by the sign of this axis's neuron, 0 if
        not; of a second sign 2, of both signs 3. By default every axis of a signed set has a 1, as weights and biases do.

    Raises
    ------
    SpecError
        If a set is not one of the space's, a signed set is not permuted, or grades do not fit the tensors or the signs.
    """

    space: WeightSpace
    permuted: tuple[str, ...]
    signed: tuple[str, ...] = field(default=(), metadata=LATER)
    grades: tuple[Grade, ...] = field(default=(), metadata=LATER)
    _grade_of: dict[str, Grade] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_kind("space", self.space, WeightSpace)
        sizes, permuted = self.space.sizes, plain_names("permuted", self.permuted)
        for label in permuted:
            if label not in sizes:
                raise SpecError(f"group moves unknown neuron set {label!r}: this space has {tuple(sizes)}.")
        moved = set(permuted)
        kept = tuple(label for label in sizes if label in moved and sizes[label] > 1)
        object.__setattr__(self, "permuted", kept)
        signed = plain_names("signed", self.signed)
        for label in signed:
            if label not in sizes:
                raise SpecError(f"signed names unknown neuron set {label!r}: this space has {tuple(sizes)}.")
            if label not in kept and sizes[label] > 1:
                raise SpecError(
                    f"signed names neuron set {label!r}, which the group does not permute: it moves {kept}."
                )
        object.__setattr__(self, "signed", tuple(label for label in sizes for _ in range(signed.count(label))))
        natural = tuple(tuple(int(label in self.signed) for label in t.labels) for t in self.space.tensors)
        object.__setattr__(self, "grades", self._stored_grades(natural))
        object.__setattr__(self, "_grade_of", dict(zip(self.space.by_name, self.grades or natural, strict=True)))

    def _stored_grades(self, natural: tuple[Grade, ...]) -> tuple[Grade, ...]:
        """Checked grades; none if they are the natural ones, those of weights and biases."""
        given = [plain_tuple(f"grades[{i}]", grade) for i, grade in enumerate(plain_tuple("grades", self.grades))]
        if not given:
            if len(set(self.signed)) < len(self.signed):
                raise SpecError(
                    f"signed names a set twice, {self.signed}: say by grades which tensors have which sign."
                )
            return ()
        if len(given) != len(natural):
            raise SpecError(f"grades must be one for each of the {len(natural)} tensors, not {len(given)}.")
        found = []
        for t, grade in zip(self.space.tensors, given, strict=True):
            numbers = tuple(map(plain_int, grade))
            if len(numbers) != len(t.labels):
                raise SpecError(
                    f"the grade of tensor {t.name!r} must have {len(t.labels)} numbers, not {shown(grade)}."
                )
            for axis, (label, number) in enumerate(zip(t.labels, numbers, strict=True)):
                most = 2 ** self.signed.count(str(label)) - 1
                if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= most:
                    signs = f"neuron set {label!r} has {self.signed.count(str(label))} signs"
                    raise SpecError(
                        f"the grade of tensor {t.name!r}, axis {axis}, must be an integer from 0 to {most}, not "
                        f"{shown(number)}: {signs}."
                    )
            found.append(numbers)
        return () if tuple(found) == natural else tuple(found)

    @property
    def name(self) -> str:
        """``"NP"`` or ``"HNP"``, or the neuron sets in braces; signed sets are added after ``±``."""
        signs = f" ±{{{', '.join(dict.fromkeys(self.signed))}}}" if self.signed else ""
        for name in ("NP", "HNP"):
            if self.permuted == self.space.group(name).permuted:
                return name + signs
        return "{" + ", ".join(self.permuted) + "}" + signs

    def __repr__(self) -> str:
        """Space and name: ``WeightSpace.mlp([2, 32, 32, 1]).group('HNP')``."""
        return f"{self.space!r}.group({self.name!r})"

    @property
    def order(self) -> int:
        """Number of elements."""
        signs = prod(1 << self.space.sizes[label] for label in self.signed)
        return signs * prod(factorial(self.space.sizes[label]) for label in self.permuted)

    def grade(self, tensor: str) -> Grade:
        """Return the grade of a tensor.

        Parameters
        ----------
        tensor : str
            Its name.

        Returns
        -------
        tuple of int
            A number for each axis.

        Raises
        ------
        SpecError
            If the space has no such tensor.
        """
        if not isinstance(tensor, str) or tensor not in self._grade_of:
            raise SpecError(f"tensor must be one of {list(self.space.by_name)}, not {shown(tensor)}.")
        return self._grade_of[tensor]

    def graded(self, grades: str | Mapping[str, Sequence[Sequence[int]]] = "all") -> "Group":
        """Return the same group, acting on features of several grades.

        Its space has a tensor for each tensor and grade, ``"W2[0,1]"`` of ``"W2"``: features of that name change by the
        signs of the axes with a 1. Grades of one tensor are in the order of binary numbers, even ones first.

        Parameters
        ----------
        grades : {"all", "even"} or mapping of str to sequence of grades
            All grades that products of a tensor's features can have, with each axis by itself; only even ones; or for some
            tensors (by their name without grade) the grades wanted.

        Returns
        -------
        Group
            The group on the graded space.

        Raises
        ------
        SpecError
            If the choice is unknown, or a grade does not fit.

        Examples
        --------
        >>> group = WeightSpace.mlp([2, 3, 1]).group("HNP", signed=["h1"])
        >>> list(group.graded("all").space.by_name)
        ['W1[0,0]', 'W1[1,0]', 'v1[0]', 'v1[1]', 'W2[0,0]', 'W2[0,1]', 'v2[0]']
        """
        names = dict.fromkeys(base for base, _ in self.families())
        if isinstance(grades, Mapping):
            wanted = []
            for name, rows in grades.items():
                if name not in names:
                    raise SpecError(f"grades must name tensors of {list(names)}, not {shown(name)}.")
                where = f"grades[{name!r}]"
                checked = [[natural_int(where, n) for n in plain_tuple(where, row)] for row in plain_tuple(where, rows)]
                wanted.append((name, tuple(map(tuple, checked))))
            if not any(rows for _, rows in wanted):
                raise SpecError(f"grades must hold a grade of a tensor, not {shown(grades)}.")
            return _graded(self, tuple(wanted))
        if not isinstance(grades, str) or grades not in ("all", "even"):
            raise SpecError(f"grades must be 'all', 'even' or grades by tensor, not {shown(grades)}.")
        return _graded(self, grades)

    def families(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield the tensors that are grades of one tensor: its name without grade, and their places in the space."""
        found: dict[tuple[Any, ...], list[int]] = {}
        for k, t in enumerate(self.space.tensors):
            base = t.name.removesuffix(graded_name("", self.grade(t.name))) or t.name
            found.setdefault((base, t.shape, t.labels), []).append(k)
        for (base, _, _), members in found.items():
            yield base, tuple(members)

    def permutation(
        self, images: Mapping[str, Sequence[int]], signs: Mapping[str, Sequence[Any]] | None = None
    ) -> Permutation:
        """Validate the images and signs of some neuron sets; sets not given stay in place, and keep their signs.

        Parameters
        ----------
        images : mapping of str to sequence of int
            For a neuron set of size n the images σ(0), ..., σ(n-1), integers of any type. `images_of_matrix` and
            `images_of_assignment` give them.
        signs : mapping of str to sequence of int, optional
            For a signed neuron set of size n, n signs, each 1 or -1, by which neurons are multiplied before they move. For
            a set with two signs a sequence of two of these.

        Returns
        -------
        Permutation
            An element of this group.

        Raises
        ------
        PermutationError
            If a set is not permuted or signed by this group, its images are not each of 0, ..., n-1 once, or its signs not n
            of 1 and -1.
        """
        if not isinstance(images, Mapping):
            raise PermutationError(f"images must be a mapping from neuron sets to images, not {shown(images)}.")
        if not isinstance(signs, Mapping | None):
            raise PermutationError(f"signs must be a mapping from neuron sets to signs, not {shown(signs)}.")
        sizes, found = self.space.sizes, {}
        for label, image in images.items():
            if label not in self.permuted:
                raise PermutationError(
                    f"permutation moves neuron set {label!r}, but this group moves only {self.permuted}."
                )
            found[label] = images_of(f"permutation of neuron set {label!r}", image, sizes[label])
        full = {label: tuple(range(sizes[label])) for label in self.permuted} | found
        flips: list[tuple[str, tuple[int, ...]]] = []
        given = dict(signs or {})
        for label in dict.fromkeys(self.signed):
            count, values = self.signed.count(label), given.pop(label, None)
            where = f"signs of neuron set {label!r}"
            if values is None:
                flips += [(label, (1,) * sizes[label])] * count
                continue
            rows = (values,) if count == 1 else _rows(where, values, count)
            flips += [(label, signs_of(where, row, sizes[label])) for row in rows]
        if given:
            raise PermutationError(
                f"signs came for {list(given)}, but this group signs only {tuple(dict.fromkeys(self.signed))}."
            )
        return Permutation(tuple(full.items()), tuple(flips))

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
        sizes = self.space.sizes
        found = self.permutation({label: rng.permutation(sizes[label]).tolist() for label in self.permuted})
        signs = [(label, tuple((1 - 2 * rng.integers(2, size=sizes[label])).tolist())) for label in self.signed]
        return Permutation(found.images, tuple(signs))

    def generators(self) -> tuple[Permutation, ...]:
        """Return a generating set.

        For each permuted neuron set the swap of its first two neurons and the cycle of all; for each sign of a set its change
        at the first neuron.
        """
        found = []
        for label in self.permuted:
            n = self.space.sizes[label]
            found.append(self.permutation({label: [1, 0, *range(2, n)]}))
            if n > 2:
                found.append(self.permutation({label: [*range(1, n), 0]}))
        same = self.identity()
        for k, (label, signs) in enumerate(same.signs):
            flip = (label, (-1, *signs[1:]))
            found.append(Permutation(same.images, (*same.signs[:k], flip, *same.signs[k + 1 :])))
        return tuple(found)

    def act(self, sigma: Permutation, features: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
        """Apply σ to features (Eq. 1): entry (j, k) of a weight goes to (σ(j), σ(k)), with the signs of its grade.

        Entries are only moved and multiplied by 1 or -1, so the result is exact.

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
        check_permutation("sigma", sigma)
        self.permutation(dict(sigma.images))
        if sorted(label for label, _ in sigma.signs) not in (sorted(self.signed), []):  # spaces order them differently
            raise PermutationError(f"sigma signs {[k for k, _ in sigma.signs]}, but this group {list(self.signed)}.")
        xp = check_features(self.space, features)
        sources = {label: list(inverse_images(image)) for label, image in sigma.images}
        out: dict[str, Any] = {}
        for t in self.space.tensors:
            x: Array = features[t.name]
            for axis, (label, grade) in enumerate(zip(t.labels, self.grade(t.name), strict=True)):
                if label is not None and (factors := sigma.factors(label, grade)):
                    shape = (-1, *(1,) * (x.ndim - axis - 2))
                    x = x * xp.reshape(xp.asarray(factors, dtype=x.dtype, device=device_of(x)), shape)
                if label in sources:
                    x = xp.take(x, xp.asarray(sources[label], device=device_of(x)), axis=axis + 1)
            out[t.name] = x
        return out


@lru_cache(maxsize=256)
def _graded(group: Group, grades: str | tuple[tuple[str, tuple[Grade, ...]], ...]) -> Group:
    """The group on a graded space, kept for those used last."""
    tensors, found = [], []
    wanted = None if isinstance(grades, str) else dict(grades)
    for base, members in group.families():
        spec = group.space.tensors[members[0]]
        if wanted is not None:
            rows = wanted.get(base, ())
        elif grades == "even":
            rows = ((0,) * len(spec.labels),)
        else:
            present = [group.grade(group.space.tensors[k].name) for k in members]
            rows = tuple(product(*(_span(column) for column in zip(*present, strict=True))))
        for row in rows:
            tensors.append(replace(spec, name=graded_name(base, row)))
            found.append(row)
    kept = {label for t in tensors for label in t.labels}
    ends = [tuple(s for s in sets if s in kept) for sets in (group.space.inputs, group.space.outputs)]
    space = WeightSpace(tuple(tensors), *ends)
    for label in (*group.permuted, *group.signed):
        if label not in space.sizes:
            raise SpecError(f"no tensor of these grades has neuron set {label!r}: give a grade of one that has.")
    return Group(space, group.permuted, group.signed, tuple(found))


def _span(grades: Sequence[int]) -> list[int]:
    """Products of some signs, each once."""
    found = {0}
    for grade in grades:
        found |= {grade ^ other for other in found}
    return sorted(found)


def graded_name(name: str, grade: Sequence[int]) -> str:
    """Return the name of a grade of a tensor in a graded space: ``"W2[0,1]"``."""
    return f"{name}[{','.join(map(str, grade))}]"


def _rows(where: str, values: Any, count: int) -> tuple[Any, ...]:
    """Signs of a set that has several."""
    try:
        rows = plain_tuple(where, values)
    except SpecError as error:
        raise PermutationError(str(error)) from None
    if len(rows) != count:
        raise PermutationError(f"{where} must be {count} sequences, one for each of its signs, not {len(rows)}.")
    return rows

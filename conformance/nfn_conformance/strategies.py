"""Hypothesis strategies: weight spaces of every kind the core takes, and groups on them."""

from typing import Any

from hypothesis import strategies as st

from nfn_core import Group, WeightSpace

__all__ = ["groups", "signed_groups", "weight_spaces"]


@st.composite
def weight_spaces(draw: Any, most_entries: int = 40) -> WeightSpace:
    """Draw a small weight space: depth 1-6, size-1 layers, missing biases, filters, shared and repeated labels.

    Parameters
    ----------
    draw : callable
        Given by Hypothesis.
    most_entries : int
        Largest number of entries; the brute-force oracle looks at its square.

    Returns
    -------
    WeightSpace
        The space.
    """
    if draw(st.integers(0, 3)) == 0:
        space = draw(_labeled())
    else:
        depth = draw(st.integers(1, 6))
        sizes = draw(st.lists(st.integers(1, 4), min_size=depth + 1, max_size=depth + 1))
        filters = draw(st.lists(st.lists(st.integers(1, 2), max_size=3), min_size=depth, max_size=depth))
        if draw(st.booleans()):
            filters = [()] * depth
        bias = draw(st.lists(st.booleans(), min_size=depth, max_size=depth))
        space = WeightSpace.cnn(sizes, filters, bias)
    return space if space.size <= most_entries else WeightSpace.mlp([2, 3, 2])


@st.composite
def groups(draw: Any, most_entries: int = 40) -> Group:
    """Draw a weight space with a group: NP, HNP or any subset of neuron sets.

    Parameters
    ----------
    draw : callable
        Given by Hypothesis.
    most_entries : int
        Largest number of entries of the space.

    Returns
    -------
    Group
        The group, which carries its space.
    """
    space: WeightSpace = draw(weight_spaces(most_entries))
    kind = draw(st.sampled_from(["NP", "HNP", "subset"]))
    return space.group(kind if kind != "subset" else draw(st.sets(st.sampled_from(sorted(space.sizes)))))


@st.composite
def signed_groups(draw: Any, most_entries: int = 40) -> tuple[Group, Group]:
    """Draw a group with signs on two graded spaces of one weight space, for the inputs and the outputs of a layer.

    Parameters
    ----------
    draw : callable
        Given by Hypothesis.
    most_entries : int
        Largest number of entries of each space.

    Returns
    -------
    Group, Group
        The group on both spaces: as it is on weights, or with drawn grades.
    """
    plain: Group = draw(groups(most_entries))
    free = [s for s in plain.space.sizes if s in plain.permuted or plain.space.sizes[s] == 1]
    signed = draw(st.sets(st.sampled_from(free), min_size=1)) if free else set()
    group = plain.space.group(plain.permuted, signed)
    found = []
    for _ in range(2):
        numbers = {t.name: [range(1 + (s in signed)) for s in t.labels] for t in group.space.tensors}
        rows = {name: st.lists(st.tuples(*map(st.sampled_from, axes)), max_size=2) for name, axes in numbers.items()}
        given = {name: sorted(set(draw(grades))) for name, grades in rows.items()}
        kept = {s for t in group.space.tensors if given[t.name] for s in t.labels}
        graded = group.graded(given) if kept and kept >= {*group.permuted, *group.signed} else group
        found.append(graded if graded.space.size <= most_entries else group)
    return found[0], found[1]


@st.composite
def _labeled(draw: Any) -> WeightSpace:
    """Tensors with freely drawn labels, repeated ones included; neuron sets a and b, fixed axes None."""
    size = {"a": draw(st.integers(1, 4)), "b": draw(st.integers(1, 3)), None: draw(st.integers(1, 2))}
    axes = st.lists(st.sampled_from(["a", "a", "b", None]), max_size=3).filter(lambda x: x.count("a") < 3)
    tensors = draw(st.lists(axes, min_size=1, max_size=3))
    tensors.append(["a"])
    return WeightSpace.from_axes({f"T{i}": [(label, size[label]) for label in t] for i, t in enumerate(tensors)})

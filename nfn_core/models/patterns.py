"""Explicit labels: patterns of a tensor's axes, such as ``"h in _ _"`` or ``"(3 heads=4 e) d"``.

One word for each axis: a neuron set's name, ``_`` or a number for a fixed axis, ``?`` for an axis to be derived,
``(a b c)`` for a row-major product, ``(a + b)`` for a concatenation. ``name=4`` gives a set's size where it does not
follow from other axes.
"""

import re
from collections.abc import Mapping, Sequence
from math import prod
from typing import TypeAlias

from nfn_core.checks import check_kind, positive_ints
from nfn_core.errors import LabelError
from nfn_core.models.axes import Node, concat_of, product_of, resolve
from nfn_core.models.rules import Rules, Value

__all__ = ["adapter_patterns", "label_tensors"]

Word: TypeAlias = "str | tuple[str, list[Word]]"


def label_tensors(
    rules: Rules, shapes: Mapping[str, Sequence[int]], patterns: Mapping[str, str], named: dict[str, Node]
) -> dict[str, Value]:
    """Tensors with the axes that patterns describe.

    Parameters
    ----------
    rules : Rules
        The algebra at work.
    shapes : mapping of str to sequence of int
        Shape of each tensor.
    patterns : mapping of str to str
        Pattern of each tensor.
    named : dict of str to Node
        Neuron sets by name, which is added to.

    Returns
    -------
    dict of str to Value
        The tensors.

    Raises
    ------
    LabelError
        If a pattern cannot be read, has another number of axes than the tensor, sizes that contradict each other, or
        a size that does not follow from anything.
    """
    parsed = {name: _parse(name, pattern) for name, pattern in patterns.items()}
    for name, words in parsed.items():
        if len(words) != len(shapes[name]):
            raise LabelError(
                f"label {patterns[name]!r} of {name!r} has {len(words)} axes, but its shape is {tuple(shapes[name])}: "
                "give one word for each axis."
            )
    waiting = {(name, a): (word, shapes[name][a]) for name, words in parsed.items() for a, word in enumerate(words)}
    axes: dict[tuple[str, int], Node] = {}
    while waiting:
        done = {}
        for (name, a), (word, size) in waiting.items():
            where = f"the label {patterns[name]!r} of {name!r}"
            with rules.at(where):
                node = _build(rules, word, size, named, where)
            if node is not None:
                done[name, a] = node
        if not done:
            name, a = next(iter(waiting))
            raise LabelError(
                f"label {patterns[name]!r} of {name!r}, axis {a}: the sizes of its parts do not follow from the other "
                "labels: give them, as in (heads=4 e)."
            )
        axes.update(done)
        waiting = {key: value for key, value in waiting.items() if key not in done}
    return {name: Value(tuple(axes[name, a] for a in range(len(words)))) for name, words in parsed.items()}


def adapter_patterns(shapes: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Patterns of low-rank adapters.

    Parameters
    ----------
    shapes : mapping of str to sequence of int
        Shape of each tensor of a checkpoint.

    Returns
    -------
    dict of str to str
        Pattern of each tensor of an adapter: its first axis is the rank in A, its second in B, all others are fixed.

    Raises
    ------
    LabelError
        If there is no pair of factors, a factor has no partner, or partners have different ranks.
    SpecError
        If a shape is no sequence of positive integers.
    """
    every = list(shapes)
    for name in every:
        check_kind("the name of a tensor in shapes", name, str)
    adapters = [name for name in every if "lora" in name.lower()]
    shapes = {name: positive_ints(f"shape of tensor {name!r}", shapes[name]) for name in adapters}
    patterns = {name: " ".join("_" * len(shape)) for name, shape in shapes.items()}
    pairs: dict[tuple[str, str], dict[int, str]] = {}
    for name in patterns:
        found = re.fullmatch(r"(.*lora(?:_embedding)?[._])(A|B|down|up)((?:\..*)?)", name, re.IGNORECASE)
        if found and len(shapes[name]) > 1:
            side = 0 if found[2].lower() in ("a", "down") else 1
            pairs.setdefault((found[1], found[3]), {})[side] = name
    if not pairs:
        raise LabelError(
            f"shapes has no pair of factors such as 'x.lora_A.weight', 'x.lora_B.weight' among {every[:5]}: give a "
            "checkpoint of adapters, or label its tensors with `from_patterns`."
        )
    for number, sides in enumerate(pairs.values(), 1):
        if len(sides) < 2:
            name = next(iter(sides.values()))
            raise LabelError(f"shapes has no partner of factor {name!r}: an adapter has both A and B.")
        ranks = [shapes[sides[side]][side] for side in (0, 1)]
        if ranks[0] != ranks[1]:
            raise LabelError(
                f"shapes has {sides[0]!r} of shape {tuple(shapes[sides[0]])} and {sides[1]!r} of shape {tuple(shapes[sides[1]])} with "
                "different ranks: expected (rank, inputs) and (outputs, rank)."
            )
        for side, name in sides.items():
            words = patterns[name].split()
            words[side] = f"r{number}"
            patterns[name] = " ".join(words)
    return patterns


def _parse(name: str, pattern: str) -> list[Word]:
    """Words of a pattern; a bracket becomes its separator and its words."""
    stack: list[list[Word]] = [[]]
    for token in re.findall(r"[()]|[^\s()]+", pattern):
        if token == "(":
            stack.append([])
        elif token == ")" and len(stack) > 1:
            words = stack.pop()
            plus = [w for i, w in enumerate(words) if i % 2] if "+" in words else []
            parts = [w for w in words if w != "+"]
            if not parts or (plus and (set(map(str, plus)) != {"+"} or len(parts) != len(plus) + 1)):
                raise LabelError(f"label {pattern!r} of {name!r}: a bracket holds (a b ...) or (a + b + ...).")
            stack[-1].append(("+" if plus else "*", parts))
        elif re.fullmatch(r"_|\?|\+|\d+|[^\W\d][\w/-]*(=\d+)?", token):
            stack[-1].append(token)
        else:
            raise LabelError(
                f"label {pattern!r} of {name!r}: {token!r} is no neuron set, number, '_', '?' or closed bracket."
            )
    if len(stack) > 1 or "+" in stack[0]:
        raise LabelError(f"label {pattern!r} of {name!r}: a bracket is not closed, or '+' stands outside brackets.")
    return stack[0]


def _size(word: Word, named: Mapping[str, Node]) -> int | None:
    """Size of a word, if it is known."""
    if isinstance(word, tuple):
        sizes = [_size(w, named) for w in word[1]]
        known = [n for n in sizes if n is not None]
        return None if len(known) < len(sizes) else sum(known) if word[0] == "+" else prod(known)
    label, _, given = word.partition("=")
    if word.isdigit() or given:
        return int(given or word)
    return named[label].size if label in named else None


def _build(rules: Rules, word: Word, size: int, named: dict[str, Node], where: str) -> Node | None:
    """Axis of a word, None while sizes of its parts are not known."""
    known = _size(word, named)
    if known not in (None, size):
        raise LabelError(f"{where}: {_text(word)} has size {known} there or elsewhere, but the axis has size {size}.")
    if isinstance(word, str):
        label = word.partition("=")[0]
        if label == "?":
            return Node(size)
        return rules.fixed(size) if label == "_" or label.isdigit() else named.setdefault(label, Node(size))
    kind, parts = word
    sizes = [_size(part, named) for part in parts]
    if sizes.count(None) > 1:
        return None
    rest = [n for n in sizes if n is not None]
    missing, left = divmod(size, prod(rest)) if kind == "*" else (size - sum(rest), 0)
    if None in sizes and (left or missing < 1):
        raise LabelError(
            f"{where}: an axis of size {size} cannot be {_text(word)}, whose other parts have sizes {rest}."
        )
    nodes = [_build(rules, part, n or missing, named, where) for part, n in zip(parts, sizes, strict=True)]
    whole = [resolve(node) for node in nodes if node is not None]
    if len(whole) < len(nodes):
        return None
    return product_of(whole) if kind == "*" else concat_of(whole)


def _text(word: Word) -> str:
    """The word as it was written."""
    if isinstance(word, str):
        return word
    return "(" + (" + " if word[0] == "+" else " ").join(map(_text, word[1])) + ")"

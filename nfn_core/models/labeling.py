"""From the axes of a network's tensors, inputs and outputs to its weight space: the interface of the front ends."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from nfn_core.checks import shown
from nfn_core.errors import LabelError
from nfn_core.models.axes import Node, fixed_by, leaves, resolve
from nfn_core.models.constants import Record, record, varying
from nfn_core.models.patterns import label_tensors
from nfn_core.models.rules import Index, Rules, Value
from nfn_core.models.views import Axis, View, freeze

__all__ = ["Candidate", "Derivation", "Frozen", "Labeling", "check_labels", "chosen"]


Frozen: TypeAlias = Callable[[Iterable[Value]], list[tuple[Axis, ...]]]
"""From values to their axes, with names for the neuron sets that are to move."""


class _Key(NamedTuple):
    """What tells axes apart: their size, and their leaves by identity; leaves of one entry count by the size alone."""

    size: int
    parts: tuple[int, ...]


class Candidate(NamedTuple):
    """What may be one neuron set: where, a tensor that has it, its size, the leaves it is made of, and its axes."""

    where: str
    name: str
    size: int
    leaves: set[int]
    frozen: Frozen


class Derivation(NamedTuple):
    """What is derived of a network: the arguments of `nfn_core.ModelSpace`."""

    views: tuple[View, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    fixed: tuple[tuple[str, str], ...]
    activations: tuple[tuple[str, str, float | None], ...]
    constants: tuple[Record, ...]


def check_labels(labels: Any) -> None:
    """Check that labels are a mapping from names to patterns.

    Parameters
    ----------
    labels : mapping of str to str
        The labels.

    Raises
    ------
    LabelError
        If they are none.
    """
    if not isinstance(labels, Mapping):
        raise LabelError(f"labels must be a mapping from names to patterns such as 'out in', not {shown(labels)}.")
    for name, pattern in labels.items():
        if not isinstance(pattern, str):
            raise LabelError(f"label of {name!r} must be a pattern such as 'out in', not {shown(pattern)}.")


def chosen(names: Iterable[str], patterns: str | Iterable[str] | None) -> list[str]:
    """Choose tensors by patterns of their names.

    Parameters
    ----------
    names : iterable of str
        All names.
    patterns : str or iterable of str, optional
        Patterns as of file names, ``"*lora_*"``; those after ``"!"`` take names out again. None chooses all.

    Returns
    -------
    list of str
        The chosen names, in their order.

    Raises
    ------
    LabelError
        If a pattern is no string or matches no name, or nothing is chosen.
    """
    names = list(names)
    if patterns is None:
        return names
    given = (
        [patterns] if isinstance(patterns, str) else list(patterns) if isinstance(patterns, Iterable) else [patterns]
    )
    for pattern in given:
        if not isinstance(pattern, str):
            raise LabelError(f"tensors must be patterns of names such as '*lora_*', not {shown(pattern)}.")
        if not any(fnmatchcase(name, pattern.removeprefix("!")) for name in names):
            raise LabelError(
                f"tensors: pattern {pattern!r} matches no name of the network's tensors, which are {names}."
            )
    kept = [p for p in given if not p.startswith("!")] or ["*"]
    out = [p[1:] for p in given if p.startswith("!")]
    found = [n for n in names if any(fnmatchcase(n, p) for p in kept) and not any(fnmatchcase(n, p) for p in out)]
    if not found:
        raise LabelError(f"tensors={given} chooses none of the network's tensors, which are {names}.")
    return found


@dataclass
class Labeling:
    """Axes of all tensors of a network, as far as its operations have been walked.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Shapes of the network's tensors, in its order.
    patterns : mapping of str to str
        Explicit labels of tensors, operations, ``"input[0]"``, ``"output[0]"``, ...
    also : mapping of str to tuple of str
        Other names of a tensor (tied weights).

    Attributes
    ----------
    rules : Rules
        The algebra at work.
    tensors : dict of str to Value
        The network's tensors.
    inputs, outputs : list of Value
        The network's inputs and outputs so far.
    named : dict of str to Node
        Neuron sets named by patterns.
    used : set of str
        Tensors that the computation reads.
    names : dict of int to str
        Names of all neuron sets by the identity of their leaves, once finished.
    asked : set of str
        Patterns that were used.
    constants : list of Record
        Constants that belong to the model, which others may lack.
    unused : str
        Why tensors that the computation does not read are fixed.
    beyond : set of int
        Identities of leaves that are fixed because inputs of another size may need it.
    unruled : list of (str, Value)
        What goes into operations whose result has an explicit label: all that the labels do not name is fixed.
    """

    shapes: Mapping[str, tuple[int, ...]]
    patterns: Mapping[str, str]
    also: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)
    tensors: dict[str, Value] = field(default_factory=dict)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    named: dict[str, Node] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    names: dict[int, str] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    constants: list[Record] = field(default_factory=list)
    unused: str = "not being used"
    beyond: set[int] = field(default_factory=set)
    unruled: list[tuple[str, Value]] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_labels(self.patterns)
        given = {name: self.patterns[name] for name in self.shapes if name in self.patterns}
        self.asked.update(given)
        labeled = label_tensors(self.rules, self.shapes, given, self.named)
        self.tensors = {n: labeled.get(n) or self.rules.tensor(shape) for n, shape in self.shapes.items()}
        for value in labeled.values():
            self._read(value)

    @property
    def explicit(self) -> bool:
        """Whether every tensor, an input and an output have labels and none is to be derived: nothing need be walked."""
        wanted = [*self.shapes, "input[0]", "output[0]"]
        return all(name in self.patterns and "?" not in self.patterns[name] for name in wanted)

    def label(self, name: str, shape: Sequence[int]) -> Value | None:
        """Value of an operation, input or output that has an explicit label, None if it has none."""
        if name not in self.patterns:
            return None
        self.asked.add(name)
        return label_tensors(self.rules, {name: shape}, {name: self.patterns[name]}, self.named)[name]

    def apply(
        self,
        where: str,
        keys: Sequence[str],
        shapes: Sequence[Sequence[int]],
        values: Sequence[Value],
        rule: Callable[[], list[Value]] | None,
        looks_up: bool = False,
    ) -> list[Value]:
        """Apply one operation.

        Parameters
        ----------
        where : str
            The operation, its node and module, for messages.
        keys : sequence of str
            Name of each result, under which it may have an explicit label.
        shapes : sequence of sequence of int
            Shape of each result.
        values : sequence of Value
            Tensors that go in.
        rule : callable, optional
            Gives the results; None if there is no rule for the operation.
        looks_up : bool
            Whether the operation uses integers of the input only to look entries up.

        Returns
        -------
        list of Value
            The results.

        Raises
        ------
        LabelError
            If there is neither a rule nor a label.
        """
        given = [self.label(key, shape) for key, shape in zip(keys, shapes, strict=True)]
        labeled = [value for value in given if value is not None]
        constant = bool(values) and all(x.constant for x in values)
        if len(labeled) == len(shapes):
            self.unruled += [(where, x) for x in values]
            for x in values:
                self._read(x)
            found = labeled
        elif rule is not None:
            with self.rules.at(where):
                found = rule()
        elif constant:
            with self.rules.at(where):
                found = [self.rules.opaque(shape) for shape in shapes]
        else:
            raise LabelError(
                f"no rule says how {where} acts on axes. Label its result: labels={{{keys[0]!r}: '...'}} with one word "
                f"for each axis of shape {tuple(shapes[0])}, a neuron set's name or '_' for a fixed axis."
            )
        for x in () if looks_up else values:
            if all(out.index is not x.index for out in found):
                with self.rules.at(where):
                    self.rules.invalidate(x)
        return [replace(out, constant=True) for out in found] if constant else found

    def output(self, value: Value) -> None:
        """Take a value as the next output."""
        given = self.label(f"output[{len(self.outputs)}]", value.shape)
        if given is not None:
            with self.rules.at("being an output"):
                self.rules.equal(given, value)
        with self.rules.at("being an output"):
            self.rules.invalidate(value)
        self.outputs.append(value)
        self._read(value)

    def input(self, shape: Sequence[int], integer: bool) -> Value:
        """Take the next input, and return its value; integers may number the entries of an axis."""
        value = self.label(f"input[{len(self.inputs)}]", shape) or self.rules.tensor(shape)
        self.inputs.append(replace(value, index=Index()) if integer else value)
        return self.inputs[-1]

    def constant(self, x: Any, name: str | None = None) -> Value:
        """Take a NumPy array that is no part of the weight space, of some name if it belongs to the model."""
        number = float(x.reshape(())) if x.size == 1 and x.dtype.kind != "c" else None
        if name is not None and x.ndim and all(known[0] != name for known in self.constants):
            self.constants.append(record(name, x))
        with self.rules.at("a constant"):
            return self.rules.constant(x.shape, varying(x), number, not x.any())

    def held(self, shape: Sequence[int]) -> Value:
        """Value of a tensor that is not chosen: it is the same in every model."""
        with self.rules.at("a tensor that is held fixed"):
            return self.rules.opaque(shape)

    def untraced(self, inputs: Sequence[tuple[Sequence[int], bool]], outputs: Sequence[Sequence[int]]) -> None:
        """Take all inputs (shape, whether integers) and outputs (shape) as they are labeled, fixed where they are not."""
        self.used.update(self.tensors)
        for shape, integer in inputs:
            self.input(shape, integer)
        for k, shape in enumerate(outputs):
            self.outputs.append(self.label(f"output[{k}]", shape) or self.rules.opaque(shape))

    def finish(self) -> Derivation:
        """Name the neuron sets and freeze all axes.

        Returns
        -------
        Derivation
            Views, and what they are labeled by. Sets that reach an input are called ``in``, those that reach an output
            ``out``, others ``h1``, ``h2``, ... in order of appearance; names of patterns take precedence.

        Raises
        ------
        LabelError
            If a pattern names nothing, or a named neuron set turned out to be fixed, divided, or one with another.
        """
        named = {id(leaf) for node in self.named.values() for leaf in leaves(node)}
        for where, value in self.unruled:
            with self.rules.at(where):
                for leaf in (leaf for axis in value.axes for leaf in leaves(axis)):
                    if id(leaf) not in named:
                        self.rules.fix(leaf)
        unknown = [name for name in self.patterns if name not in self.asked]
        if unknown:
            raise LabelError(
                f"labels are given for {unknown}, but the network has no such tensor, operation, input or output: "
                f"its tensors are {list(self.shapes)}."
            )
        for name, value in self.tensors.items():
            if name not in self.used:
                with self.rules.at(self.unused):
                    self.rules.fix_axes(value, range(len(value.axes)))
        self._fix_what_examples_leave_out()
        self.names = names = self._names()
        axes = self.frozen(self.tensors.values(), names)
        views = tuple(View(n, a, tuple(self.also.get(n, ()))) for n, a in zip(self.tensors, axes, strict=True))
        present = {leaf for view in views for axes in view.pieces.values() for leaf in (a.label for a in axes)}
        inputs, outputs = (
            tuple(dict.fromkeys(n for n in (names.get(id(leaf)) for leaf in self._reached(side)) if n in present and n))
            for side in (self.inputs, self.outputs)
        )
        reasons = {n: dict.fromkeys(why for why in map(fixed_by, v.axes) if why) for n, v in self.tensors.items()}
        fixed = tuple((n, "; ".join(whys)) for n, whys in reasons.items() if whys)
        activations = [
            (label, function, value.factor)
            for function, value in self.rules.activations
            for axis in value.axes
            for leaf in leaves(axis)
            if (label := names.get(id(leaf))) is not None and label in present
        ]
        return Derivation(views, inputs, outputs, fixed, tuple(dict.fromkeys(activations)), tuple(self.constants))

    def _fix_what_examples_leave_out(self) -> None:
        """Fix what the network does not read of its tensors: with an input of another size it may.

        What goes with it, an axis of the input that is as long as what is read, is fixed too.
        """
        inputs = {id(leaf) for leaf in self._reached(self.inputs)}
        for where, kept, others, added in self.rules.partial:
            own = [leaf for leaf in leaves(kept) if id(leaf) in inputs]
            rest = [leaf for node in others for leaf in leaves(node) if leaf.size > 1 and (added or not leaf.read)]
            verb = "fills up" if added else "does not read"
            with self.rules.at(f"what {where} {verb}"):
                self._fix_beyond(own * bool(rest) + rest * (bool(own) or not added))
        with self.rules.at("not being read"):
            every = [leaf for value in self.tensors.values() for axis in value.axes for leaf in leaves(axis)]
            self._fix_beyond([leaf for leaf in every if leaf.size > 1 and not leaf.read])

    def _fix_beyond(self, found: Iterable[Node]) -> None:
        """Fix leaves that may move only as long as inputs are like the example."""
        for leaf in found:
            self.beyond.update([] if leaf.fixed else [id(leaf)])
            self.rules.fix(leaf)

    def _read(self, value: Value) -> None:
        """Record that all entries of a value are read."""
        for axis in value.axes:
            self.rules.read(axis)

    def candidates(self) -> Iterator[Candidate]:
        """Yield what may turn out to be one neuron set although the labeling does not move it as one.

        Whole axes in several parts, which are fixed or occur together only; pairs of fixed axes of one size that follow each
        other, which a rule may have parted; and single fixed leaves. What another example input may need is none.
        """
        keys: dict[_Key, tuple[str, str]] = {}
        alone: dict[int, set[_Key]] = {}
        found: dict[int, tuple[str, str, Node]] = {}
        for name, value in self.tensors.items():
            for a, axis in enumerate(value.axes):
                where, key = f"axis {a} of {name!r}", _key(axis)
                for leaf in (leaf for leaf in leaves(axis) if leaf.size > 1):
                    alone.setdefault(id(leaf), set()).add(key)
                    if name in self.used and id(leaf) not in self.beyond:
                        keys.setdefault(key, (where, name))
                        if leaf.fixed:
                            found.setdefault(id(leaf), (where, name, leaf))
        for value in (*self.inputs, *self.outputs):
            for axis in value.axes:
                for i in _key(axis).parts:
                    alone.setdefault(i, set()).add(_key(axis))
        fixed = [key for key in keys if all(i in found for i in key.parts)]
        for key, (where, name) in keys.items():
            together = all(i not in found and len(alone[i]) == 1 for i in key.parts)
            if len(key.parts) > 1 and (key in fixed or together):
                yield Candidate(f"{where} as one set", name, key.size, {*key.parts}, self._whole({key}))
        for k, one in enumerate(fixed):
            same = [key for key in fixed[k + 1 :] if key.size == one.size and not {*one.parts} & {*key.parts}]
            for other in same[:2]:
                where = f"{keys[one][0]} with {keys[other][0]}"
                yield Candidate(where, keys[one][1], one.size, {*one.parts, *other.parts}, self._whole({one, other}))
        for i, (where, name, leaf) in found.items():
            yield Candidate(where, name, leaf.size, {i}, partial(self.frozen, names={i: "?"}))

    def _whole(self, keys: set[_Key]) -> Frozen:
        """What freezes axes such that whole ones of some keys are one set and nothing else moves."""

        def frozen(values: Iterable[Value]) -> list[tuple[Axis, ...]]:
            return [tuple(Axis(n.size, label="?" if _key(n) in keys else None) for n in v.axes) for v in values]

        return frozen

    def frozen(self, values: Iterable[Value], names: Mapping[int, str]) -> list[tuple[Axis, ...]]:
        """Axes of values, with the leaves of the given names (by identity) as neuron sets."""
        return [tuple(freeze(node, lambda leaf: names.get(id(leaf))) for node in value.axes) for value in values]

    def _names(self) -> dict[int, str]:
        """Name the leaves that may move."""
        names: dict[int, str] = {}
        for label, node in self.named.items():
            node = resolve(node)
            why = fixed_by(node)
            problem = (
                f"it was fixed by {why}"
                if why
                else "it was divided by a reshape, slice or concatenation"
                if node.kind != "leaf"
                else f"it is one set with {names[id(node)]!r}"
                if id(node) in names
                else None
            )
            if problem and node.size > 1:
                raise LabelError(
                    f"neuron set {label!r} of the given labels cannot be permuted as labeled: {problem}. Drop the label, "
                    "or label that operation's result."
                )
            names[id(node)] = label
        inputs, outputs = ({id(leaf): leaf for leaf in self._reached(side)} for side in (self.inputs, self.outputs))
        ordered: dict[int, Node] = {}
        for value in self.tensors.values():
            for axis in value.axes:
                ordered.update({id(leaf): leaf for leaf in leaves(axis) if leaf.size > 1 and not leaf.fixed})
        roles: dict[str, list[int]] = {"in": [], "out": [], "h": []}
        for key in ordered:
            if key not in names:
                roles["in" if key in inputs else "out" if key in outputs else "h"].append(key)
        for role, keys in roles.items():
            alone = [role] if role != "h" and len(keys) == 1 else []
            plain = [*alone, *(f"{role}{k}" for k in range(1, len(keys) + len(self.named) + 1))]
            free = [name for name in plain if name not in self.named]
            names.update(zip(keys, free, strict=False))
        return names

    def _reached(self, values: Iterable[Value]) -> list[Node]:
        """Leaves of some inputs or outputs, and of the axes that integers number."""
        axes = [axis for v in values for axis in (*v.axes, *([v.index.axis] if v.index and v.index.axis else []))]
        return [leaf for axis in axes for leaf in leaves(axis)]


def _key(axis: Node) -> _Key:
    """The key of an axis."""
    return _Key(axis.size, tuple(id(leaf) for leaf in leaves(axis) if leaf.size > 1))

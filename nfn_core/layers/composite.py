"""Layers made of named children, whose parameters carry the child's name in front."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from nfn_core.arrays import Array
from nfn_core.checks import check_kind, shown
from nfn_core.errors import SpecError
from nfn_core.layers.base import Execution, Layer
from nfn_core.layers.parameters import ParameterSpec

__all__ = ["Composite"]


class Composite(Layer):
    """Base of layers made of named children. A subclass is a frozen dataclass with `children` and `forward`.

    The parameters of a child are named ``"CHILD.NAME"``. In `forward`, `call` applies a child.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from nfn_core.layers import Layer
    >>> @dataclass(frozen=True)
    ... class Difference(Composite):
    ...     first: Layer
    ...     second: Layer
    ...
    ...     def children(self):
    ...         return {"first": self.first, "second": self.second}
    ...
    ...     def forward(self, params, x, execution):
    ...         y, z = (self.call(name, params, x, execution) for name in ("first", "second"))
    ...         return {name: y[name] - z[name] for name in y}
    """

    def children(self) -> Mapping[str, Layer]:
        """Return the children by name."""
        raise NotImplementedError(f"{type(self).__name__} has no children: define them by name.")

    @cached_property
    def _named(self) -> dict[str, tuple[Layer, tuple[tuple[str, str], ...]]]:
        """Each child with the names of its parameters, in it and here."""
        children = self.children()
        check_kind("children", children, Mapping)
        for child, layer in children.items():
            check_kind(f"child {child!r}", layer, Layer)
        return {
            child: (layer, tuple((name, f"{child}.{name}") for name in layer.cached_specs))
            for child, layer in children.items()
        }

    def _child(self, child: str) -> tuple[Layer, tuple[tuple[str, str], ...]]:
        """A child with the names of its parameters."""
        try:
            return self._named[child]
        except (KeyError, TypeError):
            raise SpecError(f"child must be one of {list(self._named)}, not {shown(child)}.") from None

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return all children's parameters."""
        return {
            f"{child}.{name}": spec
            for child, (layer, _) in self._named.items()
            for name, spec in layer.cached_specs.items()
        }

    def call(self, child: str, params: Mapping[str, Array], x: Any, execution: Execution) -> Any:
        """Apply a child.

        Parameters
        ----------
        child : str
            Its name.
        params : mapping of str to array
            The parameters of this layer.
        x : mapping of str to array, or array
            The child's input.
        execution : Execution
            As `forward` got it.

        Returns
        -------
        dict of str to array, or array
            The child's output.

        Raises
        ------
        SpecError
            If there is no such child.
        """
        return self._child(child)[0].forward(self.child_params(child, params), x, execution.within(child))

    def child_params(self, child: str, params: Mapping[str, Array]) -> dict[str, Array]:
        """Return a child's parameters, by their names in it.

        Parameters
        ----------
        child : str
            Its name.
        params : mapping of str to array
            The parameters of this layer.

        Returns
        -------
        dict of str to array
            The child's.

        Raises
        ------
        SpecError
            If there is no such child.
        """
        return {inner: params[outer] for inner, outer in self._child(child)[1]}

    def __repr__(self) -> str:
        """A line for itself, and a line or more for each child."""
        return self._lines(repr)

    def tree(self) -> str:
        """Return `repr` with a line for each parameter and constant below its layer: name and shape."""
        return self._lines(lambda layer: layer.tree())

    def _lines(self, shown: Callable[[Layer], str]) -> str:
        """The children below this layer, each shown in its own lines."""
        lines = [f"{type(self).__name__}({self.shown_count()})"]
        for name, (layer, _) in self._named.items():
            lines += f"{name}: {shown(layer)}".splitlines()
        return "\n  ".join(lines)

"""Walking the graph of a module: `torch.export` to ATen operations, each turned into axes by its rule."""

import operator
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from nfn_core.errors import LabelError, LabelWarning
from nfn_core.models.labeling import Labeling
from nfn_core.models.operations import Call
from nfn_core.models.probes import running
from nfn_core.models.rules import Value
from nfn_core.models.stacking import kind_of
from nfn_torch.indexing import LOOK_UPS
from nfn_torch.operations import name_of, rule_of
from nfn_torch.wrappers import inner_names

__all__ = ["constants", "host", "integers", "walk"]


def walk(labeling: Labeling, module: torch.nn.Module, call_with: tuple[Any, Any], first: Mapping[str, str]) -> None:
    """Walk a module's computation and record its constraints on axes in a labeling.

    Parameters
    ----------
    labeling : Labeling
        The labeling, which holds the module's tensors.
    module : torch.nn.Module
        The module, in evaluation mode.
    call_with : (tuple, dict)
        Example inputs, and those by keyword.
    first : mapping of str to str
        For every name of a tensor the first name it has.

    Raises
    ------
    LabelError
        If the module cannot be traced, or an operation has no rule and no explicit label.
    """
    labeling.unused = "not being used in evaluation mode; if training uses it, permutations change what is trained"
    _Walker(labeling, _export(module, call_with), module, first).walk()


def _export(module: torch.nn.Module, call_with: tuple[Any, Any]) -> Any:
    """Graph of core ATen operations, with attention in its plain form; outputs that hold no plain tensors are left out."""
    left_out: dict[str, None] = {}

    def kept(output: Any) -> Any:
        if isinstance(output, torch.Tensor | bool | int | float | str | None):
            return output
        left_out[kind_of(output)] = None
        return None

    hook = module.register_forward_hook(lambda _, __, outputs: pytree.tree_map(kept, outputs))
    try:
        with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
            warnings.simplefilter("ignore")  # of the tracer about itself
            program = torch.export.export(module, *call_with, strict=False).run_decompositions(_decompositions())
    except Exception as error:
        with torch.no_grad(), running():  # inputs that do not fit are the cause, not the tracer
            module(*call_with[0], **call_with[1])
        from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode  # slow to load

        place = _place(module, error)
        reason = str(error).strip().split("\n")[0]
        raise LabelError(
            f"the module cannot be traced{place}: {type(error).__name__}: {reason} "
            + (
                "Control flow that depends on data has no graph: write it with torch.where, or label"
                if isinstance(error, GuardOnDataDependentSymNode)
                else "It runs, but torch.export has no graph of it: change what it stops at, or label"
            )
            + " every tensor, input and output explicitly instead."
        ) from error
    finally:
        hook.remove()
    if left_out:
        warnings.warn(
            f"outputs of types {', '.join(left_out)} are left out: their tensors are neither labeled nor verified. Give "
            "their tensors as outputs of their own, if neurons that reach them are outputs.",
            LabelWarning,
            stacklevel=4,
        )
    return program


def _decompositions() -> dict[Any, Any]:
    """Operations in terms of simpler ones, but for those that have more symmetries than these show."""
    kept = ("aten::eye",)
    table = cast("dict[Any, Any]", torch.export.default_decompositions())
    return {target: rule for target, rule in table.items() if target.name().partition(".")[0] not in kept}


def _place(module: torch.nn.Module, error: Exception) -> str:
    """Module and line of the user's code where tracing stopped."""
    names = {id(child): (name, type(child).__name__) for name, child in module.named_modules()}
    torch_itself = str(Path(torch.__file__).parent)
    inside, found = None, ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        inside = names.get(id(frame.f_locals.get("self")), inside)
        file = frame.f_code.co_filename
        if inside is not None and not file.startswith(torch_itself):
            found = f" in module {inside[0]!r} ({inside[1]}), {file}:{line}"
    return found


def integers(x: torch.Tensor) -> bool:
    """Whether a tensor holds integers."""
    return not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool)


def constants(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Tensors that a module holds beside its parameters, by name: buffers, and attributes that are not registered."""
    loose = {
        f"{prefix}.{name}".removeprefix("."): x
        for prefix, child in module.named_modules()
        for name, x in vars(child).items()
        if isinstance(x, torch.Tensor)
    }
    found = {**loose, **dict(module.named_buffers(remove_duplicate=False))}
    names = inner_names(module, found)
    return {names[name]: x for name, x in found.items()}


def host(x: torch.Tensor) -> np.ndarray:
    """Array of NumPy with a tensor's entries."""
    x = x.detach().cpu()
    return x.float().numpy() if x.dtype == torch.bfloat16 else x.numpy()


class _Walker:
    """Walks an exported program."""

    def __init__(self, labeling: Labeling, program: Any, module: torch.nn.Module, first: Mapping[str, str]) -> None:
        self.labeling, self.program = labeling, program
        self.shorts = inner_names(module, [s.target for s in program.graph_signature.input_specs if s.target])
        self.own = constants(module)
        names = inner_names(module, module.state_dict())
        self.first = {name: first[short] for name, short in names.items() if short in first}
        self.places = {
            _memory(x): n for n, x in module.state_dict(keep_vars=True).items() if isinstance(x, torch.Tensor)
        }

    def walk(self) -> None:
        """Record the constraints of the whole program."""
        signature = self.program.graph_signature
        specs = {spec.arg.name: spec for spec in signature.input_specs if hasattr(spec.arg, "name")}
        given = [
            self._placeholder(node, specs[node.name]) for node in self.program.graph.nodes if node.op == "placeholder"
        ]
        results = self._graph(self.program.graph_module, given)
        for spec, value in zip(signature.output_specs, results, strict=True):
            if spec.kind == OutputKind.USER_OUTPUT and isinstance(value, Value):
                self.labeling.output(value)
            elif spec.kind == OutputKind.BUFFER_MUTATION and spec.target in self.first:
                with self.labeling.rules.at(f"an update of buffer {spec.target!r}"):
                    self.labeling.rules.equal(self.labeling.tensors[self.first[spec.target]], value)

    def _placeholder(self, node: torch.fx.Node, spec: Any) -> Value | None:
        """Value of a tensor, input or constant of the program."""
        if isinstance(spec.arg, ConstantArgument) or spec.kind == InputKind.TOKEN:
            return None
        if spec.target in self.first:
            return self._tensor(spec.target, bool(node.users))
        example = node.meta["val"]
        if spec.kind == InputKind.USER_INPUT:
            return self.labeling.input(tuple(example.shape), integers(example))
        if spec.kind == InputKind.PARAMETER or (spec.persistent and example.is_floating_point()):
            return self.labeling.held(tuple(example.shape))
        name = self.shorts[spec.target]
        if name in self.own:
            return self._constant(self.own[name], bool(node.users), name)
        return self._constant(self.program.constants[spec.target], bool(node.users))

    def _tensor(self, name: str, is_read: bool) -> Value:
        """Value of a tensor of the weight space."""
        self.labeling.used.update([self.first[name]] if is_read else [])
        return self.labeling.tensors[self.first[name]]

    def _constant(self, x: torch.Tensor, is_read: bool, name: str | None = None) -> Value:
        """Value of a constant; a tensor that the module also keeps elsewhere, for a functional call, is that tensor."""
        place = self.places.get(_memory(x))
        if place in self.first and x.numel():
            return self._tensor(place, is_read)
        return self.labeling.constant(host(x), name)

    def _graph(self, graph: torch.fx.GraphModule, given: Sequence[Value | None]) -> list[Any]:
        """Values of a graph's outputs, None for what is no tensor."""
        values: dict[torch.fx.Node, Any] = {}
        operands = iter(given)
        for node in graph.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(operands)
            elif node.op == "get_attr":
                held = self.program.constants.get(node.target, getattr(graph, node.target))
                values[node] = self._constant(held, bool(node.users)) if isinstance(held, torch.Tensor) else held
            elif node.op == "call_function":
                values[node] = self._call(node, values)
        return [
            values[out] if isinstance(out, torch.fx.Node) else None
            for out in pytree.tree_leaves(graph.graph.output_node().args)
        ]

    def _call(self, node: torch.fx.Node, values: Mapping[torch.fx.Node, Any]) -> Any:
        """Value, or list of values, of one operation."""
        args, kwargs = cast("tuple[Any, Any]", torch.fx.map_arg((node.args, node.kwargs), lambda n: values.get(n)))
        if node.target is operator.getitem:
            return args[0][args[1]]
        outputs = node.meta.get("val")
        results = [x for x in pytree.tree_leaves(outputs) if x is not None]
        if node.target is torch.ops.higher_order.with_effects and len(results) == 1:
            return [None, None]  # a check of results
        if not results or not any(isinstance(x, torch.Tensor | torch.SymFloat) for x in results):
            return self._nothing(node)
        if any(type(n) is not int for x in results if isinstance(x, torch.Tensor) for n in x.shape):
            raise LabelError(
                f"{_describe(node)} gives a tensor whose size depends on data (as indexing by a mask does): the network "
                "has no graph. Write it with torch.where, or label every tensor, input and output explicitly instead."
            )
        rules = self.labeling.rules
        if node.target is torch.ops.higher_order.cond:
            _, one, other, operands = args
            branches = [self._graph(branch, operands) for branch in (one, other)]
            with rules.at(_describe(node)):
                for x, y in zip(*branches, strict=True):
                    rules.equal(x, y)
            return [replace(x, constant=False, number=None, zero=False) for x in branches[0]]
        if node.target is torch.ops.higher_order.while_loop:
            condition, body, state, others = args
            state = [replace(x, constant=False, number=None, zero=False) for x in state]
            self._graph(condition, [*state, *others])
            after = self._graph(body, [*state, *others])
            with rules.at(_describe(node)):
                for x, y in zip(state, after, strict=True):
                    rules.equal(x, y)
            return state
        several = isinstance(outputs, list | tuple)
        shapes = [tuple(getattr(x, "shape", ())) for x in (outputs if isinstance(outputs, list | tuple) else [outputs])]
        keys = [f"{node.name}[{k}]" for k in range(len(shapes))] if several else [node.name]
        tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Value)]
        rule, name = rule_of(node.target), name_of(node.target)
        operand = node.args[0].meta.get("val") if node.args and isinstance(node.args[0], torch.fx.Node) else None
        memory = (operand.stride(), operand.storage_offset()) if isinstance(operand, torch.Tensor) else None
        call_of = Call(shapes, {"name": name, "args": node.args, "memory": memory})

        def call() -> list[Value]:
            return rule(rules, call_of, *args, **kwargs) if rule else []

        found = self.labeling.apply(_describe(node), keys, shapes, tensors, call if rule else None, name in LOOK_UPS)
        return found if several else found[0]

    @staticmethod
    def _nothing(node: torch.fx.Node) -> None:
        """Pass assertions of the tracer by; numbers that come from data may decide anything."""
        if isinstance(node.target, torch._ops.OpOverload) and str(node.target) == "aten._local_scalar_dense.default":
            raise LabelError(
                f"{_describe(node)} turns an entry of a tensor into a number: the network has no graph. Leave it a tensor, "
                "or label every tensor, input and output explicitly instead."
            )


def _memory(x: torch.Tensor) -> tuple[Any, ...]:
    """Where a tensor's entries are."""
    return (x.data_ptr(), tuple(x.shape), x.stride()) if x.layout == torch.strided else (id(x),)


def _describe(node: torch.fx.Node) -> str:
    """Operation, node and module, for messages."""
    stack = node.meta.get("nn_module_stack") or {}
    path = [str(entry[0]) for entry in stack.values()]
    inside = f" in module {path[-1]!r}" if path and path[-1] else ""
    return f"{node.target} ({node.name}){inside}"

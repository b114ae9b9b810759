"""Walking the graph of a module: `torch.export` to ATen operations, each turned into axes by its rule."""

import operator
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch.export.graph_signature import ConstantArgument, InputKind
from torch.utils import _pytree as pytree

from nfn_core.errors import LabelError
from nfn_core.labelling import Labelling
from nfn_core.rules import Index, Value
from nfn_torch.operations import rule_of

__all__ = ["name_inputs", "walk"]


def walk(labelling: Labelling, module: torch.nn.Module, args: tuple[Any, ...], first: Mapping[str, str]) -> None:
    """Walk a module's computation and put what it says about axes into a labelling.

    Parameters
    ----------
    labelling : Labelling
        The labelling, which holds the module's tensors.
    module : torch.nn.Module
        The module, in evaluation mode.
    args : tuple
        Example inputs.
    first : mapping of str to str
        For every name of a tensor the first name it has.

    Raises
    ------
    LabelError
        If the module cannot be traced, or an operation has no rule and no explicit label.
    """
    program = _export(module, args)
    rules, values = labelling.rules, {}
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs if hasattr(spec.arg, "name")}
    buffers = dict(module.named_buffers(remove_duplicate=False))
    for node in program.graph.nodes:
        if node.op == "placeholder":
            spec = specs[node.name]
            name = first.get(spec.target or "")
            if isinstance(spec.arg, ConstantArgument):
                continue
            if name is not None:
                labelling.used.update([name] if node.users else [])
                values[node] = labelling.tensors[name]
            elif spec.kind == InputKind.USER_INPUT:
                values[node] = _input(labelling, node.meta["val"])
            else:
                values[node] = _constant(labelling, buffers.get(spec.target, program.constants.get(spec.target)))
        elif node.op == "get_attr":
            values[node] = _constant(
                labelling, program.constants.get(node.target, getattr(program.graph_module, node.target))
            )
        elif node.op == "call_function":
            values[node] = _call(labelling, node, values)
        elif node.op == "output":
            for out in pytree.tree_leaves(node.args):
                if isinstance(out, torch.fx.Node) and isinstance(out.meta.get("val"), torch.Tensor):
                    rules.where = "being an output"
                    value = values[out]
                    given = labelling.label(f"output[{len(labelling.outputs)}]", value.shape)
                    if given is not None:
                        rules.equal(given, value)
                    labelling.outputs.append(value)


def name_inputs(labelling: Labelling, examples: Sequence[Any], outputs: Sequence[Sequence[int]]) -> None:
    """Put a network that is not walked into a labelling: inputs and outputs as they are labelled, or fixed.

    Parameters
    ----------
    labelling : Labelling
        The labelling, with explicit labels of all tensors.
    examples : sequence of torch.Tensor
        Example inputs.
    outputs : sequence of sequence of int
        Shapes of the outputs.
    """
    labelling.used.update(labelling.tensors)
    for example in examples:
        _input(labelling, example)
    for k, shape in enumerate(outputs):
        labelling.outputs.append(labelling.label(f"output[{k}]", shape) or labelling.rules.opaque(shape))


def _export(module: torch.nn.Module, args: tuple[Any, ...]) -> Any:
    """Graph of core ATen operations."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the tracer about itself
            return torch.export.export(module, args, strict=False).run_decompositions()
    except Exception as error:
        place = _place(module, error)
        reason = str(error).strip().split("\n")[0]
        raise LabelError(
            f"the module cannot be traced{place}: {type(error).__name__}: {reason} Control flow that depends on data and "
            "code that leaves tensors have no graph: label every tensor, input and output explicitly instead."
        ) from error


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


def _input(labelling: Labelling, example: Any) -> Value:
    """Value of the next input."""
    shape = tuple(example.shape)
    value = labelling.label(f"input[{len(labelling.inputs)}]", shape) or labelling.rules.tensor(shape)
    if not example.is_floating_point() and not example.is_complex() and example.dtype != torch.bool:
        value = replace(value, index=Index())
    labelling.inputs.append(value)
    return value


def _constant(labelling: Labelling, x: Any) -> Value:
    """Value of a tensor that is no part of the weight space."""
    labelling.rules.where = "a constant"
    x = x.detach()
    varies = [bool((x != x.narrow(a, 0, 1)).any()) if x.shape[a] else False for a in range(x.ndim)]
    return labelling.rules.constant(tuple(x.shape), varies)


def _call(labelling: Labelling, node: torch.fx.Node, values: Mapping[torch.fx.Node, Any]) -> Any:
    """Value, or list of values, of one operation."""
    rules = labelling.rules
    args, kwargs = cast("tuple[Any, Any]", torch.fx.map_arg((node.args, node.kwargs), lambda n: values.get(n)))
    if node.target is operator.getitem:
        return args[0][args[1]]
    rules.where = where = _describe(node)
    outputs = node.meta.get("val")
    if outputs is None:
        return None  # an assertion of the tracer
    several = isinstance(outputs, list | tuple)
    shapes = [tuple(x.shape) for x in (outputs if several else [outputs])]
    given = [labelling.label(f"{node.name}[{k}]" if several else node.name, s) for k, s in enumerate(shapes)]
    tensors = [
        x for x in pytree.tree_leaves((args, kwargs), is_leaf=lambda x: isinstance(x, Value)) if isinstance(x, Value)
    ]
    rule, constant = rule_of(node.target), bool(tensors) and all(x.constant for x in tensors)
    if all(value is not None for value in given):
        labelling.unruled += [(where, x) for x in tensors]
        found: Any = given
    elif rule is not None:
        rules.where = where
        found = rule(rules, shapes if several else shapes[0], *args, **kwargs)
        found = list(found) if several else [found]
    elif constant:
        found = [rules.opaque(shape) for shape in shapes]
    else:
        key = f"{node.name}[0]" if several else node.name
        raise LabelError(
            f"no rule says how {where} acts on axes. Label its result: labels={{{key!r}: '...'}} with one word for each "
            f"axis of shape {shapes[0]}, a neuron set's name or '_' for a fixed axis."
        )
    if constant:
        found = [replace(v, constant=True) for v in found]
    _look_ups_only(labelling, node, tensors, found)
    return found if several else found[0]


LOOK_UPS = ("embedding", "index", "index_select")


def _look_ups_only(labelling: Labelling, node: torch.fx.Node, tensors: Sequence[Value], found: Sequence[Value]) -> None:
    """Integers of the input that number an axis must not be used in another way."""
    if any(str(node.target).startswith(f"aten.{name}.") for name in LOOK_UPS):
        return
    for value in tensors:
        if value.index is not None and all(out.index is not value.index for out in found):
            labelling.rules.spoil(value.index)


def _describe(node: torch.fx.Node) -> str:
    """Operation, node and module, for messages."""
    stack = node.meta.get("nn_module_stack") or {}
    path = [str(entry[0]) for entry in stack.values()]
    inside = f" in module {path[-1]!r}" if path and path[-1] else ""
    return f"{node.target} ({node.name}){inside}"

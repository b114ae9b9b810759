"""Walking the graph of a module: `torch.export` to ATen operations, each turned into axes by its rule."""

import operator
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.export.graph_signature import ConstantArgument, InputKind
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from nfn_core.errors import LabelError, LabelWarning
from nfn_core.models.labeling import Labeling
from nfn_core.models.operations import Call
from nfn_core.models.probes import running
from nfn_core.models.rules import Value
from nfn_core.models.stacking import kind_of
from nfn_torch.operations import rule_of

LOOK_UPS = ("embedding", "index", "index_select")

__all__ = ["constants", "host", "integers", "walk"]


def walk(labeling: Labeling, module: torch.nn.Module, args: tuple[Any, ...], first: Mapping[str, str]) -> None:
    """Walk a module's computation and record its constraints on axes in a labeling.

    Parameters
    ----------
    labeling : Labeling
        The labeling, which holds the module's tensors.
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
    labeling.unused = "not being used in evaluation mode; if training uses it, permutations change what is trained"
    values: dict[torch.fx.Node, Any] = {}
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs if hasattr(spec.arg, "name")}
    own = constants(module)
    for node in program.graph.nodes:
        if node.op == "placeholder":
            spec = specs[node.name]
            name = first.get(spec.target or "")
            if isinstance(spec.arg, ConstantArgument):
                continue
            if name is not None:
                labeling.used.update([name] if node.users else [])
                values[node] = labeling.tensors[name]
            elif spec.kind == InputKind.USER_INPUT:
                example = node.meta["val"]
                values[node] = labeling.input(tuple(example.shape), integers(example))
            else:
                named = spec.target if spec.target in own else None
                values[node] = _constant(labeling, own[named] if named else program.constants[spec.target], named)
        elif node.op == "get_attr":
            values[node] = _constant(
                labeling, program.constants.get(node.target, getattr(program.graph_module, node.target))
            )
        elif node.op == "call_function":
            values[node] = _call(labeling, node, values)
        elif node.op == "output":
            for out in pytree.tree_leaves(node.args):
                if isinstance(out, torch.fx.Node) and isinstance(out.meta.get("val"), torch.Tensor):
                    labeling.output(values[out])


def _export(module: torch.nn.Module, args: tuple[Any, ...]) -> Any:
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
            program = torch.export.export(module, args, strict=False).run_decompositions(_decompositions())
    except Exception as error:
        with torch.no_grad(), running():  # inputs that do not fit are the cause, not the tracer
            module(*args)
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
    return {**loose, **dict(module.named_buffers(remove_duplicate=False))}


def host(x: torch.Tensor) -> np.ndarray:
    """Array of NumPy with a tensor's entries."""
    x = x.detach().cpu()
    return x.float().numpy() if x.dtype == torch.bfloat16 else x.numpy()


def _constant(labeling: Labeling, x: torch.Tensor, name: str | None = None) -> Value:
    """Value of a tensor that is no part of the weight space."""
    return labeling.constant(host(x), name)


def _call(labeling: Labeling, node: torch.fx.Node, values: Mapping[torch.fx.Node, Any]) -> Any:
    """Value, or list of values, of one operation."""
    args, kwargs = cast("tuple[Any, Any]", torch.fx.map_arg((node.args, node.kwargs), lambda n: values.get(n)))
    if node.target is operator.getitem:
        return args[0][args[1]]
    outputs = node.meta.get("val")
    if outputs is None:
        return None  # an assertion of the tracer
    several = isinstance(outputs, list | tuple)
    shapes = [tuple(x.shape) for x in (outputs if several else [outputs])]
    keys = [f"{node.name}[{k}]" for k in range(len(shapes))] if several else [node.name]
    tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Value)]
    rule = rule_of(node.target)
    operand = node.args[0].meta.get("val") if node.args and isinstance(node.args[0], torch.fx.Node) else None
    memory = (operand.stride(), operand.storage_offset()) if isinstance(operand, torch.Tensor) else None

    def call() -> list[Value]:
        return rule(labeling.rules, Call(shapes, {"memory": memory}), *args, **kwargs) if rule else []

    looks_up = any(str(node.target).startswith(f"aten.{name}.") for name in LOOK_UPS)
    found = labeling.apply(_describe(node), keys, shapes, tensors, call if rule else None, looks_up)
    return found if several else found[0]


def _describe(node: torch.fx.Node) -> str:
    """Operation, node and module, for messages."""
    stack = node.meta.get("nn_module_stack") or {}
    path = [str(entry[0]) for entry in stack.values()]
    inside = f" in module {path[-1]!r}" if path and path[-1] else ""
    return f"{node.target} ({node.name}){inside}"

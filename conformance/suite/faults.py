"""Deliberate faults of NF-layers and messages, generated over hubs, members and axes; each names the checks that see it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any
from unittest.mock import patch

import numpy as np
from nfn_conformance import Subject, subject_of

from nfn_core import Group, Messages, NFLayer, TensorUpdate, WeightSpace, message_network
from nfn_core.layers.hubs import Hub, HubGraph, HubMember

SPACES = {
    "NP": WeightSpace.mlp([3, 3, 3, 3]).group("NP"),
    "HNP": WeightSpace.cnn([2, 3, 3, 2], [(2,), (), ()]).group("HNP"),
    "recurrent": WeightSpace.from_axes({"R": [("h", 4), ("h", 4)], "b": [("h", 4)]}).group("NP"),
}


@dataclass(frozen=True)
class Fault:
    """A broken subject and the checks that must fail on it."""

    name: str
    subject: Subject
    caught_by: tuple[str, ...]

    @property
    def line(self) -> str:
        """The fault's line in faults.txt."""
        return f"{self.name} -> {', '.join(self.caught_by)}"


def healthy(group: Group, layer: NFLayer | None = None) -> Subject:
    """The layer as it should be, or a broken one that claims the same."""
    layer = layer or NFLayer(group, 1, 1)

    def on_group(larger: Group) -> Subject:
        other = NFLayer(larger, 1, 1)
        object.__setattr__(other, "graph", resized(layer.graph, NFLayer(larger, 1, 1).graph))
        return healthy(larger, other)

    subject = subject_of(
        layer, group, linear=True, maximal=True, parameters=lambda _: layer.linear_parameter_count, on_group=on_group
    )
    return replace(subject, make=cache(subject.make))  # faults of one layer start from the same draws


def resized(broken: HubGraph, larger: HubGraph) -> HubGraph:
    """The broken hub graph with the larger sizes."""
    tensors = tuple(
        replace(p, spec=q.spec, forms=tuple(replace(f, shape=g.shape) for f, g in zip(p.forms, q.forms, strict=True)))
        for p, q in zip(broken.tensors, larger.tensors, strict=True)
    )
    return replace(broken, tensors=tensors)


def with_graph(group: Group, graph: HubGraph) -> Subject:
    """Subject of a layer whose hub graph was tampered with."""
    layer = NFLayer(group, 1, 1)
    object.__setattr__(layer, "graph", graph)
    return healthy(group, layer)


def with_parameters(subject: Subject, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Subject:
    """Subject whose drawn parameters are changed."""
    return replace(subject, make=lambda seed: change(subject.make(seed)), on_group=None)


def with_output(subject: Subject, change: Callable[[Any, Any], Any]) -> Subject:
    """Subject whose output is changed, given the input."""
    return replace(subject, apply=lambda params, u: change(subject.apply(params, u), u), on_group=None)


def blocks(graph: HubGraph, views: tuple[HubMember, ...]) -> list[tuple[str, slice]]:
    """Name and slice of each view's rows or columns in its hub's matrix."""
    found, start = [], 0
    for view in views:
        stop = start + graph.width(view)
        plan = graph.tensors[view.tensor]
        kept = "".join(plan.forms[view.form].labels) or "all"
        found.append((f"{plan.spec.name}[{kept}/{view.form}{view.order}]", slice(start, stop)))
        start = stop
    return found


def swap(graph: HubGraph, old: Hub, new: Hub) -> HubGraph:
    """Hub graph with one hub replaced."""
    return replace(graph, hubs=tuple(new if hub is old else hub for hub in graph.hubs))


def faults() -> Iterator[Fault]:
    """All faults."""
    for name, group in SPACES.items():
        yield from dropped_terms(name, group)
        yield from wrong_members(name, group)
        yield from wrong_constants(name, group)
    yield from wrong_messages()
    yield from wrong_pooling()
    yield from wrong_applications()


def dropped_terms(name: str, group: Group) -> Iterator[Fault]:
    """Each term of each hub zeroed, and each pair of neighboring terms tied (a parameter shared too widely)."""
    good = healthy(group)
    graph = NFLayer(group, 1, 1).graph
    for hub in graph.hubs:
        pairs = [(i, o) for i in blocks(graph, hub.inputs) for o in blocks(graph, hub.outputs)]
        for (from_, rows), (to, columns) in pairs:

            def zero(p: Any, hub: Hub = hub, rows: slice = rows, columns: slice = columns) -> Any:
                matrix = p[hub.name].copy()
                matrix[rows, columns] = 0
                return p | {hub.name: matrix}

            yield Fault(f"{name}: {hub.name} drops {from_} -> {to}", with_parameters(good, zero), ("maximality",))
        for ((a, rows), (to, columns)), ((b, other), (same, _)) in zip(pairs, pairs[len(hub.outputs) :], strict=False):
            if rows.stop - rows.start == other.stop - other.start and to == same:

                def tie(p: Any, hub: Hub = hub, rows: slice = rows, other: slice = other, to: slice = columns) -> Any:
                    matrix = p[hub.name].copy()
                    matrix[other, to] = matrix[rows, to]
                    return p | {hub.name: matrix}

                fault = with_parameters(good, tie)
                yield Fault(f"{name}: {hub.name} ties {a} and {b} -> {to}", fault, ("maximality",))


def wrong_members(name: str, group: Group) -> Iterator[Fault]:
    """A hub's input taken from another axis of the same size, or listed twice."""
    graph = NFLayer(group, 1, 1).graph
    for hub in graph.hubs:
        for k, view in enumerate(hub.inputs):
            plan = graph.tensors[view.tensor]
            for j, form in enumerate(plan.forms):
                same_shape = form.shape == plan.forms[view.form].shape and form.labels != plan.forms[view.form].labels
                if same_shape and len(form.labels) == 1:
                    inputs = (*hub.inputs[:k], replace(view, form=j), *hub.inputs[k + 1 :])
                    broken = swap(graph, hub, replace(hub, inputs=inputs))
                    yield Fault(
                        f"{name}: {hub.name} pools {plan.spec.name} over the wrong axis (form {j})",
                        with_graph(group, broken),
                        ("equivariance",),
                    )
            if len(view.order) == 2 and len(set(plan.forms[0].shape)) == 1 and hub.labels[0] != hub.labels[1]:
                flipped = replace(view, order=view.order[::-1])
                broken = swap(graph, hub, replace(hub, inputs=(*hub.inputs[:k], flipped, *hub.inputs[k + 1 :])))
                yield Fault(f"{name}: {hub.name} transposed", with_graph(group, broken), ("equivariance",))
        broken = swap(graph, hub, replace(hub, inputs=(*hub.inputs, hub.inputs[0])))
        yield Fault(f"{name}: {hub.name} lists a member twice", with_graph(group, broken), ("maximality",))


def wrong_constants(name: str, group: Group) -> Iterator[Fault]:
    """Constants that are lost, shared between tensors, or differ from place to place."""
    good = healthy(group)
    graph = NFLayer(group, 1, 1).graph
    for what, columns in blocks(graph, graph.hubs[0].outputs):

        def lose(p: Any, columns: slice = columns) -> Any:
            bias = p["bias"].copy()
            bias[columns] = 0
            return p | {"bias": bias}

        yield Fault(f"{name}: constant of {what} lost", with_parameters(good, lose), ("constants",))
    for plan in graph.tensors:
        if plan.forms[0].shape:
            tensor, axis = plan.spec.name, plan.order[0]

            def uneven(out: Any, u: Any, tensor: str = tensor, axis: int = axis) -> Any:
                shape = [1] * out[tensor].ndim
                shape[axis + 1] = -1
                ramp = np.arange(out[tensor].shape[axis + 1]).reshape(shape)
                return out | {tensor: out[tensor] + ramp}

            yield Fault(
                f"{name}: constant of {tensor} grows along an axis", with_output(good, uneven), ("equivariance",)
            )

            def uneven_gain(out: Any, u: Any, tensor: str = tensor, axis: int = axis) -> Any:
                return out | {tensor: np.roll(out[tensor], 1, axis + 1)}

            fault = with_output(good, uneven_gain)
            yield Fault(f"{name}: rows of {tensor} rolled by one (an uncoupled permutation)", fault, ("equivariance",))


def message_subject() -> Subject:
    """A network of messages with equivariant output."""
    group = SPACES["NP"]
    subject = subject_of(message_network(group, 1, 4, out_channels=2), group, out_channels=2)
    return replace(subject, make=cache(subject.make))


def with_turned(kind: type[Messages | TensorUpdate], tensor: str) -> Subject:
    """The network of messages in which all layers of a kind take one tensor's neuron sets for each other."""
    good, forward = message_subject(), kind.forward

    def turned(layer: Any, params: Any, x: Any, execution: Any) -> Any:
        plans = (
            replace(p, forms=tuple(replace(f, labels=f.labels[::-1]) for f in p.forms)) if p.spec.name == tensor else p
            for p in layer.graph.tensors
        )
        broken = replace(layer)
        object.__setattr__(broken, "graph", replace(layer.graph, tensors=tuple(plans)))
        return forward(broken, params, x, execution)

    def apply(params: Any, u: Any) -> Any:
        with patch.object(kind, "forward", turned):
            return good.apply(params, u)

    return replace(good, apply=apply)


def wrong_messages() -> Iterator[Fault]:
    """Messages and tensors that hear the neurons of the tensor's other axis, or those of another row."""
    good = message_subject()
    for tensor in (t.name for t in SPACES["NP"].space.tensors if len(t.shape) == 2):
        for kind, who in ((Messages, "messages along"), (TensorUpdate, "updates of")):
            fault = with_turned(kind, tensor)
            yield Fault(f"NP: {who} {tensor} take its neuron sets for each other", fault, ("equivariance",))

        def rolled(params: Any, u: Any, tensor: str = tensor) -> Any:
            return good.apply(params, u | {tensor: np.roll(u[tensor], 1, 1)})

        fault = replace(good, apply=rolled)
        yield Fault(f"NP: messages along {tensor} arrive at the next neuron", fault, ("equivariance",))


def wrong_pooling() -> Iterator[Fault]:
    """A sum in place of a mean, for one tensor after another."""
    group = SPACES["NP"]
    good = healthy(group)
    for t in group.space.tensors:

        def total(subject: Subject, name: str) -> Subject:
            def apply(params: Any, u: Any) -> Any:
                mean = subject.apply(params, u)
                extra = u[name].sum(axis=1, keepdims=True) * params["hub"][0, 0]
                return mean | {name: mean[name] + extra}

            return replace(subject, apply=apply, on_group=lambda larger: total(healthy(larger), name))

        yield Fault(f"NP: sum for mean over the first axis of {t.name}", total(good, t.name), ("duplication",))


def wrong_applications() -> Iterator[Fault]:
    """Faults of how a layer is applied, saved and differentiated."""
    good = healthy(SPACES["NP"])

    def each(change: Callable[[Any], Any]) -> Subject:
        return with_output(good, lambda out, u: {k: change(x) for k, x in out.items()})

    yield Fault("batch members see each other", each(lambda x: x + x.sum(axis=0, keepdims=True)), ("batch",))
    yield Fault("empty batch grows", each(lambda x: x if len(x) else np.zeros((1, *x.shape[1:]))), ("batch",))
    yield Fault("computes in float32", each(lambda x: x.astype("float32").astype(x.dtype)), ("linearity",))
    yield Fault("always returns float64", each(lambda x: x.astype("float64")), ("dtype",))
    yield Fault("an activation left in", each(np.tanh), ("linearity",))
    yield Fault(
        "noise left on", each(lambda x: x * (1 + 1e-3 * np.random.default_rng().normal(size=x.shape))), ("linearity",)
    )
    yield Fault("identity that claims more", with_output(good, lambda out, u: dict(u)), ("maximality", "uncoupled"))
    wrong = {"vjp": lambda params, u, v: dict(v)}
    yield Fault("gradient of another layer", replace(good, **wrong), ("gradient",))
    wrong = {"vjp": lambda params, u, v: {k: np.roll(x, 1, 1) for k, x in v.items()}}
    yield Fault("gradient with rolled rows", replace(good, **wrong), ("gradient",))
    yield Fault("compiled to other numbers", replace(good, compiled=lambda p, u: dict(u)), ("compile",))
    yield Fault("loaded with another seed", replace(good, round_trip=lambda p, folder: good.make(99)), ("round trip",))


if __name__ == "__main__":
    for fault in faults():
        print(fault.line)

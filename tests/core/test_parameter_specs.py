"""What a layer needs is worked out once, in time linear in the number of tensors: counted, not timed."""

from dataclasses import dataclass

import jax.numpy as jnp
import nfn_jax
import numpy as np
import pytest
import torch

from nfn_core import NFLayer, Scale, Sequential, WeightSpace, initialize
from nfn_core.layers import Composite, Layer
from nfn_core.layers.hubs import HubGraph, TensorPlan, hub_graph


def count_calls(monkeypatch, cls, name):
    """Count calls of a method from now on."""
    calls, method = [], getattr(cls, name)

    def counted(self, *arguments):
        calls.append(self)
        return method(self, *arguments)

    monkeypatch.setattr(cls, name, counted)
    return calls


def operations(monkeypatch, depth):
    """How often the hubs and specs of a deep network's first NF-layer ask for a width or a number of inputs."""
    group = WeightSpace.mlp([2] * (depth + 1)).group("NP")
    hub_graph.cache_clear()
    with monkeypatch.context() as patch:
        widths, width = [], TensorPlan.width.fget
        patch.setattr(TensorPlan, "width", property(lambda plan: widths.append(plan) or width(plan)))
        inputs = count_calls(patch, HubGraph, "num_inputs")
        NFLayer(group, 1, 1).parameter_specs()
    return len(widths) + len(inputs)


def test_specs_take_linear_time(monkeypatch):
    few, more, many = (operations(monkeypatch, depth) for depth in (20, 40, 60))
    assert many - more == more - few > 0


def test_fan_in_and_num_inputs_are_what_the_members_say():
    space = WeightSpace.cnn([2, 3, 3, 2], [(2,), (2,), ()])
    for graph in map(hub_graph, (space.group("NP"), space.group("HNP"))):
        inputs = {hub: sum(graph.width(view) for view in hub.inputs) for hub in graph.hubs}
        assert {hub: graph.num_inputs(hub) for hub in graph.hubs} == inputs
        for k in range(len(graph.tensors)):
            assert graph.fan_in(k) == sum(inputs[h] for h in graph.hubs for view in h.outputs if view.tensor == k)


def test_cache_of_hub_graphs_is_bounded():
    assert hub_graph.cache_info().maxsize == 256
    group = WeightSpace.mlp([2, 3, 1]).group("NP")
    assert hub_graph(group) is hub_graph(WeightSpace.mlp([2, 3, 1]).group("NP"))


@dataclass(frozen=True)
class Pair(Composite):
    first: Layer
    second: Layer

    def children(self):
        return {"first": self.first, "second": self.second}

    def forward(self, params, x, execution):
        return self.call("second", params, self.call("first", params, x, execution), execution)


@pytest.mark.parametrize(
    "build", [lambda a, b: a, lambda a, b: Sequential((a, b)), Pair], ids=["layer", "stack", "pair"]
)
def test_specs_are_built_once_for_each_layer(monkeypatch, build):
    calls = count_calls(monkeypatch, NFLayer, "parameter_specs")
    space = WeightSpace.mlp([2, 3, 1])
    layer = build(NFLayer(space.group("NP"), 1, 1), Scale(space))
    params, x = initialize(layer, 0), {t.name: np.ones((2, *t.shape, 1)) for t in space.tensors}
    for _ in range(3):
        layer.apply(params, x)
        nfn_jax.apply(layer, nfn_jax.init(layer, 0), {k: jnp.asarray(v, "float32") for k, v in x.items()})
        assert layer.parameter_count > 0
    assert len(calls) == 1
    same = build(NFLayer(space.group("NP"), 1, 1), Scale(space))
    assert same == layer  # what is cached does not make layers differ
    assert hash(same) == hash(layer)
    layer.parameter_specs().clear()  # a copy, not what is cached
    assert set(layer.cached_specs) == set(params)


def test_torch_compiles_a_layer_that_was_never_applied():
    space = WeightSpace.mlp([2, 3, 1])
    new, used = (NFLayer(space.group("NP"), 1, 1) for _ in range(2))
    params = {name: torch.tensor(p) for name, p in initialize(used, 0).items()}
    x = {t.name: torch.ones((2, *t.shape, 1), dtype=torch.float64) for t in space.tensors}
    expected = used.apply(params, x)
    compiled = torch.compile(lambda p, u: new.apply(p, u), fullgraph=True, backend="eager")(params, x)
    assert all(torch.equal(compiled[name], y) for name, y in expected.items())

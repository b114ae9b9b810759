"""Who is timed. Each contender turns a workload into a forward pass and a forward and backward pass without arguments."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import nfn_jax
import nfn_torch
import torch
from nfn.common import network_spec_from_wsfeat
from torch import nn

from benchmarks.peers import peer_features, peer_layers, textbook_layers
from benchmarks.workloads import Workload
from nfn_core import NFLayer

__all__ = ["CONTENDERS", "LIMIT", "PASSES", "Case", "Products", "Step", "Steps", "hub_products", "once_over"]

Step = Callable[[], Any]
Steps = dict[str, Step]
Products = list[tuple[torch.Tensor, ...]]
PASSES = ("forward", "forward+backward")


@dataclass(frozen=True)
class Case:
    """A workload under one group, in one dtype on one device."""

    workload: Workload
    kind: str
    dtype: str
    device: str

    @property
    def options(self) -> dict[str, Any]:
        """Dtype and device for torch."""
        return {"dtype": getattr(torch, self.dtype), "device": self.device}

    @property
    def entries(self) -> int:
        """Numbers in the features."""
        return self.workload.space.size * self.workload.channels * self.workload.batch

    @property
    def contenders(self) -> Mapping[str, Callable[[Any], Steps]]:
        """Who is timed: those with checkpoints only where there are layers to compute again."""
        one = self.workload.layers == 1
        return {name: x for name, x in CONTENDERS.items() if not (one and name == "nfn_torch checkpointed")}

    @property
    def about(self) -> dict[str, Any]:
        """What distinguishes it from other cases."""
        w = self.workload
        names = {"workload": w.name, "channels": w.channels, "batch": w.batch, "group": self.kind, "dtype": self.dtype}
        return names | {"threads": torch.get_num_threads()}

    def draw(self, channels_first: bool = False) -> dict[str, torch.Tensor]:
        """Normal features, the same for every contender."""
        torch.manual_seed(0)
        w, found = self.workload, {}
        for t in w.space.tensors:
            x = torch.randn(w.batch, *t.shape, w.channels)
            found[t.name] = (x.movedim(-1, 1).contiguous() if channels_first else x).to(**self.options)
        return found


def torch_steps(network: nn.Module, inputs: list[torch.Tensor], outputs: Callable[[Any], Any], given: Any) -> Steps:
    """Steps of a torch network: gradients by inputs and parameters, from cotangents of ones."""
    leaves = [*(x.requires_grad_() for x in inputs), *network.parameters()]

    def forward() -> Any:
        return network(given)  # of a training step: what the backward pass needs is kept

    def both() -> None:
        out = outputs(network(given))
        torch.autograd.backward(out, [torch.ones_like(x) for x in out])
        for x in leaves:
            x.grad = None

    return dict(zip(PASSES, (forward, both), strict=True))


def ours(case: Case, compiled: bool = False, checkpoint: int | None = None) -> Steps:
    """nfn_torch, eager or compiled, with all activations kept or checkpoints."""
    module: Any = nfn_torch.NFModule(case.workload.network(case.kind), checkpoint=checkpoint).to(**case.options)
    features = nfn_torch.WeightSpaceFeatures(case.draw())
    network: Any = torch.compile(module, fullgraph=True) if compiled else module
    return torch_steps(network, list(features.values()), lambda out: list(out.values()), features)


def ours_jax(case: Case) -> Steps:
    """nfn_jax under jit."""
    layer = case.workload.network(case.kind)
    params = nfn_jax.init(layer, 0, getattr(jax.numpy, case.dtype))
    features = {n: jax.numpy.asarray(x.float().cpu().numpy(), case.dtype) for n, x in case.draw().items()}

    def apply(p: Any, u: Any) -> Any:
        return nfn_jax.apply(layer, p, u)

    forward = jax.jit(apply)

    @jax.jit
    def both(p: Any, u: Any, cotangents: Any) -> Any:
        out, back = jax.vjp(apply, p, u)
        return out, back(cotangents)

    cotangents = jax.tree.map(jax.numpy.ones_like, features)  # given from outside: XLA would pool constants beforehand
    return {
        PASSES[0]: lambda: jax.block_until_ready(forward(params, features)),
        PASSES[1]: lambda: jax.block_until_ready(both(params, features, cotangents)),
    }


def peer(case: Case, compiled: bool = False) -> Steps:
    """The PyPI package nfn 0.1.2, eager or compiled."""
    tensors, w = case.draw(channels_first=True), case.workload
    features = peer_features(w.space, tensors)
    layers = peer_layers(network_spec_from_wsfeat(features), case.kind, [w.channels] * (w.layers + 1))
    module: Any = nn.Sequential(*layers).to(**case.options)
    network: Any = torch.compile(module) if compiled else module
    return torch_steps(network, list(tensors.values()), lambda out: [*out.weights, *out.biases], features)


def textbook(case: Case) -> Steps:
    """The textbook form in eager torch."""
    features, w = case.draw(), case.workload
    layers = textbook_layers(w.group(case.kind), [w.channels] * (w.layers + 1), **case.options)
    return torch_steps(nn.Sequential(*layers), list(features.values()), lambda out: list(out.values()), features)


def hub_products(layer: NFLayer, batch: int, options: dict[str, Any]) -> Products:
    """Inputs, matrix and outputs of the product of every hub of an NF-layer."""
    graph, found = layer.graph, []
    for hub in graph.hubs:
        form = graph.tensors[hub.inputs[0].tensor].forms[hub.inputs[0].form]
        rows, ins = batch * torch.Size(form.shape).numel(), graph.num_inputs(hub) * layer.in_channels
        outs = sum(map(graph.width, hub.outputs)) * layer.out_channels
        found.append(tuple(torch.randn(shape).to(**options) for shape in ((rows, ins), (ins, outs), (rows, outs))))
    return found


def once_over(products: Products, arrays: Sequence[torch.Tensor], first: int = 0) -> tuple[Step, Step]:
    """Forward and backward pass at their least: the products, and one read and one write of every array.

    By the inputs of the first products no gradient is needed.
    """
    spaces = [tuple(map(torch.empty_like, factors)) for factors in products]
    copies = [torch.empty_like(x) for x in arrays]

    def copy() -> None:
        for x, y in zip(arrays, copies, strict=True):
            y.copy_(x)

    def forward() -> None:
        for (x, matrix, _), (_, _, out) in zip(products, spaces, strict=True):
            torch.mm(x, matrix, out=out)
        copy()

    def backward() -> None:
        for k, ((x, matrix, y), (into, slope, _)) in enumerate(zip(products, spaces, strict=True)):
            if k >= first:
                torch.mm(y, matrix.T, out=into)
            torch.mm(x.T, y, out=slope)
        copy()

    return forward, backward


def limit(case: Case) -> Steps:
    """The same work at its least: every hub's products, and one read and one write of every tensor for each pass."""
    w = case.workload
    layers = [x for x in w.network(case.kind).layers if isinstance(x, NFLayer)]
    products = [factors for layer in layers for factors in hub_products(layer, w.batch, case.options)]
    forward, backward = once_over(products, list(case.draw().values()) * (2 * w.layers - 1))  # of layers and ReLUs

    def both() -> None:
        forward()
        backward()

    return dict(zip(PASSES, (forward, both), strict=True))


LIMIT = "limit"
CONTENDERS: dict[str, Callable[[Case], Steps]] = {
    "nfn_torch": ours,
    "nfn_torch compiled": lambda case: ours(case, compiled=True),
    "nfn_torch checkpointed": lambda case: ours(case, checkpoint=2),
    "nfn_jax jitted": ours_jax,
    "nfn 0.1.2": peer,
    "nfn 0.1.2 compiled": lambda case: peer(case, compiled=True),
    "textbook": textbook,
    LIMIT: limit,
}

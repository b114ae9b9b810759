"""Who is timed. Each contender turns a workload into a forward pass and a forward and backward pass without arguments."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain, combinations
from math import prod
from typing import Any

import jax
import nfn_jax
import nfn_torch
import torch
from nfn.common import WeightSpaceFeatures as PeerFeatures
from nfn.common import network_spec_from_wsfeat
from nfn.layers import HNPLinear, NPLinear, TupleOp
from torch import nn

from benchmarks.workloads import Workload
from nfn_core.layers.hubs import hub_graph

__all__ = ["CONTENDERS", "LIMIT", "Case"]

Step = Callable[[], Any]


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


def torch_steps(
    network: nn.Module, inputs: list[torch.Tensor], outputs: Callable[[Any], Any], given: Any
) -> tuple[Step, Step]:
    """Steps of a torch network: gradients by inputs and parameters, from cotangents of ones."""
    leaves = [*(x.requires_grad_() for x in inputs), *network.parameters()]

    def forward() -> Any:
        return network(given)  # of a training step: what the backward pass needs is kept

    def both() -> None:
        out = outputs(network(given))
        torch.autograd.backward(out, [torch.ones_like(x) for x in out])
        for x in leaves:
            x.grad = None

    return forward, both


def ours(case: Case, compiled: bool = False, checkpoint: int | None = None) -> tuple[Step, Step]:
    """nfn_torch, eager or compiled, with all activations kept or checkpoints."""
    module: Any = nfn_torch.NFModule(case.workload.network(case.kind), checkpoint=checkpoint).to(**case.options)
    features = nfn_torch.WeightSpaceFeatures(case.draw())
    network: Any = torch.compile(module, fullgraph=True) if compiled else module
    return torch_steps(network, list(features.values()), lambda out: list(out.values()), features)


def ours_jax(case: Case) -> tuple[Step, Step]:
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
    return (
        lambda: jax.block_until_ready(forward(params, features)),
        lambda: jax.block_until_ready(both(params, features, cotangents)),
    )


def peer(case: Case, compiled: bool = False) -> tuple[Step, Step]:
    """The PyPI package nfn 0.1.2, eager or compiled."""
    tensors, w = case.draw(channels_first=True), case.workload
    features = PeerFeatures(*([x for name, x in tensors.items() if name[0] == kind] for kind in "Wv"))
    kind = {"NP": NPLinear, "HNP": HNPLinear}[case.kind]
    spec = network_spec_from_wsfeat(features)
    layers: list[nn.Module] = [kind(spec, w.channels, w.channels)]
    for _ in range(w.layers - 1):
        layers += [TupleOp(nn.ReLU()), kind(spec, w.channels, w.channels)]
    module: Any = nn.Sequential(*layers).to(**case.options)
    network: Any = torch.compile(module) if compiled else module
    return torch_steps(network, list(tensors.values()), lambda out: [*out.weights, *out.biases], features)


class Textbook(nn.Module):
    """The textbook form: for each pair of tensors and each common label subset, pool, mix, broadcast, add at full size."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        group, space = case.workload.group(case.kind), case.workload.space
        self.tensors = {t.name: t for t in space.tensors}
        self.permuted = {t.name: [x for x in t.labels if x in group.permuted] for t in space.tensors}
        self.mixes = nn.ParameterDict()
        self.terms: list[tuple[str, str, tuple[str, ...], str]] = []
        for a in space.tensors:
            for b in space.tensors:
                common = [x for x in self.permuted[a.name] if x in self.permuted[b.name]]
                for kept in chain.from_iterable(combinations(common, k) for k in range(len(common) + 1)):
                    rows, columns = (self.width(t) * case.workload.channels for t in (a, b))
                    key = f"{a.name}-{b.name}-{'-'.join(kept)}"
                    self.mixes[key] = nn.Parameter(torch.randn(rows, columns, **case.options) / rows**0.5)
                    self.terms.append((a.name, b.name, kept, key))

    def width(self, tensor: Any) -> int:
        """Entries of the axes that stay."""
        pairs = zip(tensor.shape, tensor.labels, strict=True)
        return prod(n for n, label in pairs if label not in self.permuted[tensor.name])

    def order(self, tensor: Any) -> list[int]:
        """Axes that move, then those that stay."""
        return sorted(range(len(tensor.labels)), key=lambda a: tensor.labels[a] not in self.permuted[tensor.name])

    def fold(self, x: torch.Tensor, tensor: Any) -> torch.Tensor:
        """Axes that stay into the channels."""
        x = x.permute(0, *(a + 1 for a in self.order(tensor)), x.ndim - 1)
        return x.reshape(*x.shape[: 1 + len(self.permuted[tensor.name])], -1)

    def unfold(self, x: torch.Tensor, tensor: Any) -> torch.Tensor:
        """Undo `fold`."""
        order = self.order(tensor)
        x = x.reshape(len(x), *(tensor.shape[a] for a in order), -1)
        return x.permute(0, *(order.index(a) + 1 for a in range(len(order))), x.ndim - 1)

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Sum of all terms."""
        folded = {name: self.fold(features[name], tensor) for name, tensor in self.tensors.items()}
        out: dict[str, torch.Tensor] = {}
        for a, b, kept, key in self.terms:
            gone = [k + 1 for k, label in enumerate(self.permuted[a]) if label not in kept]
            x = (folded[a].mean(gone) if gone else folded[a]) @ self.mixes[key]
            order = [kept.index(label) + 1 for label in self.permuted[b] if label in kept]
            x = x.permute(0, *order, x.ndim - 1)
            for k, label in enumerate(self.permuted[b]):
                if label not in kept:
                    x = x.unsqueeze(k + 1)
            out[b] = x + out[b] if b in out else x.expand(*folded[b].shape[:-1], x.shape[-1])
        return {name: self.unfold(out[name], tensor) for name, tensor in self.tensors.items()}


class Rectified(nn.Module):
    """ReLU of every tensor."""

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """ReLU of every tensor."""
        return {name: torch.relu(x) for name, x in features.items()}


def textbook(case: Case) -> tuple[Step, Step]:
    """The textbook form in eager torch."""
    features = case.draw()
    layers: list[nn.Module] = [Textbook(case)]
    for _ in range(case.workload.layers - 1):
        layers += [Rectified(), Textbook(case)]
    return torch_steps(nn.Sequential(*layers), list(features.values()), lambda out: list(out.values()), features)


def limit(case: Case) -> tuple[Step, Step]:
    """The same work at its least: every hub's products, and one read and one write of every tensor for each pass."""
    w, products, copies = case.workload, [], []
    graph = hub_graph(w.group(case.kind))
    for hub in graph.hubs * w.layers:
        form = graph.tensors[hub.inputs[0].tensor].forms[hub.inputs[0].form]
        rows, ins = w.batch * torch.Size(form.shape).numel(), graph.num_inputs(hub) * w.channels
        outs = sum(map(graph.width, hub.outputs)) * w.channels
        shapes = ((rows, ins), (ins, outs), (rows, outs))
        x, matrix, y = (torch.randn(shape).to(**case.options) for shape in shapes)
        products.append((x, matrix, y, *map(torch.empty_like, (x, matrix, y))))
    for x in list(case.draw().values()) * (2 * w.layers - 1):  # of the layers and the ReLUs
        copies.append((x, torch.empty_like(x)))

    def forward() -> None:
        for x, matrix, _, _, _, out in products:
            torch.mm(x, matrix, out=out)
        for x, y in copies:
            y.copy_(x)

    def both() -> None:
        forward()
        for x, matrix, y, into, slope, _ in products:
            torch.mm(y, matrix.T, out=into)
            torch.mm(x.T, y, out=slope)
        for x, y in copies:
            y.copy_(x)

    return forward, both


LIMIT = "limit"
CONTENDERS: dict[str, Callable[[Case], tuple[Step, Step]]] = {
    "nfn_torch": ours,
    "nfn_torch compiled": lambda case: ours(case, compiled=True),
    "nfn_torch checkpointed": lambda case: ours(case, checkpoint=2),
    "nfn_jax jitted": ours_jax,
    "nfn 0.1.2": peer,
    "nfn 0.1.2 compiled": lambda case: peer(case, compiled=True),
    "textbook": textbook,
    LIMIT: limit,
}

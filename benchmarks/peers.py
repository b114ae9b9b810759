"""Implementations of others that are timed beside ours: the textbook form, and networks of the package nfn."""

from collections.abc import Sequence
from itertools import chain, combinations, pairwise
from math import prod
from typing import Any

import torch
from nfn.common import WeightSpaceFeatures as PeerFeatures
from nfn.common import network_spec_from_wsfeat
from nfn.layers import GaussianFourierFeatureTransform, HNPLinear, HNPPool, IOSinusoidalEncoding, NPLinear, TupleOp
from torch import nn

from nfn_core import Group, WeightSpace

__all__ = ["PeerClassifier", "TextbookClassifier", "peer_features", "peer_layers", "textbook_layers"]


class Textbook(nn.Module):
    """The textbook form: for each pair of tensors and each common label subset, pool, mix, broadcast, add at full size."""

    def __init__(self, group: Group, ins: int, outs: int, **options: Any) -> None:
        super().__init__()
        space = group.space
        self.tensors = {t.name: t for t in space.tensors}
        self.permuted = {t.name: [x for x in t.labels if x in group.permuted] for t in space.tensors}
        self.mixes = nn.ParameterDict()
        self.terms: list[tuple[str, str, tuple[str, ...], str]] = []
        for a in space.tensors:
            for b in space.tensors:
                common = [x for x in self.permuted[a.name] if x in self.permuted[b.name]]
                for kept in chain.from_iterable(combinations(common, k) for k in range(len(common) + 1)):
                    rows, columns = self.width(a) * ins, self.width(b) * outs
                    key = f"{a.name}-{b.name}-{'-'.join(kept)}"
                    self.mixes[key] = nn.Parameter(torch.randn(rows, columns, **options) / rows**0.5)
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


def peer_features(space: WeightSpace, tensors: dict[str, torch.Tensor]) -> PeerFeatures:
    """Tensors (batch, channels, *axes) of an MLP or CNN, as the package nfn takes them."""
    return PeerFeatures(*([tensors[t.name] for t in space.tensors if t.name[0] == kind] for kind in "Wv"))


def peer_layers(spec: Any, kind: str, channels: Sequence[int]) -> Sequence[nn.Module]:
    """NF-layers of the package nfn with ReLUs between them."""
    make = {"NP": NPLinear, "HNP": HNPLinear}[kind]
    pairs = pairwise(channels)
    layers = [x for ins, outs in pairs for x in (make(spec, ins, outs), TupleOp(nn.ReLU()))]
    return layers[:-1]


def textbook_layers(group: Group, channels: Sequence[int], **options: Any) -> Sequence[nn.Module]:
    """Layers in the textbook form with ReLUs between them."""
    pairs = pairwise(channels)
    layers = [x for ins, outs in pairs for x in (Textbook(group, ins, outs, **options), Rectified())]
    return layers[:-1]


def head(widths: Sequence[int]) -> Sequence[nn.Module]:
    """Fully-connected layers with ReLUs between them."""
    pairs = list(pairwise(widths))
    layers = [x for ins, outs in pairs for x in (nn.Linear(ins, outs), nn.ReLU())]
    return layers[:-1]


class PeerClassifier(nn.Module):
    """A network of the package nfn: Fourier features, NF-layers, pooling, a head; its input has channels last."""

    def __init__(
        self, space: WeightSpace, kind: str, frequencies: int, channels: Sequence[int], widths: Sequence[int]
    ) -> None:
        super().__init__()
        self.space, ins = space, 2 * frequencies or 1
        example = peer_features(space, {t.name: torch.zeros(1, 1, *t.shape) for t in space.tensors})
        spec = network_spec_from_wsfeat(example)
        before: list[nn.Module] = []
        if frequencies:
            before.append(GaussianFourierFeatureTransform(spec, 1, frequencies, 0.5))
        if kind == "NP":
            encoding = IOSinusoidalEncoding(spec)
            before.append(encoding)
            ins = encoding.num_out_chan(ins)
        layers = peer_layers(spec, kind, [ins, *channels])
        pooled = HNPPool.get_num_outs(spec) * channels[-1]
        self.network = nn.Sequential(
            *before, *layers, TupleOp(nn.ReLU()), HNPPool(spec), nn.Flatten(), *head([pooled, *widths])
        )

    def forward(self, features: dict[str, torch.Tensor]) -> Any:
        """Scores (batch, outputs)."""
        return self.network(peer_features(self.space, {name: x.movedim(-1, 1) for name, x in features.items()}))


class TextbookClassifier(nn.Module):
    """Fourier features, layers in the textbook form, pooling to one mean a tensor and channel, a head."""

    def __init__(self, group: Group, frequencies: int, channels: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        self.waves = nn.Buffer(torch.randn(1, frequencies))
        self.layers = nn.Sequential(*textbook_layers(group, [2 * frequencies or 1, *channels]), Rectified())
        self.head = nn.Sequential(*head([len(group.space.tensors) * channels[-1], *widths]))

    def forward(self, features: dict[str, torch.Tensor]) -> Any:
        """Scores (batch, outputs)."""
        if self.waves.shape[1]:
            turns = {name: 2 * torch.pi * (x @ self.waves) for name, x in features.items()}
            features = {name: torch.cat([x.sin(), x.cos()], -1) for name, x in turns.items()}
        pooled = [x.flatten(1, -2).mean(1) for x in self.layers(features).values()]
        return self.head(torch.cat(pooled, -1))

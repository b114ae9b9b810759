"""Architectures people use, in PyTorch and of any width: what `nfn_torch.weight_space` is tried on."""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

__all__ = ["GPT2", "LSTMClassifier", "ResNet", "Siren", "SmallCNN", "ViT"]


class SmallCNN(nn.Sequential):
    """The network of the Small CNN Zoo (Unterthiner et al., 2020): convolutions of stride 2, global mean, linear."""

    def __init__(self, inputs: int = 1, width: int = 16, classes: int = 10, kernel: int = 3) -> None:
        layers: list[nn.Module] = []
        for before in (inputs, width, width):
            layers += [nn.Conv2d(before, width, kernel, stride=2), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


class Sine(nn.Module):
    """sin(30 x)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it."""
        return torch.sin(30 * x)


class Siren(nn.Sequential):
    """Implicit neural representation with sine activations (Sitzmann et al., 2020)."""

    def __init__(self, sizes: Sequence[int] = (2, 32, 32, 1)) -> None:
        layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), Sine())]
        super().__init__(*layers[:-1])


class LSTMClassifier(nn.Module):
    """An LSTM and a linear layer on its last state."""

    def __init__(self, inputs: int = 28, width: int = 128, classes: int = 10) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, width, batch_first=True)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Classify sequences (batch, time, inputs)."""
        return cast("Tensor", self.head(self.lstm(x)[0][:, -1]))


class Block(nn.Module):
    """Basic or bottleneck block of a residual network, named as in torchvision."""

    def __init__(self, before: int, width: int, stride: int, kernel: int, bottleneck: bool) -> None:
        super().__init__()
        after = 4 * width if bottleneck else width
        kernels, strides = ((1, kernel, 1), (1, stride, 1)) if bottleneck else ((kernel, kernel), (stride, 1))
        sizes = [before, *[width] * (len(kernels) - 1), after]
        for k, (n, step) in enumerate(zip(kernels, strides, strict=True)):
            self.add_module(f"conv{k + 1}", nn.Conv2d(sizes[k], sizes[k + 1], n, step, n // 2, bias=False))
            self.add_module(f"bn{k + 1}", nn.BatchNorm2d(sizes[k + 1]))
        self.depth, self.downsample = len(kernels), nn.Sequential()
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        """Add the input to what the convolutions make of it."""
        y = x
        for k in range(1, self.depth + 1):
            y = self.get_submodule(f"bn{k}")(self.get_submodule(f"conv{k}")(y))
            y = torch.relu(y) if k < self.depth else y
        return torch.relu(y + self.downsample(x))


class ResNet(nn.Module):
    """Residual network (He et al., 2016), names and shapes as in torchvision: ResNet-18 and, with bottlenecks, -50."""

    def __init__(
        self,
        depths: Sequence[int] = (2, 2, 2, 2),
        bottleneck: bool = False,
        width: int = 64,
        inputs: int = 3,
        classes: int = 1000,
        stem: int = 7,
        kernel: int = 3,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, stem, 2, stem // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        before, self.stages = width, len(depths)
        for k, depth in enumerate(depths):
            blocks = []
            for i in range(depth):
                inner = width * 2**k
                blocks.append(Block(before, inner, 2 if k and not i else 1, kernel, bottleneck))
                before = 4 * inner if bottleneck else inner
            self.add_module(f"layer{k + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Classify images (batch, inputs, height, width)."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for k in range(1, self.stages + 1):
            x = self.get_submodule(f"layer{k}")(x)
        return cast("Tensor", self.fc(self.avgpool(x).flatten(1)))


class Attention(nn.Module):
    """Multi-head self-attention with packed projections, causal or not.

    Causal, they are cut in three as in GPT-2; otherwise reshaped to (3, heads, width of a head) as in most ViTs.
    """

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (batch, tokens, width)."""
        batch, tokens, width = x.shape
        if self.causal:
            q, k, v = (y.view(batch, tokens, self.heads, -1).transpose(1, 2) for y in self.qkv(x).chunk(3, dim=-1))
        else:
            q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return cast("Tensor", self.proj(y.transpose(1, 2).reshape(batch, tokens, width)))


class Transformer(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int, hidden: int, causal: bool) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads, causal)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (batch, tokens, width)."""
        x = x + self.attn(self.ln1(x))
        return cast("Tensor", x + self.mlp(self.ln2(x)))


class ViT(nn.Module):
    """Vision transformer (Dosovitskiy et al., 2021) with a class token and learned positions."""

    def __init__(
        self,
        image: int = 224,
        patch: int = 16,
        width: int = 192,
        heads: int = 3,
        depth: int = 12,
        classes: int = 1000,
        hidden: int | None = None,
        inputs: int = 3,
    ) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(inputs, width, patch, patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (image // patch) ** 2, width))
        self.blocks = nn.Sequential(*[Transformer(width, heads, hidden or 4 * width, False) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Classify images (batch, inputs, image, image)."""
        tokens = self.patch_embed(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], dim=1) + self.pos_embed
        return cast("Tensor", self.head(self.norm(self.blocks(tokens))[:, 0]))


class GPT2(nn.Module):
    """GPT-2 (Radford et al., 2019); the output layer is tied to the embedding of tokens."""

    def __init__(
        self,
        vocabulary: int = 50257,
        context: int = 1024,
        width: int = 768,
        heads: int = 12,
        depth: int = 12,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.h = nn.Sequential(*[Transformer(width, heads, hidden or 4 * width, True) for _ in range(depth)])
        self.ln_f, self.lm_head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores of the next tokens (batch, tokens, vocabulary)."""
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        return cast("Tensor", self.lm_head(self.ln_f(self.h(x))))

"""Networks of every kind, a few lines each and a few neurons wide: what the survey of architectures is made of."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

__all__ = ["Network", "networks"]


class Network(nn.Module):
    """Modules by name, and a function of them and of the inputs."""

    def __init__(self, function: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        """Apply the function."""
        return self.function(self, *inputs, **keywords)


def mlp(*sizes: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers with an activation between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers[:-1])


def conv(before: int, after: int, size: int = 3, **options: Any) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(nn.Conv2d(before, after, size, padding=size // 2, **options), nn.BatchNorm2d(after), nn.ReLU())


def _last(m: Any, x: Tensor) -> Tensor:
    return cast("Tensor", m.head(m.cell(x)[0][:, -1]))


def recurrent(kind: Callable[..., nn.Module], **options: Any) -> Network:
    """A recurrent network and a linear layer on its last state."""
    width = options.pop("width", 6) * (2 if options.get("bidirectional") else 1)
    return Network(_last, cell=kind(4, 6, batch_first=True, **options), head=nn.Linear(width, 3))


def nerf() -> Network:
    """Radiance field with a skip and view directions (Mildenhall et al., 2020)."""

    def forward(m: Any, x: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([f(x * 2.0**k) for k in range(2) for f in (torch.sin, torch.cos)], -1)
        y = m.second(torch.cat([m.first(x).relu(), x], -1)).relu()
        return m.density(y), m.color(torch.cat([m.features(y), direction], -1))

    modules = {"first": mlp(12, 8, 8), "second": mlp(20, 8, 8), "density": nn.Linear(8, 1), "features": nn.Linear(8, 8)}
    return Network(forward, **modules, color=mlp(11, 6, 3))


def unet(attention: bool) -> Network:
    """U-Net with skips and time embedding, as in diffusion (Ho et al., 2020), with or without attention."""

    def block(m: Any, x: Tensor, time: Tensor) -> Tensor:
        y = m.one(functional.silu(m.norm(x))) + m.time(time)[..., None, None]
        return cast("Tensor", m.two(functional.silu(y)) + m.skip(x))

    def residual(before: int, after: int) -> Network:
        modules: dict[str, nn.Module] = {"norm": nn.GroupNorm(2, before), "one": nn.Conv2d(before, after, 3, padding=1)}
        modules |= {"two": nn.Conv2d(after, after, 3, padding=1), "skip": nn.Conv2d(before, after, 1)}
        return Network(block, **modules, time=nn.Linear(8, after))

    def forward(m: Any, x: Tensor, time: Tensor) -> Tensor:
        t = m.embed(torch.cat([torch.sin(time[:, None] * m.waves), torch.cos(time[:, None] * m.waves)], 1))
        high = m.down1(m.stem(x), t)
        low = m.down2(functional.avg_pool2d(high, 2), t)
        if attention:
            tokens = low.flatten(2).transpose(1, 2)
            low = low + m.attend(tokens, tokens, tokens)[0].transpose(1, 2).reshape(low.shape)
        up = functional.interpolate(low, scale_factor=2.0)
        return cast("Tensor", m.out(m.up(torch.cat([up, high], 1), t)))

    modules: dict[str, nn.Module] = {"stem": nn.Conv2d(2, 4, 3, padding=1), "embed": mlp(4, 8, 8, activation=nn.SiLU)}
    modules |= {"down1": residual(4, 4), "down2": residual(4, 6), "up": residual(10, 4), "out": nn.Conv2d(4, 2, 1)}
    if attention:
        modules["attend"] = nn.MultiheadAttention(6, 2, batch_first=True)
    net = Network(forward, **modules)
    net.register_buffer("waves", torch.tensor([0.5, 1.5]), persistent=False)
    return net


def graph(attention: bool) -> Network:
    """Graph network on a list of edges: sums of neighbors (Kipf and Welling, 2017) or attention (Veličković et al., 2018)."""

    def layer(m: Any, x: Tensor, edges: Tensor) -> Tensor:
        source, target = edges
        messages = m.message(x)[source]
        if attention:
            score = (m.score(messages) + m.score(m.message(x)[target])).sigmoid()
            total = torch.zeros(len(x), 1, dtype=x.dtype).index_add(0, target, score) + 1.0
            messages = messages * score / total[target]
        return cast("Tensor", m.own(x) + torch.zeros_like(m.own(x)).index_add(0, target, messages))

    def part(before: int, after: int) -> Network:
        score = {"score": nn.Linear(after, 1)} if attention else {}
        return Network(layer, message=nn.Linear(before, after), own=nn.Linear(before, after), **score)

    def forward(m: Any, x: Tensor, edges: Tensor) -> Tensor:
        return cast("Tensor", m.two(m.one(x, edges).relu(), edges).mean(0))

    return Network(forward, one=part(3, 6), two=part(6, 4))


def mixture(sparse: bool) -> Network:
    """Mixture of experts of which two are used (Shazeer et al., 2017): all computed, or those looked up."""

    def forward(m: Any, x: Tensor) -> Tensor:
        h = m.stem(x).relu()
        weights, chosen = m.router(h).softmax(-1).topk(2, dim=-1)
        if sparse:
            inner = torch.einsum("bi,bkij->bkj", h, m.up[chosen]).relu()
            return cast(
                "Tensor", m.head((torch.einsum("bkj,bkji->bki", inner, m.down[chosen]) * weights[..., None]).sum(1))
            )
        gates = (functional.one_hot(chosen, 4) * weights[..., None]).sum(1)
        inner = torch.einsum("bi,eij->bej", h, m.up).relu()
        return cast("Tensor", m.head(torch.einsum("bej,eji,be->bi", inner, m.down, gates)))

    net = Network(forward, stem=nn.Linear(3, 6), router=nn.Linear(6, 4), head=nn.Linear(6, 2))
    net.up, net.down = nn.Parameter(torch.randn(4, 6, 5)), nn.Parameter(torch.randn(4, 5, 6))
    return net


def mamba() -> Network:
    """Selective state space (Gu and Dao, 2023), its scan written out."""

    def forward(m: Any, x: Tensor) -> Tensor:
        h, gate = m.inward(m.norm(x)).chunk(2, -1)
        h = functional.silu(m.mix(h.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        rank, b, c = m.select(h).split([2, 4, 4], -1)
        step, rate = functional.softplus(m.step(rank)), -m.rate.exp()
        state, found = torch.zeros(len(x), 8, 4, dtype=x.dtype), []
        for t in range(x.shape[1]):
            state = (step[:, t, :, None] * rate).exp() * state + (step * h)[:, t, :, None] * b[:, t, None]
            found.append((state * c[:, t, None]).sum(-1))
        y = torch.stack(found, 1) + m.skip * h
        return cast("Tensor", x + m.outward(y * functional.silu(gate)))

    modules: dict[str, nn.Module] = {"norm": nn.LayerNorm(5), "inward": nn.Linear(5, 16), "outward": nn.Linear(8, 5)}
    modules |= {"mix": nn.Conv1d(8, 8, 3, padding=2, groups=8), "select": nn.Linear(8, 10), "step": nn.Linear(2, 8)}
    net = Network(forward, **modules)
    net.rate, net.skip = nn.Parameter(torch.rand(8, 4)), nn.Parameter(torch.ones(8))
    return net


def diagonal_ssm() -> Network:
    """Diagonal state space as a convolution by FFT (S4D: Gu et al., 2022)."""

    def forward(m: Any, x: Tensor) -> Tensor:
        h, length = m.inward(x), x.shape[1]
        time = torch.arange(length, dtype=x.dtype)
        kernel = (m.c[..., None] * torch.exp(-m.decay.exp()[..., None] * time)).sum(1)
        spectrum = torch.fft.rfft(h.transpose(1, 2), n=2 * length) * torch.fft.rfft(kernel, n=2 * length)
        y = torch.fft.irfft(spectrum, n=2 * length)[..., :length].transpose(1, 2)
        return cast("Tensor", m.outward(functional.gelu(y + h * m.skip)))

    net = Network(forward, inward=nn.Linear(3, 6), outward=nn.Linear(6, 2))
    net.c, net.decay, net.skip = (nn.Parameter(torch.randn(shape)) for shape in ((6, 4), (6, 4), (6,)))
    return net


def rwkv() -> Network:
    """Receptance weighted key value (Peng et al., 2023), time by time."""

    def forward(m: Any, x: Tensor) -> Tensor:
        past = functional.pad(x, (0, 0, 1, -1))
        r, k, v = (
            layer(x * mix + past * (1 - mix)) for layer, mix in ((m.r, m.mix[0]), (m.k, m.mix[1]), (m.v, m.mix[2]))
        )
        above, below, found = torch.zeros_like(k[:, 0]), torch.zeros_like(k[:, 0]), []
        for t in range(x.shape[1]):
            first = (m.first + k[:, t]).exp()
            found.append((above + first * v[:, t]) / (below + first))
            above, below = ((-m.decay.exp()).exp() * s + k[:, t].exp() * u for s, u in ((above, v[:, t]), (below, 1.0)))
        return cast("Tensor", x + m.out(r.sigmoid() * torch.stack(found, 1)))

    net = Network(forward, **{n: nn.Linear(6, 6, bias=False) for n in ("r", "k", "v", "out")})
    net.mix, net.first, net.decay = (nn.Parameter(torch.rand(shape)) for shape in ((3, 6), (6,), (6,)))
    return net


def triplane() -> Network:
    """Three feature planes, sampled and decoded (Chan et al., 2022)."""

    def forward(m: Any, x: Tensor) -> Tensor:
        grids = torch.stack([x[:, [0, 1]], x[:, [0, 2]], x[:, [1, 2]]])[:, None]
        return cast("Tensor", m.decode(functional.grid_sample(m.planes, grids, align_corners=False)[:, :, 0].sum(0).T))

    net = Network(forward, decode=mlp(4, 6, 1))
    net.planes = nn.Parameter(torch.randn(3, 4, 5, 5))
    return net


class LoRA(nn.Module):
    """A linear layer with a low-rank adapter (Hu et al., 2022)."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs)
        self.lora_A, self.lora_B = nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Add what the adapter makes of it."""
        return cast("Tensor", self.base(x) + self.lora_B(self.lora_A(x)))


def squeezed() -> Network:
    """Squeeze and excitation (Hu et al., 2018)."""

    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.conv(x)
        return cast("Tensor", m.head((y * m.gate(y.mean((2, 3))).sigmoid()[..., None, None]).mean((2, 3))))

    return Network(forward, conv=conv(3, 8), gate=mlp(8, 4, 8), head=nn.Linear(8, 3))


def dense() -> Network:
    """Each layer reads all before it (Huang et al., 2017)."""

    def forward(m: Any, x: Tensor) -> Tensor:
        found = [m.stem(x)]
        for layer in (m.one, m.two):
            found.append(layer(torch.cat(found, 1)))
        return cast("Tensor", m.head(torch.cat(found, 1).mean((2, 3))))

    return Network(forward, stem=conv(3, 4), one=conv(4, 3), two=conv(7, 3), head=nn.Linear(10, 3))


def mixer() -> Network:
    """MLP-Mixer (Tolstikhin et al., 2021)."""

    def forward(m: Any, x: Tensor) -> Tensor:
        x = m.patches(x).flatten(2).transpose(1, 2)
        x = x + m.tokens(m.norm(x).transpose(1, 2)).transpose(1, 2)
        return cast("Tensor", m.head((x + m.channels(m.norm2(x))).mean(1)))

    modules: dict[str, nn.Module] = {
        "patches": nn.Conv2d(3, 6, 4, 4),
        "norm": nn.LayerNorm(6),
        "norm2": nn.LayerNorm(6),
    }
    modules |= {"tokens": mlp(4, 5, 4, activation=nn.GELU), "channels": mlp(6, 8, 6, activation=nn.GELU)}
    return Network(forward, **modules, head=nn.Linear(6, 3))


def points(deep: bool) -> Network:
    """Sets of points: sums (Zaheer et al., 2017) or maxima (Qi et al., 2017)."""

    def forward(m: Any, x: Tensor) -> Tensor:
        h = m.each(x)
        return cast("Tensor", m.whole(h.mean(1) if deep else h.max(1)[0]))

    return Network(forward, each=mlp(3, 6, 8), whole=mlp(8, 6, 2))


def neural_ode() -> Network:
    """Residual steps of one network (Chen et al., 2018)."""

    def forward(m: Any, x: Tensor) -> Tensor:
        h = m.stem(x)
        for _ in range(4):
            h = h + 0.25 * m.field(h)
        return cast("Tensor", m.head(h))

    return Network(forward, stem=nn.Linear(3, 6), field=mlp(6, 8, 6, activation=nn.Tanh), head=nn.Linear(6, 2))


def causal_transformer(rotary: bool) -> Network:
    """Pre-norm decoder with RMSNorm and gated units, learned or rotary positions (Touvron et al., 2023)."""

    def norm(x: Tensor, scale: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * scale

    def turn(x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[2])[:, None] * torch.tensor([1.0, 0.1])
        cos, sin = (torch.cat([f(angles)] * 2, -1).to(x.dtype) for f in (torch.cos, torch.sin))
        a, b = x.chunk(2, -1)
        return x * cos + torch.cat([-b, a], -1) * sin

    def forward(m: Any, tokens: Tensor) -> Tensor:
        x = m.table(tokens)
        if not rotary:
            x = x + m.positions(torch.arange(tokens.shape[1]))
        h = norm(x, m.scales[0])
        q, k, v = (layer(h).view(*tokens.shape, 2, 4).transpose(1, 2) for layer in (m.q, m.k, m.v))
        q, k = (turn(q), turn(k)) if rotary else (q, k)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + m.o(y.transpose(1, 2).flatten(2))
        h = norm(x, m.scales[1])
        return cast("Tensor", m.head(norm(x + m.down(functional.silu(m.gate(h)) * m.up(h)), m.scales[2])))

    modules: dict[str, nn.Module] = {n: nn.Linear(8, 8, bias=False) for n in ("q", "k", "v", "o")}
    modules |= {"gate": nn.Linear(8, 10), "up": nn.Linear(8, 10), "down": nn.Linear(10, 8), "head": nn.Linear(8, 11)}
    modules |= {"table": nn.Embedding(11, 8)} | ({} if rotary else {"positions": nn.Embedding(16, 8)})
    net = Network(forward, **modules)
    net.scales = nn.Parameter(torch.ones(3, 8))
    return net


def hypernetwork() -> Network:
    """A network that makes the weights of another one (Ha et al., 2017)."""

    def forward(m: Any, x: Tensor, code: Tensor) -> Tensor:
        weights = m.maker(code).view(-1, 3, 4)
        return cast("Tensor", m.head(torch.einsum("bi,bij->bj", x, weights).relu()))

    return Network(forward, maker=mlp(2, 6, 12), head=nn.Linear(4, 2))


def siren() -> nn.Module:
    """Sine network (Sitzmann et al., 2020)."""
    return Network(
        lambda m, x: m.c(torch.sin(30 * m.b(torch.sin(30 * m.a(x))))),
        a=nn.Linear(2, 6),
        b=nn.Linear(6, 6),
        c=nn.Linear(6, 1),
    )


def networks() -> dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...], tuple[Any, ...]]]:
    """All networks by name: how each is made, its example inputs, and inputs of another size."""
    draw = torch.randn
    rows, images, sequences = ((draw(2, 3),), (draw(4, 3),)), (draw(2, 3, 8, 8),), (draw(2, 5, 4),)
    larger, longer = (draw(3, 3, 12, 12),), (draw(3, 7, 4),)
    tokens, more = (torch.randint(0, 11, (2, 5)),), (torch.randint(0, 11, (1, 9)),)
    edges = torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 2]])
    nodes = ((draw(5, 3), edges), (draw(7, 3), torch.cat([edges, torch.tensor([[5, 6], [6, 1]])], 1)))
    points_2d = ((draw(4, 2),), (draw(9, 2),))
    stacked = nn.Sequential
    layer = nn.TransformerEncoderLayer
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return {
        "MLP": (lambda: mlp(3, 6, 6, 2), *rows),
        "MLP, batch norm": (lambda: stacked(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)), *rows),
        "MLP, weight norm": (
            lambda: stacked(parametrizations.weight_norm(nn.Linear(3, 6)), nn.Tanh(), nn.Linear(6, 2)),
            *rows,
        ),
        "MLP, spectral norm": (
            lambda: stacked(parametrizations.spectral_norm(nn.Linear(3, 6)), nn.Tanh(), nn.Linear(6, 2)),
            *rows,
        ),
        "Maxout": (
            lambda: Network(lambda m, x: m.b(m.a(x).view(-1, 6, 2).amax(2)), a=nn.Linear(3, 12), b=nn.Linear(6, 2)),
            *rows,
        ),
        "Highway": (
            lambda: Network(
                lambda m, x: m.c(m.a(x) * m.g(x).sigmoid() + m.s(x) * (1 - m.g(x).sigmoid())),
                **{n: nn.Linear(3, 6) for n in ("a", "g", "s")},
                c=nn.Linear(6, 2),
            ),
            *rows,
        ),
        "Bilinear": (
            lambda: Network(lambda m, x: m.b(m.a(x, x).tanh()), a=nn.Bilinear(3, 3, 6), b=nn.Linear(6, 2)),
            *rows,
        ),
        "CNN": (lambda: stacked(conv(3, 8), nn.MaxPool2d(2), conv(8, 8), *head, nn.Linear(8, 3)), images, larger),
        "CNN, depthwise": (
            lambda: stacked(conv(3, 6), conv(6, 6, groups=6), conv(6, 8, 1), *head, nn.Linear(8, 3)),
            images,
            larger,
        ),
        "CNN, groups": (lambda: stacked(conv(3, 8), conv(8, 8, groups=2), *head, nn.Linear(8, 3)), images, larger),
        "CNN, GroupNorm": (
            lambda: stacked(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.SiLU(), *head, nn.Linear(8, 3)),
            images,
            larger,
        ),
        "Squeeze and excitation": (squeezed, images, larger),
        "DenseNet block": (dense, images, larger),
        "ShuffleNet block": (
            lambda: stacked(conv(3, 8, 1), nn.ChannelShuffle(2), conv(8, 8, groups=4), *head, nn.Linear(8, 3)),
            images,
            larger,
        ),
        "Dilated WaveNet": (
            lambda: Network(
                lambda m, x: m.c(m.a(x.transpose(1, 2)).tanh() * m.g(x.transpose(1, 2)).sigmoid()).mean(2),
                a=nn.Conv1d(4, 6, 2, dilation=2),
                g=nn.Conv1d(4, 6, 2, dilation=2),
                c=nn.Conv1d(6, 3, 1),
            ),
            sequences,
            longer,
        ),
        "Video CNN": (
            lambda: stacked(
                nn.Conv3d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2)
            ),
            (draw(1, 3, 4, 4, 4),),
            (draw(1, 3, 5, 6, 4),),
        ),
        "Autoencoder": (
            lambda: stacked(
                conv(3, 6, stride=2), conv(6, 8), nn.ConvTranspose2d(8, 6, 2, 2), nn.ReLU(), nn.Conv2d(6, 3, 1)
            ),
            images,
            larger,
        ),
        "Super resolution": (
            lambda: stacked(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 12, 3), nn.PixelShuffle(2)),
            images,
            larger,
        ),
        "U-Net, diffusion": (
            lambda: unet(False),
            (draw(2, 2, 8, 8), torch.rand(2)),
            (draw(1, 2, 12, 12), torch.rand(1)),
        ),
        "U-Net, attention": (
            lambda: unet(True),
            (draw(2, 2, 8, 8), torch.rand(2)),
            (draw(1, 2, 12, 12), torch.rand(1)),
        ),
        "MLP-Mixer": (mixer, images, (draw(3, 3, 8, 8),)),
        "RNN": (lambda: recurrent(nn.RNN), sequences, longer),
        "LSTM": (lambda: recurrent(nn.LSTM), sequences, longer),
        "LSTM, two layers": (lambda: recurrent(nn.LSTM, num_layers=2), sequences, longer),
        "LSTM, both directions": (lambda: recurrent(nn.LSTM, bidirectional=True), sequences, longer),
        "LSTM, projected": (lambda: recurrent(nn.LSTM, proj_size=4, width=4), sequences, longer),
        "GRU": (lambda: recurrent(nn.GRU), sequences, longer),
        "GRU, two layers both directions": (
            lambda: recurrent(nn.GRU, num_layers=2, bidirectional=True),
            sequences,
            longer,
        ),
        "SIREN": (siren, *points_2d),
        "Fourier features": (
            lambda: Network(
                lambda m, x: m.b(torch.cat([m.a(x).sin(), m.a(x).cos()], -1)), a=nn.Linear(2, 6), b=mlp(12, 6, 1)
            ),
            *points_2d,
        ),
        "WIRE": (
            lambda: Network(
                lambda m, x: m.c((m.a(x) * 5).cos() * (-(m.b(x) ** 2)).exp()),
                a=nn.Linear(2, 6),
                b=nn.Linear(2, 6),
                c=nn.Linear(6, 1),
            ),
            *points_2d,
        ),
        "NeRF": (nerf, (draw(4, 3), draw(4, 3)), (draw(7, 3), draw(7, 3))),
        "Tri-planes": (triplane, (torch.rand(4, 3),), (torch.rand(9, 3),)),
        "Deep sets": (lambda: points(True), (draw(2, 5, 3),), (draw(2, 9, 3),)),
        "PointNet": (lambda: points(False), (draw(2, 5, 3),), (draw(2, 9, 3),)),
        "Graph convolution": (lambda: graph(False), *nodes),
        "Graph attention": (lambda: graph(True), *nodes),
        "Mixture of experts, all": (lambda: mixture(False), *rows),
        "Mixture of experts, chosen": (lambda: mixture(True), *rows),
        "Mamba": (mamba, (draw(2, 4, 5),), (draw(1, 7, 5),)),
        "S4D": (diagonal_ssm, (draw(2, 5, 3),), (draw(1, 8, 3),)),
        "RWKV": (rwkv, (draw(2, 4, 6),), (draw(1, 6, 6),)),
        "Transformer encoder": (lambda: layer(6, 2, 8, batch_first=True), (draw(2, 5, 6),), (draw(1, 8, 6),)),
        "Transformer": (
            lambda: nn.Transformer(6, 2, 1, 1, 8, batch_first=True),
            (draw(2, 5, 6), draw(2, 4, 6)),
            (draw(1, 8, 6), draw(1, 3, 6)),
        ),
        "Decoder, learned positions": (lambda: causal_transformer(False), tokens, more),
        "Decoder, rotary": (lambda: causal_transformer(True), tokens, more),
        "Neural ODE": (neural_ode, *rows),
        "Hypernetwork": (hypernetwork, (draw(2, 3), draw(2, 2)), (draw(4, 3), draw(4, 2))),
        "LoRA": (lambda: stacked(LoRA(3, 6, 4), nn.ReLU(), LoRA(6, 2, 4)), *rows),
    }

"""A conditional variational autoencoder of masks, given initial weights (paper, sections 3.3 and D.2)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nfn_core import (
    Composite,
    FeatureError,
    Group,
    Layer,
    Normalize,
    SinusoidalEncoding,
    WeightSpace,
    equivariant_network,
)
from nfn_core.arrays import Array, Features
from nfn_core.checks import check_counts
from nfn_core.features import check_features
from nfn_core.layers.base import Execution

__all__ = ["TicketVAE"]


@dataclass(frozen=True)
class TicketVAE(Composite):
    """Conditional variational autoencoder of masks M, given initial weights U₀ (section D.2).

    The encoder's q(Z | U₀, M) is a normal distribution of each entry's latent channels, whose mean and logarithm of
    the variance it gives; the decoder's p(M | U₀, Z) is a Bernoulli distribution of each entry, whose logit it gives;
    the prior p(Z) is standard normal.

    Parameters
    ----------
    group : Group
        Group of the NF-layers, with the weight space.
    scale : Normalize
        Normalization of U₀, one channel.
    channels : tuple of int
        Channels between the NF-layers, of which encoder and decoder have one more than there are numbers here.
    latent : int
        Latent channels.
    pointwise : bool
        Use `PointwiseLayer` in place of `NFLayer`.
    norm : {"layer", "batch", "set", "instance"}, optional
        Normalization before each activation, as in `nfn_core.equivariant_network`; the paper's is ``"layer"``.
    encoding : tuple of (float, int), optional
        Maximum frequency and bands of the sinusoidal IO-encoding, of encoder and decoder.

    Raises
    ------
    SpecError
        If a number is not positive.
    """

    group: Group
    scale: Normalize
    channels: tuple[int, ...] = (64, 64, 64)
    latent: int = 5
    pointwise: bool = False
    norm: str | None = "layer"
    encoding: tuple[float, int] | None = None
    parts: dict[str, Layer] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_counts(self, "latent")
        before = [] if self.encoding is None else [SinusoidalEncoding(self.space, *self.encoding)]
        encoder, decoder = (
            equivariant_network(
                self.group,
                [inputs, *self.channels, outputs],
                before=before,
                pointwise=self.pointwise,
                norm=self.norm,
            )
            for inputs, outputs in ((2, 2 * self.latent), (1 + self.latent, 1))
        )
        object.__setattr__(self, "parts", {"scale": self.scale, "encoder": encoder, "decoder": decoder})

    @property
    def space(self) -> WeightSpace:
        """The networks' weight space."""
        return self.group.space

    def children(self) -> dict[str, Layer]:
        """Return normalization, encoder and decoder."""
        return self.parts

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Any:
        """Score entries, or learn from masks.

        From 1 + latent channels, U₀ and Z, scores: the logits of M, features of one channel. From 2 + latent
        channels, U₀, M and standard normal noise for Z, each network's negative ELBO, shape (batch,), in nats an entry.
        """
        xp = check_features(self.space, x)
        found = next(iter(x.values())).shape[-1]
        if found not in (1 + self.latent, 2 + self.latent):
            raise FeatureError(
                f"tickets: expected {1 + self.latent} channels (initial weights, latent) or {2 + self.latent} (initial "
                f"weights, mask, noise), not {found}."
            )

        def run(part: str, features: Features) -> Features:
            done: Features = self.call(part, params, features, execution)
            return done

        weights = run("scale", {name: y[..., :1] for name, y in x.items()})

        def with_weights(channels: Mapping[str, Array]) -> Features:
            return {name: xp.concat([y, channels[name]], axis=-1) for name, y in weights.items()}

        if found == 1 + self.latent:
            return run("decoder", with_weights({name: y[..., 1:] for name, y in x.items()}))
        posterior = run("encoder", with_weights({name: y[..., 1:2] for name, y in x.items()}))
        means = {name: y[..., : self.latent] for name, y in posterior.items()}
        logs = {name: y[..., self.latent :] for name, y in posterior.items()}
        logits = run("decoder", with_weights({n: means[n] + xp.exp(logs[n] / 2) * y[..., 2:] for n, y in x.items()}))
        total: Any = 0.0
        for t in self.space.tensors:
            mean, log, logit, mask = means[t.name], logs[t.name], logits[t.name], x[t.name][..., 1:2]
            size = xp.abs(logit)
            entropy = (size + logit) / 2 - logit * mask + xp.log1p(xp.exp(-size))
            divergence = (mean * mean + xp.exp(log) - log - 1) / 2
            for nats in (entropy, divergence):
                total = total + xp.sum(xp.reshape(nats, (nats.shape[0], t.size * nats.shape[-1])), axis=1)
        return total / self.space.size

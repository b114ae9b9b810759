"""Winning tickets told from initial weights by a conditional variational autoencoder (sections 3.3, D.2 and E.4).

Encoder and decoder are equivariant networks: NFN_NP with IO-encoding; NFN_PT, in which an entry's score follows from
that entry alone; and NFN_PT without layer normalisation, of which figure 5 is drawn. NFN_HNP is left out, since its
matrices grow with the square of the number of inputs; how many parameters it would have is among the results.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from tqdm import tqdm

from nfn_core import FeatureError, Group, Layer, Normalize, SinusoidalEncoding, WeightSpace, equivariant_network
from nfn_core.arrays import Array, Features
from nfn_core.checks import check_counts
from nfn_core.features import check_features
from nfn_core.layers.base import Execution
from nfn_core.layers.parameters import ParameterSpec
from reference_experiments.datasets.format import (
    Networks,
    WeightDataset,
    finish,
    is_whole,
    read_shard,
    shard_path,
    write_shard,
)
from reference_experiments.datasets.lottery_tickets import TicketMaker, masks_of
from reference_experiments.engines.base import Learner, blocks, rows
from reference_experiments.figures import draw_scores
from reference_experiments.files import ExperimentError, leads
from reference_experiments.methods.image_space import within
from reference_experiments.methods.registry import Method, Sizes
from reference_experiments.training import Part, spread

__all__ = ["METHODS", "Pairs", "TicketVAE", "Tickets"]

METHODS = ("NFN_NP", "NFN_PT", "NFN_PT without layer norm")
BESIDE = {"Dense": "dense accuracy", "IMP": "ticket accuracy", "Random": "random accuracy"}
"""What methods are compared with, by the paper's name: columns of the dataset."""
NORMALIZING = 100
"""Training networks, at most, that initial weights are normalised by."""
DRAWN = 200
"""Entries of each tensor whose scores are drawn."""


@dataclass(frozen=True)
class TicketVAE(Layer):
    """Conditional variational autoencoder of masks M, given initial weights U₀ (section D.2).

    The encoder's q(Z | U₀, M) is a normal distribution of each entry's latent channels, whose mean and logarithm of
    the variance it gives; the decoder's p(M | U₀, Z) is a Bernoulli distribution of each entry, whose logit it gives;
    the prior p(Z) is standard normal.

    Parameters
    ----------
    group : Group
        Group of the NF-layers, with the weight space.
    scale : Normalize
        Normalisation of U₀, one channel.
    channels : tuple of int
        Channels between the NF-layers, of which encoder and decoder have one more than there are numbers here.
    latent : int
        Latent channels.
    pointwise : bool
        Use `PointwiseLayer` in place of `NFLayer`.
    layer_norm : bool
        Whether to normalise over channels before each activation.
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
    layer_norm: bool = True
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
                normalize=self.layer_norm,
            )
            for inputs, outputs in ((2, 2 * self.latent), (1 + self.latent, 1))
        )
        object.__setattr__(self, "parts", {"scale": self.scale, "encoder": encoder, "decoder": decoder})

    @property
    def space(self) -> WeightSpace:
        """The networks' weight space."""
        return self.group.space

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return the parameters of all parts."""
        return {
            f"{part}.{name}": s for part, layer in self.parts.items() for name, s in layer.parameter_specs().items()
        }

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
            done: Features = self.parts[part].forward(within(params, part), features, execution)
            return done

        weights = run("scale", {name: y[..., :1] for name, y in x.items()})

        def beside(channels: Mapping[str, Array]) -> Features:
            return {name: xp.concat([y, channels[name]], axis=-1) for name, y in weights.items()}

        if found == 1 + self.latent:
            return run("decoder", beside({name: y[..., 1:] for name, y in x.items()}))
        posterior = run("encoder", beside({name: y[..., 1:2] for name, y in x.items()}))
        means = {name: y[..., : self.latent] for name, y in posterior.items()}
        logs = {name: y[..., self.latent :] for name, y in posterior.items()}
        logits = run("decoder", beside({n: means[n] + xp.exp(logs[n] / 2) * y[..., 2:] for n, y in x.items()}))
        total = 0.0
        for t in self.space.tensors:
            mean, log, logit, mask = means[t.name], logs[t.name], logits[t.name], x[t.name][..., 1:2]
            size = xp.abs(logit)
            entropy = (size + logit) / 2 - logit * mask + xp.log1p(xp.exp(-size))
            divergence = (mean * mean + xp.exp(log) - log - 1) / 2
            for nats in (entropy, divergence):
                total = total + xp.sum(xp.reshape(nats, (nats.shape[0], t.size * nats.shape[-1])), axis=1)
        return total / self.space.size


@dataclass(frozen=True)
class Pairs(Part):
    """Pairs of initial weights and mask; the targets are their numbers in the dataset.

    Parameters
    ----------
    layer : TicketVAE
        What takes them.
    dataset : WeightDataset
        Where they are from.
    """

    layer: TicketVAE
    dataset: WeightDataset

    @classmethod
    def of(cls, layer: TicketVAE, dataset: WeightDataset, index: np.ndarray) -> "Pairs":
        """Pairs with noise, drawn anew in every step of training and always the same for a network in evaluation."""

        def inputs(chosen: np.ndarray, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
            streams = _streams(index[chosen]) if rng is None else rng.spawn(len(chosen))
            weights, masks = (dataset.features(index[chosen], part) for part in ("weights", "masks"))
            noise = _normal(layer, streams)
            return {n: np.concatenate([w, masks[n], noise[n]], axis=-1, dtype=w.dtype) for n, w in weights.items()}

        return cls(inputs, index, layer, dataset)

    def scores(self, learner: Learner, fixed: bool = False) -> dict[str, np.ndarray]:
        """Score the entries of all networks, with Z drawn from the prior for each, or fixed at 0.

        Returns
        -------
        dict of str to numpy.ndarray
            Each of shape (networks, *axes).
        """
        found = []
        for start in range(0, len(self), learner.recipe.batch):
            numbers = self.targets[start : start + learner.recipe.batch]
            drawn = _normal(self.layer, _streams(numbers))
            latent = {name: np.zeros_like(z) if fixed else z for name, z in drawn.items()}
            weights = self.dataset.features(numbers)
            found.append(learner.apply({n: np.concatenate([w, latent[n]], axis=-1) for n, w in weights.items()}))
        return {name: np.concatenate([x[name][..., 0] for x in found]) for name in self.layer.space.by_name}

    def masks(self, scores: Mapping[str, np.ndarray], sparsity: float) -> dict[str, np.ndarray]:
        """Draw a ticket for every network, with a given share of pruned entries in every weight tensor.

        Entries stay at random, with the odds that their scores are the logarithm of: the highest sums of score and Gumbel
        noise stay. The highest scores themselves are no ticket: where scores differ little they differ by whole neurons,
        which would be cut off.

        Returns
        -------
        dict of str to numpy.ndarray
            Booleans, each of shape (networks, *axes).
        """
        streams = _streams(self.targets, 1)
        noisy = {
            name: x + np.stack([stream.gumbel(size=x.shape[1:]) for stream in streams]) for name, x in scores.items()
        }
        return masks_of(noisy, sparsity)


def _streams(numbers: np.ndarray, *use: int) -> list[np.random.Generator]:
    """A source of random numbers for each network, the same whatever others are beside it; another one for each use."""
    return [np.random.default_rng([number, *use]) for number in numbers.tolist()]


def _normal(layer: TicketVAE, streams: Sequence[np.random.Generator]) -> dict[str, np.ndarray]:
    """Standard normal numbers for the latent channels of each network."""
    return {
        t.name: np.stack([stream.standard_normal((*t.shape, layer.latent), np.float32) for stream in streams])
        for t in layer.space.tensors
    }


@dataclass(frozen=True)
class Tickets:
    """Tickets for held-out initial weights, measured by the accuracy of the networks that are pruned by them and trained.

    A ticket keeps as many entries of every weight tensor as iterative magnitude pruning (IMP) keeps there.

    Parameters
    ----------
    latent : int
        Latent channels.
    """

    latent: int = 5

    @property
    def metric(self) -> str:
        """The accuracy."""
        return "test accuracy"

    def build(self, name: str, space: WeightSpace, features: Mapping[str, np.ndarray], sizes: Sizes) -> Method:
        """Build an autoencoder."""
        if name not in METHODS:
            raise ExperimentError(f"tickets are told by {', '.join(METHODS)}, not by {name}.")
        count = len(next(iter(features.values())))
        scale = Normalize.from_features(space, rows(dict(features), spread(np.arange(count), NORMALIZING)))
        pointwise = name != "NFN_NP"
        encoding = None if pointwise else sizes.encoding
        norm = name != "NFN_PT without layer norm"
        layer = TicketVAE(space.group("NP"), scale, sizes.channels, self.latent, pointwise, norm, encoding)
        return Method(name, layer)

    def part(self, method: Method, dataset: WeightDataset, index: np.ndarray) -> Part:
        """Return pairs of a split."""
        TicketMaker.of(dataset)  # whether there are tickets
        return Pairs.of(cast("TicketVAE", method.layer), dataset, index)

    def measure(self, learner: Learner, parts: Mapping[str, Part], folder: Path) -> dict[str, Any]:
        """Train the networks pruned by tickets for the test networks; they are kept as the dataset ``tickets``."""
        test = cast("Pairs", parts["test"])
        dataset, layer = test.dataset, test.layer
        maker = TicketMaker.of(dataset)
        truth = {name: x[..., 0] for name, x in dataset.features(test.targets, "masks").items()}
        masks = test.masks(test.scores(learner), maker.sparsity)
        accuracies = 100 * _pruned(maker, dataset, test.targets, masks, folder / "tickets")
        pruned = [name for name in masks if not truth[name].all()]
        common = sum(int((masks[n] & truth[n]).sum()) for n in pruned)
        kept = sum(int(truth[n].sum()) for n in pruned)
        hnp = replace(layer, group=layer.space.group("HNP"), pointwise=False, layer_norm=True, encoding=None)
        one = Pairs.of(layer, dataset, test.targets[:1])
        beside = {name: 100 * dataset.columns[column][test.targets] for name, column in BESIDE.items()}
        return {
            "metrics": {self.metric: float(accuracies.mean()), "test share of IMP's entries": common / kept},
            "each": {self.metric: accuracies.tolist()},
            "beside": {
                name: {"metrics": {self.metric: float(x.mean())}, "each": {self.metric: x.tolist()}}
                for name, x in beside.items()
            },
            "sparsity": _sparsity(masks),
            "sparsity of IMP": _sparsity(truth),
            "notes": [
                _compared(masks, truth),
                f"NFN_HNP with as many channels would have {Method('NFN_HNP', hnp).parameters:,} parameters.",
            ],
            "scores": _drawn(one, one.scores(learner, fixed=True), maker.sparsity),
        }

    def draw(self, path: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
        """Draw scores against initial weights (figure 5)."""
        draw_scores(path, results)


def _pruned(
    maker: TicketMaker, dataset: WeightDataset, numbers: np.ndarray, masks: Mapping[str, np.ndarray], folder: Path
) -> np.ndarray:
    """Train networks under masks, block by block, and write each; their test accuracies."""
    found, paths = [], []
    todo = list(blocks(maker.trainer.library, len(numbers)))
    for k, block in enumerate(tqdm(todo, unit="block", desc="  pruned networks", leave=False)):
        paths.append(shard_path(folder, k))
        stay = {name: mask[block] for name, mask in masks.items()}
        if is_whole(paths[-1]):  # from a run that was interrupted, or one that told other masks
            known = read_shard(paths[-1])
            if all(np.array_equal(mask, known.masks[name]) for name, mask in stay.items()):
                found.append(known.columns["accuracy"])
                continue
        runs = dataset.columns["run"][numbers[block]]
        start = {name: x[..., 0] for name, x in dataset.features(numbers[block]).items()}
        weights, accuracy = maker.trained(runs, start, stay)
        columns = {"run": runs, "split": dataset.columns["split"][numbers[block]], "accuracy": accuracy}
        if leads():
            about = {"dataset": "pruned networks", "images": maker.images, "architecture": maker.architecture}
            write_shard(paths[-1], Networks(dataset.space, weights, columns, about, stay))
        found.append(accuracy)
    if leads():
        finish(folder, paths, {})
    return np.concatenate(found)


def _sparsity(masks: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """Share of pruned entries, for each tensor and network."""
    return {name: (1 - mask.reshape(len(mask), -1).mean(axis=1)).tolist() for name, mask in masks.items()}


def _compared(masks: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> str:
    """Sparsities beside IMP's."""
    ours, theirs = _sparsity(masks), _sparsity(truth)
    shares = [f"{name} {np.mean(x):.4f} ({np.abs(np.subtract(x, theirs[name])).max():.4f})" for name, x in ours.items()]
    count = len(next(iter(masks.values())))
    return f"Sparsity of the {count} tickets, mean (and largest difference from IMP's): {', '.join(shares)}."


def _drawn(one: Pairs, scores: Mapping[str, np.ndarray], sparsity: float) -> dict[str, dict[str, Any]]:
    """Initial weights of one network, evenly spaced in each weight tensor, their scores, and the one that as many reach as stay."""
    found: dict[str, dict[str, Any]] = {}
    masks = masks_of(scores, sparsity)
    for name, x in one.dataset.features(one.targets).items():
        if not masks[name].all():
            weights, score = x.reshape(-1), scores[name].reshape(-1)
            order = np.argsort(weights)
            places = np.linspace(weights[order[0]], weights[order[-1]], DRAWN)
            chosen = np.unique(order[np.searchsorted(weights[order], places).clip(0, len(order) - 1)])
            chosen = chosen[np.argsort(weights[chosen])]
            found[name] = {
                "weight": weights[chosen].tolist(),
                "score": score[chosen].tolist(),
                "lowest kept": float(score[masks[name].reshape(-1)].min()),
            }
    return found

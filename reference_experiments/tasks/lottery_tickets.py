"""Winning tickets predicted from initial weights by a conditional variational autoencoder (sections 3.3, D.2 and E.4).

Encoder and decoder are equivariant networks: NFN_NP with IO-encoding; NFN_PT, in which an entry's score follows from
that entry alone; and NFN_PT without layer normalization, of which figure 5 is drawn. NFN_NP is also there with instance
normalization: over the entries of a tensor it removes what all of them share, which in NFN_NP is most of the signal and
hides each entry's own weight from layer normalization. NFN_HNP is left out, since its matrices grow with the square of
the number of inputs; how many parameters it would have is among the results.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from tqdm import tqdm

from nfn_core import Normalize, WeightSpace
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
from reference_experiments.engines.base import Learner, Split, rows
from reference_experiments.figures import draw_scores
from reference_experiments.files import ExperimentError, digest, is_main_process
from reference_experiments.methods.base import Method, MethodConfig
from reference_experiments.methods.ticket_vae import TicketVAE
from reference_experiments.tasks.base import Result
from reference_experiments.training import evenly_spaced

__all__ = ["METHODS", "TicketPairs", "TicketPrediction"]


METHODS = ("NFN_NP", "NFN_PT", "NFN_PT without layer norm", "NFN_NP with instance norm")
"""Methods; the last is not in the paper."""


OTHER_NORMS = {"NFN_PT without layer norm": None, "NFN_NP with instance norm": "instance"}
"""Normalization of methods that have another than the paper's layer normalization, or none."""


BASELINES = {"Dense": "dense accuracy", "IMP": "ticket accuracy", "Random": "random accuracy"}
"""What methods are compared with, by the paper's name: columns of the dataset."""


NORMALIZING = 100
"""Training networks, at most, that initial weights are normalized by."""


DRAWN = 200
"""Entries of each tensor whose scores are drawn."""


@dataclass(frozen=True)
class TicketPairs(Split):
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
    def of(cls, layer: TicketVAE, dataset: WeightDataset, index: np.ndarray) -> "TicketPairs":
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
    """A source of random numbers for each network, the same whatever others are baselines it; another one for each use."""
    return [np.random.default_rng([number, *use]) for number in numbers.tolist()]


def _normal(layer: TicketVAE, streams: Sequence[np.random.Generator]) -> dict[str, np.ndarray]:
    """Standard normal numbers for the latent channels of each network."""
    return {
        t.name: np.stack([stream.standard_normal((*t.shape, layer.latent), np.float32) for stream in streams])
        for t in layer.space.tensors
    }


@dataclass(frozen=True)
class TicketPrediction:
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
        return "test_accuracy"

    def build(self, name: str, space: WeightSpace, features: Mapping[str, np.ndarray], config: MethodConfig) -> Method:
        """Build an autoencoder."""
        if name not in METHODS:
            raise ExperimentError(f"tickets are predicted by {', '.join(METHODS)}, not by {name}.")
        count = len(next(iter(features.values())))
        scale = Normalize.from_features(space, rows(dict(features), evenly_spaced(np.arange(count), NORMALIZING)))
        pointwise = name.startswith("NFN_PT")
        encoding = None if pointwise else config.encoding
        norm = OTHER_NORMS.get(name, "layer")
        layer = TicketVAE(space.group("NP"), scale, config.channels, self.latent, pointwise, norm, encoding)
        return Method(name, layer)

    def split(self, method: Method, dataset: WeightDataset, index: np.ndarray) -> Split:
        """Return pairs of a split."""
        TicketMaker.of(dataset)  # whether there are tickets
        return TicketPairs.of(cast("TicketVAE", method.layer), dataset, index)

    def evaluate(self, learner: Learner, splits: Mapping[str, Split], folder: Path) -> Result:
        """Train the networks pruned by tickets for the test networks; they are kept as the dataset ``tickets``."""
        test = cast("TicketPairs", splits["test"])
        dataset, layer = test.dataset, test.layer
        maker = TicketMaker.of(dataset)
        truth = {name: x[..., 0] for name, x in dataset.features(test.targets, "masks").items()}
        masks = test.masks(test.scores(learner), maker.sparsity)
        accuracies = 100 * _pruned(maker, dataset, test.targets, masks, folder / "tickets")
        pruned = [name for name in masks if not truth[name].all()]
        common = sum(int((masks[n] & truth[n]).sum()) for n in pruned)
        kept = sum(int(truth[n].sum()) for n in pruned)
        hnp = replace(layer, group=layer.space.group("HNP"), pointwise=False, norm="layer", encoding=None)
        one = TicketPairs.of(layer, dataset, test.targets[:1])
        baselines = {name: 100 * dataset.columns[column][test.targets] for name, column in BASELINES.items()}
        return Result(
            {self.metric: float(accuracies.mean()), "test_imp_overlap": common / kept},
            {self.metric: accuracies.tolist()},
            {
                name: {"metrics": {self.metric: float(x.mean())}, "per_network": {self.metric: x.tolist()}}
                for name, x in baselines.items()
            },
            [
                _compared(masks, truth),
                f"NFN_HNP with as many channels would have {hnp.parameter_count:,} parameters.",
            ],
            {
                "sparsity": _sparsity(masks),
                "imp_sparsity": _sparsity(truth),
                "scores": _drawn(one, one.scores(learner, fixed=True), maker.sparsity),
            },
        )

    def draw(self, path: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
        """Draw scores against initial weights (figure 5)."""
        draw_scores(path, results)


def _pruned(
    maker: TicketMaker, dataset: WeightDataset, numbers: np.ndarray, masks: Mapping[str, np.ndarray], folder: Path
) -> np.ndarray:
    """Train networks under masks, block by block, and write each; their test accuracies."""
    found: list[np.ndarray] = []
    settings = digest({"maker": maker.settings, "networks": numbers.tolist()})
    todo = list(maker.trainer.blocks(len(numbers)))
    for k, block in enumerate(tqdm(todo, unit="block", desc="  pruned networks", leave=False)):
        path = shard_path(folder, k)
        stay = {name: mask[block] for name, mask in masks.items()}
        if is_whole(path):  # from a run that was interrupted, or one that predicted other masks
            known = read_shard(path, k, settings)
            if all(np.array_equal(mask, known.masks[name]) for name, mask in stay.items()):
                found.append(known.columns["accuracy"])
                continue
        runs = dataset.columns["run"][numbers[block]]
        start = {name: x[..., 0] for name, x in dataset.features(numbers[block]).items()}
        weights, accuracy = maker.trained(runs, start, stay)
        columns = {"run": runs, "split": dataset.columns["split"][numbers[block]], "accuracy": accuracy}
        if is_main_process():
            about = {"dataset": "pruned networks", "images": maker.images, "architecture": maker.architecture}
            write_shard(path, Networks(dataset.space, weights, columns, about, stay), k, settings)
        found.append(accuracy)
    if is_main_process():
        finish(folder, len(todo), settings, {})
    return np.concatenate(found)


def _sparsity(masks: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """Share of pruned entries, for each tensor and network."""
    return {name: (1 - mask.reshape(len(mask), -1).mean(axis=1)).tolist() for name, mask in masks.items()}


def _compared(masks: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray]) -> str:
    """Sparsities baselines IMP's."""
    ours, theirs = _sparsity(masks), _sparsity(truth)
    shares = [f"{name} {np.mean(x):.4f} ({np.abs(np.subtract(x, theirs[name])).max():.4f})" for name, x in ours.items()]
    count = len(next(iter(masks.values())))
    return f"Sparsity of the {count} tickets, mean (and largest difference from IMP's): {', '.join(shares)}."


def _drawn(one: TicketPairs, scores: Mapping[str, np.ndarray], sparsity: float) -> dict[str, dict[str, Any]]:
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
                "lowest_kept": float(score[masks[name].reshape(-1)].min()),
            }
    return found

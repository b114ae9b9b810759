"""Shape INRs: SIRENs 3-128-1 fitted to unsigned distances, many at once (paper, section D.3).

Distances are in units of half the cube's side. As in inr2vec (De Luigi et al. 2023), whose protocol the paper follows,
shapes lie in the unit sphere, a network's points in [-1, 1]³ are drawn once, 600,000 at the scale ``paper``: a sixth on the
surface, most near it, some anywhere (`NEAR`), and each of 1,000 steps of Adam takes 10,000 of them at random. The learning
rate of the scale ``paper``, 10⁻⁴, is inr2vec's too; the paper names none. Unlike inr2vec, which fits min(distance, 0.1) by a
cross-entropy, and like the paper's text, the networks fit the distance itself, by the mean squared error: one layer of 128
sines cannot follow the cut.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nfn_core import WeightSpace
from reference_experiments.datasets.format import Networks, WeightDataset
from reference_experiments.datasets.generation import shard_count, shard_range
from reference_experiments.engines.base import blocks, engine
from reference_experiments.figures import new_figure
from reference_experiments.files import write
from reference_experiments.networks.sirens import (
    CONVENTION,
    coordinates,
    evaluate,
    fit,
    initial,
    learning_rates,
    render,
)
from reference_experiments.sources.splits import SPLITS

if TYPE_CHECKING:
    from reference_experiments.sources.shapes import Shape, Shapes

__all__ = ["PRESETS", "ShapeMaker", "draw_points", "slices"]

SPACE = WeightSpace.mlp([3, 128, 1])
NEAR = {0.0: 1 / 6, 0.003: 5 / 12, 0.01: 1 / 3, 0.1: 1 / 24}
"""Shares of the points at points of the surface plus Gaussian noise of this deviation; the others are uniform."""
HELD_OUT = 4096


@dataclass(frozen=True)
class ShapePreset:
    """How many networks, and how they are fitted.

    Parameters
    ----------
    each : int or None
        Shapes of each class in each split, at most; None for all. Every shape has one network.
    points : int
        Points drawn for a network.
    batch : int
        Of these in a step.
    learning_rate : float
        Of Adam.
    steps : int
        Number of steps.
    cosine : bool
        Whether the learning rate falls to 0 along a cosine, or stays.
    """

    each: int | None
    points: int
    batch: int
    learning_rate: float
    steps: int
    cosine: bool


PRESETS = {
    "smoke": ShapePreset(2, 5_000, 128, 1e-2, 200, True),
    "small": ShapePreset(None, 50_000, 256, 1e-2, 1000, True),
    "paper": ShapePreset(None, 600_000, 10_000, 1e-4, 1000, False),
}


def draw_points(
    shape: "Shape", stream: np.random.Generator, count: int, near: Mapping[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Draw points on, near and around a surface.

    Parameters
    ----------
    shape : Shape
        The shape.
    stream : numpy.random.Generator
        Source of the draws.
    count : int
        Number of points.
    near : mapping of float to float
        Shares of the points, as `NEAR` has them.

    Returns
    -------
    numpy.ndarray, numpy.ndarray
        Coordinates in [-1, 1], shape (3, count), and unsigned distances, shape (1, count), float32.
    """
    counts = np.array([round(share * count) for share in near.values()], int)
    points = shape.surface(stream, counts.sum())
    points = points + np.repeat(list(near), counts)[:, None] * stream.standard_normal(points.shape)
    points = np.clip(np.concatenate([points, stream.uniform(-1, 1, (count - len(points), 3))]), -1, 1)
    return points.T.astype(np.float32), shape.distance(points)[None].astype(np.float32)


@dataclass(frozen=True)
class ShapeMaker:
    """Makes a dataset of shape INRs; see `reference_experiments.datasets.generation.Maker`.

    Columns ``error`` and ``uniform error`` are the mean absolute error of the distance at points held out, drawn like
    those that are fitted, and uniformly in the cube.

    Parameters
    ----------
    shapes : str
        A set, or folder, of `reference_experiments.sources.shapes`.
    scale : ShapePreset
        How many, and how they are fitted.
    seed : int
        Seed of initial weights, points, and what `reference_experiments.sources.shapes` draws.
    backend : str
        ``"torch"`` or ``"jax"``.
    shard : int
        Networks in a shard.
    """

    shapes: str
    scale: ShapePreset
    seed: int
    backend: str
    shard: int = 200
    quality: str = "error"

    @classmethod
    def at_scale(cls, shapes: str, scale: str, seed: int, backend: str) -> "ShapeMaker":
        """Maker at one of `PRESETS`."""
        return cls(shapes, PRESETS[scale], seed, backend, 8 if scale == "smoke" else 200)

    @property
    def title(self) -> str:
        """Short name of the dataset."""
        return f"shape-inrs-{Path(self.shapes).name}"

    @property
    def settings(self) -> dict[str, Any]:
        """What the dataset depends on."""
        return {"dataset": "shape INRs", **asdict(self)}

    @property
    def shards(self) -> int:
        """Number of shards."""
        return shard_count(len(self._plan()), self.shard)

    def _plan(self) -> np.ndarray:
        """For each network the index of its shape: training, validation and test shapes, by class."""
        from reference_experiments.sources.shapes import load_shapes  # slow to load

        found = load_shapes(self.shapes, self.seed)
        return np.concatenate(
            [
                np.flatnonzero((found.split == part) & (found.labels == label))[: self.scale.each]
                for part in range(len(SPLITS))
                for label in range(len(found.classes))
            ]
        )

    def run(self, index: int) -> Networks:
        """Fit the networks of one shard."""
        from reference_experiments.sources.shapes import load_shapes  # slow to load

        found, plan, library = load_shapes(self.shapes, self.seed), self._plan(), engine(self.backend)
        numbers = shard_range(index, self.shard, len(plan))
        parts = [self._fit(found, plan, numbers[block]) for block in blocks(library.block, len(numbers))]
        weights, errors = ({name: np.concatenate([p[i][name] for p in parts]) for name in parts[0][i]} for i in (0, 1))
        chosen = plan[numbers]
        columns = {
            "split": found.split[chosen],
            "shape": found.numbers[chosen].astype(np.int32),
            "label": found.labels[chosen].astype(np.int32),
            **errors,
        }
        about = self.settings | CONVENTION
        about |= {"classes": list(found.classes), "sources": found.sources, "left_out": found.left_out}
        return Networks(SPACE, weights, columns, about)

    def _fit(
        self, found: "Shapes", plan: np.ndarray, numbers: np.ndarray
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Fit networks side by side: their weights and errors."""
        s, library = self.scale, engine(self.backend)
        sets = {"fitted": (s.points, NEAR), "error": (HELD_OUT, NEAR), "uniform error": (HELD_OUT, {})}
        drawn: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in sets}
        chosen = []
        for number in numbers.tolist():
            shape, stream = found.read(int(found.numbers[plan[number]])), np.random.default_rng([self.seed, number, 1])
            for name, (count, near) in sets.items():
                drawn[name].append(draw_points(shape, stream, count, near))
            chosen.append(stream.integers(s.points, size=(s.steps, s.batch)))
        stacked = {name: [np.stack(arrays) for arrays in zip(*pairs, strict=True)] for name, pairs in drawn.items()}
        points, targets = stacked.pop("fitted")
        rates = learning_rates(s.learning_rate, s.steps, s.cosine)
        start = initial(SPACE, self.seed, numbers)
        weights = fit(library, start, targets, points, rates, np.stack(chosen, axis=1))
        errors = {
            name: np.abs(evaluate(library, weights, x) - distance).mean(axis=(1, 2))
            for name, (x, distance) in stacked.items()
        }
        return weights, errors


def slices(path: Path, dataset: WeightDataset, count: int = 12, side: int = 64) -> None:
    """Draw the distance in a plane through the middle of some shapes, and what their networks make of it (below)."""
    from reference_experiments.sources.shapes import load_shapes  # slow to load

    found = load_shapes(dataset.about["shapes"], dataset.about["seed"])
    splits = [dataset.split(name) for name in dataset.about["splits"]]
    chosen = np.concatenate([own[np.linspace(0, len(own) - 1, count // len(splits)).astype(int)] for own in splits])
    plane = np.insert(coordinates(side, side), 1, 0, axis=0)
    fitted = render({name: x[..., 0] for name, x in dataset.features(chosen).items()}, plane, np.sin)
    figure = new_figure(len(chosen), 2.6)
    panels = figure.subplots(2, len(chosen), squeeze=False)
    for k, number in enumerate(chosen.tolist()):
        distance = found.read(int(dataset.columns["shape"][number])).distance(plane.T)
        for panel, x in zip(panels[:, k], (distance, fitted[k]), strict=True):
            panel.imshow(x.reshape(side, side), vmin=0, vmax=1)
            panel.set_axis_off()
        label = dataset.about["classes"][dataset.columns["label"][number]]
        panels[0, k].set_title(f"{label}\n{dataset.columns['error'][number]:.4f}", fontsize=8)
    write(path, figure.savefig)

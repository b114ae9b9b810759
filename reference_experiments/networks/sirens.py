"""SIRENs, fitted many at once, and image INRs made of them (paper, section D.3).

A SIREN of an image maps pixel coordinates in [-1, 1]² to brightness in [-1, 1]: x -> W3 sin(ω (W2 sin(ω (W1 x + v1)) + v2)) + v3.
Its weights are stored as they stand in this formula, without ω = 30 (the convention of the paper's code and of DWSNets);
`fold_omega` gives the other convention in circulation, sin(W x + v) with ω in the weights.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from nfn_core import WeightSpace
from nfn_core.arrays import Array, device_of, namespace_of
from reference_experiments.datasets.format import Networks, WeightDataset
from reference_experiments.engines.base import Engine, State, blocks, engine
from reference_experiments.files import ExperimentError, write
from reference_experiments.sources.images import Images, load_images

__all__ = [
    "CONVENTION",
    "OMEGA",
    "SCALES",
    "SirenMaker",
    "contact_sheet",
    "coordinates",
    "draw",
    "every_image",
    "evaluate",
    "fit",
    "fold_omega",
    "initial",
    "learning_rates",
    "render",
]

OMEGA = 30.0
CONVENTION = {
    "omega_0": OMEGA,
    "convention": "sin(omega_0 (W x + v)); the stored weights are without omega_0",
}
"""What a dataset says of its weights."""
HIDDEN = 32
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class Scale:
    """How many networks, and how they are fitted.

    Parameters
    ----------
    training, validation, test : int
        Images of each split: training and validation images from the front of the set's training part, then what
        remains of it and the test part as test images.
    copies : int
        Networks for each training image, from different initialisations.
    learning_rate : float
        Of Adam.
    steps : int
        Full-image steps.
    cosine : bool
        Whether the learning rate falls to 0 along a cosine, or stays.
    """

    training: int
    validation: int
    test: int
    copies: int
    learning_rate: float
    steps: int
    cosine: bool


SCALES = {
    "smoke": Scale(24, 4, 4, 2, 1e-2, 100, True),
    "small": Scale(9000, 1000, 2000, 1, 1e-3, 330, True),
    "paper": Scale(45000, 5000, 10000, 10, 5e-5, 5000, False),
}
"""``small`` has the fit whose networks were told apart best in the experiment ``fits``."""
PAPER = {"fashion-mnist": {"test": 20000}, "cifar10": {"copies": 20}}
"""Where the paper's numbers differ between sets."""


def coordinates(height: int, width: int) -> np.ndarray:
    """Coordinates of pixels in [-1, 1], shape (2, height * width): rows, then columns."""
    axes = (np.linspace(-1, 1, n, dtype=np.float32) for n in (height, width))
    return np.stack(np.meshgrid(*axes, indexing="ij")).reshape(2, -1)


def initial(space: WeightSpace, seed: int, numbers: np.ndarray) -> dict[str, np.ndarray]:
    """Initial weights, a function of seed and each network's number alone.

    Weights of the first layer are uniform in ±1/inputs, of the others in ±√(6/inputs)/ω (Sitzmann et al. 2020), biases
    in ±1/√inputs (PyTorch's default, which the published SIRENs have).

    Parameters
    ----------
    space : WeightSpace
        Weight space of an MLP.
    seed : int
        The dataset's seed.
    numbers : numpy.ndarray
        Numbers of the networks, shape (networks,).

    Returns
    -------
    dict of str to numpy.ndarray
        Tensors of shape (networks, *axes), float32.
    """
    streams = [np.random.Generator(np.random.Philox(key=[seed, n])) for n in numbers.tolist()]
    found = {}
    for t in space.tensors:
        inputs = space.by_name[f"W{t.name[1:]}"].shape[1]
        if t.name.startswith("v"):
            bound = inputs**-0.5
        else:
            bound = 1 / inputs if t.name == "W1" else (6 / inputs) ** 0.5 / OMEGA
        draws = np.stack([stream.uniform(-bound, bound, t.shape) for stream in streams])
        found[t.name] = draws.astype(np.float32)
    return found


def render(weights: Mapping[str, Any], points: Any, sin: Any) -> Any:
    """Values of SIRENs at points.

    Parameters
    ----------
    weights : mapping of str to array
        Tensors of shape (networks, *axes), in this module's convention.
    points : array
        Coordinates, shape (inputs, points), or (networks, inputs, points) where each network has its own.
    sin : callable
        The sine of an array.

    Returns
    -------
    array
        Shape (networks, channels, points).
    """
    xp, depth = namespace_of(points), len(weights) // 2
    x = points
    for i in range(1, depth + 1):
        x = xp.matmul(weights[f"W{i}"], x) + xp.expand_dims(weights[f"v{i}"], axis=-1)
        if i < depth:
            x = sin(OMEGA * x)
    return x


def draw(features: Mapping[str, Array], height: int, width: int) -> Array:
    """Draw the images that SIRENs encode.

    Parameters
    ----------
    features : mapping of str to array
        Weights, each of shape (batch, *axes, 1), in this module's convention.
    height, width : int
        Pixels.

    Returns
    -------
    array
        Brightness, where the image has some in [-1, 1], shape (batch, height, width, channels).
    """
    xp, like = namespace_of(*features.values()), next(iter(features.values()))
    points = xp.asarray(coordinates(height, width), dtype=like.dtype, device=device_of(like))
    values = xp.permute_dims(render({name: x[..., 0] for name, x in features.items()}, points, xp.sin), (0, 2, 1))
    return xp.reshape(values, (values.shape[0], height, width, values.shape[2]))


def fold_omega(weights: Mapping[str, np.ndarray], *, undo: bool = False) -> dict[str, np.ndarray]:
    """Weights with ω multiplied into all layers but the last, so that a layer is sin(W x + v); or the way back."""
    last = f"{len(weights) // 2}"
    factor = np.float32(1 / OMEGA if undo else OMEGA)
    return {name: x if name[1:] == last else x * factor for name, x in weights.items()}


def learning_rates(learning_rate: float, steps: int, cosine: bool) -> np.ndarray:
    """Learning rate of each step, shape (steps,): constant, or falling to 0 along a cosine."""
    turns = np.arange(steps, dtype=np.float32)
    return learning_rate * (0.5 + 0.5 * np.cos(np.pi * turns / steps) if cosine else turns**0)


def fit(
    library: Engine,
    weights: Mapping[str, np.ndarray],
    targets: np.ndarray,
    points: np.ndarray,
    rates: np.ndarray,
    chosen: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Fit SIRENs by Adam on the mean squared error.

    Parameters
    ----------
    library : Engine
        Array library.
    weights : mapping of str to numpy.ndarray
        Initial weights, tensors of shape (networks, *axes).
    targets : numpy.ndarray
        Values to fit, shape (networks, channels, points).
    points : numpy.ndarray
        Coordinates, shape (inputs, points), or (networks, inputs, points) where each network has its own.
    rates : numpy.ndarray
        Learning rate of each step, shape (steps,).
    chosen : numpy.ndarray, optional
        Numbers of the points that each step takes of each network's own, shape (steps, networks, batch), int64; by
        default every step takes all points.

    Returns
    -------
    dict of str to numpy.ndarray
        Fitted weights.
    """
    run = _program(library.name, tuple(weights))
    turns = np.arange(1, len(rates) + 1, dtype=np.float32)
    corrected = np.stack([rates / (1 - BETA1**turns), 1 - BETA2**turns], axis=1).astype(np.float32)
    fitted: dict[str, list[np.ndarray]] = {name: [] for name in weights}
    for part in blocks(library, len(targets)):
        state = {"target": library.array(targets[part]), "points": library.array(_own(points, part))}
        for name, w in weights.items():
            zeros = np.zeros_like(w[part])
            state |= {name: library.array(w[part]), f"{name} mean": library.array(zeros)}
            state[f"{name} square"] = library.array(zeros)
        rows = {"rate": library.array(corrected)}
        if chosen is not None:
            rows["chosen"] = library.array(chosen[:, part])
        state = run(state, rows)
        for name in weights:
            fitted[name].append(library.numpy(state[name]))
    return {name: np.concatenate(parts) for name, parts in fitted.items()}


def evaluate(library: Engine, weights: Mapping[str, np.ndarray], points: np.ndarray) -> np.ndarray:
    """Values of SIRENs at points, shape (networks, channels, points), computed by a library; arguments as in `fit`."""
    count = len(next(iter(weights.values())))
    return np.concatenate(
        [
            library.numpy(
                render(
                    {name: library.array(w[part]) for name, w in weights.items()},
                    library.array(_own(points, part)),
                    library.sin,
                )
            )
            for part in blocks(library, count)
        ]
    )


def _own(points: np.ndarray, part: slice) -> np.ndarray:
    """Points of some of the networks, or those of all."""
    return points if points.ndim == 2 else points[part]


@cache
def _program(backend: str, names: tuple[str, ...]) -> Any:
    """The whole fit as one loop of the library, compiled once for each shape."""
    library = engine(backend)

    def loss(weights: State, target: Any, points: Any) -> Any:
        xp = namespace_of(points)
        error = render(weights, points, library.sin) - target
        return xp.sum(xp.mean(error * error, axis=(1, 2)))  # networks do not meet: each gets its own gradient

    gradient = library.grad(loss)

    def step(state: State, row: State) -> State:
        target, points, rate = state["target"], state["points"], row["rate"]
        xp = namespace_of(points)
        if "chosen" in row:
            index = xp.expand_dims(row["chosen"], axis=1)
            target, points = (xp.take_along_axis(x, index, axis=2) for x in (target, points))
        new, slopes = dict(state), gradient({name: state[name] for name in names}, target, points)
        for name in names:
            mean = BETA1 * state[f"{name} mean"] + (1 - BETA1) * slopes[name]
            square = BETA2 * state[f"{name} square"] + (1 - BETA2) * slopes[name] ** 2
            change = rate[0] * mean / (xp.sqrt(square / rate[1]) + EPSILON)
            new |= {name: state[name] - change, f"{name} mean": mean, f"{name} square": square}
        return new

    return library.loop(step)


@dataclass(frozen=True)
class SirenMaker:
    """Makes a dataset of image INRs; see `reference_experiments.datasets.generation.Maker`.

    Parameters
    ----------
    images : str
        A set of `reference_experiments.sources.images`.
    scale : Scale
        How many, and how they are fitted.
    seed : int
        Seed of the initial weights.
    backend : str
        ``"torch"`` or ``"jax"``.
    shard : int
        Networks in a shard.
    """

    images: str
    scale: Scale
    seed: int
    backend: str
    shard: int = 200
    quality: str = "psnr"

    @classmethod
    def at_scale(cls, images: str, scale: str, seed: int, backend: str) -> "SirenMaker":
        """Maker at one of `SCALES`."""
        chosen = asdict(SCALES[scale]) | (PAPER.get(images, {}) if scale == "paper" else {})
        return cls(images, Scale(**chosen), seed, backend, 20 if scale == "smoke" else 200)

    @staticmethod
    def space(channels: int) -> WeightSpace:
        """Weight space of a SIREN with so many output channels."""
        return WeightSpace.mlp([2, HIDDEN, HIDDEN, channels])

    @property
    def settings(self) -> dict[str, Any]:
        """What the dataset depends on."""
        return {"dataset": "image INRs", **asdict(self)}

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-len(self._plan()["split"]) // self.shard)

    def _plan(self) -> dict[str, np.ndarray]:
        """For each network its split and the number of its image, over training and test part together."""
        s = self.scale
        counts = (s.training * s.copies, s.validation, s.test)
        image = np.concatenate(
            [np.repeat(np.arange(s.training), s.copies), s.training + np.arange(s.validation + s.test)]
        )
        return {"split": np.repeat(np.arange(3, dtype=np.uint8), counts), "image": image.astype(np.int32)}

    def run(self, index: int) -> Networks:
        """Fit the networks of one shard."""
        plan, library = self._plan(), engine(self.backend)
        numbers = np.arange(index * self.shard, min((index + 1) * self.shard, len(plan["split"])))
        pixels, labels, found = every_image(self.images)
        image = plan["image"][numbers]
        height, width, channels = pixels.shape[1:]
        space = self.space(channels)
        needed = plan["image"].max() + 1
        if needed > len(pixels):
            raise ExperimentError(
                f"{self.images}: {needed} different images are asked for, but there are {len(pixels)}: choose a smaller "
                "--scale, or get the whole set."
            )
        targets = (pixels[image].astype(np.float32) / 127.5 - 1).reshape(len(numbers), -1, channels).swapaxes(1, 2)
        points = coordinates(height, width)
        targets = np.ascontiguousarray(targets)
        rates = learning_rates(self.scale.learning_rate, self.scale.steps, self.scale.cosine)
        weights = fit(library, initial(space, self.seed, numbers), targets, points, rates)
        errors = np.mean((evaluate(library, weights, points) - targets) ** 2, axis=(1, 2))
        columns = {
            "split": plan["split"][numbers],
            "image": image,
            "label": labels[image].astype(np.int32),
            "psnr": (10 * np.log10(4 / errors)).astype(np.float32),  # of a range of 2
        }
        about = self.settings | CONVENTION | {"sources": found.sources}
        return Networks(space, weights, columns, about)


@cache
def every_image(name: str) -> tuple[np.ndarray, np.ndarray, Images]:
    """All images of a set, training part first, and their labels."""
    found = load_images(name)
    return (
        np.concatenate([found.train_images, found.test_images]),
        np.concatenate([found.train_labels, found.test_labels]),
        found,
    )


def contact_sheet(path: Path, dataset: WeightDataset, count: int = 12) -> None:
    """Draw images (above) and what the first networks of each split make of them (below), with their PSNR."""
    pixels = every_image(dataset.about["images"])[0]
    height, width, channels = pixels.shape[1:]
    chosen = np.concatenate([dataset.split(name)[: count // 3] for name in dataset.about["splits"]])
    drawn = draw(dataset.features(chosen), height, width)
    figure = Figure(figsize=(len(chosen), 2.6), layout="constrained")
    panels = figure.subplots(2, len(chosen), squeeze=False)
    for k, number in enumerate(chosen.tolist()):
        image = pixels[dataset.columns["image"][number]] / 255
        for panel, x in ((panels[0, k], image), (panels[1, k], np.clip(0.5 + 0.5 * drawn[k], 0, 1))):
            panel.imshow(x if channels == 3 else x[..., 0], cmap=None if channels == 3 else "gray", vmin=0, vmax=1)
            panel.set_axis_off()
        panels[0, k].set_title(f"{dataset.columns['psnr'][number]:.1f} dB", fontsize=8)
    write(path, figure.savefig)

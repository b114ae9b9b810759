"""Image INRs: SIRENs fitted to images, many at once (paper, section D.3).

A SIREN maps pixel coordinates in [-1, 1]² to brightness in [-1, 1]: x -> W3 sin(ω (W2 sin(ω (W1 x + v1)) + v2)) + v3.
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
from nfn_core.arrays import namespace_of
from reference_experiments.datasets import Networks, WeightDataset
from reference_experiments.engines import Engine, State, engine
from reference_experiments.images import Images, load_images
from reference_experiments.storage import write

__all__ = ["SCALES", "OMEGA", "SirenMaker", "contact_sheet", "coordinates", "fit", "fold_omega", "initial", "render"]

OMEGA = 30.0
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
    "small": Scale(9000, 1000, 2000, 1, 1e-2, 100, True),
    "paper": Scale(45000, 5000, 10000, 10, 5e-5, 5000, False),
}
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
        Coordinates, shape (2, points).
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


def fold_omega(weights: Mapping[str, np.ndarray], *, undo: bool = False) -> dict[str, np.ndarray]:
    """Weights with ω multiplied into all layers but the last, so that a layer is sin(W x + v); or the way back."""
    last = f"{len(weights) // 2}"
    factor = np.float32(1 / OMEGA if undo else OMEGA)
    return {name: x if name[1:] == last else x * factor for name, x in weights.items()}


def fit(
    library: Engine, weights: Mapping[str, np.ndarray], targets: np.ndarray, points: np.ndarray, scale: Scale
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Fit SIRENs to images by Adam on the mean squared error of all pixels.

    Parameters
    ----------
    library : Engine
        Array library.
    weights : mapping of str to numpy.ndarray
        Initial weights, tensors of shape (networks, *axes).
    targets : numpy.ndarray
        Images in [-1, 1], shape (networks, channels, pixels).
    points : numpy.ndarray
        Coordinates, shape (2, pixels).
    scale : Scale
        Learning rate and number of steps.

    Returns
    -------
    dict of str to numpy.ndarray, numpy.ndarray
        Fitted weights, and the peak signal-to-noise ratio of each network in dB, for a range of 2.
    """
    run = _program(library.name, tuple(weights), scale, points.tobytes())
    turns = np.arange(scale.steps, dtype=np.float32)
    rates = scale.learning_rate * (0.5 + 0.5 * np.cos(np.pi * turns / scale.steps) if scale.cosine else turns**0)
    corrected = np.stack([rates / (1 - BETA1 ** (turns + 1)), 1 - BETA2 ** (turns + 1)], axis=1).astype(np.float32)
    fitted: dict[str, list[np.ndarray]] = {name: [] for name in weights}
    errors = []
    for start in range(0, len(targets), library.block):
        part = slice(start, start + library.block)
        state = {"target": library.array(targets[part])}
        for name, w in weights.items():
            zeros = np.zeros_like(w[part])
            state |= {name: library.array(w[part]), f"{name} mean": library.array(zeros)}
            state[f"{name} square"] = library.array(zeros)
        state = run(state, library.array(corrected))
        for name in weights:
            fitted[name].append(library.numpy(state[name]))
        image = library.numpy(render({n: state[n] for n in weights}, library.array(points), library.sin))
        errors.append(np.mean((image - targets[part]) ** 2, axis=(1, 2)))
    psnr = 10 * np.log10(4 / np.concatenate(errors))
    return {name: np.concatenate(parts) for name, parts in fitted.items()}, psnr.astype(np.float32)


@cache
def _program(backend: str, names: tuple[str, ...], scale: Scale, points: bytes) -> Any:
    """The whole fit as one loop of the library, compiled once."""
    library = engine(backend)
    grid = library.array(np.frombuffer(points, np.float32).reshape(2, -1).copy())
    xp = namespace_of(grid)

    def loss(weights: State, target: Any) -> Any:
        error = render(weights, grid, library.sin) - target
        return xp.sum(xp.mean(error * error, axis=(1, 2)))  # networks do not meet: each gets its own gradient

    gradient = library.grad(loss)

    def step(state: State, rate: Any) -> State:
        new, slopes = dict(state), gradient({name: state[name] for name in names}, state["target"])
        for name in names:
            mean = BETA1 * state[f"{name} mean"] + (1 - BETA1) * slopes[name]
            square = BETA2 * state[f"{name} square"] + (1 - BETA2) * slopes[name] ** 2
            change = rate[0] * mean / (xp.sqrt(square / rate[1]) + EPSILON)
            new |= {name: state[name] - change, f"{name} mean": mean, f"{name} square": square}
        return new

    return library.loop(step)


@dataclass(frozen=True)
class SirenMaker:
    """Makes a dataset of image INRs; see `reference_experiments.making.Maker`.

    Parameters
    ----------
    images : str
        A set of `reference_experiments.images`.
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
        pixels, labels, found = _pixels(self.images)
        image = plan["image"][numbers]
        height, width, channels = pixels.shape[1:]
        space = self.space(channels)
        targets = (pixels[image].astype(np.float32) / 127.5 - 1).reshape(len(numbers), -1, channels).swapaxes(1, 2)
        points = coordinates(height, width)
        weights, psnr = fit(
            library, initial(space, self.seed, numbers), np.ascontiguousarray(targets), points, self.scale
        )
        columns = {
            "split": plan["split"][numbers],
            "image": image,
            "label": labels[image].astype(np.int32),
            "psnr": psnr,
        }
        about = self.settings | {
            "omega_0": OMEGA,
            "convention": "sin(omega_0 (W x + v)); the stored weights are without omega_0",
            "sources": found.sources,
        }
        return Networks(space, weights, columns, about)


@cache
def _pixels(name: str) -> tuple[np.ndarray, np.ndarray, Images]:
    """All images of a set, training part first, and their labels."""
    found = load_images(name)
    return (
        np.concatenate([found.train_images, found.test_images]),
        np.concatenate([found.train_labels, found.test_labels]),
        found,
    )


def contact_sheet(path: Path, dataset: WeightDataset, count: int = 12) -> None:
    """Draw images (above) and what the first networks of each split make of them (below), with their PSNR."""
    pixels = _pixels(dataset.about["images"])[0]
    height, width, channels = pixels.shape[1:]
    chosen = np.concatenate([dataset.split(name)[: count // 3] for name in dataset.about["splits"]])
    weights = {name: x[..., 0] for name, x in dataset.features(chosen).items()}
    drawn = render(weights, coordinates(height, width), np.sin).swapaxes(1, 2).reshape(-1, height, width, channels)
    figure = Figure(figsize=(len(chosen), 2.6), layout="constrained")
    panels = figure.subplots(2, len(chosen), squeeze=False)
    for k, number in enumerate(chosen.tolist()):
        image = pixels[dataset.columns["image"][number]] / 255
        for panel, x in ((panels[0, k], image), (panels[1, k], np.clip(0.5 + 0.5 * drawn[k], 0, 1))):
            panel.imshow(x if channels == 3 else x[..., 0], cmap=None if channels == 3 else "gray", vmin=0, vmax=1)
            panel.set_axis_off()
        panels[0, k].set_title(f"{dataset.columns['psnr'][number]:.1f} dB", fontsize=8)
    write(path, figure.savefig)

"""Image INRs: SIRENs fitted to images (paper, section D.3)."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nfn_core import WeightSpace
from reference_experiments.datasets.format import Networks, WeightDataset
from reference_experiments.datasets.generation import shard_count, shard_range
from reference_experiments.engines.base import engine
from reference_experiments.figures import new_figure
from reference_experiments.files import ExperimentError, write
from reference_experiments.networks.sirens import (
    CONVENTION,
    coordinates,
    draw,
    evaluate,
    fit,
    initial,
    learning_rates,
    psnr,
)
from reference_experiments.sources.images import load_all_images

__all__ = ["PRESETS", "SirenMaker", "contact_sheet"]


HIDDEN = 32


@dataclass(frozen=True)
class SirenPreset:
    """How many networks, and how they are fitted.

    Parameters
    ----------
    training, validation, test : int
        Images of each split: training and validation images from the front of the set's training part, then what
        remains of it and the test part as test images.
    copies : int
        Networks for each training image, from different initializations.
    learning_rate : float
        Of Adam.
    steps : int
        Full-image steps.
    cosine : bool
        Whether the learning rate falls to 0 along a cosine, or stays.
    until : float, optional
        Peak signal-to-noise ratio (dB) at which a fit ends early.
    """

    training: int
    validation: int
    test: int
    copies: int
    learning_rate: float
    steps: int
    cosine: bool
    until: float | None = None


PRESETS = {
    "smoke": SirenPreset(24, 4, 4, 2, 1e-2, 100, True),
    "small": SirenPreset(9000, 1000, 2000, 1, 1e-3, 330, True),
    "paper": SirenPreset(45000, 5000, 10000, 10, 5e-5, 5000, False),
}
"""``small`` has the fit whose networks were classified best in the experiment ``siren-fit``."""


PAPER_COUNTS = {"fashion-mnist": {"test": 20000}, "cifar10": {"copies": 20}}
"""Where the paper's numbers differ between sets."""


FIT = ("learning_rate", "steps", "cosine", "until")
"""Fields of a preset that say how networks are fitted."""


DWSNETS_FIT = {"learning_rate": 5e-4, "steps": 1000, "cosine": False, "until": 40.0}
"""Fit of DWSNets' datasets (Navon et al. 2023)."""


@dataclass(frozen=True)
class SirenMaker:
    """Makes a dataset of image INRs; see `reference_experiments.datasets.generation.Maker`.

    Parameters
    ----------
    images : str
        A set of `reference_experiments.sources.images`.
    scale : SirenPreset
        How many, and how they are fitted.
    seed : int
        Seed of the initial weights.
    backend : str
        ``"torch"`` or ``"jax"``.
    shard : int
        Networks in a shard.
    start : str
        One of `STARTS`: how initial weights are drawn.
    """

    images: str
    scale: SirenPreset
    seed: int
    backend: str
    shard: int = 200
    quality: str = "psnr"
    start: str = "sitzmann"

    @classmethod
    def at_scale(
        cls,
        images: str,
        scale: str,
        seed: int,
        backend: str,
        start: str = "sitzmann",
        copies: int | None = None,
        fit: str | None = None,
    ) -> "SirenMaker":
        """Maker at one of `PRESETS`; with another start, number of copies, or preset's fit.

        DWSNets' start comes with their fit.
        """
        chosen = asdict(PRESETS[scale]) | (PAPER_COUNTS.get(images, {}) if scale == "paper" else {})
        chosen |= {} if fit is None else {key: asdict(PRESETS[fit])[key] for key in FIT}
        chosen |= (DWSNETS_FIT if start == "dwsnets" else {}) | ({} if copies is None else {"copies": copies})
        return cls(images, SirenPreset(**chosen), seed, backend, 20 if scale == "smoke" else 200, start=start)

    @staticmethod
    def space(channels: int) -> WeightSpace:
        """Weight space of a SIREN with so many output channels."""
        return WeightSpace.mlp([2, HIDDEN, HIDDEN, channels])

    @property
    def title(self) -> str:
        """Short name of the dataset."""
        return f"image-inrs-{self.images}"

    @property
    def settings(self) -> dict[str, Any]:
        """What the dataset depends on; what is as in the paper is not named."""
        found = {"dataset": "image INRs", **asdict(self)}
        if self.start == "sitzmann":
            del found["start"]
        if self.scale.until is None:
            del found["scale"]["until"]
        return found

    @property
    def shards(self) -> int:
        """Number of shards."""
        return shard_count(len(self._plan()["split"]), self.shard)

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
        numbers = shard_range(index, self.shard, len(plan["split"]))
        pixels, labels, found = load_all_images(self.images)
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
        begin = initial(space, self.seed, numbers, self.start)
        weights = fit(library, begin, targets, points, rates, until=self.scale.until)
        columns = {
            "split": plan["split"][numbers],
            "image": image,
            "label": labels[image].astype(np.int32),
            "psnr": psnr(evaluate(library, weights, points), targets).astype(np.float32),
        }
        about = self.settings | CONVENTION | {"sources": found.sources}
        return Networks(space, weights, columns, about)


def contact_sheet(path: Path, dataset: WeightDataset, count: int = 12) -> None:
    """Draw images (above) and what the first networks of each split make of them (below), with their PSNR."""
    pixels = load_all_images(dataset.about["images"])[0]
    height, width, channels = pixels.shape[1:]
    chosen = np.concatenate([dataset.split(name)[: count // 3] for name in dataset.about["splits"]])
    drawn = draw(dataset.features(chosen), height, width)
    figure = new_figure(len(chosen), 2.6)
    panels = figure.subplots(2, len(chosen), squeeze=False)
    for k, number in enumerate(chosen.tolist()):
        image = pixels[dataset.columns["image"][number]] / 255
        for panel, x in ((panels[0, k], image), (panels[1, k], np.clip(0.5 + 0.5 * drawn[k], 0, 1))):
            panel.imshow(x if channels == 3 else x[..., 0], cmap=None if channels == 3 else "gray", vmin=0, vmax=1)
            panel.set_axis_off()
        panels[0, k].set_title(f"{dataset.columns['psnr'][number]:.1f} dB", fontsize=8)
    write(path, figure.savefig)

"""Weight-space editing: tables 6 and 18, figure 4 (sections 3.4 and D.4)."""

from collections.abc import Callable
from dataclasses import replace

from reference_experiments.datasets.generation import Maker
from reference_experiments.datasets.image_inrs import SirenMaker
from reference_experiments.engines.base import Recipe
from reference_experiments.experiments.base import TINY, Experiment, Preset, Variant
from reference_experiments.methods.base import MethodConfig
from reference_experiments.tasks.editing import EDITORS, Editing

__all__ = ["CONTRAST", "DILATE"]


def _sirens_once(images: str) -> Callable[[str, int, str], Maker]:
    """One network for each image, also at the paper's scale (section D.4)."""

    def maker(scale: str, seed: int, backend: str) -> Maker:
        usual = SirenMaker.at_scale(images, scale, seed, backend)
        return replace(usual, scale=replace(usual.scale, copies=1))

    return maker


EDITING = {
    "smoke": Preset(replace(TINY, fourier=(4, 0.5)), Recipe("custom", 6, 8, 1e-3, eval_every=3), 1),
    "small": Preset(
        MethodConfig((32, 32, 32), (32, 32, 32), (), fourier=(32, 0.5)),
        Recipe("custom", 1000, 32, 1e-3, warmup=50, cosine=True, eval_every=200),
        3,
    ),
    "paper": Preset(
        MethodConfig((128,) * 3, (128,) * 3, (), fourier=(128, 3.0), raw_fourier=True),
        Recipe("custom", 50_000, 32, 1e-3, warmup=1000, eval_every=1000),
        3,
    ),
}

METHODS = (*EDITORS, "Descent")
VARIANTS = {"Descent": Variant("Descent", recipe={"learning_rate": 3e-3})}

DILATE = Experiment(
    "INRs of digits edited so that strokes are thicker: mean squared error from the dilated images",
    (6, 18),
    Editing("dilate"),
    METHODS,
    {"MNIST": _sirens_once("mnist")},
    EDITING,
    variants=VARIANTS,
)

CONTRAST = Experiment(
    "INRs of photographs edited so that they have more contrast: mean squared error from such images",
    (6, 18),
    Editing("contrast"),
    METHODS,
    {"CIFAR-10": _sirens_once("cifar10")},
    EDITING,
    overrides={"CIFAR-10": {"descent": (32, 16, 5)}},
    variants=VARIANTS,
)

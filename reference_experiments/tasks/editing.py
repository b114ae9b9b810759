"""Weight-space style editing (sections 3.4 and D.4): the image that an INR encodes is edited through its weights.

Images have brightness in [-1, 1], as in the paper's code, so that errors are in the paper's units. The edits are OpenCV's
with the constants of the paper's code; left alone, an MNIST digit is 0.37 from its dilated image, a CIFAR-10 image 0.04
from the one of more contrast.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from nfn_core import MLPHead, Normalize, Sequential, WeightSpace, equivariant_network, message_network
from reference_experiments.datasets.format import WeightDataset
from reference_experiments.engines.base import Inputs, Learner, Split
from reference_experiments.figures import draw_edits, to_png
from reference_experiments.files import ExperimentError
from reference_experiments.methods.augmentations import permuted
from reference_experiments.methods.base import Method, MethodConfig
from reference_experiments.methods.descent_editor import DescentEditor
from reference_experiments.methods.editor import EDITS, IMAGE, Editor, errors
from reference_experiments.methods.mlp import Flatten, Unflatten
from reference_experiments.methods.neural_functionals import functional
from reference_experiments.networks.sirens import OMEGA, draw
from reference_experiments.sources.images import load_all_images
from reference_experiments.tasks.base import Result, metric_splits
from reference_experiments.training import evenly_spaced, predict

__all__ = ["EDITORS", "Editing", "METHODS"]


EDITORS = ("NFN_HNP", "NFN_NP", "NFN_NP without IO-encoding", "NFN_PT", "MLP", "MLP_Aug")
"""Methods of the paper."""


METHODS = (*EDITORS, "NFN_HNP gated", "Messages", "Descent")
"""All methods; the last three are not in the paper."""


SHOWN = 6
"""Test images in a figure."""


@dataclass(frozen=True)
class Editing:
    """INRs are edited so that their images come to what image processing makes of them.

    Parameters
    ----------
    edit : str
        One of `EDITS`.
    """

    edit: str

    @property
    def metric(self) -> str:
        """Mean squared error, and that of leaving the weights as they are."""
        return "test_error"

    def build(self, name: str, space: WeightSpace, features: Mapping[str, np.ndarray], config: MethodConfig) -> Method:
        """Build an editor, one of `METHODS`.

        MLP and MLP_Aug map all weights to all weights through three hidden layers. Messages is a `message_network` that
        knows the frequency of SIRENs. Descent is a `DescentEditor`.
        """
        if name not in METHODS:
            raise ExperimentError(f"{name} edits no networks; these do: {', '.join(METHODS)}.")
        if name == "Descent":
            return Method(name, Editor(DescentEditor(space, *config.descent)))
        scale = Normalize.from_features(space, dict(features))
        if name.startswith("MLP"):
            head = MLPHead((space.size, *(config.mlp,) * 3, space.size))
            network = Sequential((scale, Flatten(space), head, Unflatten(space)))
            return Method(
                name,
                Editor.residual(space, network),
                augment=partial(permuted, space.group("HNP")) if name == "MLP_Aug" else None,
            )
        if name == "Messages":
            points, channels = config.messages
            group = space.group("HNP")
            network = message_network(group, 1, channels, out_channels=1, before=[scale], omega=OMEGA, points=points)
            return Method(name, Editor.residual(space, network))
        group, widths, options = functional(name, scale, config)
        return Method(name, Editor.residual(space, equivariant_network(group, [1, *widths, 1], **options)))

    def split(self, method: Method, dataset: WeightDataset, index: np.ndarray) -> Split:
        """Return networks with the processed images under `IMAGE`."""
        if "image" not in dataset.columns or "images" not in dataset.about:
            raise ExperimentError(f"{dataset.folder} is not of INRs of images: make some with `make image-inrs`.")
        pixels, numbers = load_all_images(dataset.about["images"])[0], dataset.columns["image"][index]
        edited = np.stack([EDITS[self.edit](pixels[n]) for n in numbers])
        networks = method.split(lambda chosen: dataset.features(index[chosen]), numbers)

        def inputs(chosen: np.ndarray, rng: np.random.Generator | None) -> Inputs:
            features = cast("dict[str, np.ndarray]", networks.inputs(chosen, rng))
            return features | {IMAGE: edited[chosen].astype(np.float32) / 127.5 - 1}

        return Split(inputs, numbers)

    def evaluate(self, learner: Learner, splits: Mapping[str, Split], folder: Path) -> Result:
        """Compare the images of edited networks with the processed ones, and draw some."""
        metrics = {
            f"{name}_error": float(predict(learner, part).mean()) for name, part in metric_splits(splits).items()
        }
        test = splits["test"]
        pieces = np.array_split(np.arange(len(test)), -(-len(test) // 64))
        left: list[Any] = [errors(features, image) for features, image in (_taken(test, piece) for piece in pieces)]
        metrics["test_error_unedited"] = float(np.concatenate(left).mean())
        features, image = _taken(test, evenly_spaced(np.arange(len(test)), SHOWN))
        drawn = [draw(x, *image.shape[1:3]) for x in (features, learner.apply(features))]
        sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in (*drawn, image)])
        return Result(metrics, details={"pixels": image.shape[1:3], "images": to_png(0.5 + 0.5 * sheet)})

    def draw(self, path: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
        """Draw Figure 4: what test networks encode before, and after each method's edit, and what they are to encode."""
        draw_edits(path, results)


def _taken(part: Split, chosen: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Features and images of some networks."""
    features = dict(cast("dict[str, np.ndarray]", part.inputs(chosen, None)))
    image = features.pop(IMAGE)
    return features, image

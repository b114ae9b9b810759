"""Weight-space style editing (sections 3.4 and D.4): the image that an INR encodes is edited through its weights.

Images have brightness in [-1, 1], as in the paper's code, so that errors are in the paper's units. The edits are OpenCV's
with the constants of the paper's code; left alone, an MNIST digit is 0.37 from its dilated image, a CIFAR-10 image 0.04
from the one of more contrast.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np

from nfn_core import Layer, MLPHead, Normalize, Residual, Scale, Sequential, WeightSpace, equivariant_network
from nfn_core.arrays import Array, namespace_of
from nfn_core.layers.base import Execution
from nfn_core.layers.parameters import ParameterSpec
from reference_experiments.datasets.format import WeightDataset
from reference_experiments.engines.base import Inputs, Learner
from reference_experiments.figures import draw_edits, to_png
from reference_experiments.files import ExperimentError
from reference_experiments.methods.mlp import Flatten, Unflatten
from reference_experiments.methods.registry import Method, Sizes, functional
from reference_experiments.networks.sirens import draw, every_image
from reference_experiments.tasks.base import measured
from reference_experiments.training import Part, predict, spread

__all__ = ["EDITORS", "EDITS", "IMAGE", "Editing", "Editor", "dilate", "errors", "increase_contrast"]

IMAGE = "image"
"""Name under which an editor's input holds the images to come to, beside the weight space's tensors."""
EDITORS = ("NFN_HNP", "NFN_NP", "NFN_NP without IO-encoding", "NFN_PT", "MLP", "MLP_Aug")
SHOWN = 6
"""Test images in a figure."""


def dilate(image: np.ndarray) -> np.ndarray:
    """Take for every pixel the brightest in the 3x3 square around it.

    Parameters
    ----------
    image : numpy.ndarray
        Shape (height, width, channels), uint8.

    Returns
    -------
    numpy.ndarray
        The same shape and dtype.
    """
    return np.asarray(cv2.dilate(image, np.ones((3, 3), np.uint8))).reshape(image.shape)


def increase_contrast(image: np.ndarray) -> np.ndarray:
    """Equalise the histogram of lightness (L of CIELAB) adaptively: CLAHE of clip limit 1 on 3x3 tiles.

    As in the paper's code, OpenCV is told BGR where the channels are RGB.

    Parameters
    ----------
    image : numpy.ndarray
        Shape (height, width, 1 or 3), uint8; one channel is lightness itself.

    Returns
    -------
    numpy.ndarray
        The same shape and dtype.
    """
    equalizer = cv2.createCLAHE(clipLimit=1.0, tileGridSize=(3, 3))
    if image.shape[2] == 1:
        return np.asarray(equalizer.apply(image)).reshape(image.shape)
    lab = np.array(cv2.cvtColor(image, cv2.COLOR_BGR2LAB))
    lab[:, :, 0] = equalizer.apply(np.ascontiguousarray(lab[:, :, 0]))
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2BGR))


EDITS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"dilate": dilate, "contrast": increase_contrast}


def errors(features: Mapping[str, Array], image: Array) -> Array:
    """Mean squared error of what SIRENs draw, over pixels and channels (Eq. 21).

    Parameters
    ----------
    features : mapping of str to array
        Weights, each of shape (batch, *axes, 1).
    image : array
        Brightness in [-1, 1], shape (batch, height, width, channels).

    Returns
    -------
    array
        Shape (batch,).
    """
    difference = draw(features, *image.shape[1:3]) - image
    return namespace_of(image).mean(difference * difference, axis=(1, 2, 3))


@dataclass(frozen=True)
class Editor(Layer):
    """Edits SIRENs: U' = U + γ NFN(U), with a γ learned from 0.01 for each tensor (section D.4 and the paper's code).

    Parameters
    ----------
    space : WeightSpace
        Their weight space.
    network : Layer
        NFN: from features to features, each of one channel.
    """

    space: WeightSpace
    network: Layer
    edit: Residual = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "edit", Residual(Sequential((self.network, Scale(self.space)))))

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return the network's parameters, ``"0.NAME"``, and each tensor's γ, ``"1.TENSOR.scale"``."""
        return self.edit.parameter_specs()

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Any:
        """Edit features, or learn from them.

        From features alone the edited ones. With images (batch, height, width, channels) there, under `IMAGE`, the
        `errors` of the edited networks, (batch,).
        """
        features = {name: y for name, y in x.items() if name != IMAGE}
        edited = self.edit.forward(params, features, execution)
        return errors(edited, x[IMAGE]) if IMAGE in x else edited


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
        """The mean squared error; beside it stands that of leaving the weights as they are."""
        return "test error"

    def build(self, name: str, space: WeightSpace, features: Mapping[str, np.ndarray], sizes: Sizes) -> Method:
        """Build an editor, one of `EDITORS`; MLP and MLP_Aug map all weights to all weights through three hidden layers."""
        if name not in EDITORS:
            raise ExperimentError(f"{name} edits no networks; these do: {', '.join(EDITORS)}.")
        scale = Normalize.from_features(space, dict(features))
        if name.startswith("MLP"):
            head = MLPHead((space.size, *(sizes.mlp,) * 3, space.size))
            network = Sequential((scale, Flatten(space), head, Unflatten(space)))
            return Method(name, Editor(space, network), augment=space.group("HNP") if name == "MLP_Aug" else None)
        group, channels, before = functional(name, scale, sizes)
        network = equivariant_network(group, [1, *channels, 1], before=before, pointwise=name == "NFN_PT")
        return Method(name, Editor(space, network))

    def part(self, method: Method, dataset: WeightDataset, index: np.ndarray) -> Part:
        """Return networks with the processed images under `IMAGE`."""
        if "image" not in dataset.columns or "images" not in dataset.about:
            raise ExperimentError(f"{dataset.folder} is not of INRs of images: make some with `make image-inrs`.")
        pixels, numbers = every_image(dataset.about["images"])[0], dataset.columns["image"][index]
        edited = np.stack([EDITS[self.edit](pixels[n]) for n in numbers])
        networks = method.part(lambda chosen: dataset.features(index[chosen]), numbers)

        def inputs(chosen: np.ndarray, rng: np.random.Generator | None) -> Inputs:
            features = cast("dict[str, np.ndarray]", networks.inputs(chosen, rng))
            return features | {IMAGE: edited[chosen].astype(np.float32) / 127.5 - 1}

        return Part(inputs, numbers)

    def measure(self, learner: Learner, parts: Mapping[str, Part], folder: Path) -> dict[str, Any]:
        """Compare the images of edited networks with the processed ones, and draw some."""
        metrics = {f"{name} error": float(predict(learner, part).mean()) for name, part in measured(parts).items()}
        test = parts["test"]
        pieces = np.array_split(np.arange(len(test)), -(-len(test) // 64))
        left = [errors(features, image) for features, image in (_taken(test, piece) for piece in pieces)]
        metrics["test error, unedited"] = float(np.concatenate(left).mean())
        features, image = _taken(test, spread(np.arange(len(test)), SHOWN))
        drawn = [draw(x, *image.shape[1:3]) for x in (features, learner.apply(features))]
        sheet = np.concatenate([np.concatenate(list(row), axis=1) for row in (*drawn, image)])
        return {"metrics": metrics, "pixels": image.shape[1:3], "images": to_png(0.5 + 0.5 * sheet)}

    def draw(self, path: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
        """Draw Figure 4: what test networks encode before, and after each method's edit, and what they are to encode."""
        draw_edits(path, results)


def _taken(part: Part, chosen: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Features and images of some networks."""
    features = dict(cast("dict[str, np.ndarray]", part.inputs(chosen, None)))
    image = features.pop(IMAGE)
    return features, image

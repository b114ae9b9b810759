"""An editor of SIRENs, and the edits that it learns (paper, sections 3.4 and D.4)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from nfn_core import Layer, Residual, Scale, Sequential, WeightSpace
from nfn_core.arrays import Array, namespace_of
from nfn_core.layers.base import Execution
from nfn_core.layers.parameters import ParameterSpec
from reference_experiments.networks.sirens import draw

__all__ = ["EDITS", "Editor", "IMAGE", "dilate", "errors", "increase_contrast"]


IMAGE = "image"
"""Name under which an editor's input holds the target images, in addition to the weight space's tensors."""


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
    """Equalize the histogram of lightness (L of CIELAB) adaptively: CLAHE of clip limit 1 on 3x3 tiles.

    As in the paper's code, the channels are RGB, and OpenCV takes them for BGR.

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
    """Edits SIRENs, and learns from the images that they are to have.

    Parameters
    ----------
    edit : Layer
        From features to features, each of one channel.
    """

    edit: Layer

    @classmethod
    def residual(cls, space: WeightSpace, network: Layer) -> "Editor":
        """U' = U + γ NFN(U), with a γ learned from 0.01 for each tensor (section D.4 and the paper's code)."""
        return cls(Residual(Sequential((network, Scale(space)))))

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return the edit's parameters."""
        return self.edit.parameter_specs()

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Any:
        """Edit features, or learn from them.

        From features alone the edited ones. With images (batch, height, width, channels) there, under `IMAGE`, the
        `errors` of the edited networks, (batch,).
        """
        features = {name: y for name, y in x.items() if name != IMAGE}
        edited = self.edit.forward(params, features, execution)
        return errors(edited, x[IMAGE]) if IMAGE in x else edited

"""Prediction of test accuracies: tables 2 and 19 (sections 3.1, D.1 and E.5)."""

from collections.abc import Callable

from reference_experiments.datasets.generation import Maker
from reference_experiments.datasets.model_zoos import ReluZooMaker, ZooMaker
from reference_experiments.engines.base import Recipe
from reference_experiments.experiments.base import TINY, Experiment, Preset
from reference_experiments.methods.base import MethodConfig
from reference_experiments.tasks.prediction import Prediction

__all__ = ["RELU_SCALES", "TABLE19", "TABLE2"]


def _cnn_zoo(images: str) -> Callable[[str, int, str], Maker]:
    return lambda scale, seed, backend: ZooMaker.at_scale(images, "cnn", scale, seed, backend)


def _mlp_zoo(architecture: str) -> Callable[[str, int, str], Maker]:
    return lambda scale, seed, backend: ZooMaker.at_scale("mnist", architecture, scale, seed, backend)


GENERALIZATION = {
    "smoke": Preset(TINY, Recipe("binary", 6, 8, 1e-3, eval_every=3), 1),
    "small": Preset(
        MethodConfig((16, 16, 5), (16, 16, 5), (256, 256), mlp=256),
        Recipe("binary", 6000, 8, 1e-3, warmup=200, cosine=True, eval_every=300),
        3,
    ),
    "paper": Preset(
        MethodConfig((16, 16, 5), (16, 16, 5), (1000, 1000, 1000), mlp=1000),
        Recipe("binary", 50 * 1500, 8, 1e-3, eval_every=1500),
        2,
    ),
}

TABLE2 = Experiment(
    "Kendall's τ of the test accuracies of CNNs, predicted from their weights",
    (2,),
    Prediction("accuracy"),
    ("NFN_HNP", "NFN_NP", "STATNN"),
    {"CIFAR-10-GS": _cnn_zoo("cifar10"), "SVHN-GS": _cnn_zoo("svhn")},
    GENERALIZATION,
)

RELU_SCALES = Experiment(
    "Kendall's τ of the test accuracies of ReLU CNNs, predicted from their weights as they are and in canonical scales",
    (),
    Prediction("accuracy"),
    ("NFN_HNP", "NFN_HNP in canonical scales", "STATNN"),
    {"CIFAR-10-GS": lambda scale, seed, backend: ReluZooMaker.at_scale("cifar10", "cnn", scale, seed, backend)},
    GENERALIZATION,
)

TABLE19 = Experiment(
    "Kendall's τ and R² of the test accuracies of MLPs, predicted from their weights",
    (19,),
    Prediction("accuracy"),
    ("NFN_HNP", "NFN_HNP low-rank", "NFN_NP", "STATNN"),
    {"3-Layer": _mlp_zoo("mlp3"), "5-Layer": _mlp_zoo("mlp5")},
    GENERALIZATION
    | {
        "small": Preset(
            MethodConfig((4, 4, 4), (2, 2, 2), (256, 256), mlp=256),  # NP has 784 x 128 entries a channel, HNP 784 rows
            Recipe("binary", 2000, 8, 1e-3, warmup=100, cosine=True, eval_every=200, dtype="fastest"),
            3,
        )
    },
)

"""Classification of INRs: tables 3, 4, 16 and 17, and a study of how INRs are fitted (sections 3.2 and D.3)."""

from collections.abc import Callable
from dataclasses import replace

from reference_experiments.datasets.generation import Maker
from reference_experiments.datasets.image_inrs import SirenMaker, SirenPreset
from reference_experiments.datasets.shape_inrs import ShapeMaker
from reference_experiments.engines.base import Recipe
from reference_experiments.experiments.base import TINY, Experiment, Preset
from reference_experiments.methods.base import MethodConfig
from reference_experiments.tasks.prediction import Prediction

__all__ = ["DIGITS", "SHAPE_MESSAGES", "SIREN_FIT", "SIREN_GATES", "SIREN_MESSAGES", "SIREN_SIGNS", "TABLE3", "TABLE4"]


def _sirens(images: str) -> Callable[[str, int, str], Maker]:
    return lambda scale, seed, backend: SirenMaker.at_scale(images, scale, seed, backend)


def _shapes(shapes: str) -> Callable[[str, int, str], Maker]:
    return lambda scale, seed, backend: ShapeMaker.at_scale(shapes, scale, seed, backend)


def _fitted(learning_rate: float, steps: int) -> Callable[[str, int, str], Maker]:
    def maker(scale: str, seed: int, backend: str) -> Maker:
        usual = SirenMaker.at_scale("mnist", scale, seed, backend)
        fit = replace(usual.scale, learning_rate=learning_rate, steps=steps, cosine=True)
        return replace(usual, scale=replace(fit, training=5000, validation=500, test=1500) if scale == "small" else fit)

    return maker


FITS = ((1e-2, 38), (3e-3, 100), (1e-3, 330), (1e-2, 100))
"""Learning rates and numbers of steps: three that reach about 30 dB on MNIST, and one that reaches 50."""

CLASSIFICATION = {
    "smoke": Preset(replace(TINY, fourier=(4, 0.5)), Recipe("classes", 6, 8, 1e-3, eval_every=3), 1),
    "small": Preset(
        MethodConfig(
            (32, 32, 32),
            (32, 32, 32),
            (256, 256),
            fourier=(32, 0.5),
            mlp=1000,
            dws=(16, 16, 16),
            resnet=8,
            pointnet=((32, 64, 128), (64,)),
            inr2vec=(128, 256),
        ),
        Recipe("classes", 2000, 32, 1e-3, warmup=100, cosine=True, eval_every=250, dtype="fastest"),
        3,
    ),
    "paper": Preset(
        MethodConfig(
            *((512,) * 3, (512,) * 3, (1000, 1000), 0.5),
            fourier=(128, 3.0),
            raw_fourier=True,
            encoding=(10.0, 6),
            mlp=1000,
        ),
        Recipe("classes", 200_000, 32, 1e-4, warmup=10_000, eval_every=5000),
        3,
    ),
}

TABLE3 = Experiment(
    "Classes of images, predicted from the weights of their INRs",
    (3, 16, 17),
    Prediction("label", 10),
    ("NFN_HNP", "NFN_NP", "NFN_NP without IO-encoding", "NFN_PT", "DWSNets", "MLP", "MLP_Aug", "ResNet-18"),
    {"MNIST": _sirens("mnist"), "FashionMNIST": _sirens("fashion-mnist"), "CIFAR-10": _sirens("cifar10")},
    CLASSIFICATION,
)

TABLE4 = Experiment(
    "Classes of shapes, predicted from the weights of their INRs",
    (4, 16),
    Prediction("label", 10),
    ("NFN_HNP", "NFN_NP", "MLP", "MLP_Aug", "inr2vec", "PointNet"),
    {"ModelNet10": _shapes("modelnet10")},
    CLASSIFICATION,
)


def _many_sirens(
    images: str, training: int, validation: int, start: str = "sitzmann"
) -> Callable[[str, int, str], Maker]:
    """All images of a set at the preset ``small``."""

    def maker(scale: str, seed: int, backend: str) -> Maker:
        usual = SirenMaker.at_scale(images, scale, seed, backend, start)
        counts = replace(usual.scale, training=training, validation=validation, test=10_000)
        return replace(usual, scale=counts, shard=1000) if scale == "small" else usual

    return maker


SIREN_MESSAGES = Experiment(
    "Classes of images, predicted from SIRENs by messages that respect permutations and signs",
    (),
    Prediction("label", 10),
    (
        *("SignedMessages", "SignedMessages without activations", "LearnedProbes"),
        *("Values at 16 drawn points", "Values at 64 drawn points", "Values at 256 drawn points"),
        *("NFN_HNP", "MLP", "ResNet-18"),
    ),
    {
        "MNIST": _many_sirens("mnist", 55_000, 5000),
        "FashionMNIST": _many_sirens("fashion-mnist", 55_000, 5000),
        "CIFAR-10": _many_sirens("cifar10", 18_000, 2000),  # of the 20,000 training images of two batches
        "MNIST-DWSNets": _many_sirens("mnist", 55_000, 5000, "dwsnets"),
        "FashionMNIST-DWSNets": _many_sirens("fashion-mnist", 55_000, 5000, "dwsnets"),
    },
    {
        "smoke": Preset(
            replace(TINY, fourier=(4, 0.5), messages=(4, 4), augmentation=(0.2, 0.1, 0.1)),
            Recipe("classes", 6, 8, 1e-3, eval_every=3),
            1,
        ),
        "small": Preset(
            MethodConfig((32,) * 3, (32,) * 3, (256, 256), fourier=(32, 0.5), resnet=8, augmentation=(0.2, 0.12, 0.1)),
            Recipe("classes", 20_000, 64, 2e-3, weight_decay=1e-3, warmup=100, cosine=True, eval_every=1000),
            3,
        ),
        "paper": Preset(
            MethodConfig((512,) * 3, (512,) * 3, (1000, 1000), messages=(128, 128), augmentation=(0.2, 0.12, 0.1)),
            Recipe("classes", 200_000, 64, 2e-3, weight_decay=1e-3, warmup=1000, cosine=True, eval_every=5000),
            3,
        ),
    },
    {name: {"mirror": True} for name in ("FashionMNIST", "CIFAR-10", "FashionMNIST-DWSNets")},
)


SIREN_GATES = replace(
    SIREN_MESSAGES,
    title="Classes of images, predicted from SIRENs by linear NF-layers, with gates and norms and as published",
    methods=("NFN_HNP gated", "NFN_NP gated", "NFN_PT gated", "NFN_HNP", "NFN_NP", "NFN_PT"),
    scales={
        **SIREN_MESSAGES.scales,
        "small": replace(
            SIREN_MESSAGES.scales["small"],
            config=replace(SIREN_MESSAGES.scales["small"].config, augmentation=(0.0, 0.0, 0.0)),
            recipe=Recipe("classes", 16_000, 32, 2e-3, warmup=100, cosine=True, eval_every=1000),
        ),
    },
)


SIREN_SIGNS = replace(
    SIREN_GATES,
    title="Classes of images, predicted from SIRENs by linear NF-layers that see phases, and that respect signs and phases",
    methods=("NFN_HNP gated", "NFN_HNP gated with phases", "NFN_HNP signed", "NFN_HNP signed with phases"),
    makers={name: TABLE3.makers[name] for name in ("MNIST", "CIFAR-10")},
    scales={
        **SIREN_GATES.scales,
        "small": replace(
            SIREN_GATES.scales["small"],
            recipe=Recipe("classes", 2000, 32, 1e-3, warmup=50, cosine=True, eval_every=250),
        ),
    },
)


SHAPE_MESSAGES = replace(
    SIREN_MESSAGES,
    title="Classes of shapes, predicted from SIRENs by messages, and by linear NF-layers with gates and norms",
    methods=(
        *("SignedMessages", "SignedMessages without activations", "LearnedProbes"),
        *("NFN_HNP gated", "NFN_NP gated", "NFN_PT gated"),
    ),
    makers=TABLE4.makers,
    overrides={},
    scales={
        **SIREN_MESSAGES.scales,
        "small": Preset(
            MethodConfig((32,) * 3, (32,) * 3, (256, 256), 0.1, fourier=(32, 0.5), augmentation=(0.2, 0.0, 0.05)),
            Recipe("classes", 3000, 64, 2e-3, weight_decay=1e-3, warmup=100, cosine=True, eval_every=500),
            3,
        ),
    },
)


def _digits(scale: str, seed: int, backend: str) -> Maker:
    """SIRENs of scikit-learn's digits, five for each training image, fitted in 100 steps."""
    usual = SirenMaker.at_scale("digits", scale, seed, backend)
    many = SirenPreset(1100, 100, 597, 5, 3e-3, 100, True)
    return usual if scale == "smoke" else replace(usual, scale=many)


DIGITS = Experiment(
    "Classes of scikit-learn's digits, predicted from the weights of SIRENs (the quickstart)",
    (),
    Prediction("label", 10),
    ("SignedMessages", "NFN_HNP", "MLP", "MLP_Aug"),
    {"digits": _digits},
    {
        "smoke": SIREN_MESSAGES.scales["smoke"],
        "small": Preset(
            MethodConfig((16,) * 3, (16,) * 3, (256, 256), mlp=256, augmentation=(0.1, 0.05, 0.05)),
            Recipe("classes", 1200, 64, 2e-3, weight_decay=1e-3, warmup=100, cosine=True, eval_every=400),
            1,
        ),
        "paper": SIREN_MESSAGES.scales["paper"],
    },
)

SIREN_FIT = Experiment(
    "How the fit of INRs changes how well they are classified: three ways to one reconstruction error, and a longer fit",
    (),
    Prediction("label", 10),
    ("NFN_NP",),
    {f"{steps} steps at {rate:g}": _fitted(rate, steps) for rate, steps in FITS},
    CLASSIFICATION
    | {
        "small": replace(
            CLASSIFICATION["small"],
            recipe=Recipe("classes", 1500, 32, 1e-3, warmup=100, cosine=True, eval_every=250, dtype="fastest"),
        )
    },
)

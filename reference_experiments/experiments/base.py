"""The paper's experiments as data: which networks, which methods, how they are trained; one description for both backends.

`paper` scale is appendix D of the paper: tables 12 to 15 and sections D.1 to D.4 and E.5.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from reference_experiments.datasets.generation import Maker
from reference_experiments.datasets.lottery_tickets import TICKET_CNN_SCALES, TICKET_MLP_SCALES, TicketMaker
from reference_experiments.datasets.model_zoos import CNN_SCALES, MLP_SCALES, ZooMaker, ZooScale
from reference_experiments.datasets.shape_inrs import ShapeMaker
from reference_experiments.methods.registry import Sizes
from reference_experiments.networks.sirens import SirenMaker
from reference_experiments.tasks.base import Task, Telling
from reference_experiments.tasks.editing import EDITORS, Editing
from reference_experiments.tasks.lottery_tickets import METHODS as TICKETS
from reference_experiments.tasks.lottery_tickets import Tickets
from reference_experiments.training import Recipe

__all__ = ["EXPERIMENTS", "SCALES", "Experiment", "Scale"]

SCALES = ("smoke", "small", "paper")


@dataclass(frozen=True)
class Scale:
    """How much of everything.

    Parameters
    ----------
    sizes : Sizes
        Widths of the methods.
    recipe : Recipe
        How they are trained.
    seeds : int
        Trainings of each method, with seeds 0, 1, ...
    """

    sizes: Sizes
    recipe: Recipe
    seeds: int


@dataclass(frozen=True)
class Experiment:
    """One of the paper's experiments.

    Parameters
    ----------
    title : str
        What is asked.
    tables : tuple of int
        Tables of the paper that it re-makes.
    task : Task
        What methods are built for, trained on and measured by.
    methods : tuple of str
        Methods that are compared; see `reference_experiments.methods.registry`.
    makers : dict of str to callable
        For each dataset, by the paper's name, its maker from scale, seed and backend.
    scales : dict of str to Scale
        By name.
    """

    title: str
    tables: tuple[int, ...]
    task: Task
    methods: tuple[str, ...]
    makers: Mapping[str, Callable[[str, int, str], Maker]]
    scales: Mapping[str, Scale]


def _cnn_zoo(images: str) -> Callable[[str, int, str], Maker]:
    return lambda scale, seed, backend: ZooMaker(images, "cnn", CNN_SCALES[scale], seed, backend)


def _mlp_zoo(architecture: str) -> Callable[[str, int, str], Maker]:
    return lambda scale, seed, backend: ZooMaker("mnist", architecture, MLP_SCALES[scale], seed, backend)


def _sirens(images: str) -> Callable[[str, int, str], Maker]:
    return lambda scale, seed, backend: SirenMaker.at_scale(images, scale, seed, backend)


def _sirens_once(images: str) -> Callable[[str, int, str], Maker]:
    """One network for each image, also at the paper's scale (section D.4)."""

    def maker(scale: str, seed: int, backend: str) -> Maker:
        usual = SirenMaker.at_scale(images, scale, seed, backend)
        return replace(usual, scale=replace(usual.scale, copies=1))

    return maker


def _shapes(shapes: str) -> Callable[[str, int, str], Maker]:
    return lambda scale, seed, backend: ShapeMaker.at_scale(shapes, scale, seed, backend)


def _fitted(learning_rate: float, steps: int) -> Callable[[str, int, str], Maker]:
    def maker(scale: str, seed: int, backend: str) -> Maker:
        usual = SirenMaker.at_scale("mnist", scale, seed, backend)
        fit = replace(usual.scale, learning_rate=learning_rate, steps=steps, cosine=True)
        return replace(usual, scale=replace(fit, training=5000, validation=500, test=1500) if scale == "small" else fit)

    return maker


def _tickets(images: str, architecture: str, scales: Mapping[str, ZooScale]) -> Callable[[str, int, str], Maker]:
    return lambda scale, seed, backend: TicketMaker(images, architecture, scales[scale], seed, backend)


FITS = ((1e-2, 38), (3e-3, 100), (1e-3, 330), (1e-2, 100))
"""Learning rates and numbers of steps: about 30 dB on MNIST thrice, then 50."""

TINY = Sizes((4, 4), (2, 2), (8,), mlp=8, dws=(2, 2), resnet=2, pointnet=((8, 16), (8,)), inr2vec=(8, 16))

GENERALIZATION = {
    "smoke": Scale(TINY, Recipe("binary", 6, 8, 1e-3, every=3), 1),
    "small": Scale(
        Sizes((16, 16, 5), (16, 16, 5), (256, 256), mlp=256),
        Recipe("binary", 6000, 8, 1e-3, warmup=200, cosine=True, every=300),
        3,
    ),
    "paper": Scale(
        Sizes((16, 16, 5), (16, 16, 5), (1000, 1000, 1000), mlp=1000),
        Recipe("binary", 50 * 1500, 8, 1e-3, every=1500),
        2,
    ),
}
CLASSIFICATION = {
    "smoke": Scale(replace(TINY, fourier=(4, 0.5)), Recipe("classes", 6, 8, 1e-3, every=3), 1),
    "small": Scale(
        Sizes(
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
        Recipe("classes", 2000, 32, 1e-3, warmup=100, cosine=True, every=250, dtype="bfloat16"),
        3,
    ),
    "paper": Scale(
        Sizes((512,) * 3, (512,) * 3, (1000, 1000), 0.5, fourier=(128, 3.0), encoding=(10.0, 6), mlp=1000),
        Recipe("classes", 200_000, 32, 1e-4, warmup=10_000, every=5000),
        3,
    ),
}
PRUNING = {
    "smoke": Scale(Sizes((4, 4, 4), (4, 4, 4), ()), Recipe("own", 4, 2, 1e-3, every=2), 1),
    "small": Scale(
        Sizes((8, 8, 8), (8, 8, 8), (), encoding=(10.0, 3)),
        Recipe("own", 800, 1, 3e-3, warmup=20, cosine=True, every=100),
        3,
    ),
    "paper": Scale(Sizes((64, 64, 64), (64, 64, 64), ()), Recipe("own", 200 * 50, 8, 1e-3, every=500), 1),
}
EDITING = {
    "smoke": Scale(replace(TINY, fourier=(4, 0.5)), Recipe("own", 6, 8, 1e-3, every=3), 1),
    "small": Scale(
        Sizes((32, 32, 32), (32, 32, 32), (), fourier=(32, 0.5)),
        Recipe("own", 1000, 32, 1e-3, warmup=50, cosine=True, every=200),
        3,
    ),
    "paper": Scale(
        Sizes((128,) * 3, (128,) * 3, (), fourier=(128, 3.0)),
        Recipe("own", 50_000, 32, 1e-3, warmup=1000, every=1000),
        3,
    ),
}

EXPERIMENTS = {
    "table2": Experiment(
        "Kendall's τ of the test accuracies of CNNs, predicted from their weights",
        (2,),
        Telling("accuracy"),
        ("NFN_HNP", "NFN_NP", "STATNN"),
        {"CIFAR-10-GS": _cnn_zoo("cifar10"), "SVHN-GS": _cnn_zoo("svhn")},
        GENERALIZATION,
    ),
    "table3": Experiment(
        "Classes of images, told from the weights of their INRs",
        (3, 16, 17),
        Telling("label", 10),
        ("NFN_HNP", "NFN_NP", "NFN_NP without IO-encoding", "NFN_PT", "DWSNets", "MLP", "MLP_Aug", "ResNet-18"),
        {"MNIST": _sirens("mnist"), "FashionMNIST": _sirens("fashion-mnist"), "CIFAR-10": _sirens("cifar10")},
        CLASSIFICATION,
    ),
    "table4": Experiment(
        "Classes of shapes, told from the weights of their INRs",
        (4, 16),
        Telling("label", 10),
        ("NFN_HNP", "NFN_NP", "MLP", "MLP_Aug", "inr2vec", "PointNet"),
        {"ModelNet10": _shapes("modelnet10")},
        CLASSIFICATION,
    ),
    "table5": Experiment(
        "Test accuracies of networks pruned to 5 % of their weights before training, by masks told from the initial weights",
        (5,),
        Tickets(),
        TICKETS,
        {
            "CIFAR-10": _tickets("cifar10", "ticket-cnn", TICKET_CNN_SCALES),
            "MNIST": _tickets("mnist", "ticket-mlp", TICKET_MLP_SCALES),
        },
        PRUNING,
    ),
    "dilate": Experiment(
        "INRs of digits edited so that strokes are thicker: mean squared error from the dilated images",
        (6, 18),
        Editing("dilate"),
        EDITORS,
        {"MNIST": _sirens_once("mnist")},
        EDITING,
    ),
    "contrast": Experiment(
        "INRs of photographs edited so that they have more contrast: mean squared error from such images",
        (6, 18),
        Editing("contrast"),
        EDITORS,
        {"CIFAR-10": _sirens_once("cifar10")},
        EDITING,
    ),
    "table19": Experiment(
        "Kendall's τ and R² of the test accuracies of MLPs, predicted from their weights",
        (19,),
        Telling("accuracy"),
        ("NFN_HNP", "NFN_NP", "STATNN"),
        {"3-Layer": _mlp_zoo("mlp3"), "5-Layer": _mlp_zoo("mlp5")},
        GENERALIZATION
        | {
            "small": Scale(
                Sizes((4, 4, 4), (2, 2, 2), (256, 256), mlp=256),  # NP has 784 x 128 entries a channel, HNP 784 rows
                Recipe("binary", 2000, 8, 1e-3, warmup=100, cosine=True, every=200, dtype="bfloat16"),
                3,
            )
        },
    ),
    "fits": Experiment(
        "How the fit of INRs changes how well their classes are told: three ways to one reconstruction error, and a longer fit",
        (),
        Telling("label", 10),
        ("NFN_NP",),
        {f"{steps} steps at {rate:g}": _fitted(rate, steps) for rate, steps in FITS},
        CLASSIFICATION
        | {
            "small": replace(
                CLASSIFICATION["small"],
                recipe=Recipe("classes", 1500, 32, 1e-3, warmup=100, cosine=True, every=250, dtype="bfloat16"),
            )
        },
    ),
}

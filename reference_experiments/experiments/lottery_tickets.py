"""Winning tickets: table 5 and figure 5 (sections 3.3, D.2 and E.4)."""

from collections.abc import Callable, Mapping

from reference_experiments.datasets.generation import Maker
from reference_experiments.datasets.lottery_tickets import TICKET_CNN_PRESETS, TICKET_MLP_PRESETS, TicketMaker
from reference_experiments.datasets.model_zoos import ZooPreset
from reference_experiments.engines.base import Recipe
from reference_experiments.experiments.base import Experiment, Preset
from reference_experiments.methods.base import MethodConfig
from reference_experiments.tasks.lottery_tickets import METHODS as TICKET_METHODS
from reference_experiments.tasks.lottery_tickets import TicketPrediction

__all__ = ["TABLE5"]


def _tickets(images: str, architecture: str, scales: Mapping[str, ZooPreset]) -> Callable[[str, int, str], Maker]:
    return lambda scale, seed, backend: TicketMaker(images, architecture, scales[scale], seed, backend)


PRUNING = {
    "smoke": Preset(MethodConfig((4, 4, 4), (4, 4, 4), ()), Recipe("custom", 4, 2, 1e-3, eval_every=2), 1),
    "small": Preset(
        MethodConfig((8, 8, 8), (8, 8, 8), (), encoding=(10.0, 3)),
        Recipe("custom", 1600, 1, 3e-3, warmup=20, cosine=True, eval_every=100),
        3,
    ),
    "paper": Preset(
        MethodConfig((64, 64, 64), (64, 64, 64), ()), Recipe("custom", 200 * 50, 8, 1e-3, eval_every=500), 1
    ),
}

TABLE5 = Experiment(
    "Test accuracies of networks pruned to 5 % of their weights before training, by masks predicted from the initial weights",
    (5,),
    TicketPrediction(),
    TICKET_METHODS,
    {
        "CIFAR-10": _tickets("cifar10", "ticket-cnn", TICKET_CNN_PRESETS),
        "MNIST": _tickets("mnist", "ticket-mlp", TICKET_MLP_PRESETS),
    },
    PRUNING,
)

"""Whole training steps: networks from disk, encoding, layers, pooling, head, loss, backward pass and AdamW."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import jax
import numpy as np
import torch
from torch import nn

from benchmarks.contenders import LIMIT, Products, Steps, hub_products, once_over
from benchmarks.peers import PeerClassifier, TextbookClassifier
from benchmarks.workloads import SIREN, TICKETS, ZOO
from nfn_core import Composite, Layer, MLPHead, NFLayer, WeightSpace, initialize
from reference_experiments.datasets.format import Networks, WeightDataset, finish, write_shard
from reference_experiments.engines.base import Recipe, engine
from reference_experiments.engines.torch import LOSSES
from reference_experiments.methods.base import MethodConfig
from reference_experiments.methods.editor import IMAGE
from reference_experiments.tasks.base import Task
from reference_experiments.tasks.editing import Editing
from reference_experiments.tasks.lottery_tickets import TicketPrediction
from reference_experiments.tasks.prediction import Prediction

__all__ = ["STEPS", "STEP_CONTENDERS", "StepCase"]

NETWORKS = 128
"""Networks on disk, of which every step takes a batch."""


@dataclass(frozen=True)
class StepCase:
    """A method of the experiments in training, in one dtype on one device.

    Parameters
    ----------
    workload, method : str
        What is trained.
    channels, batch : int
        Channels between the layers, and networks in a step.
    space : WeightSpace
        The networks' weight space.
    task : Task
        What is trained for.
    config : MethodConfig
        Widths of the method.
    dtype, device : str
        Of the arithmetic, as in `Recipe`; ``"cpu"`` or ``"cuda"``.
    """

    workload: str
    method: str
    channels: int
    batch: int
    space: WeightSpace
    task: Task
    config: MethodConfig
    dtype: Any = "float32"
    device: str = "cpu"

    @property
    def about(self) -> dict[str, Any]:
        """What distinguishes it from other cases."""
        names = {"workload": self.workload, "channels": self.channels, "batch": self.batch, "group": self.method}
        return names | {"dtype": self.dtype, "threads": torch.get_num_threads()}

    @property
    def contenders(self) -> Mapping[str, Callable[[Any], Steps]]:
        """Who is timed: others where they have the network as published, DWSNets beside NFN_NP on SIRENs."""
        found = {*OURS}
        if isinstance(self.task, Prediction) and self.method.startswith("NFN"):
            found |= {LIMIT}
            if not self.method.endswith("gated"):
                found |= {"nfn 0.1.2", "nfn 0.1.2 compiled", "textbook"}
            if self.method == "NFN_NP" and self.space == SIREN:
                found |= {"DWSNets"}
        return {name: x for name, x in STEP_CONTENDERS.items() if name in found}

    @property
    def entries(self) -> int:
        """Numbers in the features between two layers."""
        return self.space.size * self.channels * self.batch

    @property
    def recipe(self) -> Recipe:
        """AdamW, with the loss of the task."""
        loss: Any = "custom"
        if isinstance(self.task, Prediction):
            loss = "classes" if self.task.outputs > 1 else "binary"
        return Recipe(loss, 10_000, self.batch, 1e-3, warmup=100, cosine=True, dtype=self.dtype)

    @cached_property
    def folder(self) -> TemporaryDirectory[str]:
        """Where networks lie, until the case is forgotten."""
        return TemporaryDirectory()

    @cached_property
    def dataset(self) -> WeightDataset:
        """Networks of normal weights and random masks, on disk."""
        folder, rng = Path(self.folder.name), np.random.default_rng(0)
        shapes = {t.name: (NETWORKS, *t.shape) for t in self.space.tensors}
        weights = {name: rng.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}
        masks = {name: rng.random(shape) < 0.05 for name, shape in shapes.items()}
        columns = {"split": np.zeros(NETWORKS, np.uint8)}
        write_shard(folder / "shard-00000.safetensors", Networks(self.space, weights, columns, {}, masks), 0, "bench")
        finish(folder, 1, "bench", {})
        return WeightDataset(folder)

    def layer(self, method: str) -> Layer:
        """Build the network of a method."""
        return self.task.build(method, self.space, self.dataset.features(np.arange(NETWORKS)), self.config).layer

    @cached_property
    def targets(self) -> np.ndarray:
        """Targets of a batch."""
        rng = np.random.default_rng(1)
        classes = self.recipe.loss == "classes"
        return rng.integers(0, 10, self.batch) if classes else rng.random(self.batch).astype(np.float32)

    def read(self, number: int) -> dict[str, np.ndarray]:
        """Networks of a step as the task takes them, from disk."""
        rng = np.random.default_rng(number)
        chosen = rng.choice(NETWORKS, self.batch, replace=False)
        features = self.dataset.features(chosen)
        if isinstance(self.task, Editing):
            return features | {IMAGE: np.zeros((self.batch, 28, 28, 1), np.float32)}
        if isinstance(self.task, TicketPrediction):
            masks = self.dataset.features(chosen, "masks")
            latent = (self.task.latent,)
            return {
                name: np.concatenate(
                    [x, masks[name], rng.standard_normal((*x.shape[:-1], *latent), np.float32)], axis=-1
                )
                for name, x in features.items()
            }
        return features


def learned(case: StepCase, backend: str, method: str | None = None, compiled: bool = False) -> Steps:
    """A step of the experiments' own engines, and the reading of its networks alone."""
    library = engine(backend)
    library.use(case.device == "cuda")
    learner: Any = library.learner(case.layer(method or case.method), case.recipe, 0)
    if compiled:
        learner.module = torch.compile(learner.module, fullgraph=True)
    numbers = iter(range(10**9))

    def step() -> None:
        number = next(numbers)
        jax.block_until_ready(learner.step(case.read(number), case.targets, number))

    return {"data": lambda: case.read(0), "step": step}


def plain(case: StepCase, module: nn.Module, compiled: bool = False) -> Steps:
    """A step of a torch module in the usual loop."""
    module.to(case.device)
    network: Any = torch.compile(module) if compiled else module
    optimizer, numbers = torch.optim.AdamW(module.parameters(), lr=1e-3), iter(range(10**9))
    targets = torch.from_numpy(case.targets).to(case.device)

    def step() -> None:
        features = {name: torch.from_numpy(x).to(case.device) for name, x in case.read(next(numbers)).items()}
        with torch.autocast(case.device, torch.bfloat16, enabled=case.dtype == "bfloat16"):
            scores = network(features)
        loss = LOSSES[case.recipe.loss](scores.float(), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return {"step": step}


def widths(case: StepCase) -> tuple[int, tuple[int, ...], list[int]]:
    """Fourier frequencies, channels of the layers and widths of the head of a classifier as published."""
    config = case.config
    outputs = case.task.outputs if isinstance(case.task, Prediction) else 0
    return (config.fourier or (0, 0.0))[0], config.channels, [*config.head, outputs]


def peer(case: StepCase, compiled: bool = False) -> Steps:
    """The package nfn, of the same shape."""
    return plain(case, PeerClassifier(case.space, case.method.removeprefix("NFN_"), *widths(case)), compiled)


def textbook(case: StepCase) -> Steps:
    """The textbook form, of the same shape."""
    return plain(case, TextbookClassifier(case.space.group(case.method.removeprefix("NFN_")), *widths(case)))


def limit(case: StepCase) -> Steps:
    """The step at its least: products, one read and write of every array between layers for each pass, and of AdamW's."""
    layer = cast("Composite", case.layer(case.method))
    x: Any = {name: y.astype(float) for name, y in case.read(0).items()}  # in double, as the initial parameters are
    options = {"dtype": getattr(torch, case.dtype), "device": case.device}
    products: Products = []
    first = 0  # products of the first NF-layer, by whose inputs no gradient is needed
    arrays: list[torch.Tensor] = []
    params = initialize(layer, seed=0)
    for i, inner in layer.children().items():
        own = {name.removeprefix(f"{i}."): p for name, p in params.items() if name.startswith(f"{i}.")}
        if isinstance(inner, NFLayer):
            products += hub_products(inner, case.batch, options)
            first = first or len(products)
        if isinstance(inner, MLPHead):
            for ins, outs in zip(inner.sizes[:-1], inner.sizes[1:], strict=True):
                shapes = ((case.batch, ins), (ins, outs), (case.batch, outs))
                products.append(tuple(torch.randn(shape, **options) for shape in shapes))
        x = inner.apply(own, x)
        arrays += [torch.from_numpy(y).to(**options) for y in (x.values() if isinstance(x, dict) else [x])]
    forward, backward = once_over(products, arrays, first)
    moments = [torch.randn(layer.parameter_count, device=case.device) for _ in range(3)]
    into = [torch.empty_like(m) for m in moments]

    def step() -> None:
        case.read(0)
        forward()
        backward()
        for m, out in zip(moments, into, strict=True):
            out.copy_(m)

    return {"step": step}


STEP_CONTENDERS: dict[str, Callable[[StepCase], Steps]] = {
    "nfn_torch": lambda case: learned(case, "torch"),
    "nfn_torch compiled": lambda case: learned(case, "torch", compiled=True),
    "nfn_jax jitted": lambda case: learned(case, "jax"),
    "nfn 0.1.2": peer,
    "nfn 0.1.2 compiled": lambda case: peer(case, compiled=True),
    "textbook": textbook,
    "DWSNets": lambda case: learned(case, "torch", "DWSNets"),
    LIMIT: limit,
}
OURS = ("nfn_torch", "nfn_torch compiled", "nfn_jax jitted")


def classifiers(
    workload: str, space: WeightSpace, outputs: int, method: str, cases: list[tuple[int, int]]
) -> Iterator[StepCase]:
    """Cases of an INR classifier or a predictor, of pairs of channels and batch."""
    for channels, batch in cases:
        fourier = (channels, 0.5) if outputs > 1 else None
        three = (channels,) * 3
        others: dict[str, Any] = {"fourier": fourier, "dws": (channels,) * 4, "messages": (channels, channels)}
        config = MethodConfig(three, three, (256, 256), **others)
        column = "label" if outputs > 1 else "accuracy"
        yield StepCase(workload, method, channels, batch, space, Prediction(column, outputs), config)


STEPS = [
    *(
        c
        for m in ("NFN_HNP", "NFN_NP")
        for c in classifiers("INR classifier", SIREN, 10, m, [(32, 32), (64, 32), (128, 32)])
    ),
    *classifiers("INR classifier", SIREN, 10, "NFN_HNP gated", [(32, 32), (64, 32), (128, 32)]),
    *classifiers("INR classifier", SIREN, 10, "SignedMessages", [(64, 64)]),
    *(c for m in ("NFN_HNP", "NFN_NP") for c in classifiers("CNN zoo predictor", ZOO, 1, m, [(16, 8), (16, 64)])),
    StepCase(
        "editor", "NFN_HNP", 32, 32, SIREN, Editing("dilate"), MethodConfig((32,) * 3, (32,) * 3, (), fourier=(32, 0.5))
    ),
    StepCase(
        "ticket autoencoder",
        "NFN_NP",
        8,
        1,
        TICKETS,
        TicketPrediction(),
        MethodConfig((8,) * 3, (8,) * 3, (), encoding=(10.0, 3)),
    ),
]
"""Steps of the experiments, with the settings of their presets ``small``."""

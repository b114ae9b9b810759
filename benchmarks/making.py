"""Rates at which networks are made, a core, beside a plain PyTorch loop over networks; ``python -m benchmarks.making``."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "NPROC": "1", "PJRT_NPROC": "1"}  # as each of a maker's processes has it
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false " + os.environ.get("XLA_FLAGS", "")

import click
import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from tqdm import trange

from reference_experiments.datasets.image_inrs import SirenMaker
from reference_experiments.engines.base import BACKENDS, engine
from reference_experiments.networks.classifiers import ARCHITECTURES, Trainer, TrainingImages, epochs, initial, train
from reference_experiments.networks.sirens import OMEGA, coordinates, fit, learning_rates
from reference_experiments.networks.sirens import initial as initial_sirens
from reference_experiments.sources.images import load_images

STEPS = 100


class Sine(nn.Module):
    """The activation of a SIREN."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Sine of OMEGA times an array."""
        return torch.sin(OMEGA * x)


def loop(build: Callable[[], nn.Module], batches: Any, loss: Any, count: int) -> float:
    """Seconds a network and step of a plain loop over networks."""
    start = time.perf_counter()
    for _ in range(count):
        network = build()
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        for x, y in batches:
            optimizer.zero_grad()
            loss(network(x), y).backward()
            optimizer.step()
    return (time.perf_counter() - start) / count / len(batches)


def siren_contenders() -> dict[str, Callable[[], float]]:
    """SIRENs 2-32-32-1 on images of 28x28 pixels."""
    points, rates = coordinates(28, 28), learning_rates(1e-2, STEPS, cosine=True)
    targets = np.random.default_rng(0).uniform(-1, 1, (200, 1, 784)).astype(np.float32)
    space = SirenMaker.space(1)

    def ours(backend: str) -> Callable[[], float]:
        weights, library = initial_sirens(space, 0, np.arange(len(targets))), engine(backend)

        def run() -> float:
            start = time.perf_counter()
            fit(library, weights, targets, points, rates)
            return (time.perf_counter() - start) / len(targets) / STEPS

        return run

    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 32), Sine(), nn.Linear(32, 32), Sine(), nn.Linear(32, 1))

    data = [(torch.tensor(points.T), torch.tensor(targets[0].T))] * STEPS
    found: dict[str, Callable[[], float]] = {backend: ours(backend) for backend in BACKENDS}
    return found | {"plain loop": lambda: loop(build, data, nn.functional.mse_loss, 4)}


def classifier_contenders(architecture: str) -> dict[str, Callable[[], float]]:
    """Classifiers of the zoos on the digits, enlarged to the size of the real images; batches of 64."""
    side, batch, count = (32 if architecture == "cnn" else 28), 64, 20
    images = load_images("digits").train_images[:640]
    big = np.kron(images, np.ones((1, -(-side // 8), -(-side // 8), 1), np.uint8))[:, :side, :side]
    labels = load_images("digits").train_labels[:640]
    pictures = TrainingImages(big.astype(np.float32) / 255, labels, big, np.zeros(640, int), {})
    space = ARCHITECTURES[architecture](1, side * side)

    def ours(backend: str) -> Callable[[], float]:
        trainer = Trainer(engine(backend), pictures, space, "adam", "relu")

        def run() -> float:
            start = time.perf_counter()
            for part in trainer.blocks(count):
                block = range(count)[part]
                streams = [np.random.default_rng(k) for k in block]
                weights = initial(trainer.space, [1] * len(block), [1.0] * len(block), streams)
                rates = {name: np.full(len(block), 1e-3, np.float32) for name in ("learning_rate", "weight_decay")}
                batches = epochs(streams, 640, 640, batch)
                for state in train(trainer.library, trainer.program, weights, rates, batches, 1):
                    trainer.weights(state)
            return (time.perf_counter() - start) / count / 10

        return run

    def convolution(a: int, b: int) -> list[nn.Module]:
        return [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.ReLU()]

    def build() -> nn.Module:
        if architecture == "cnn":
            layers = [*convolution(1, 16), *convolution(16, 16), *convolution(16, 16)]
            return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
        hidden = [nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()]
        return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(128, 10))

    x = torch.tensor(pictures.train_images[:batch]).permute(0, 3, 1, 2)
    batches = [(x, torch.tensor(pictures.train_labels[:batch]))] * 10
    found: dict[str, Callable[[], float]] = {backend: ours(backend) for backend in BACKENDS}
    return found | {"plain loop": lambda: loop(build, batches, cross_entropy, count)}


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=Path("benchmarks/results"), show_default=True)
def main(rounds: int, output: Path) -> None:
    """Time the makers' programs and a plain loop on one core, interleaved; write a table."""
    torch.set_num_threads(1)
    lines = [
        f"One core; medians of {rounds} interleaved rounds, ± half the quartile range. torch {torch.__version__}.",
        "",
        "| networks | program | networks and steps a second | times the plain loop |",
        "|---|---|---|---|",
    ]
    cases = {
        "SIREN 2-32-32-1, 784 pixels a step": siren_contenders(),
        "CNN zoo, 64 images of 32x32 a step": classifier_contenders("cnn"),
        "MLP 784-128-128-10, 64 images a step": classifier_contenders("mlp3"),
    }
    for name, contenders in cases.items():
        times: dict[str, list[float]] = {program: [] for program in contenders}
        for turn in trange(rounds + 1, desc=name):
            for program, run in contenders.items():
                seconds = run()
                if turn:  # the first round compiles
                    times[program].append(seconds)
        base = np.median(times["plain loop"])
        for program, found in times.items():
            rates = np.quantile(1 / np.array(found), (0.25, 0.5, 0.75))
            spread = (rates[2] - rates[0]) / 2
            ratio = base / np.median(found)
            lines.append(f"| {name} | {program} | {rates[1]:,.0f} ± {spread:,.0f} | {ratio:.1f} |")
    (output / "making-cpu.md").write_text("\n".join(lines) + "\n")
    click.echo("\n".join(lines))


if __name__ == "__main__":
    main()

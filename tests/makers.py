"""A maker of datasets for tests, which the processes of `make` can import."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nfn_core import WeightSpace
from reference_experiments.datasets.format import Networks

__all__ = ["HangingMaker", "TinyMaker"]

SPACE = WeightSpace.mlp([2, 3, 1])


@dataclass(frozen=True)
class TinyMaker:
    """Makes two shards of three networks; the process of the second one may be killed, or make the first one again.

    A broken one raises what is no error of the package.
    """

    killed: bool = False
    again: bool = False
    broken: bool = False
    title: str = "tiny"
    backend: str = "torch"
    shards: int = 2
    quality: str = "label"

    @property
    def settings(self):
        return {"title": self.title}

    def run(self, index):
        if index and self.killed:
            os._exit(1)
        if self.broken:
            raise ValueError("no such optimizer")
        rng = np.random.default_rng(0 if self.again else index)
        weights = {t.name: rng.standard_normal((3, *t.shape)) for t in SPACE.tensors}
        return Networks(SPACE, weights, {"split": np.arange(3, dtype=np.uint8), "label": np.arange(3)}, self.settings)


@dataclass(frozen=True)
class HangingMaker(TinyMaker):
    """Makes four shards; whoever is first to make the third writes its process id to a file, and hangs."""

    first: str = ""
    shards: int = 4

    def run(self, index):
        if index == 2 and self.first and not Path(self.first).exists():
            partial = Path(f"{self.first}.partial")
            partial.write_text(str(os.getpid()))
            partial.replace(self.first)
            time.sleep(600)
        return super().run(index)

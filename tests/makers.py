"""A maker of datasets for tests, which the processes of `make` can import."""

import os
from dataclasses import dataclass

import numpy as np

from nfn_core import WeightSpace
from reference_experiments.datasets.format import Networks

__all__ = ["TinyMaker"]

SPACE = WeightSpace.mlp([2, 3, 1])


@dataclass(frozen=True)
class TinyMaker:
    """Makes two shards of three networks; the process of the second one may be killed, or make the first one again."""

    killed: bool = False
    again: bool = False
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
        rng = np.random.default_rng(0 if self.again else index)
        weights = {t.name: rng.standard_normal((3, *t.shape)) for t in SPACE.tensors}
        return Networks(SPACE, weights, {"split": np.arange(3, dtype=np.uint8), "label": np.arange(3)}, self.settings)

"""What is timed: one NF-layer, as many channels out as in, on the weight spaces of the paper and on growing ones."""

from dataclasses import dataclass

from nfn_core import Group, NFLayer, WeightSpace

__all__ = ["MOST_PARAMETERS", "WORKLOADS", "Workload"]

MOST_PARAMETERS = 2 * 10**8
"""Layers with more parameters are left out: HNP on 784 inputs has a matrix of 50,000 rows."""


@dataclass(frozen=True)
class Workload:
    """A weight space with channels and a batch size."""

    name: str
    space: WeightSpace
    channels: int
    batch: int

    def layer(self, kind: str) -> NFLayer:
        """NF-layer under NP or HNP."""
        return NFLayer(self.group(kind), self.channels, self.channels)

    def group(self, kind: str) -> Group:
        """NP or HNP."""
        return self.space.group(kind)


SIREN = WeightSpace.mlp([2, 32, 32, 1])
ZOO = WeightSpace.cnn([1, 16, 16, 16, 10], [(3, 3), (3, 3), (3, 3), ()])
WORKLOADS = [
    Workload("SIREN 2-32-32-1", SIREN, 512, 32),
    Workload("SIREN 2-32-32-1", SIREN, 128, 32),
    Workload("CNN zoo", ZOO, 16, 8),
    Workload("CNN zoo", ZOO, 16, 256),
    Workload("MLP 784-128-128-10", WeightSpace.mlp([784, 128, 128, 10]), 64, 4),
    Workload("CNN 3-128-128-128-64-10", WeightSpace.cnn([3, 128, 128, 128, 64, 10], [(3, 3)] * 3 + [(), ()]), 64, 2),
    *(Workload(f"{depth} layers of 32", WeightSpace.mlp([32] * (depth + 1)), 32, 8) for depth in (3, 6, 12, 24)),
    *(Workload(f"3 layers of {width}", WeightSpace.mlp([width] * 4), 16, 1) for width in (64, 256, 1024)),
]

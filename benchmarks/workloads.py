"""What is timed: NF-layers, as many channels out as in, on the weight spaces of the paper and on growing ones."""

from dataclasses import dataclass

from nfn_core import Group, Sequential, WeightSpace, equivariant_network

__all__ = ["MOST_PARAMETERS", "SIREN", "TICKETS", "WORKLOADS", "ZOO", "Workload"]

MOST_PARAMETERS = 2 * 10**8
"""Layers with more parameters are left out: HNP on 784 inputs has a matrix of 50,000 rows."""


@dataclass(frozen=True)
class Workload:
    """A weight space with channels, a batch size, and a number of NF-layers with ReLUs between them."""

    name: str
    space: WeightSpace
    channels: int
    batch: int
    layers: int = 1

    def network(self, kind: str) -> Sequential:
        """The NF-layers under NP or HNP."""
        return equivariant_network(self.group(kind), [self.channels] * (self.layers + 1))

    def parameters(self, kind: str) -> int:
        """Number of the network's parameters."""
        return self.network(kind).parameter_count

    def group(self, kind: str) -> Group:
        """NP or HNP."""
        return self.space.group(kind)


SIREN = WeightSpace.mlp([2, 32, 32, 1])
ZOO = WeightSpace.cnn([1, 16, 16, 16, 10], [(3, 3), (3, 3), (3, 3), ()])
TICKETS = WeightSpace.mlp([784, 128, 128, 10])
WORKLOADS = [
    Workload("SIREN 2-32-32-1", SIREN, 512, 32),
    Workload("SIREN 2-32-32-1", SIREN, 128, 32),
    Workload("CNN zoo", ZOO, 16, 8),
    Workload("CNN zoo", ZOO, 16, 256),
    Workload("SIREN 2-32-32-1, 4 NF-layers", SIREN, 64, 32, layers=4),
    Workload("CNN zoo, 4 NF-layers", ZOO, 16, 64, layers=4),
    Workload("MLP 784-128-128-10", TICKETS, 64, 4),
    Workload("CNN 3-128-128-128-64-10", WeightSpace.cnn([3, 128, 128, 128, 64, 10], [(3, 3)] * 3 + [(), ()]), 64, 2),
    *(Workload(f"{depth} layers of 32", WeightSpace.mlp([32] * (depth + 1)), 32, 8) for depth in (3, 6, 12, 24)),
    *(Workload(f"3 layers of {width}", WeightSpace.mlp([width] * 4), 16, 1) for width in (64, 256, 1024)),
]

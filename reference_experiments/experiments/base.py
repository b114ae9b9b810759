"""What an experiment is: networks, methods, and how they are trained; one description for both backends."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from reference_experiments.datasets.generation import Maker
from reference_experiments.engines.base import Recipe
from reference_experiments.methods.base import MethodConfig
from reference_experiments.tasks.base import Task

__all__ = ["Experiment", "Preset", "TINY", "Variant"]


@dataclass(frozen=True)
class Preset:
    """How much of everything.

    Parameters
    ----------
    config : MethodConfig
        Widths of the methods.
    recipe : Recipe
        How they are trained.
    seeds : int
        Trainings of each method, with seeds 0, 1, ...
    """

    config: MethodConfig
    recipe: Recipe
    seeds: int


@dataclass(frozen=True)
class Variant:
    """A method with one change, or a few.

    Parameters
    ----------
    method : str
        One of `reference_experiments.methods.registry`.
    config, recipe : dict
        Fields of the methods' configuration and of the recipe that differ.
    networks : int, optional
        Number of training networks; without it all are taken.
    """

    method: str
    config: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    networks: int | None = None


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
        Methods that are compared, of `reference_experiments.methods.registry`, or names of variants.
    makers : dict of str to callable
        For each dataset, by the paper's name, its maker from scale, seed and backend.
    scales : dict of str to Preset
        By name.
    overrides : dict of str to dict
        For some datasets, fields of the methods' configuration that differ.
    variants : dict of str to Variant
        Methods with changes, by the name that results have.
    """

    title: str
    tables: tuple[int, ...]
    task: Task
    methods: tuple[str, ...]
    makers: Mapping[str, Callable[[str, int, str], Maker]]
    scales: Mapping[str, Preset]
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    variants: Mapping[str, Variant] = field(default_factory=dict)

    def variant(self, name: str) -> Variant:
        """Return the variant of a name, or the method as it is."""
        return self.variants.get(name, Variant(name))

    def config(self, scale: str, dataset: str) -> MethodConfig:
        """Return the methods' configuration at a scale, for a dataset."""
        return replace(self.scales[scale].config, **self.overrides.get(dataset, {}))


TINY = MethodConfig(
    (4, 4), (2, 2), (8,), mlp=8, dws=(2, 2), resnet=2, pointnet=((8, 16), (8,)), inr2vec=(8, 16), descent=(8, 4, 2)
)
"""Widths of the preset ``smoke``."""

"""Experiments that train neural functionals on real networks; ``python -m reference_experiments --help``."""

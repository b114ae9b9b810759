"""The three splits of every dataset."""

__all__ = ["SPLITS"]


SPLITS = ("training", "validation", "test")
"""Meaning of the numbers in the column ``split``."""

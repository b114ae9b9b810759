"""Datasets of networks: format, generation, conversion and readers."""

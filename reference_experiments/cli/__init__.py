"""Command line of the experiments."""

"""Demonstrations: quickstart, residual networks, and the table of real models."""

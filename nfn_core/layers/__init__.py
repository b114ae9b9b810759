"""Layers, and what the author of a new layer needs: base class, parameters, hubs, products and checks."""

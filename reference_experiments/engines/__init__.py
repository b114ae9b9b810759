"""Array libraries with gradients: one interface, and its PyTorch and JAX forms."""

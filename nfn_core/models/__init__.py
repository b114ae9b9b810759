"""Weight spaces of real models: axes, labeling rules, verification, and views of their tensors."""

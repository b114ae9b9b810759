"""Weight spaces of real models: axes, labelling rules, verification, and views of their tensors."""

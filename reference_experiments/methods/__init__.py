"""Methods that are compared: neural functionals and the paper's baselines."""

"""Tasks: what methods are built for, trained on and evaluated by."""

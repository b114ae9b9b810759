"""``python -m reference_experiments``."""

from reference_experiments.cli import main

if __name__ == "__main__":
    main()

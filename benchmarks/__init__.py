"""Speed and memory of NF-layers beside other implementations; ``python -m benchmarks --help``."""

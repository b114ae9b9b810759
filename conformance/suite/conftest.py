"""Options, profiles and helpers of the suite."""

import pytest
from hypothesis import HealthCheck, settings
from nfn_conformance import Subject, subject_of

from nfn_core import Group, NFLayer

BACKENDS = ("numpy", "strict", "torch", "jax", "nfn")
COMMON = {"deadline": None, "derandomize": True, "database": None, "suppress_health_check": list(HealthCheck)}
EXAMPLES = {"numpy": 100, "strict": 50, "torch": 25, "jax": 6, "nfn": 1}  # JAX compiles every operation anew per shape
for name, count in EXAMPLES.items():
    settings.register_profile(f"fast {name}", max_examples=count, **COMMON)
settings.register_profile("thorough", max_examples=2000, **COMMON)


def pytest_addoption(parser):
    parser.addoption("--backend", choices=BACKENDS, default="numpy", help="backend to test")
    parser.addoption("--device", default="cpu", help="device of torch (cuda) or JAX (gpu)")
    parser.addoption("--profile", choices=("fast", "thorough"), default="fast", help="number of Hypothesis examples")


def pytest_configure(config):
    profile, backend = config.getoption("--profile"), config.getoption("--backend")
    settings.load_profile(f"fast {backend}" if profile == "fast" else profile)
    if backend == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
        jax.config.update("jax_default_matmul_precision", "highest")  # GPUs round products of float32 to TF32 otherwise


def pytest_ignore_collect(collection_path, config):
    name, backend = collection_path.name, config.getoption("--backend")
    if name == "test_nfn_package.py":
        return backend != "nfn" or None
    if name in ("test_mutants.py", "test_scalegmn.py"):
        return backend != "numpy" or None
    return (name.startswith("test_") and backend == "nfn") or None


@pytest.fixture(scope="session")
def backend(request):
    return request.config.getoption("--backend")


@pytest.fixture(scope="session")
def device(request):
    return request.config.getoption("--device")


@pytest.fixture(scope="session")
def linear_subject(backend, device):
    """Subject of a maximal NF-layer on a group."""

    def make(group: Group, channels: tuple[int, int] = (1, 1), pooling: str = "mean") -> Subject:
        layer = NFLayer(group, *channels, pooling=pooling)
        repeats = [
            (t.labels.count(s), group.space.sizes[s])
            for t in group.space.tensors
            for s in group.permuted
            if s in t.labels
        ]
        small = any(count > 1 for count, _ in repeats) and any(size < 4 for _, size in repeats)
        return subject_of(
            layer,
            group,
            backend,
            device,
            in_channels=channels[0],
            out_channels=channels[1],
            linear=True,
            maximal=True,
            redundant=small,
            parameters=lambda _: layer.linear_parameter_count,
            on_group=(lambda larger: make(larger, channels)) if pooling == "mean" else None,
        )

    return make

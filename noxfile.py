"""Sessions of nfn-core. `nox` runs what CI runs; `nox -l` lists all."""

import argparse
import shutil
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "types", "tests", "wheel", "docs", "conformance", "smoke"]
nox.options.default_venv_backend = "virtualenv"

EVERYTHING = ".[torch,jax,conformance,experiments]"
PEERS = ("array-api-strict", "numpydoc", "optax", "equinox", "flax")
DIGITS = ("--images", "digits")
MAKERS = (
    ("image-inrs", *DIGITS),
    ("shape-inrs", "--shapes", "primitives"),
    ("cnn-zoo", *DIGITS),
    ("mlp-zoo", *DIGITS, "--layers", "3"),
    ("mlp-zoo", *DIGITS, "--layers", "5"),
    ("tickets", *DIGITS, "--network", "mlp"),
    ("tickets", *DIGITS, "--network", "cnn"),
)
RUNS = (  # experiment, dataset, maker of its networks
    ("table2", "CIFAR-10-GS", "cnn-zoo"),
    ("table3", "MNIST", "image-inrs"),
    ("table4", "ModelNet10", "shape-inrs"),
    ("table5", "CIFAR-10", "tickets"),
    ("table6-dilate", "MNIST", "image-inrs"),
    ("table6-contrast", "CIFAR-10", "image-inrs"),
    ("table19", "5-Layer", "mlp-zoo"),
    ("siren-messages", "MNIST", "image-inrs"),
)
EXPERIMENTS = {"torch": (".[torch,experiments]",), "jax": (".[jax,experiments]", "optax")}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
CONFORMANCE = {
    "numpy": (".[conformance]",),
    "strict": (".[conformance]", "array-api-strict"),
    "torch": (".[conformance,torch]",),
    "jax": (".[conformance,jax]",),
    "nfn": (".[conformance,torch]", "nfn", "einops"),
}


def install(session: nox.Session, *packages: str) -> None:
    session.install("-c", "constraints.txt", *packages)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: code, docstrings, format; numpydoc's own validation is a test."""
    install(session, "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict."""
    install(session, "mypy", EVERYTHING, "optax", "nfn", "einops")
    roots = ("nfn_core", "backends/nfn_torch", "backends/nfn_jax", "conformance/nfn_conformance")
    session.run("mypy", *roots, "reference_experiments", "benchmarks")


@nox.session
def tests(session: nox.Session) -> None:
    """Unit tests of everything, README snippets included; processes of one thread each, `-- -n0` for one process."""
    install(session, EVERYTHING, *PEERS, "pytest-xdist")
    parallel = ("-n", "auto", "--maxprocesses", "4", "--dist", "worksteal")
    session.run("pytest", "tests", *parallel, *session.posargs, env=ONE_THREAD)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into site/, warnings and broken links as errors; `-- serve` shows it at localhost."""
    install(session, ".[docs]")
    session.run("mkdocs", *(session.posargs or ["build"]), "--strict")


@nox.session
def lowest(session: nox.Session) -> None:
    """Tests of the library with the lowest versions that pyproject.toml allows; warnings of old packages are no errors."""
    project = nox.project.load_toml("pyproject.toml")["project"]
    extras = (r for extra in ("torch", "jax", "conformance") for r in project["optional-dependencies"][extra])
    session.install(*(r.replace(">=", "==") for r in (*project["dependencies"], *extras)), *PEERS)
    session.install("--no-deps", ".")
    session.run("pytest", "-W", "default", "tests/core", "tests/backends", "tests/test_bad_input.py", *session.posargs)


@nox.session
@nox.parametrize("backend", list(CONFORMANCE), ids=list(CONFORMANCE))
def conformance(session: nox.Session, backend: str) -> None:
    """The conformance suite on one backend; `-- --profile thorough` draws 2,000 examples a check."""
    install(session, *CONFORMANCE[backend])
    session.run("pytest", "conformance/suite", "--backend", backend, *session.posargs, env=ONE_THREAD)


@nox.session
@nox.parametrize("backend", list(EXPERIMENTS), ids=list(EXPERIMENTS))
def smoke(session: nox.Session, backend: str) -> None:
    """Every experiment at its smallest scale, in a temporary folder."""
    install(session, *EXPERIMENTS[backend])
    experiments = ("python", "-m", "reference_experiments")
    with tempfile.TemporaryDirectory() as folder:
        session.run(*experiments, "quickstart", "--backend", backend, "--scale", "smoke", "--output", f"{folder}/quick")
        if backend == "torch":
            session.run(*experiments, "residual", "--scale", "smoke", "--output", f"{folder}/residual")
        made = {}
        for maker in MAKERS:
            made[maker[0]] = f"{folder}/{'-'.join(maker)}"
            common = ("--backend", backend, "--scale", "smoke", "--output", made[maker[0]])
            session.run(*experiments, "make", *maker, *common)
            session.run(*experiments, "verify", made[maker[0]])
        for name, dataset, maker_name in RUNS:
            common = ("--backend", backend, "--scale", "smoke", "--output", f"{folder}/results/{name}")
            session.run(*experiments, "run", name, "--dataset-dir", dataset, made[maker_name], *common)
        session.run(*experiments, "report", f"{folder}/results")
        editor, predictor = (f"{folder}/results/{name}/MNIST/NFN_NP-seed0" for name in ("table6-dilate", "table3"))
        session.run(*experiments, "edit", editor, made["image-inrs"], f"{folder}/edited")
        session.run(*experiments, "predict", predictor, f"{folder}/edited", f"{folder}/predictions.csv")


@nox.session
def quickstart(session: nox.Session) -> None:
    """Predict accuracies of networks trained on real images; `-- --backend jax`, `-- --seed 1` and so on."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--backend", choices=list(EXPERIMENTS), default="torch")
    install(session, *EXPERIMENTS[parser.parse_known_args(session.posargs)[0].backend])
    session.run("python", "-m", "reference_experiments", "quickstart", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Time NF-layers against other implementations, as ratios in one process; `-- --gpu` on a GPU."""
    install(session, ".[torch,jax,experiments]", "nfn", "einops")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session(name="bench-making")
def bench_making(session: nox.Session) -> None:
    """Rates at which datasets of networks are made, compared with a plain PyTorch loop over networks."""
    install(session, ".[torch,jax,experiments]", "optax")
    session.run("python", "-m", "benchmarks.making", *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the wheel and run its NumPy backend in an environment that has nothing else."""
    session.install("build")
    with tempfile.TemporaryDirectory() as folder:
        session.run("python", "-m", "build", "--wheel", "--outdir", folder, ".")
        session.run("python", "-m", "venv", f"{folder}/empty")
        python = f"{folder}/empty/bin/python"
        (built,) = Path(folder).glob("*.whl")
        session.run(python, "-m", "pip", "install", "-q", "-c", "constraints.txt", str(built), external=True)
        session.run(python, str(Path("tests/wheel_smoke.py").resolve()), external=True)
    shutil.rmtree("build", ignore_errors=True)

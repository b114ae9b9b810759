"""Sessions of nfn-core. `nox` runs what CI runs; `nox -l` lists all."""

import argparse
import shutil
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "types", "tests", "wheel", "docs", "conformance", "smoke"]
nox.options.default_venv_backend = "virtualenv"

EVERYTHING = ".[torch,jax,conformance,experiments,cluster]"
PEERS = ("array-api-strict", "numpydoc", "optax", "equinox", "flax")
DIGITS = ("--images", "digits")
BOTH, TORCH = ("torch", "jax"), ("torch",)
SMOKE: dict[
    str, tuple[tuple[str, ...], list[tuple[tuple[str, ...], tuple[str, ...]]]]
] = {  # name of a dataset: its maker, and runs of it: backends; experiment, what it calls the dataset, options
    "images": (
        ("image-inrs", *DIGITS),
        [
            (BOTH, ("table3", "MNIST")),
            (BOTH, ("table6-dilate", "MNIST")),
            (TORCH, ("table6-contrast", "CIFAR-10")),
            (BOTH, ("siren-messages", "MNIST", "--method", "SignedMessages", "--method", "Values at 16 drawn points")),
            (BOTH, ("siren-signs", "MNIST", "--method", "NFN_HNP signed with phases")),
            (TORCH, ("siren-gates", "MNIST", "--method", "NFN_HNP gated")),
            (TORCH, ("siren-fit", "100 steps at 0.01")),
            (TORCH, ("siren-study", "MNIST", "--method", "as it is", "--method", "128 points")),
            (TORCH, ("gates-study", "MNIST", "--method", "set norm of the channels")),
            (TORCH, ("dilate-study", "MNIST", "--method", "NFN_HNP gated", "--method", "Messages")),
        ],
    ),
    "shapes": (
        ("shape-inrs", "--shapes", "primitives"),
        [(BOTH, ("table4", "ModelNet10")), (TORCH, ("shape-messages", "ModelNet10", "--method", "NFN_HNP gated"))],
    ),
    "cnn zoo": (
        ("cnn-zoo", *DIGITS),
        [
            (BOTH, ("table2", "CIFAR-10-GS")),
            (TORCH, ("relu-scales", "CIFAR-10-GS", "--method", "NFN_HNP in canonical scales")),
        ],
    ),
    "mlp zoo": (("mlp-zoo", *DIGITS, "--layers", "3"), []),
    "deep mlp zoo": (("mlp-zoo", *DIGITS, "--layers", "5"), [(TORCH, ("table19", "5-Layer"))]),
    "tickets": (("tickets", *DIGITS, "--network", "mlp"), []),
    "cnn tickets": (
        ("tickets", *DIGITS, "--network", "cnn"),
        [(TORCH, ("table5", "CIFAR-10")), (("jax",), ("table5", "CIFAR-10", "--method", "NFN_NP"))],
    ),
}
EXPERIMENTS = {"torch": (".[torch,experiments]",), "jax": (".[jax,experiments]", "optax")}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
XLA_OPTIONS = (
    "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)
CHECKED = {**ONE_THREAD, "XLA_FLAGS": XLA_OPTIONS}  # tests compile much and compute little: a third of the time
PARALLEL = ("-n", "auto", "--maxprocesses", "4", "--dist", "worksteal")
CONFORMANCE = {
    "numpy": (".[conformance]",),
    "strict": (".[conformance]", "array-api-strict"),
    "torch": (".[conformance,torch]",),
    "jax": (".[conformance,jax]",),
    "nfn": (".[conformance,torch]", "nfn", "einops"),
}


def cached(folder: str) -> dict[str, str]:
    """Environment of tests that share what XLA compiles in a folder."""
    limit = {"JAX_PERSISTENT_COMPILATION_CACHE_MIN_COMPILE_TIME_SECS": "0.5"}
    return {**CHECKED, **limit, "JAX_COMPILATION_CACHE_DIR": folder}


def install(session: nox.Session, *packages: str) -> None:
    session.install("--no-compile", "-c", "constraints.txt", *packages)  # compiled as they are imported


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: code, docstrings, format; numpydoc's own validation is a test."""
    install(session, "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict."""
    install(session, "mypy", EVERYTHING, *PEERS, "nfn", "einops")
    roots = ("nfn_core", "backends/nfn_torch", "backends/nfn_jax", "conformance/nfn_conformance")
    session.run("mypy", *roots, "reference_experiments", "benchmarks", "faults")


@nox.session
def tests(session: nox.Session) -> None:
    """Unit tests of everything, README snippets included; processes of one thread each, `-- -n0` for one process."""
    install(session, EVERYTHING, *PEERS, "pytest-xdist")
    with tempfile.TemporaryDirectory() as folder:
        session.run("pytest", "tests", *PARALLEL, *session.posargs, env=cached(folder))


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


@nox.session(python=["3.11", "3.12", "3.13"])
def pythons(session: nox.Session) -> None:
    """The conformance suite in NumPy and JAX, in each version of Python that is at hand; after 3.11 with the newest packages."""
    pinned = ("-c", "constraints.txt") if session.python == "3.11" else ()
    session.install(*pinned, ".[conformance,jax]", "pytest-xdist")
    for backend in ("numpy", "jax"):
        session.run("pytest", "conformance/suite", "--backend", backend, *PARALLEL, *session.posargs, env=ONE_THREAD)


@nox.session
@nox.parametrize("backend", list(CONFORMANCE), ids=list(CONFORMANCE))
def conformance(session: nox.Session, backend: str) -> None:
    """The conformance suite on one backend; `-- --profile thorough` draws 2,000 examples a check."""
    install(session, *CONFORMANCE[backend], "pytest-xdist")
    session.run("pytest", "conformance/suite", "--backend", backend, *PARALLEL, *session.posargs, env=CHECKED)


@nox.session
@nox.parametrize("backend", list(EXPERIMENTS), ids=list(EXPERIMENTS))
def smoke(session: nox.Session, backend: str) -> None:
    """Every experiment at its smallest scale in PyTorch, every kind of experiment in JAX; two at a time."""
    install(session, *EXPERIMENTS[backend])
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:

        def experiments(*arguments: str) -> None:
            session.run("python", "-m", "reference_experiments", *arguments, env=cached(f"{folder}/compiled"))

        def dataset(title: str) -> list[Future[None]]:
            maker, runs = SMOKE[title]
            made, common = f"{folder}/{title}", ("--backend", backend, "--scale", "smoke")
            experiments("make", *maker, *common, "--devices", "1", "--output", made)
            experiments("verify", made)
            commands = [
                (
                    "run",
                    name,
                    "--dataset-dir",
                    known_as,
                    made,
                    *options,
                    *common,
                    "--output",
                    f"{folder}/results/{name}",
                )
                for backends, (name, known_as, *options) in runs
                if backend in backends
            ]
            return [pool.submit(experiments, *command) for command in commands]

        def demo(name: str, *options: str) -> None:
            experiments(name, *options, "--scale", "smoke", "--output", f"{folder}/{name}")

        datasets = [pool.submit(dataset, title) for title in SMOKE]
        demos = [pool.submit(demo, "quickstart", "--backend", backend)]
        if backend == "torch":
            demos.append(pool.submit(demo, "residual"))
        for job in [*demos, *(run for made in datasets for run in made.result())]:
            job.result()
        experiments("report", f"{folder}/results")
        editor, predictor = (f"{folder}/results/{name}/MNIST/NFN_NP-seed0" for name in ("table6-dilate", "table3"))
        experiments("edit", editor, f"{folder}/images", f"{folder}/edited")
        experiments("predict", predictor, f"{folder}/edited", f"{folder}/predictions.csv")


@nox.session
def faults(session: nox.Session) -> None:
    """Bad inputs, damaged files and kills, for an hour or two; `-- --short` takes two minutes, `-- --kind files` tries files."""
    install(session, EVERYTHING)
    options = session.posargs or ["--output", "benchmarks/results/faults.md"]
    session.run("python", "-m", "faults", *options, env={**ONE_THREAD, "JAX_PLATFORMS": "cpu"})


@nox.session
def quickstart(session: nox.Session) -> None:
    """Predict accuracies of networks trained on real images; `-- --backend jax`, `-- --seed 1` and so on."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--backend", choices=list(EXPERIMENTS), default="torch")
    install(session, *EXPERIMENTS[parser.parse_known_args(session.posargs)[0].backend])
    session.run("python", "-m", "reference_experiments", "quickstart", *session.posargs)


@nox.session
def models(session: nox.Session) -> None:
    """Survey architectures as they come, timm's and transformers' among them, and write the table of docs/architectures.md."""
    install(session, EVERYTHING, *PEERS)
    session.install("timm", "transformers", "torchvision")
    session.run("python", "-m", "reference_experiments", "survey", *session.posargs, env=ONE_THREAD)


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

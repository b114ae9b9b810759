"""The project itself: array API names only, lazy imports, public names, docstrings, README snippets."""

import ast
import doctest
import importlib
import itertools
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import array_api_strict
import jax
import nfn_conformance
import nfn_jax
import nfn_torch
import numpydoc.validate
import pytest
from nfn_conformance.__main__ import main as conformance_command

import nfn_core
import nfn_core.layers

ROOT = Path(__file__).parent.parent
CORE = sorted((ROOT / "nfn_core").rglob("*.py"))
LIBRARY = [
    *CORE,
    *sorted((ROOT / "backends").rglob("*.py")),
    *sorted((ROOT / "conformance/nfn_conformance").rglob("*.py")),
    *sorted((ROOT / "reference_experiments").rglob("*.py")),
]
HOST = {
    "layers/parameters.py",
    "groups.py",
    "permutations.py",
    "layers/elementwise.py",
    "layers/signed.py",
    "models/constants.py",
    "models/probes.py",
    "models/verification.py",
}  # draw numbers and measure statistics with NumPy, on the host


def outside_the_standard(source: str) -> list[str]:
    """Attributes of `xp` that the array API standard does not have."""
    return [
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "xp"
        and node.attr not in array_api_strict.__all__
    ]


def test_core_keeps_to_the_array_api():
    assert outside_the_standard("xp.einsum('ij', x); xp.sum(x)") == ["einsum"]
    for path in CORE:
        source = path.read_text()
        assert outside_the_standard(source) == [], path.name
        imported = re.findall(r"^\s*(?:from|import) (\w+)", source, re.MULTILINE)
        assert not {"torch", "jax", "scipy"} & set(imported), path.name
        assert "numpy" not in imported or str(path.relative_to(ROOT / "nfn_core")) in HOST, path.name


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("nfn_core", "torch jax safetensors"),
        ("nfn_conformance.plugin", "torch jax hypothesis scipy"),
        ("nfn_torch", "torch._dynamo jax"),
        ("reference_experiments.cli", "torch jax matplotlib sklearn trimesh"),
    ],
)
def test_imports_are_lazy(module, absent):
    code = f"import {module}, sys; print(*({{*{absent.split()}}} & {{*sys.modules}}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


PUBLIC = (nfn_core, nfn_core.layers, nfn_torch, nfn_jax, nfn_conformance)


@pytest.mark.parametrize("module", PUBLIC, ids=lambda m: m.__name__)
def test_public_names(module):
    assert list(module.__all__) == sorted(set(module.__all__))
    assert all(hasattr(module, name) for name in module.__all__)


def wrong_names(source: str) -> list[str]:
    """Names of a module's `__all__` that are out of order, repeated or not in the module."""
    tree = ast.parse(source)
    listed: list[str] = []
    known = {alias.asname or alias.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for alias in n.names}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            known.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in (name for t in targets if t for name in ast.walk(t) if isinstance(name, ast.Name)):
            known.add(target.id)
            if target.id == "__all__":
                listed = ast.literal_eval(node.value)
    unordered = [later for name, later in itertools.pairwise(listed) if name >= later]
    return unordered + [name for name in listed if name not in known]


def test_every_module_lists_its_names_in_order():
    assert wrong_names('__all__ = ["a", "b"]\nfrom x import a\nb: int = 3') == []
    assert wrong_names('__all__ = ["b", "a"]\na = b = 3') == ["a"]
    assert wrong_names('__all__ = ["a", "a"]\na = 3') == ["a"]
    assert wrong_names('__all__ = ["a"]\ndef b(): ...') == ["a"]
    for path in LIBRARY:
        assert wrong_names(path.read_text()) == [], path


def documented():
    for module in PUBLIC:
        for name in module.__all__:
            if (name != "Array" and isinstance(getattr(module, name), type)) or type(
                getattr(module, name)
            ).__name__ == "function":
                yield f"{module.__name__}.{name}"


@pytest.mark.parametrize("name", list(documented()))
def test_docstrings_describe_every_parameter(name):
    found = numpydoc.validate.validate(name)["errors"]
    assert [e for e in found if e[0] in {"GL08", "SS01", "PR01", "PR02", "PR03", "PR04"}] == []


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[parts[0] in ("backends", "conformance") :]).removesuffix(".__init__")


def unknown_parameters(name: str) -> list[str]:
    """Documented parameters of a function or class that it does not have."""
    return [text for code, text in numpydoc.validate.validate(name)["errors"] if code == "PR02"]


def misnamed(alpha):
    """Describe another parameter.

    Parameters
    ----------
    beta : int
        Not there.
    """


def test_no_docstring_describes_a_parameter_that_is_not_there():
    assert unknown_parameters(f"{__name__}.misnamed") == ["Unknown parameters {'beta'}"]
    for path in LIBRARY:
        if path.stem == "__main__":
            continue
        module = importlib.import_module(module_name(path))
        for name in getattr(module, "__all__", ()):
            found = getattr(module, name)
            if callable(found) and getattr(found, "__module__", None) == module.__name__:
                allowed = ["Unknown parameters {'draw'}"]  # Hypothesis gives it to a composite strategy
                assert [e for e in unknown_parameters(f"{module.__name__}.{name}") if e not in allowed] == []


def bare_asserts(source: str) -> int:
    return sum(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(source)))


def test_library_has_no_bare_asserts_and_short_modules():
    assert bare_asserts("assert x") == 1
    for path in LIBRARY:
        assert bare_asserts(path.read_text()) == 0, path.name
        assert len(path.read_text().splitlines()) < 500, path.name


DOCTESTS = [path for path in CORE if ">>> " in path.read_text()]


@pytest.mark.parametrize("path", DOCTESTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_docstring_examples(path):
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted > 0
    assert found.failed == 0


SNIPPETS = [
    snippet
    for page in ("README.md", *(f"docs/{name}.md" for name in ("index", "own_layer", "testing", "models")))
    for snippet in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
]


@pytest.fixture
def own_precision():
    """A snippet may set JAX's precision; the tests after it have their own again."""
    before = jax.config.jax_enable_x64
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.mark.usefixtures("own_precision")
@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_readme_snippet_runs(number, tmp_path, monkeypatch):
    script = tmp_path / "test_snippet.py"
    script.write_text(SNIPPETS[number])
    monkeypatch.chdir(tmp_path)
    if "def test_" not in SNIPPETS[number]:
        runpy.run_path(str(script))
        return
    command = [sys.executable, "-m", "pytest", "-q", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "failed" not in done.stdout


@pytest.mark.usefixtures("own_precision")
@pytest.mark.parametrize("number", [n for n, text in enumerate(SNIPPETS) if "Subject(" in text])
def test_layers_of_the_documentation_as_a_script(number, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def script(name, source):
        Path(name).write_text(source)
        monkeypatch.setattr(sys, "argv", ["nfn_conformance", name, "--json", "report.json"])
        status = conformance_command()
        return status, capsys.readouterr().out, json.loads(Path("report.json").read_text())["measurements"]

    status, printed, found = script("healthy.py", SNIPPETS[number])
    assert status == 0
    assert {m["check"]: m["status"] for m in found}["maximality"] == "passed"
    assert len(printed.splitlines()) == 2 + len(found)
    broken = SNIPPETS[number].replace("v.mean(1", "v[:, :1].mean(1")
    assert broken != SNIPPETS[number]
    status, _, found = script("broken.py", broken)
    assert status == 1
    assert {m["check"]: m["status"] for m in found}["equivariance"] == "failed"


def test_script_says_what_it_needs(tmp_path):
    (tmp_path / "empty.py").write_text("x = 1\n")
    for name, message in {"absent.py": "is no file", "empty.py": "must define `subject`"}.items():
        command = [sys.executable, "-m", "nfn_conformance", str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert message in done.stderr


def test_pages_have_their_snippets():
    assert len(SNIPPETS) == 13

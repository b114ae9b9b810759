"""Real architectures as weight spaces: the tables of `docs/models.md`, written there by `python -m reference_experiments models`."""

import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from nfn_conformance import assert_conforms, subject_of
from nfn_torch import weight_space
from tqdm import tqdm

from nfn_core import ModelSpace, NFLayer, __version__
from nfn_core.models.rules import Rules
from reference_experiments.demos.architectures import GPT2, LSTMClassifier, ResNet, Siren, SmallCNN, ViT
from reference_experiments.files import ExperimentError, claimed, kept_json, write

__all__ = ["MODELS", "Model", "model_table", "operation_table", "write_page"]

CHANNELS = 16

RULES = {
    name: rule
    for name, rule in inspect.getmembers(Rules, inspect.isfunction)
    if not name.startswith("_") and name != "at"
}

Make = Callable[[], torch.nn.Module]


@dataclass(frozen=True)
class Model:
    """One architecture at three widths, each with an example input.

    The full one gives the counts, a narrow one of the same depth is verified by running it, and a tiny one with every
    kind of its tensors is small enough to count orbits.
    """

    full: tuple[Make, torch.Tensor]
    narrow: tuple[Make, torch.Tensor]
    tiny: tuple[Make, torch.Tensor]


def _images(channels: int, size: int) -> torch.Tensor:
    return torch.zeros(2, channels, size, size)


def _tokens(count: int) -> torch.Tensor:
    return torch.zeros(2, count, dtype=torch.long)


_BOTTLENECKS = partial(ResNet, (3, 4, 6, 3), True)

MODELS = {
    "Small CNN Zoo": Model(
        (SmallCNN, _images(1, 28)), (SmallCNN, _images(1, 28)), (partial(SmallCNN, 1, 2, 2, 2), _images(1, 16))
    ),
    "SIREN 2-32-32-1": Model(
        (Siren, torch.zeros(2, 2)), (Siren, torch.zeros(2, 2)), (partial(Siren, (2, 3, 3, 1)), torch.zeros(2, 2))
    ),
    "LSTM 28-128-10": Model(
        (LSTMClassifier, torch.zeros(2, 4, 28)),
        (partial(LSTMClassifier, 4, 8), torch.zeros(2, 4, 4)),
        (partial(LSTMClassifier, 2, 4, 2), torch.zeros(2, 2, 2)),
    ),
    "ResNet-18": Model(
        (ResNet, _images(3, 64)),
        (partial(ResNet, width=4, classes=5), _images(3, 32)),
        (partial(ResNet, (0, 1), width=2, inputs=1, classes=2, stem=1, kernel=1), _images(1, 8)),
    ),
    "ResNet-50": Model(
        (_BOTTLENECKS, _images(3, 64)),
        (partial(_BOTTLENECKS, width=2, classes=5), _images(3, 32)),
        (partial(ResNet, (1,), True, width=2, inputs=1, classes=2, stem=1, kernel=1), _images(1, 8)),
    ),
    "ViT-Ti/16": Model(
        (ViT, _images(3, 224)),
        (partial(ViT, 8, 4, 8, 2, 12, 5, 6), _images(3, 8)),
        (partial(ViT, 1, 1, 4, 2, 1, 2, 2, 1), _images(1, 1)),
    ),
    "GPT-2 (124M)": Model(
        (GPT2, _tokens(8)),
        (partial(GPT2, 11, 8, 8, 2, 12, 6), _tokens(5)),
        (partial(GPT2, 3, 2, 4, 2, 1, 2), _tokens(2)),
    ),
}


def derive(example: tuple[Make, torch.Tensor], verification: bool) -> tuple[ModelSpace, float]:
    """Weight space of an example, and the seconds it took."""
    torch.manual_seed(0)
    make, x = example
    module = make()
    began = time.perf_counter()
    return weight_space(module, x, verification=verification), time.perf_counter() - began


def row(name: str, model: Model) -> str:
    """Measure one architecture.

    Raises
    ------
    ExperimentError
        If the narrow model is not the full one but for its widths.
    NFNError, AssertionError
        If a verification or a conformance check fails.
    """
    full, traced = derive(model.full, False)
    narrow, _ = derive(model.narrow, True)
    tiny, _ = derive(model.tiny, True)
    if len(full.space.sizes) != len(narrow.space.sizes) or narrow.verification is None:
        raise ExperimentError(f"{name}: the narrow model has other neuron sets than the full one: correct `MODELS`.")
    began = time.perf_counter()
    layers = [NFLayer(full.group(kind), CHANNELS, CHANNELS) for kind in ("NP", "HNP")]
    counts = [layer.linear_parameter_count for layer in layers]
    structured = time.perf_counter() - began
    group = tiny.group("NP")
    layer = NFLayer(group, 1, 1)
    subject = subject_of(layer, group, linear=True, maximal=True, parameters=lambda _: layer.linear_parameter_count)
    found = assert_conforms(subject, "maximality")
    cells = [
        name,
        f"{len(full.views)} / {len(full.space.tensors)}",
        str(len(full.space.sizes)),
        f"{full.space.size:,}",
        str(len(layers[0].graph.hubs)),
        *(f"{n:.3g}" if n >= 1e9 else f"{n:,}" for n in counts),
        f"{found.value:.0f} = {found.limit:.0f}",
        f"{narrow.verification.error:.0e}",
        str(len(narrow.verification.unnecessarily_fixed)),
        f"{traced:.0f} + {structured:.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _kept_row(name: str, model: Model) -> dict[str, str]:
    """The row of one architecture, as it is kept."""
    return {"row": row(name, model)}


def model_table(folder: Path) -> str:
    """Table of all architectures, in Markdown; measured rows are kept in a folder, so that an interrupted run goes on."""
    rows = []
    with claimed(folder, {"version": __version__, "channels": CHANNELS}):
        for name, model in tqdm(MODELS.items(), unit="model"):
            path = folder / f"{name.replace('/', '-').replace(' ', '-')}.json"
            rows.append(kept_json(path, partial(_kept_row, name, model))["row"])
    head = [
        "| model | tensors / of the space | neuron sets | entries | hubs | NF-layer NP | NF-layer HNP | tiny: rank = orbits "
        "| verification error | left fixed that could move | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join(head + rows)


def operation_table() -> str:
    """Operations of both front ends by the rules they use, and what the rules do, in Markdown; read from the code."""
    torch_rules = import_module("nfn_torch.operations")
    jax_rules, jax_walk = import_module("nfn_jax.operations"), import_module("nfn_jax.tracing")
    lines = ["| rules | ATen operations | JAX primitives |", "|---|---|---|"]
    rows: dict[str, list[list[str]]] = {}
    for side, table in enumerate((torch_rules.OPERATIONS, jax_rules.OPERATIONS)):
        for name, rule in table.items():
            shown = torch_rules.POINTWISE if name == "pointwise" else f"`{name}`"
            rows.setdefault(", ".join(_used(rule, table)), [[], []])[side].append(shown)
    lines += [f"| {rules or 'no change'} | {', '.join(a)} | {', '.join(b)} |" for rules, (a, b) in rows.items()]
    lines += [
        f"| walked inside | | {', '.join(f'`{name}`' for name in jax_walk.CONTROL)} |",
        "",
        "| rule | what it does |",
        "|---|---|",
    ]
    lines += [f"| {name} | {(inspect.getdoc(rule) or '').splitlines()[0]} |" for name, rule in RULES.items()]
    return "\n".join(lines)


def _used(rule: Callable[..., Any], table: Mapping[str, Callable[..., Any]]) -> list[str]:
    """Rules that an operation's function names, also through the functions of other operations."""
    codes = [inspect.unwrap(rule).__code__]
    for code in codes:
        codes += [inner for inner in code.co_consts if inspect.iscode(inner)]
    names = {name for code in codes for name in code.co_names}
    others = {inspect.unwrap(other).__name__: other for other in table.values()}
    found = names & RULES.keys()
    for name in names & others.keys():
        found |= set(_used(others[name], table))
    return sorted(found)


def write_page(page: Path, sections: Mapping[str, Callable[[], str]], command: str = "models") -> None:
    """Write generated sections between their markers in a page.

    Raises
    ------
    ExperimentError
        If a marker is missing.
    """
    text = page.read_text()
    for name, make in sections.items():
        begin, end = (
            f"<!-- {name}: made by `python -m reference_experiments {command}` -->\n",
            f"<!-- end of {name} -->",
        )
        if begin not in text or end not in text:
            raise ExperimentError(
                f"{page} has no section {name!r} between {begin.strip()!r} and {end!r}: restore the markers."
            )
        before, rest = text.split(begin)
        text = before + begin + make() + "\n" + end + rest.split(end)[1]
    write(page, lambda path: path.write_text(text))

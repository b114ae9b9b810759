"""Draw the figures of the documentation, by running the tutorials too: ``python docs/figures.py``."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

import nfn_core
from nfn_core.layers.hubs import hub_graph

DOCS = Path(__file__).resolve().parent
ASSETS = DOCS / "assets"


def overview(path: Path) -> None:
    """Weights of one network, the same with permuted neurons, and the logits of a neural functional for both."""
    space = nfn_core.WeightSpace.mlp([2, 12, 12, 1])
    group = space.group("HNP")
    rng = np.random.default_rng(0)
    weights = {t.name: rng.normal(size=(1, *t.shape, 1)) for t in space.tensors}
    permuted = group.act(group.sample(seed=1), weights)
    network = nfn_core.invariant_network(group, [1, 16, 16], head=[32, 5])
    params = nfn_core.initialize(network, seed=0)
    figure, panels = plt.subplots(2, 5, figsize=(10, 3.6), layout="constrained", width_ratios=[0.5, 2, 1, 1.4, 1.8])
    shown = (("weights U", "f(U)", weights), ("neurons permuted, σU", "f(σU) = f(U)", permuted))
    for row, (title, output, features) in zip(panels, shown, strict=True):
        for panel, name in zip(row[:3], ("W1", "W2", "W3"), strict=True):
            panel.imshow(features[name][0, ..., 0], cmap="RdBu", vmin=-2.5, vmax=2.5, aspect="auto")
            panel.set(xticks=[], yticks=[], xlabel=name)
        row[1].set_title(title)
        _arrow(row[3], "NF-layers,\npool, head")
        row[4].bar(range(5), network.apply(params, features)[0], color="C0")
        row[4].set(xticks=[], ylim=(-0.4, 0.4), title=output)
    figure.savefig(path, dpi=110)


def _arrow(panel: Axes, text: str) -> None:
    """An arrow with a caption, in place of a plot."""
    panel.set_axis_off()
    panel.annotate("", (1, 0.35), (0, 0.35), arrowprops={"arrowstyle": "-|>", "linewidth": 2})
    panel.text(0.5, 0.5, text, ha="center", va="bottom")


def hubs(path: Path) -> None:
    """Which tensors meet in which hub: an NF-layer of HNP on an MLP with two hidden layers."""
    graph = hub_graph(nfn_core.WeightSpace.mlp([2, 12, 12, 1]).group("HNP"))
    figure, panel = plt.subplots(figsize=(8, 3.6), layout="constrained")
    panel.set_axis_off()
    tensors = np.linspace(1, 0, len(graph.tensors))
    for k, (hub, y) in enumerate(zip(graph.hubs, np.linspace(0.9, 0.1, len(graph.hubs)), strict=True)):
        for side, members in ((0, hub.inputs), (2, hub.outputs)):
            for member in members:
                panel.plot([side, 1], [tensors[member.tensor], y], color=f"C{k}", linewidth=1.2, alpha=0.7, zorder=0)
        name = ", ".join(hub.labels) or "no labels"
        box = {"boxstyle": "round", "facecolor": "white", "edgecolor": f"C{k}", "linewidth": 2}
        panel.text(1, y, f"hub of {name}", ha="center", va="center", bbox=box)
    for plan, y in zip(graph.tensors, tensors, strict=True):
        axes = f"{plan.spec.name} ({', '.join(label or '' for label in plan.spec.labels)})"
        panel.text(-0.04, y, axes, ha="right", va="center")
        panel.text(2.04, y, axes, ha="left", va="center")
    for x, text in ((0.4, "pool over the other axes"), (1.0, "mix channels"), (1.6, "repeat along the other axes")):
        panel.text(x, 1.12, text, ha="center", style="italic")
    panel.set(xlim=(-0.5, 2.5), ylim=(-0.08, 1.2))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def tutorials(folder: Path) -> None:
    """Run every tutorial in a temporary folder, and keep the plots that it saves."""
    for script in sorted((DOCS / "tutorials").glob("*.py")):
        with tempfile.TemporaryDirectory() as temporary:
            subprocess.run([sys.executable, str(script)], cwd=temporary, check=True)
            for plot in Path(temporary).glob("*.png"):
                shutil.copy(plot, folder / plot.name)


if __name__ == "__main__":
    ASSETS.mkdir(exist_ok=True)
    overview(ASSETS / "overview.png")
    hubs(ASSETS / "hubs.png")
    tutorials(ASSETS)

"""Time all contenders on all workloads, interleaved in one process, and write a table and a plot."""

import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from benchmarks.contenders import CONTENDERS, LIMIT, Case
from benchmarks.memory import peak
from benchmarks.workloads import MOST_PARAMETERS, WORKLOADS

PASSES = ("forward", "forward+backward")


def once(step: Callable[[], Any], device: str) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(case: Case, names: list[str], rounds: int) -> list[dict[str, Any]]:
    """Medians and quartiles of every contender and pass; in each round all take their turn on the same inputs."""
    torch.compiler.reset()
    steps = {name: CONTENDERS[name](case) for name in names}
    memory = {n: peak(steps[n][1], case.device) for n in names if case.device == "cuda" or n in EAGER}
    times: dict[tuple[str, str], list[float]] = {(n, p): [] for n in names for p in PASSES}
    for turn in range(rounds + 2):
        for name in names:
            for which, step in zip(PASSES, steps[name], strict=True):
                seconds = once(step, case.device)
                if turn >= 2:  # the first two compile and warm up
                    times[name, which].append(seconds)
    w = case.workload
    about = {"workload": w.name, "channels": w.channels, "batch": w.batch, "group": case.kind, "dtype": case.dtype}
    entries = w.space.size * w.channels * w.batch
    return [
        about
        | {"contender": name, "pass": which, "entries": entries, "rounds": rounds}
        | dict(zip(("quartile 1", "median", "quartile 3"), np.quantile(found, (0.25, 0.5, 0.75)).tolist(), strict=True))
        | {"peak bytes": memory.get(name) if which == PASSES[1] else None}
        for (name, which), found in times.items()
    ]


EAGER = ("nfn_torch", "nfn_torch checkpointed", "nfn 0.1.2", "textbook")


def tabulate(rows: list[dict[str, Any]]) -> str:
    """One line a case: milliseconds of ours, and everything else as a ratio in the same rounds."""
    others = [name for name in CONTENDERS if name not in ("nfn_torch", LIMIT)]
    lines = [
        f"| workload | channels | batch | group | dtype | pass | nfn_torch (ms) | nfn_torch / {LIMIT} | "
        + " | ".join(f"{name} / nfn_torch" for name in others)
        + " | peak memory, nfn_torch / nfn 0.1.2 | peak memory, checkpointed / nfn 0.1.2 |",
        "|" + "---|" * (10 + len(others)),
    ]
    cases: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for row in rows:
        key = tuple(row[k] for k in ("workload", "channels", "batch", "group", "dtype", "pass"))
        cases.setdefault(key, {})[row["contender"]] = row
    for key, found in cases.items():
        mine = found["nfn_torch"]
        spread = 500 * (mine["quartile 3"] - mine["quartile 1"])
        ratios = [f"{found[n]['median'] / mine['median']:.2f}" if n in found else "" for n in others]
        peaks = [found.get(n, {}).get("peak bytes") for n in ("nfn_torch", "nfn_torch checkpointed", "nfn 0.1.2")]
        memory = [f"{peak / peaks[-1]:.2f}" if peak and peaks[-1] else "" for peak in peaks[:-1]]
        limit = f"{mine['median'] / found[LIMIT]['median']:.2f}"
        line = [*map(str, key), f"{1000 * mine['median']:.1f} ± {spread:.1f}", limit, *ratios, *memory]
        lines.append("| " + " | ".join(line) + " |")
    return "\n".join(lines)


def plot(path: Path, rows: list[dict[str, Any]]) -> None:
    """Time of a forward and backward pass over the limit's, for every case and contender."""
    rows = [row for row in rows if row["pass"] == PASSES[1]]
    keys = ("workload", "channels", "group", "batch", "dtype")
    cases = list(dict.fromkeys(tuple(row[k] for k in keys) for row in rows))
    limits = {tuple(row[k] for k in keys): row["median"] for row in rows if row["contender"] == LIMIT}
    figure = Figure(figsize=(9, 1 + 0.32 * len(cases)), layout="constrained")
    panel = figure.subplots()
    for name in CONTENDERS:
        points = [
            (row["median"] / limits[k], cases.index(k))
            for row in rows
            if (k := tuple(row[x] for x in keys)) in limits and row["contender"] == name
        ]
        if points and name != LIMIT:
            panel.plot(*zip(*points, strict=True), "o", label=name)
    panel.axvline(1, color="0.5")
    panel.set_xscale("log")
    panel.set_yticks(range(len(cases)), ["{}, {} channels, {}, batch {}, {}".format(*case) for case in cases])
    panel.invert_yaxis()
    panel.set_xlabel("time of forward+backward / limit")
    panel.legend()
    figure.savefig(path)


@click.command()
@click.option("--gpu", is_flag=True, help="Run on the GPU, torch and JAX alike.")
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True)
@click.option("--dtype", "dtypes", type=click.Choice(["float32", "bfloat16"]), multiple=True, default=["float32"])
@click.option("--only", default="", help="Workloads whose name contains this.")
@click.option("--without", multiple=True, type=click.Choice(list(CONTENDERS)), help="Contenders left out.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("benchmarks/results"), show_default=True)
def main(gpu: bool, rounds: int, dtypes: list[str], only: str, without: list[str], output: Path) -> None:
    """Time NF-layers; a case that is already in the results is not timed again."""
    device = "cuda" if gpu else "cpu"
    hardware = torch.cuda.get_device_name() if gpu else f"{platform.processor() or platform.machine()} CPU"
    versions = f"torch {torch.__version__}, {torch.get_num_threads()} threads, {hardware}"
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"{device}.json"
    done: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"made with": versions, "rows": []}
    known = {(r["workload"], r["channels"], r["batch"], r["group"], r["dtype"]) for r in done["rows"]}
    names = [name for name in CONTENDERS if name not in without]
    cases = [Case(w, kind, d, device) for d in dtypes for w in WORKLOADS if only in w.name for kind in ("NP", "HNP")]
    for case in (bar := tqdm(cases, unit="case")):
        w = case.workload
        bar.set_postfix_str(f"{w.name}, {w.channels} channels, {case.kind}")
        if (w.name, w.channels, w.batch, case.kind, case.dtype) in known:
            continue
        if w.parameters(case.kind) > MOST_PARAMETERS:
            tqdm.write(f"{w.name}, {case.kind}: {w.parameters(case.kind):,} parameters, left out")
            continue
        done["rows"] += measure(case, [n for n in names if w.layers > 1 or n != "nfn_torch checkpointed"], rounds)
        path.write_text(json.dumps(done, indent=1) + "\n")
    table = f"{done['made with']}; medians of {rounds} interleaved rounds, ± half the quartile range.\n\n" + tabulate(
        done["rows"]
    )
    path.with_suffix(".md").write_text(table + "\n")
    plot(path.with_suffix(".png"), done["rows"])
    click.echo(table)


if __name__ == "__main__":
    main()

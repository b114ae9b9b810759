"""Time all contenders on NF-layers and whole steps, interleaved in one process, and write tables, the aims and a plot."""

import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

if threads := os.environ.get("OMP_NUM_THREADS"):
    os.environ |= {"NPROC": threads, "PJRT_NPROC": threads}  # JAX's, read when it is imported

import click
import numpy as np
import torch
from tqdm import tqdm

from benchmarks.contenders import CONTENDERS, PASSES, Case, Step
from benchmarks.memory import peak
from benchmarks.steps import STEP_CONTENDERS, STEPS, StepCase
from benchmarks.tables import KEYS, judge, plot, tabulate
from benchmarks.workloads import MOST_PARAMETERS, WORKLOADS

EAGER = ("nfn_torch", "nfn_torch checkpointed", "nfn 0.1.2", "textbook", "DWSNets")


def once(step: Step, device: str) -> float:
    """Seconds of one call; on a single thread of the CPU those of the CPU, which other programs do not lengthen."""
    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def measure(case: Case | StepCase, names: list[str], rounds: int) -> list[dict[str, Any]]:
    """Medians and quartiles of every contender and pass; in each round all take their turn on the same inputs."""
    torch.compiler.reset()
    steps = {name: case.contenders[name](case) for name in names}
    last = {name: list(found)[-1] for name, found in steps.items()}
    memory = {n: peak(steps[n][last[n]], case.device) for n in names if case.device == "cuda" or n in EAGER}
    times: dict[tuple[str, str], list[float]] = {(n, p): [] for n in names for p in steps[n]}
    for turn in range(rounds + 2):
        for (name, which), found in times.items():
            seconds = once(steps[name][which], case.device)
            if turn >= 2:  # the first two compile and warm up
                found.append(seconds)
    return [
        case.about
        | {"contender": name, "pass": which, "entries": case.entries, "rounds": rounds}
        | dict(zip(("quartile 1", "median", "quartile 3"), np.quantile(found, (0.25, 0.5, 0.75)).tolist(), strict=True))
        | {"peak bytes": memory.get(name) if which == last[name] else None}
        for (name, which), found in times.items()
    ]


def all_cases(dtypes: Sequence[str], device: str) -> Iterator[Case | StepCase]:
    """Yield NF-layers, then whole steps, in every dtype."""
    for dtype in dtypes:
        for w in WORKLOADS:
            for kind in ("NP", "HNP"):
                if w.parameters(kind) <= MOST_PARAMETERS:
                    yield Case(w, kind, dtype, device)
        for step in STEPS:
            yield replace(step, dtype=dtype, device=device)


@click.command()
@click.option("--gpu", is_flag=True, help="Run on the GPU, torch and JAX alike.")
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True)
@click.option(
    "--dtype",
    "dtypes",
    type=click.Choice(["float32", "bfloat16"]),
    multiple=True,
    default=["float32", "bfloat16"],
    show_default=True,
)
@click.option("--only", default="", help="Workloads whose name contains this.")
@click.option(
    "--without",
    multiple=True,
    type=click.Choice(list(dict.fromkeys([*CONTENDERS, *STEP_CONTENDERS]))),
    help="Contenders left out.",
)
@click.option("--output", type=click.Path(path_type=Path), default=Path("benchmarks/results"), show_default=True)
def main(gpu: bool, rounds: int, dtypes: list[str], only: str, without: list[str], output: Path) -> None:
    """Time NF-layers and whole training steps; a case that is already in the results is not timed again.

    The environment variable OMP_NUM_THREADS sets the number of threads, of torch and JAX alike.
    """
    device = "cuda" if gpu else "cpu"
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"{device}.json"
    if path.exists():
        done: dict[str, Any] = json.loads(path.read_text())
    else:
        hardware = torch.cuda.get_device_name() if gpu else f"{platform.processor() or platform.machine()} CPU"
        done = {"made with": f"torch {torch.__version__}, {hardware}", "rows": []}
    known = {tuple(row[k] for k in KEYS) for row in done["rows"]}
    cases = [case for case in all_cases(dtypes, device) if only in case.about["workload"]]
    for case in (bar := tqdm(cases, unit="case")):
        bar.set_postfix_str("{workload}, {channels} channels, {group}, {dtype}".format(**case.about))
        if tuple(case.about[k] for k in KEYS) in known:
            continue
        done["rows"] += measure(case, [name for name in case.contenders if name not in without], rounds)
        path.write_text(json.dumps(done, indent=1) + "\n")
    rows = done["rows"]
    report = "\n".join(
        [
            f"{done['made with']}; medians of interleaved rounds, ± half the quartile range. Times are wall-clock time"
            + (", with one thread CPU time." if device == "cpu" else "."),
            "",
            "## NF-layers",
            "",
            tabulate(rows, PASSES),
            "",
            "## Whole training steps",
            "",
            tabulate(rows, ("step",)),
            "",
            "## Aims",
            "",
            judge(rows, device),
        ]
    )
    path.with_suffix(".md").write_text(report + "\n")
    plot(path.with_suffix(".png"), rows)
    click.echo(report)


if __name__ == "__main__":
    main()

"""Kills: commands that make or train are killed at any moment, run again, and compared with ones that were not.

Processes are forked from a server that has imported everything, so that the moments fall into the work and not into its
start. Each is killed, once or several times, with SIGKILL, and goes on in a new process.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from faults.outcomes import VARYING, CampaignError, Case

__all__ = ["JOBS", "Job", "campaign", "contents"]

PATIENCE = 600
"""Seconds after which a command that was not killed hangs."""
PRELOADED = ["faults.layouts", "faults.kills", "reference_experiments.engines.torch"]
"""Modules that the server of processes imports."""


@dataclass(frozen=True)
class Job:
    """A command that can be interrupted.

    Parameters
    ----------
    name : str
        What it does.
    run : callable
        Does it, given the folder that it writes and the folder that it reads; a function of a module.
    share : int
        Its share of the kills.
    """

    name: str
    run: Callable[[Path, Path], Any]
    share: int = 1


def make(output: Path, source: Path) -> None:
    """Make a dataset of SIRENs."""
    _command("make", "image-inrs", "--images", "digits", "--scale", "smoke", "--devices", 1, "--output", output)


def convert(output: Path, source: Path) -> None:
    """Convert published networks."""
    _command("convert", "siren-folders", source / "published", output, "--split-points", 9, 12)


def run(output: Path, source: Path) -> None:
    """Train two methods, with two seeds each."""
    methods = ("--method", "MLP", "--method", "NFN_NP", "--seeds", 2)
    _command(
        "run", "table3", "--dataset-dir", "MNIST", source / "data", *methods, "--scale", "smoke", "--output", output
    )


def residual(output: Path, source: Path) -> None:
    """Train residual networks, and read their weights."""
    _command("residual", "--scale", "smoke", "--output", output)


def quickstart(output: Path, source: Path) -> None:
    """The quickstart."""
    _command("quickstart", "--scale", "smoke", "--output", output)


def sources(output: Path, source: Path) -> None:
    """Published networks, and a dataset of them."""
    from faults.layouts import siren_folders

    (source / "published").mkdir()
    siren_folders(source / "published")
    convert(source / "data", source)


JOBS = (
    Job("run", run, 4),
    Job("convert", convert, 1),
    Job("residual", residual, 3),
    Job("make", make, 2),
    Job("quickstart", quickstart, 2),
)


def campaign(
    seed: int, kills: int, jobs: Sequence[Job] = JOBS, sources: Callable[[Path, Path], Any] = sources
) -> list[Case]:
    """Kill commands so many times, and let each end afterwards.

    Parameters
    ----------
    seed : int
        Seed of the moments.
    kills : int
        Number of kills, of which each job has its share, one at least.
    jobs : sequence of Job
        What is killed.
    sources : callable
        Writes what the jobs read, to both its arguments: a folder.

    Returns
    -------
    list of Case
        One for each kill.
    """
    shares = np.array([job.share for job in jobs])
    counts = np.maximum(1, np.round(kills * shares / shares.sum())).astype(int)
    cases: list[Case] = []
    with (
        tempfile.TemporaryDirectory(prefix="faults-") as folder,
        tqdm(total=int(counts.sum()), unit="kill", desc="kills") as bar,
    ):
        source = Path(folder) / "source"
        source.mkdir()
        _finish(_start(sources, source, source), "the sources")
        for k, (job, count) in enumerate(zip(jobs, counts.tolist(), strict=True)):
            rng = np.random.default_rng([seed, k])
            whole = Path(folder) / "whole"
            began = time.monotonic()
            _finish(_start(job.run, whole, source), job.name)
            seconds, expected = time.monotonic() - began, contents(whole)
            while count:
                moments = rng.uniform(0, seconds, min(count, int(rng.integers(1, 4)))).round(3).tolist()
                done, outcome, message = _round(job, Path(folder) / "cut", source, moments, expected)
                count -= done
                what = f"killed after {', '.join(map(str, moments[:done]))} s of {seconds:.1f}"
                cases += [Case("kills", job.name, what, outcome, message)] * done
                bar.update(done)
                if outcome != "unharmed" and not done:
                    raise CampaignError(f"{job.name} does not end the same, even without a kill: {message}")
            shutil.rmtree(whole)
    return cases


def _round(
    job: Job, cut: Path, source: Path, moments: Sequence[float], expected: dict[str, Any]
) -> tuple[int, str, str]:
    """Kill a command at some moments one after another, let it end, and compare: kills, outcome, message."""
    shutil.rmtree(cut, ignore_errors=True)
    done = 0
    for moment in moments:
        process = _start(job.run, cut, source)
        process.join(moment)
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        done += 1
    process = _start(job.run, cut, source)
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        return done, "raw", f"run again, it had not ended after {PATIENCE} s"
    if process.exitcode:
        return done, "raw", f"run again, it ended with status {process.exitcode}: {_log(cut)}"
    found = contents(cut)
    wrong = [
        f"{name} differs" if name in expected else f"{name} is left over"
        for name in found
        if found[name] != expected.get(name)
    ]
    wrong += [f"{name} is missing" for name in expected if name not in found]
    return done, "silent" if wrong else "unharmed", "; ".join(wrong)


def contents(folder: Path) -> dict[str, Any]:
    """What lies in a folder, but for logs and for what differs from run to run: times, and the machine."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or "tfevents" in path.name:
            continue
        if path.suffix == ".json":
            found[str(path.relative_to(folder))] = _timeless(json.loads(path.read_text()))
        elif path.suffix == ".md":
            found[str(path.relative_to(folder))] = [
                line.strip("| ").rpartition("|")[0] for line in path.read_text().split("\n")
            ]
        else:
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(inner) for key, inner in value.items() if key not in VARYING}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value


def _start(function: Callable[[Path, Path], Any], output: Path, source: Path) -> BaseProcess:
    """Start a function in a process of its own."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_child, args=(function, output, source))
    process.start()
    return process


def _child(function: Callable[[Path, Path], Any], output: Path, source: Path) -> None:
    """Run a function, with what it prints in a file beside its output."""
    log = os.open(output.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    function(output, source)


def _log(output: Path) -> str:
    with suppress(OSError):
        return output.with_suffix(".log").read_text(errors="replace").strip()[-300:]
    return ""


def _finish(process: BaseProcess, what: str) -> None:
    process.join(PATIENCE)
    if process.exitcode != 0:
        raise CampaignError(f"{what} cannot be made, even without a kill: status {process.exitcode}")


def _command(*arguments: object) -> None:
    from faults.layouts import command

    command(*arguments)

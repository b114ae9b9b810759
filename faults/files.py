"""Damaged files: each file of every layout is damaged in every way, and read.

Every reader runs in a process forked for it, since what it reads may end it.
"""

import faulthandler
import gc
import json
import os
import resource
import shutil
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm

from faults.damage import DAMAGES, same_form
from faults.layouts import LAYOUTS, LEFT_OUT, Layout
from faults.outcomes import OUTCOMES, CampaignError, Case, judge
from reference_experiments.sources.images import DATA_DIR

__all__ = ["campaign", "isolated"]

SECONDS = 60
"""A reader that takes longer hangs."""
MEMORY = 4 << 30
"""Bytes that a reader may have beside what the process has."""
OTHER_VALUES = "what was read has other values"


def campaign(seed: int, number: int, layouts: Sequence[Layout] = LAYOUTS) -> list[Case]:
    """Damage about so many files.

    Parameters
    ----------
    seed : int
        Seed of all damage.
    number : int
        Number of files; each layout has its share, slow ones a smaller one.
    layouts : sequence of Layout
        What is damaged.

    Returns
    -------
    list of Case
        One for each damaged file.
    """
    cases: list[Case] = []
    shares = {layout.name: 1 / layout.slow for layout in layouts}
    with tqdm(total=number, unit="file", desc="files") as bar:
        for k, layout in enumerate(layouts):
            share = round(number * shares[layout.name] / sum(shares.values()))
            with tempfile.TemporaryDirectory(prefix="faults-") as folder:
                cases += damaged(layout, Path(folder) / "files", [seed, k], max(share, 1), bar)
    return cases


def damaged(layout: Layout, folder: Path, seed: list[int], number: int, bar: Any) -> list[Case]:
    """Damage the files of a layout so many times, and read them."""
    folder.mkdir()
    os.environ[DATA_DIR] = str(folder)
    with _quiet() as said:
        paths = layout.make(folder)
        whole = _contents(folder)
        expected = layout.read(folder)
        _restore(folder, whole)
        if compare(layout.read(folder), expected):
            raise CampaignError(f"{layout.name}: two readers of the same files differ")
    left_out = _left_out(said.getvalue())
    cases = []

    def one(turn: int) -> tuple[str, str, str]:
        rng = np.random.default_rng([*seed, turn])
        path, damage = paths[turn % len(paths)], DAMAGES[rng.integers(len(DAMAGES))]
        _restore(folder, whole)
        others = {other: whole[other] for other in paths}
        done = damage(path, whole[path], rng, others)
        what = f"{path.relative_to(folder)}: {done}"
        after = path.read_bytes() if path.is_file() else b""
        if after == whole[path]:
            return what, "unharmed", ""
        names = {path.name, path.stem, *layout.words, *(o.name for o in others if damage.__name__ == "replace")}
        with _quiet() as printed:
            outcome, message = judge(
                lambda: layout.read(folder), lambda found: compare(found, expected), names, (click.ClickException,)
            )
        if outcome == "silent" and _left_out(printed.getvalue()) - left_out:
            return what, "refused by name", f"left out: {message}"
        detectable = (layout.checked and path.suffix != ".json") or not after
        another = same_form(whole[path], after) or message == OTHER_VALUES
        if outcome == "silent" and ((another and not detectable) or (layout.loose and not path.exists())):
            outcome = "undetectable"
        return what, outcome, message

    for what, outcome, message in isolated(one, number):
        cases.append(Case("files", layout.name, what, outcome, message))
        bar.update()
    return cases


def compare(found: Any, expected: Any) -> str:
    """What is wrong with what was read: nothing, other values, or another form."""
    if not _equal(found, expected, values=False):
        return "what was read has another form"
    return "" if _equal(found, expected, values=True) else OTHER_VALUES


def _left_out(printed: str) -> set[str]:
    """What a reader says that it left out."""
    return {line for line in printed.splitlines() if line.startswith(LEFT_OUT)}


def _equal(a: Any, b: Any, values: bool) -> bool:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_equal(a[key], b[key], values) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_equal(x, y, values) for x, y in zip(a, b, strict=True))
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        if (a.dtype, a.shape) != (b.dtype, b.shape) or (a.dtype.kind == "f" and not np.isfinite(a).all()):
            return False
        return not values or np.array_equal(a, b)
    return type(a) is type(b) and (not values or a == b)


def isolated(work: Callable[[int], tuple[str, str, str]], count: int) -> Iterator[tuple[str, str, str]]:
    """Do numbered pieces of work in a forked process, and in a new one after it has died.

    Parameters
    ----------
    work : callable
        From a number to what was done, its outcome and a message.
    count : int
        Number of pieces.

    Yields
    ------
    tuple of str
        For each piece what `work` returned; raw, where it ended the process.
    """
    start = 0
    while start < count:
        reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries with threads, which the child has no use for
            child = os.fork()
        if not child:
            _work(work, range(start, count), writer)
        os.close(writer)
        with os.fdopen(reader) as lines:
            what = ""
            for line in lines:
                entry = json.loads(line)
                if len(entry) == 1:
                    what = entry[0]
                    continue
                if entry[1] not in OUTCOMES:
                    raise CampaignError(f"{entry[0]}: {entry[2]}")
                yield tuple(entry)
                start += 1
        status = os.waitpid(child, 0)[1]
        if status:
            name = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"status {status}"
            yield what or f"number {start}", "raw", f"ended the process: {name}"
            start += 1


def _work(work: Callable[[int], tuple[str, str, str]], numbers: range, writer: int) -> None:
    """Work in the child, which leaves in the end without any handler of its parent's."""
    faulthandler.disable()  # of a test's process
    gc.freeze()  # what the parent has is not looked at again
    status = 1
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        with os.fdopen(writer, "w") as lines:
            for number in numbers:
                lines.write(json.dumps([f"number {number}"]) + "\n")
                lines.flush()
                signal.alarm(SECONDS)
                try:
                    entry = work(number)
                except Exception as error:  # of the campaign itself
                    entry = (f"number {number}", "", repr(error))
                signal.alarm(0)
                lines.write(json.dumps(entry) + "\n")
                lines.flush()
        status = 0
    finally:
        os._exit(status)


def _contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _restore(folder: Path, whole: Mapping[Path, bytes]) -> None:
    shutil.rmtree(folder)
    for path, data in whole.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


@contextmanager
def _quiet() -> Iterator[StringIO]:
    """What readers print, in place of the terminal."""
    printed = StringIO()
    with redirect_stdout(printed), redirect_stderr(printed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield printed
